"""Locks of files: what keeps two processes from writing into the same place. The end of a process, whatever it is, frees its locks."""

import logging
import os
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from filelock import lock_descriptor

from hf_galaxy.errors import BadInput, InUse

logger = logging.getLogger(__name__)
_locks: weakref.WeakSet[IO[bytes]] = weakref.WeakSet()


def lock_file(path: Path, wait: bool = False, required: bool = False) -> IO[bytes] | None:
    """Lock a file, which is created if there is none.

    A process that is started with the file as its standard input holds the lock, too; a forked process does not.

    Args:
        wait: until whoever else holds the lock frees it.
        required: refuse a file system without locks; else a warning is logged, and the file is returned without a lock.

    Returns:
        The file: closing it frees the lock. None if another process, or this one, holds the lock.

    Raises:
        BadInput: the file system has no locks, and they are required.
        OSError: the file cannot be created.
    """
    while True:
        with ExitStack() as stack:
            # A lock on NFS needs a file that is open for writing; what the file contains is left alone.
            file = stack.enter_context(open(path, "ab", buffering=0))
            try:
                if not lock_descriptor(file.fileno(), blocking=wait):
                    return None
            except OSError as error:
                message = f"{path.parent}: its file system cannot lock files ({error.strerror}); "
                if required:
                    raise BadInput(f"{message}choose another folder") from error
                logger.warning("%slet no other process write there at the same time", message)
            if _is_at(path, file):
                _locks.add(file)
                stack.pop_all()
                return file
        # The process that held the lock has removed the file: another process may lock a new one.


def _is_at(path: Path, file: IO[bytes]) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False


def remove_lock(lock: IO[bytes]) -> None:
    """Free a lock and remove its file."""
    with suppress(FileNotFoundError, PermissionError):  # Windows does not remove an open file: it stays
        os.unlink(lock.name)
    lock.close()


@contextmanager
def locked(path: Path, refusal: str | None = None) -> Iterator[None]:
    """Hold the lock of a file, which is removed at the end.

    Args:
        refusal: what to say if another process holds the lock; by default it is waited for.

    Raises:
        InUse: the refusal.
        OSError: the file cannot be created.
    """
    lock = lock_file(path, wait=refusal is None)
    if lock is None:
        raise InUse(refusal)
    try:
        yield
    finally:
        remove_lock(lock)


def _close_in_fork() -> None:
    # Else loader workers, which live on for some seconds when their run is killed, would hold its lock.
    for lock in list(_locks):
        lock.close()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no forks
    os.register_at_fork(after_in_child=_close_in_fork)
