"""Of several processes one holds a lock, until it ends in whatever way; also where the file is removed, or cannot be locked."""

import errno
import os
import signal
import subprocess
import sys
import time
from multiprocessing import get_context

import pytest

from hf_galaxy import locks
from hf_galaxy.errors import BadInput
from hf_galaxy.locks import lock_file, locked, remove_lock

FORK = get_context("fork")


def test_a_lock_is_held_until_it_is_closed(tmp_path):
    path = tmp_path / "lock"
    path.write_text("content")
    lock = lock_file(path)
    assert lock_file(path) is None
    lock.close()
    lock_file(path).close()
    assert path.read_text() == "content"


def hold(path, started, end):
    with locked(path):
        started.set()
        end.wait(60)
        if end.is_set():
            os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_frees_its_locks(tmp_path):
    started, end = FORK.Event(), FORK.Event()
    process = FORK.Process(target=hold, args=(tmp_path / "lock", started, end))
    process.start()
    assert started.wait(60)
    with pytest.raises(BadInput, match="busy"), locked(tmp_path / "lock", refusal="busy"):
        pass
    end.set()
    process.join()
    with locked(tmp_path / "lock", refusal="busy"):
        pass
    assert not (tmp_path / "lock").exists()


def live_on(started, end):
    started.set()
    end.wait(60)


def test_a_forked_process_does_not_hold_the_lock_but_one_that_has_it_as_input_does(tmp_path):
    lock, started, end = lock_file(tmp_path / "lock"), FORK.Event(), FORK.Event()
    forked = FORK.Process(target=live_on, args=(started, end))
    forked.start()
    assert started.wait(60)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], stdin=lock)
    assert lock_file(tmp_path / "lock") is None
    lock.close()
    assert lock_file(tmp_path / "lock") is None
    child.kill()
    child.wait()
    assert forked.is_alive()
    lock_file(tmp_path / "lock").close()
    end.set()
    forked.join()


def count_up(path):
    for _ in range(100):
        with locked(path.with_name("lock")):
            number = int(path.read_text())
            time.sleep(0.0005)
            path.write_text(str(number + 1))


def test_nobody_is_beside_another_though_each_removes_the_file(tmp_path):
    (tmp_path / "count").write_text("0")
    processes = [FORK.Process(target=count_up, args=(tmp_path / "count",)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert (tmp_path / "count").read_text() == "400"
    assert [file.name for file in tmp_path.iterdir()] == ["count"]


def test_a_lock_whose_file_is_gone_can_be_removed(tmp_path):
    lock = lock_file(tmp_path / "lock")
    (tmp_path / "lock").unlink()
    remove_lock(lock)
    assert lock.closed


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch, caplog):
    def without_locks(*_, **__):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(locks, "lock_descriptor", without_locks)
    with locked(tmp_path / "lock", refusal="busy"):
        pass
    assert f"{tmp_path}: its file system cannot lock files (No locks available)" in caplog.text
    assert "let no other process write there" in caplog.text
    with pytest.raises(BadInput, match="cannot lock files"):
        lock_file(tmp_path / "lock", required=True)
