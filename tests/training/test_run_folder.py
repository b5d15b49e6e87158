"""Who may write into a run folder: several processes change its record one after the other, and one alone trains it."""

import os
import shutil

import pytest

from hf_galaxy.errors import BadInput
from hf_galaxy.locks import lock_file
from hf_galaxy.reports import model_card
from hf_galaxy.reports.run_folder import LOCK, rewrite
from hf_galaxy.reports.run_record import RunRecord
from hf_galaxy.training.run_folder import claim
from tests.training.runs import SERVER
from tests.training.runs import run as trained


@pytest.fixture(scope="module")
def finished(tmp_path_factory, mock_dataset):
    out = tmp_path_factory.mktemp("runs") / "mock"
    trained(out, dataset=(str(mock_dataset),), epochs=1, draws=True)
    return out


@pytest.fixture
def folder(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def files_of(folder):
    return {file.relative_to(folder).as_posix(): file.stat().st_mtime_ns for file in folder.rglob("*")}


def add_results(folder, split, mine, other):
    """As scripts/evaluate.py does; beside another process, if nothing keeps them apart."""

    def change(record):
        mine.set()
        other.wait(2)
        record.results[split] = record.results["test"]

    rewrite(folder, change)


def test_two_processes_that_change_a_record_both_keep_their_results(folder):
    here, there = SERVER.Event(), SERVER.Event()
    processes = [
        SERVER.Process(target=add_results, args=(folder, "validation", here, there)),
        SERVER.Process(target=add_results, args=(folder, "other data, test", there, here)),
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0, 0]
    record = RunRecord.load(folder)
    assert record.results.keys() == {"test", "validation", "other data, test"}
    assert (folder / "README.md").read_text() == model_card.model_card(record)
    assert not [file for file in folder.iterdir() if file.name.startswith(".") and file.is_file()]


def test_what_a_killed_writer_has_left_is_removed_by_the_next(folder):
    names = files_of(folder).keys()
    (folder / ".run.json.0123.partial").touch()
    (folder / "figures/.loss.png.4567.partial").touch()
    rewrite(folder, lambda record: None)
    assert files_of(folder).keys() == names


def test_what_is_no_run_is_left_alone(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(BadInput, match="is no run folder"):
            rewrite(folder, lambda record: None)
    assert not list(tmp_path.iterdir())


def test_a_finished_run_is_refused_and_left_alone(folder):
    before, record = files_of(folder), RunRecord.load(folder)
    with pytest.raises(BadInput, match="holds a finished run"):
        claim(folder, record)
    assert files_of(folder) == before


def test_who_finds_a_finished_run_leaves_the_lock_of_another_process(folder):
    lock = lock_file(folder / LOCK)
    with pytest.raises(BadInput, match="holds a finished run"):
        claim(folder, RunRecord.load(folder))
    assert os.path.samestat(os.fstat(lock.fileno()), (folder / LOCK).stat())
    lock.close()


def test_a_claim_that_is_refused_is_given_up(tmp_path):
    claim(tmp_path / "run", RunRecord("", {"seed": 1})).close()
    with pytest.raises(BadInput, match="another --seed") as refused:
        claim(tmp_path / "run", RunRecord("", {"seed": 2}))
    lock = claim(tmp_path / "run", RunRecord("", {"seed": 1}))
    with pytest.raises(BadInput, match="another command trains this run at this moment"):
        claim(tmp_path / "run", RunRecord("", {"seed": 1}))
    lock.close()
    del refused
