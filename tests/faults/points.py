"""The points of a job at which a fault may come: right before each step that changes what is on the disk.

Python announces such steps to audit hooks, whoever takes them (`os`, `pathlib`, `shutil`, libraries): so no list of calls in our code has
to be kept. What a library in C++ writes into a temporary file is not seen, but the steps around it are.
"""

import hashlib
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path

FSYNC = "faults.fsync"  # which Python does not announce by itself
CHANGES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate", FSYNC}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Points:
    """Numbers the points of this process, from 0, and acts at each.

    Args:
        folders: only what changes something in them counts.
        act: called with the number of the point, and what is about to be done, such as "os.rename out/.a.partial".
    """

    def __init__(self, folders: list[Path], act: Callable[[int, str], None]) -> None:
        self.folders, self.act = [os.path.realpath(folder) + os.sep for folder in folders], act
        self.number, self.process, self.lock, self.acting = 0, os.getpid(), threading.RLock(), False

    def begin(self) -> None:
        """From now on."""
        fsync = os.fsync

        def announced(descriptor: int) -> None:
            sys.audit(FSYNC, os.readlink(f"/proc/self/fd/{descriptor}"))
            fsync(descriptor)

        os.fsync = announced
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple) -> None:
        if event not in CHANGES or (event == "open" and not (arguments[2] or 0) & WRITES):
            return
        if os.getpid() != self.process:  # a loader worker
            return
        with self.lock:
            path = arguments[0]
            if self.acting or not isinstance(path, str | os.PathLike):
                return
            path = os.path.abspath(path)
            if not any(f"{path}{os.sep}".startswith(folder) for folder in self.folders):
                return
            self.acting = True
            try:
                self.act(self.number, f"{event} {path}")
            finally:
                self.number += 1
                self.acting = False


def keep_states(place: Path, states: Path) -> None:
    """From now on, keep a copy of a folder at each point: what a SIGKILL at this moment leaves. States that are alike are kept once.

    Args:
        states: a new folder for the copies, numbered, each with a file NUMBER.txt that says what was about to be done.
    """
    seen, known = set(), {}
    states.mkdir()

    def act(number: int, step: str) -> None:
        if (state := fingerprint(place, known)) not in seen:
            name = f"{len(seen):04}"
            seen.add(state)
            _copied(place, states / name)
            (states / f"{name}.txt").write_text(f"before {step}")

    Points([place], act).begin()


def signal_at(place: Path, point: int, number: int) -> None:
    """At a point, get a signal."""

    def act(at: int, step: str) -> None:
        if at == point:
            os.kill(os.getpid(), number)

    Points([place], act).begin()


def signal_at_file(place: Path, name: str, number: int) -> None:
    """Right before a step with a file of this name, or a temporary one of it, get a signal."""

    def act(at: int, step: str) -> None:
        if name in os.path.basename(step):
            os.kill(os.getpid(), number)

    Points([place], act).begin()


def fail_at(place: Path, point: int, number: int) -> None:
    """From a point on, no step succeeds that needs room on the disk: each fails with an error number of the system."""

    def act(at: int, step: str) -> None:
        event, _, path = step.partition(" ")
        if at >= point and event in ("open", "os.mkdir", FSYNC):
            raise OSError(number, os.strerror(number), path)

    Points([place], act).begin()


def fingerprint(folder: Path, known: dict) -> frozenset:
    """What is in a folder, whatever the random parts of temporary names.

    Args:
        known: digests of files, by what the system knows of them.
    """
    found = set()
    for path in folder.rglob("*"):
        name = re.sub(r"\.[0-9a-f]{12}\.partial$", ".partial", str(path.relative_to(folder)))
        try:
            status = path.stat()
        except FileNotFoundError:  # another thread has renamed it
            continue
        key = status.st_ino, status.st_mtime_ns, status.st_size
        if key not in known:
            known[key] = hashlib.sha256(path.read_bytes()).digest() if path.is_file() else b"folder"
        found.add((name, known[key]))
    return frozenset(found)


def _copied(place: Path, copy: Path) -> None:
    """Copy a folder, once more if another thread has renamed a file in it meanwhile."""
    while True:
        try:
            shutil.copytree(place, copy, symlinks=True, copy_function=_copy)
            return
        except shutil.Error:
            shutil.rmtree(copy)


def _copy(source: str, copy: str) -> None:
    """Large files are linked: they are temporary ones, or not changed any more."""
    if os.path.getsize(source) > 2**16:
        os.link(source, copy)
    else:
        shutil.copy2(source, copy)
