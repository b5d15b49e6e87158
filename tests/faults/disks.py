"""Disks of which something is wrong: a small file system in memory, where this process may mount one; else limits of the process.

Read-only folders do not hold root back, and who is not root may not mount; in a container root may not, either. So each fault has a second
way, and a test is skipped, with the reason, only where there is none.
"""

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from tests.forks import SHARED


def _mount(*words: object) -> str:
    """The error of a command of mounting; empty if it succeeded."""
    try:
        done = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError as error:
        return str(error)
    return done.stderr.strip() if done.returncode else ""


@cache
def cannot_mount() -> str:
    """Why this process cannot mount a file system; empty if it can."""
    if os.geteuid():
        return "only root may mount a file system"
    folder = SHARED / f"mount-{os.getpid()}"
    folder.mkdir()
    if error := _mount("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder):
        return f"no file system can be mounted here: {error}"
    return _mount("umount", folder)


class Disk:
    """A file system of its own, in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, left: int) -> None:
        """Leave only so many bytes, until `empty`."""
        status = os.statvfs(self.folder)
        with open(self.folder / "filler", "wb") as file:
            os.posix_fallocate(file.fileno(), 0, status.f_bfree * status.f_frsize - left)

    def empty(self) -> None:
        """Make room again."""
        (self.folder / "filler").unlink()


@contextmanager
def disk(folder: Path, options: str = "size=64m") -> Iterator[Disk]:
    """A disk, mounted on a new folder. Skips the test where none can be."""
    if reason := cannot_mount():
        pytest.skip(reason)
    folder.mkdir(exist_ok=True)
    assert not _mount("mount", "-t", "tmpfs", "-o", options, "tmpfs", folder)
    try:
        yield Disk(folder)
    finally:
        _mount("umount", "-l", folder)


def limit_files(size: int) -> None:
    """No file of this process can grow beyond some bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Meanwhile nothing can be written in a folder. Skips the test where that cannot be had."""
    if not cannot_mount():
        assert not _mount("mount", "--bind", folder, folder)
        try:
            assert not _mount("mount", "-o", "remount,bind,ro", folder)
            yield
        finally:
            _mount("umount", "-l", folder)
    elif os.geteuid():
        folder.chmod(0o500)
        try:
            yield
        finally:
            folder.chmod(0o700)
    else:
        pytest.skip(f"root may write everywhere, and {cannot_mount()}")
