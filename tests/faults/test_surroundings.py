"""A user without a home, a cache that cannot be written, a clock that jumps: the outcome is the undisturbed one, or one line says what to do."""

import os
import random
import shutil
import time

import pytest

from tests.faults.disks import read_only
from tests.faults.jobs import JOBS
from tests.forks import run_code

NIGHTLY = pytest.mark.nightly


def jumping_clock():
    """The clock of this process goes back or ahead by up to two days whenever somebody looks at it."""
    real, chance = time.time, random.Random(0)
    time.time = lambda: real() + chance.uniform(-172_800, 172_800)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "publish catalogue" else NIGHTLY) for name in JOBS]
)
def test_a_clock_that_jumps_changes_nothing(name, materials, tmp_path):
    place = materials.place(JOBS[name], tmp_path / "place")
    ended = materials.run(JOBS[name], place, jumping_clock)
    assert ended.status == 0, ended.said
    assert (reason := materials.is_undisturbed(name, place)) is None, reason


def test_what_a_killed_command_has_left_is_removed_though_the_clock_was_set_back_since(materials, tmp_path):
    states = sorted(materials.undisturbed("publish catalogue").states.glob("*/.out.partial/*/.*.partial"))
    place = shutil.copytree(states[0].parents[2], tmp_path / "place")
    (left,) = place.glob(".out.partial/*/.*.partial")
    os.utime(left, (time.time() + 1e6,) * 2)
    assert (reason := materials.completes("publish catalogue", place)) is None, reason


@pytest.mark.parametrize("name", ["import", "evaluate"])
def test_a_cache_that_cannot_be_written_is_named_with_the_variable_that_moves_it(name, materials, tmp_path):
    """Of imports, and of the copies of the datasets library."""
    place = materials.place(JOBS[name], tmp_path / "place")
    (place / "cache").mkdir(exist_ok=True)
    with read_only(place / "cache"):
        ended = materials.run(JOBS[name], place)
    assert ended.status == 1, ended.said
    assert "Traceback" not in ended.err, ended.said
    assert f"{place}/cache" in ended.last, ended.said
    assert "set HF_HOME to a folder that this user can write" in ended.last, ended.said


@NIGHTLY
@pytest.mark.parametrize("home", [None, "/proc/nowhere"])
def test_a_user_without_a_home_can_work(home, materials, tmp_path):
    """None, and one in which nobody can write, as services have it: the caches go where HF_HOME says, or a line asks for it."""
    code = "import sys; from hf_galaxy.commands.main import main; sys.argv[0] = 'hf-galaxy'; main()"
    words = [
        "evaluate",
        "--run",
        str(shutil.copytree(materials.folder / "run", tmp_path / "run")),
        "--cpu",
        "--workers",
        "0",
    ]
    without = {name: value for name, value in os.environ.items() if name not in ("HOME", "HF_HOME", "XDG_CACHE_HOME")}
    if home:
        without["HOME"] = home
        done = run_code(code, *words, environment=without)
        assert done.returncode == 1, done.stderr
        assert "set HF_HOME to a folder that this user can write" in done.stderr.splitlines()[-1], done.stderr
    done = run_code(code, *words, environment=without | {"HF_HOME": str(tmp_path / "cache")})
    assert done.returncode == 0, done.stderr
