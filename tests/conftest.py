"""What all tests share: no hub, a cache of their own, and a small published mock survey."""

import os
import tempfile

# Before any Hugging Face library is imported; the scripts that tests start inherit it.
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HOME": tempfile.mkdtemp(prefix="hf_galaxy-tests-"),
    "ACCELERATE_USE_CPU": "true",
}

import io
import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml
from filelock import FileLock
from PIL import Image
from xdist.scheduler import LoadScopeScheduling

from hf_galaxy import load_tree
from hf_galaxy.data.schema import row_features
from hf_galaxy.publishing import plan, writer
from hf_galaxy.publishing.dataset_card import Prose, write_card
from hf_galaxy.publishing.plan import Row
from hf_galaxy.training.targets.votes import vote_batches
from tests.forks import ROOT, TIMEOUT, fork_server, run_forked

yaml.SafeLoader = yaml.CSafeLoader  # as in preloaded.py
# What is made once for all processes of pytest-xdist, which inherit it: the mock survey, models for ONNX Runtime.
MADE_SHARED = "HF_GALAXY_TESTS" not in os.environ
if MADE_SHARED:
    os.environ["HF_GALAXY_TESTS"] = tempfile.mkdtemp(prefix="hf_galaxy-tests-")
SHARED = Path(os.environ["HF_GALAXY_TESTS"])


# What takes longest comes first, so that at the end no core waits for another.
LONGEST = (
    "commands/test_scripts",
    "space",
    "downstream/test_benchmark",
    "training/test_exactness",
    "models/test_backbones",
)


def group_of(nodeid):
    """The tests of a file share what they prepare, and those of the Space one server: one process of pytest-xdist runs them."""
    file = nodeid.partition("::")[0].removeprefix("tests/").removesuffix(".py")
    return "space" if file.startswith("space/") else file


def pytest_collection_modifyitems(items):
    first = {group: place for place, group in enumerate(LONGEST)}
    items.sort(key=lambda item: first.get(group_of(item.nodeid), len(LONGEST)))


class GroupScheduling(LoadScopeScheduling):
    """Hands whole groups to processes. The groups of pytest-xdist's own `--dist loadgroup` are lost with pytest 9.2."""

    def _split_scope(self, nodeid):
        return group_of(nodeid)


def pytest_xdist_make_scheduler(config, log):
    return GroupScheduling(config, log)


def pytest_unconfigure():
    shutil.rmtree(os.environ["HF_HOME"], ignore_errors=True)
    if MADE_SHARED:
        shutil.rmtree(SHARED, ignore_errors=True)


@pytest.fixture(scope="session")
def run_script():
    """Run a script of the project as a user would; returns the finished process, with its output.

    It is forked from a server, as that costs 9 CPU seconds less (`forks.run_forked`), with as many `processes` as a launcher
    would start; or started for itself by `launch`: what stands between Python and the script.
    """

    def run(name, *arguments, launch=(), processes=1, expect=0):
        script = f"scripts/{name}.py"
        if launch:
            command = [sys.executable, *launch, script, *map(str, arguments)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        else:
            done = run_forked(script, *arguments, processes=processes)
        assert done.returncode == expect, f"{done.args}\n{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture(scope="session")
def mock_dataset(run_script):
    """Folder of a published mock survey of 96 galaxies, 48 px; one for all processes of pytest-xdist."""
    folder = SHARED / "mock"
    with FileLock(SHARED / "mock.lock"):
        if not folder.exists():
            run_script("publish_dataset", "simulate", "--galaxies", 96, "--size", 48, "--out", folder)
    return folder


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real galaxies, where there is one."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("real galaxies are not part of the project: ../shared/data is not here")
    return folder


def votes_of(rows, tree):
    """(N, A): the votes of a whole split."""
    return np.concatenate([np.empty((0, len(tree.columns)), np.int32), *vote_batches(rows, tree)])


def jpeg_bytes(seed=0, mode="RGB"):
    pixels = np.random.default_rng(seed).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, "JPEG")
    return file.getvalue()


class Rows:
    """Galaxies to publish: a ring question, a class and a position; no picture of a survey."""

    tree = load_tree("gz_rings")
    features = row_features(tree, {"kind": ["a", "b"]}, {"ra": "float64", "dec": "float64"})
    values, caption, rendering = ("ra",), "kind", None

    def __init__(self, galaxies, campaigns=None, positions=None):
        self.ids = [f"galaxy-{i}" for i in range(galaxies)]
        self.campaigns, self.positions, self.split_names, self.notes = campaigns, positions, None, []
        self.votes = np.array([[i, 2 * i] for i in range(galaxies)])

    def row(self, i):
        ra, dec = (i / 7, -i / 9) if self.positions is None else map(float, self.positions[i])
        columns = {
            "id_str": self.ids[i], "image": {"bytes": jpeg_bytes(i), "path": f"{i}.jpg"}, "ring_yes": i,
            "ring_no": 2 * i, "kind": "ab"[i % 2], "ra": ra, "dec": dec,
        }  # fmt: skip
        return Row(columns)

    def fingerprint(self):
        return f"{len(self.ids)} rows"


def published(source, folder, processes=1):
    """Fill the folder with a dataset and its card; returns files, duplicates, statistics and configurations."""
    shards, duplicates = plan.plan(source)
    statistics = writer.write_dataset(source, shards, folder, processes).to_dict()
    configs = writer.configs_of(folder, writer.campaigns_of(shards))
    (folder / "statistics.json").write_text(json.dumps(statistics))
    write_card(folder, Prose(title="Rings", license="mit"), source.tree, statistics, configs)
    return shards, duplicates, statistics, configs


@pytest.fixture
def catalogue_folder(tmp_path):
    """Five galaxies, all well: pictures, votes.csv with columns of other names, and a column map."""
    (tmp_path / "pictures").mkdir()
    for i in range(5):
        (tmp_path / f"pictures/{i}.jpg").write_bytes(jpeg_bytes(i, "L" if i == 4 else "RGB"))
    (tmp_path / "votes.csv").write_text(
        "name,file,n_ring,n_none,kind,redshift\n"
        + "".join(f"g{i},{i}.jpg,{i},{10 - i}.0,k{i % 2},0.{i}\n" for i in range(5))
    )
    (tmp_path / "map.json").write_text(
        json.dumps(
            {
                "id_str": "name",
                "image": "file",
                "votes": {"ring_yes": "n_ring", "ring_no": "n_none"},
                "classes": {"type": {"column": "kind", "names": {"k1": "odd", "k0": "even"}}},
                "metadata": {"z": {"column": "redshift", "dtype": "float32"}},
            }
        )
    )
    return tmp_path


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A Hub on this machine."""
    from tests.fake_hub import FakeHub

    with FakeHub(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


@pytest.fixture(scope="module")
def hub_environment(hub, tmp_path_factory):
    """Of a process that asks the hub, with a cache of its own."""
    cache = tmp_path_factory.mktemp("cache")
    return os.environ | hub.environment | {"HF_HOME": str(cache), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


@pytest.fixture(scope="module")
def run_with_hub(hub_environment):
    """Run a file in a fork of a server that asks the hub."""
    with fork_server(hub_environment) as server:
        yield partial(run_forked, environment=hub_environment, server=server)


@pytest.fixture(scope="module")
def returned_with_hub(run_with_hub, request):
    """What a function of the test's module returns, as JSON, in a process that asks the hub; the module runs as a program."""

    def returned(function, *arguments, **changes):
        done = run_with_hub(request.module.__file__, function.__name__, *arguments, **changes)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return returned


@pytest.fixture(scope="session")
def space():
    """Address of the demo, running as a server of its own."""
    from tests.space.server import running_space

    with running_space() as address:
        yield address


@pytest.fixture(scope="session")
def client(space):
    """What programs call its endpoints with."""
    from gradio_client import Client

    return Client(space, verbose=False)
