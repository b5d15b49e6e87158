"""What all tests share: no hub, a cache of their own, and a small published mock survey.

The process of pytest-xdist that hands out the tests reads this too, and others wait for it: so nothing is imported that takes long.
"""

import os
import tempfile

# Before any Hugging Face library is imported; the scripts that tests start inherit it.
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HOME": tempfile.mkdtemp(prefix="hf_galaxy-tests-"),
    "ACCELERATE_USE_CPU": "true",
}

import gc
import json
import shutil
import subprocess
import sys
from functools import partial

import pytest
import yaml
from filelock import FileLock
from xdist.scheduler import LoadScopeScheduling

from tests.forks import MADE_SHARED, ROOT, SHARED, TIMEOUT, fork_server, run_forked, use_servers

yaml.SafeLoader = yaml.CSafeLoader  # as in preloaded.py
use_servers()

# What takes longest comes first, so that at the end no core waits for another.
LONGEST = (
    "space",
    "training/test_exactness",
    "downstream/test_benchmark",
    "commands/test_scripts",
    "commands/test_demo",
    "training/test_features",
    "test_documentation",
)

OF_SPACE = ("commands/test_space", "test_imports")  # they export the models, too; these come first


def group_of(nodeid):
    """The tests of a file share what they prepare, and those of the Space one server: one process of pytest-xdist runs them."""
    file = nodeid.partition("::")[0].removeprefix("tests/").removesuffix(".py")
    return "space" if file.startswith("space/") or file in OF_SPACE else file


def pytest_collection_modifyitems(items):
    first = {group: place for place, group in enumerate(LONGEST)}

    def place(item):
        group = group_of(item.nodeid)
        return first.get(group, len(LONGEST)), group == "space" and item.nodeid.startswith("tests/space/")

    items.sort(key=place)


class GroupScheduling(LoadScopeScheduling):
    """Hands whole groups to processes. The groups of pytest-xdist's own `--dist loadgroup` are lost with pytest 9.2."""

    def _split_scope(self, nodeid):
        return group_of(nodeid)


def pytest_collection_finish():
    """What was imported for all tests is not looked through for garbage during each of them."""
    gc.collect()
    gc.freeze()


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


@pytest.fixture
def catalogue_folder(tmp_path):
    """Five galaxies, all well: pictures, votes.csv with columns of other names, and a column map."""
    from tests.galaxies import jpeg_bytes

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


@pytest.fixture
def c_loader_off(monkeypatch):
    """The C parser that tests use refuses the first line of ECSV."""
    monkeypatch.setattr(yaml, "SafeLoader", yaml.loader.SafeLoader)
    monkeypatch.delitem(sys.modules, "astropy.io.misc.yaml", raising=False)


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
