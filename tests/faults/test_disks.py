"""A disk that is full, that cannot be written, or that is another one: the command says so in one line, which file, and what to do.

When the disk is well again, the same command ends with the undisturbed outcome.
"""

import errno
import re
from functools import partial

import pytest

from tests.faults.disks import cannot_mount, disk, limit_files, read_only
from tests.faults.jobs import FEW, JOBS, outcome_of
from tests.faults.points import fail_at

NIGHTLY = pytest.mark.nightly
REST = [pytest.param(name, marks=NIGHTLY) for name in JOBS if name not in FEW]


REMEDIES = (
    "make room",
    "let files be larger",
    "choose a place that this user can write",
    "set HF_HOME to a folder that this user can write",
)


def some_mistake(ended, place):
    """What is wrong with how a command has ended; None if it has said in one line which file could not be written, and what to do."""
    named = str(place) in ended.last or re.search(r"\b(out|run|records)\b", ended.last)
    well = ended.status == 1 and "Traceback" not in ended.err and ended.last.startswith("error: ")
    return None if well and named and any(remedy in ended.last for remedy in REMEDIES) else ended.said


@pytest.mark.parametrize("name", [*FEW, *REST])
def test_a_full_disk_is_said_in_one_line_and_with_room_the_same_command_completes(name, materials, tmp_path):
    """A disk of half the room; where none can be mounted, files of at most half of the largest one."""
    made = {
        path: len(content or "")
        for path, content in materials.undisturbed(name).outcome.items()
        if path.split("/")[0] not in JOBS[name].copied
    } or {"": 4000}  # it writes less than that anew
    if cannot_mount():
        place = materials.place(JOBS[name], tmp_path / "place")
        ended = materials.run(JOBS[name], place, partial(limit_files, max(made.values()) // 2))
        assert (mistake := some_mistake(ended, place)) is None, mistake
        assert (reason := materials.completes(name, place)) is None, reason
        return
    with disk(tmp_path / "disk") as full:
        place = materials.place(JOBS[name], full.folder / "place")
        full.fill(left=sum(made.values()) // 8192 * 4096)
        ended = materials.run(JOBS[name], place)
        full.empty()
        assert (mistake := some_mistake(ended, place)) is None, mistake
        assert (reason := materials.completes(name, place)) is None, reason


@NIGHTLY
@pytest.mark.parametrize("name", JOBS)
def test_a_disk_that_fills_up_at_any_point_is_said_in_one_line(name, materials, tmp_path):
    wrong, point = [], 0
    while True:
        place = materials.place(JOBS[name], tmp_path / f"{point}")
        ended = materials.run(JOBS[name], place, partial(fail_at, place, point, errno.ENOSPC))
        if ended.status == 0:
            break
        mistake = some_mistake(ended, place) or materials.completes(name, place)
        if mistake:
            wrong.append(f"full at point {point}:\n{mistake}")
        point += 3
    assert not wrong, f"{len(wrong)} of {point // 3 + 1} points\n" + "\n\n".join(wrong[:5])


@pytest.mark.parametrize("name", [*FEW, *REST])
def test_a_place_that_cannot_be_written_is_said_in_one_line(name, materials, tmp_path):
    place = materials.place(JOBS[name], tmp_path / "place")
    with read_only(place):
        ended = materials.run(JOBS[name], place)
    assert (mistake := some_mistake(ended, place)) is None, mistake


def test_a_folder_may_be_a_link_to_another_disk(materials, tmp_path):
    place = materials.place(JOBS["predict"], tmp_path / "place")
    with disk(tmp_path / "disk") as other:
        (other.folder / "there").mkdir()
        (place / "out").symlink_to(other.folder / "there")
        ended = materials.run(JOBS["predict"], place)
        expected = {
            path: content for path, content in materials.undisturbed("predict").outcome.items() if path != "out"
        }
        assert {
            f"out/{path}": content for path, content in outcome_of(other.folder / "there", JOBS["predict"]).items()
        } == expected, ended.said


def test_the_root_of_a_disk_is_refused_before_work_begins(materials, tmp_path):
    """A folder that is made whole, beside its place, could not be moved there."""
    place = materials.place(JOBS["predict"], tmp_path / "place")
    with disk(place / "out"):
        ended = materials.run(JOBS["predict"], place)
    assert ended.last == f"error: {place / 'out'} is the root of a disk; choose a folder in it"
    assert sorted(path.name for path in place.iterdir()) == ["out"]
