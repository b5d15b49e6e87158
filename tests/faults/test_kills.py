"""Whatever signal ends a job, at whatever point: nothing finished is lost, and the same command ends with the undisturbed outcome.

What a SIGKILL leaves at each of a job's points is known from one run that keeps a copy at each; so every point can be tried, not those that a
clock happens to hit.
"""

import os
import random
import shutil
import signal
from functools import partial

import pytest

from tests.faults.jobs import ALL, FEW, JOBS, OF_OTHERS
from tests.faults.points import signal_at
from tests.faults.processes import wait

NIGHTLY = pytest.mark.nightly


def finished_in(place, job):
    """The files of a job that are not made again: path -> the time at which they were written."""
    files = {}
    for path in (path for pattern in job.kept for path in place.glob(pattern)):
        name = str(path.relative_to(place)).replace(".out.partial/", "out/")
        files[name] = path.stat().st_mtime_ns
    return files


def all_complete(materials, name, states, tmp_path):
    """Try the same command on each of some states."""
    wrong = []
    for state in states:
        place = shutil.copytree(state, tmp_path / "place", symlinks=True)
        before = finished_in(place, JOBS[name])
        reason = materials.completes(name, place)
        if reason is None and not before.items() <= finished_in(place, JOBS[name]).items():
            reason = "what was finished is made again"
        if reason is not None:
            wrong.append(f"killed {state.with_suffix('.txt').read_text()}:\n{reason}")
        shutil.rmtree(place)
    assert not wrong, f"{len(wrong)} of {len(states)} states\n" + "\n\n".join(wrong[:5])


def states_of(materials, name):
    return sorted(path for path in materials.undisturbed(name).states.iterdir() if path.is_dir())


@pytest.mark.parametrize("name", FEW)
def test_a_kill_at_some_points_changes_nothing(name, materials, tmp_path):
    """Between two of its files, and when it has all but ended."""
    states = states_of(materials, name)
    all_complete(materials, name, [states[len(states) // 2], states[-1]], tmp_path)


@NIGHTLY
@pytest.mark.parametrize("name", JOBS)
def test_a_kill_at_any_point_changes_nothing(name, materials, tmp_path):
    all_complete(materials, name, states_of(materials, name), tmp_path)


SOME = [("publish catalogue", signal.SIGINT), ("publish catalogue", signal.SIGTERM), ("pretrain", signal.SIGKILL)]
EACH = [(name, number) for name in ALL for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)]


@pytest.mark.parametrize(
    ("name", "number"), [*SOME, *(pytest.param(*each, marks=NIGHTLY) for each in EACH if each not in SOME)]
)
def test_a_signal_ends_a_job_in_one_line_and_the_same_command_completes(name, number, materials, tmp_path):
    place = materials.place(ALL[name], tmp_path / "place")
    ended = materials.run(ALL[name], place, partial(signal_at, place, 8, number))
    assert ended.status in (-number, 128 + number), ended.said
    if number != signal.SIGKILL:
        assert "the same command" in ended.last or name in OF_OTHERS, ended.said
        assert "Traceback" not in ended.err, ended.said
    reason = materials.completes(name, place)
    assert reason is None, reason


@NIGHTLY
@pytest.mark.parametrize("name", ALL)
def test_signals_at_random_times_change_nothing(name, materials, tmp_path):
    chance, seconds = random.SystemRandom(), materials.undisturbed(name).seconds
    for attempt in range(3):
        place = materials.place(ALL[name], tmp_path / f"{attempt}")
        waits = []
        for _ in range(3):
            number = chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
            waits.append((number.name, round(chance.uniform(0, seconds), 3)))
            process = materials.start(ALL[name], place)
            process.join(waits[-1][1])
            if process.is_alive():
                os.kill(process.pid, number)
            wait(process)
        reason = materials.completes(name, place)
        assert reason is None, f"{waits}: {reason}"
