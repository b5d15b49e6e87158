"""The Space is a folder that runs by itself, arrives on the Hub byte for byte, and holds nothing that it should not.

Put together of a copy of the repository with a small model and, where the app itself is not needed, a stand-in for it.
"""

import importlib.metadata
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from huggingface_hub import SpaceCard
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from hf_galaxy import GalaxyConfig, GalaxyForVotes
from hf_galaxy.errors import BadInput
from hf_galaxy.publishing import space
from hf_galaxy.publishing.hub import pickles
from hf_galaxy.reports.run_record import RunRecord
from tests.conftest import ROOT, SHARED
from tests.fake_hub import FakeHub
from tests.forks import LIBRARIES, run_forked
from tests.space.server import running_space

STAND_IN = """
import json, os
from http.server import BaseHTTPRequestHandler, HTTPServer

import hf_galaxy
from text import sentence

class Config(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps([hf_galaxy.__file__, hf_galaxy.load_tree("gz2").columns[0]]).encode())

HTTPServer(("127.0.0.1", int(os.environ["GRADIO_SERVER_PORT"])), Config).serve_forever()
"""


# Opens every tab and uses every function of the folder argv[1], without the modules argv[2]; prints what its own files import.
ALL_TABS = """
import builtins, importlib, json, sys
from pathlib import Path

folder, original, imported = sys.argv[1], builtins.__import__, set()
sys.modules |= dict.fromkeys(json.loads(sys.argv[2]))  # importing them fails, as if they were not installed
sys.path.insert(0, folder)

def traced(name, namespace=None, *others, **options):
    if ((namespace or {}).get("__file__") or "").startswith(folder):
        imported.add(name.partition(".")[0])
    return original(name, namespace, *others, **options)

builtins.__import__ = traced
import app

at_once = {name.partition(".")[0] for name, module in sys.modules.items() if module is not None}
assert not {"sklearn", "timm", "transformers"} & at_once, "they take seconds, and are needed when a model answers"
for file in Path(folder).glob("*.py"):
    assert importlib.import_module(file.stem).__file__ == str(file)

import numpy as np
from astropy.io import fits
import laws_tab, law_planner, law_records
from classifier import Classifier
from galaxy_models import load_models
from several_tab import Several

app.page()
for name in law_records.STUDIES:
    assert len(law_records.study_of(law_records.RESULTS, name).points)
law_planner.page(law_planner.own_budget(laws_tab._PILOT))
fits.PrimaryHDU(np.random.default_rng(0).random((64, 64), np.float32)).writeto("noise.fits")
classifier = Classifier(load_models())
assert len(list(classifier.show("noise.fits", "small", "", "gz2", 40, 1, False, None))) == 2
assert len(Several(classifier).classify_several(["noise.fits", folder + "/examples/star.jpg"])[0]) == 2
ours = [module.__file__ for name, module in sys.modules.items() if name.startswith("hf_galaxy.")]
assert all(file.startswith(folder) for file in ours), ours  # none of the repository
print(json.dumps(sorted(imported)))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a small finished run, as far as a Space looks at it."""
    out = tmp_path_factory.mktemp("runs") / "mock"
    GalaxyForVotes(GalaxyConfig(backbone="test_resnet", tree="gz2", image_size=32)).save_pretrained(out)
    RunRecord(command="pretrain", settings={}, finished=True).save(out)
    return out


@pytest.fixture
def repository(tmp_path, model):
    """A copy of what a Space is made of, with a stand-in for the app and one small model."""
    root = tmp_path / "repository"
    for name, unwanted in (("hf_galaxy", "__pycache__"), ("spaces_app", "models"), ("scripts", "__pycache__")):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", unwanted))
    for file in space.results_of(ROOT / "results"):
        (root / file.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, root / file.relative_to(ROOT))
    shutil.copytree(model, root / "spaces_app/models/mock")
    (root / "spaces_app/app.py").write_text(STAND_IN)
    return root


def files_in(folder):
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != ".gitattributes"]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def test_the_folder_runs_without_the_repository(repository, tmp_path):
    files = space.files_of(repository)
    space.assemble(files, tmp_path / "space")
    there = files_in(tmp_path / "space")
    assert there.keys() == files.keys()
    assert there["README.md"].decode() == f"{(ROOT / 'spaces_app/README.md').read_text()}\n{space.MARK}\n"
    assert all(there[path] == file.read_bytes() for path, file in files.items() if path != "README.md")
    assert {"app.py", "text/en.toml", "hf_galaxy/trees/gz2.json", "models/mock/model.safetensors"} < there.keys()
    assert {path for path in there if path.startswith("results/")} == {
        file.relative_to(ROOT).as_posix() for file in space.results_of(ROOT / "results")
    }
    assert not [path for path in there if "__pycache__" in path or path.startswith(("tests/", "results/ceers/runs"))]
    # With the repository nowhere on the path but where an editable installation may have put it, behind the app's own folder.
    with running_space(tmp_path / "space/app.py", PYTHONPATH="") as url:
        said = subprocess.run(
            [sys.executable, "-c", f"import urllib.request as r; print(r.urlopen('{url}/config').read().decode())"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
    assert str(tmp_path / "space/hf_galaxy/__init__.py") in said
    assert "smooth-or-featured" in said


def pushed(root, out, earlier):
    from hf_galaxy.publishing import hub, space

    file = Path(root, "spaces_app/earlier.py")
    for text in (earlier, None):
        file.write_text(text) if text else file.unlink()
        space.assemble(space.files_of(Path(root)), Path(out))
        print(hub.push(Path(out), "lab/galaxies", "space"))


def test_what_is_pushed_is_the_folder_and_nothing_of_an_earlier_one(repository, tmp_path):
    out = tmp_path / "space"
    with FakeHub(tmp_path / "hub") as hub:
        ours = {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_DISABLE_PROGRESS_BARS": "1", "PYTHONPATH": str(ROOT)}
        environment = os.environ | hub.environment | ours
        done = run_forked(
            __file__, repository, out, "# of an earlier version", environment=environment, server=LIBRARIES
        )
        assert done.stdout.splitlines() == 2 * [f"{hub.url}/spaces/lab/galaxies"], done.stderr
        assert files_in(hub.folder("spaces", "lab/galaxies")) == files_in(out)
        assert hub.requests.count(("POST", "/api/spaces/lab/galaxies/commit/main")) == 2  # each would start it anew
    assert "earlier.py" not in files_in(out)
    assert {"app.py", "models/mock/model.safetensors"} < files_in(out).keys()


@pytest.fixture
def script(repository, monkeypatch, capsys):
    """The script of that copy; returns what it says, in the end why it refuses."""

    def script(*options):
        monkeypatch.setattr(sys, "argv", ["publish_space.py", *map(str, options)])
        try:
            runpy.run_path(str(repository / "scripts/publish_space.py"), run_name="__main__")
        except SystemExit as refused:
            return refused.code
        return capsys.readouterr().out

    return script


def test_the_script_says_what_it_has_made_and_refuses_a_wrong_name_before(script, tmp_path):
    out = tmp_path / "space"
    assert "is not ORG/NAME" in script("--out", out, "--push", "no such name")
    assert not out.exists()
    said = script("--out", out)
    assert said.startswith(f"{out}: {len(files_in(out))} files, ")
    assert said.endswith(f"python {out}/app.py starts it\n")


def refused(repository, out):
    with pytest.raises(BadInput) as refusal:
        space.assemble(space.files_of(repository), out)
    assert not out.exists()
    assert not list(out.parent.glob(".*"))
    return str(refusal.value)


def test_what_no_space_may_hold_is_refused(repository, tmp_path):
    app, out = repository / "spaces_app", tmp_path / "space"
    pickle = app / "models/mock/head.pkl.gz"
    pickle.touch()
    assert refused(repository, out) == f"{pickle}: can run any code when loaded; remove it"
    pickle.unlink()
    weights = app / "models/mock/model.safetensors"
    weights.rename(app / "weights")
    assert "has no weights in safetensors" in refused(repository, out)
    shutil.copyfile(app / "weights", weights)
    record = app / "models/mock/run.json"
    record.rename(app / "record")
    assert str(app / "models/mock") in refused(repository, out)
    shutil.rmtree(app / "models")
    assert "has no run folder" in refused(repository, out)


def test_too_much_for_a_space_is_refused(repository, tmp_path, monkeypatch):
    monkeypatch.setattr(space, "MAX_BYTES", 10**6)
    assert "a Space may have 0.001 GB" in refused(repository, tmp_path / "space")


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ("sdk: gradio", "sdk: docker", "sdk: docker is not gradio"),
        ("colorTo: gray", "colorTo: mauve", "colorTo: mauve is not one of blue, gray"),
        ("app_file: app.py", "app_file: main.py", "app_file: main.py is not in spaces_app"),
        ('python_version: "3.11"', "python_version: 3.11", "python_version: 3.11 is not in quotes"),
        ("short_description: ", "short_description: " + 60 * "x", "is longer than 60 characters"),
        ("license: apache-2.0\n", "", "has no license"),
        ("title: ", "title: [", "cannot be read"),
    ],
)
def test_a_card_that_the_hub_would_not_take_is_refused(repository, tmp_path, before, after, why):
    card = repository / "spaces_app/README.md"
    assert before in card.read_text()
    card.write_text(card.read_text().replace(before, after, 1))
    assert why in refused(repository, tmp_path / "space")


def test_an_earlier_space_is_replaced_whole_and_nothing_else_is(repository, tmp_path):
    out = tmp_path / "space"
    files = space.files_of(repository)
    space.assemble(files, out)
    (out / "left.txt").touch()
    before = files_in(out)
    with pytest.raises(BadInput, match="cannot be written"):
        space.assemble(files | {"app.py/in_a_file.txt": files["app.py"]}, out)
    assert files_in(out) == before
    space.assemble(files, out)
    assert before.keys() - files_in(out).keys() == {"left.txt"}
    (tmp_path / "another").mkdir()
    (tmp_path / "another/thesis.txt").touch()
    with pytest.raises(BadInput, match="exists already"):
        space.assemble(files, tmp_path / "another")


def pins():
    lines = (ROOT / "spaces_app/requirements.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "--"))]


def test_the_versions_are_those_that_the_tests_pass_with():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    constraints = {_plain(Requirement(line).name): Requirement(line).specifier for line in lines}
    assert {pin.name: pin.specifier for pin in pins()} == {pin.name: constraints[_plain(pin.name)] for pin in pins()}
    card = SpaceCard.load(ROOT / "spaces_app/README.md").data
    assert SpecifierSet(f"=={card.sdk_version}") == constraints["gradio"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert SpecifierSet(project["requires-python"]).contains(card.python_version)
    # And none that the package does not name itself.
    extras = project["optional-dependencies"]
    known = {_plain(Requirement(line).name) for line in project["dependencies"] + extras["onnx"] + extras["space"]}
    assert {_plain(pin.name) for pin in pins()} < known


def _plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_folder_needs_the_required_packages_and_no_others(repository, tmp_path):
    shutil.rmtree(repository / "spaces_app")
    shutil.copytree(
        ROOT / "spaces_app", repository / "spaces_app", ignore=shutil.ignore_patterns("lite0", "__pycache__")
    )
    folder = tmp_path / "space"
    space.assemble(space.files_of(repository), folder)
    required = {_plain(pin.name) for pin in pins()}
    owners = {
        module: {_plain(name) for name in names}
        for module, names in importlib.metadata.packages_distributions().items()
    }
    there = _with_their_requirements(pins())
    absent = [module for module, names in owners.items() if not names & (there | {"hf-galaxy"})]
    assert {"accelerate", "datasets", "galsim", "tensorboard"} <= set(absent)
    home = tmp_path / "cache"
    done = subprocess.run(
        [sys.executable, "-c", ALL_TABS, folder, json.dumps(absent)],
        cwd=tmp_path, env=os.environ | {"GRADIO_ANALYTICS_ENABLED": "False", "PYTHONPATH": "", "HF_HOME": str(home)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shutil.copytree(
        home / "hf_galaxy", SHARED / "hf_galaxy", dirs_exist_ok=True
    )  # else the Space exports the same model
    imported = json.loads(done.stdout.splitlines()[-1])
    # timm imports torchvision; listed, it comes from the same index as torch.
    assert {name for module in imported for name in owners.get(module, ())} == required - {"torchvision"} | {
        "hf-galaxy"
    }


def _with_their_requirements(requirements):
    """The distributions that pip installs for these requirements."""
    waiting = [(each, extra) for each in requirements for extra in {"", *each.extras}]
    required = set()
    while waiting:
        requirement, extra = waiting.pop()
        name = _plain(requirement.name)
        if (name, extra) in required:
            continue
        required.add((name, extra))
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # of CUDA, beside a CPU build of torch
            continue
        for need in map(Requirement, needs):
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                waiting += [(need, each) for each in {"", *need.extras}]
    return {name for name, _ in required}


def test_a_suffix_in_the_middle_counts():
    assert pickles(["a.pkl.gz", "b/c.PT", "b/pt.json", "d.safetensors"]) == ["a.pkl.gz", "b/c.PT"]


if __name__ == "__main__":
    pushed(*sys.argv[1:])
