"""Files and folders that are written completely or not at all, whatever interrupts the writer."""

import contextlib
import errno
import glob
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple, Self, TypeVar

from hf_galaxy.errors import BadInput, InUse, unwritable
from hf_galaxy.locks import lock_file, locked

FINGERPRINT = "fingerprint"
ABANDONED = 24 * 3600  # seconds after which a temporary file has no writer any more
T = TypeVar("T")


class Share(NamedTuple):
    """What one of several commands writes of the files of a folder, such as 3/16: one of `of` shares, whose numbers begin with 1."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse "3/16".

        Raises:
            BadInput: it is no such share.
        """
        match = re.fullmatch(r"([1-9][0-9]{0,5})/([1-9][0-9]{0,5})", text)
        if not match or int(match[1]) > int(match[2]):
            raise BadInput(f"--part {text}: is no part such as 3/16, the third of sixteen")
        return cls(int(match[1]), int(match[2]))

    def among(self, files: list[T]) -> list[T]:
        """Every `of`-th of them: all shares have about as many."""
        return files[self.number - 1 :: self.of]


def check_new(out: Path) -> None:
    """Check that a folder can be created, before work is done for it.

    Raises:
        BadInput: it exists already and is not empty, or its parent is not writable.
    """
    out = out.resolve()
    try:
        if os.path.ismount(out):
            raise BadInput(f"{out} is the root of a disk; choose a folder in it")  # to which none can be renamed
        if out.exists() and not (out.is_dir() and not any(out.iterdir())):
            tidy(out)
            raise BadInput(f"{out} exists already; remove it or choose another --out")
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(out, error) from error
    if not os.access(out.parent, os.W_OK):
        raise unwritable(out, PermissionError(errno.EACCES, "no permission to write", str(out.parent)))


@contextmanager
def new_folder(out: Path, fingerprint: str) -> Iterator[Path]:
    """A folder with a temporary name beside `out`, renamed to `out` when the block succeeds.

    If the block fails, or the process is killed, files with final names (`whole_file`) stay under the temporary name, and the
    next block with the same fingerprint resumes with them; without such files the folder is removed.

    Args:
        fingerprint: a digest of all that the files depend on.

    Raises:
        InUse: another command is writing the folder.
        BadInput: as `check_new`; it holds files of another fingerprint; or the disk is full.
    """
    check_new(out)
    out = out.resolve()
    try:
        with only_writer_of(out):
            check_new(out)  # again: it may have been written meanwhile
            _check_no_part_is_written(out)
            with _resumed_folder(out, fingerprint) as partial:
                yield partial
    except OSError as error:
        raise unwritable(out, error) from error


@contextmanager
def part_of_folder(out: Path, fingerprint: str, share: Share) -> Iterator[Path]:
    """The folder with the temporary name of `new_folder`, for one of several processes that share its files out among themselves.

    The files stay there, where a later `new_folder` with the same fingerprint finds them.

    Args:
        share: the files of this process; no other process may write the same ones at the same time.

    Raises:
        InUse: another command is writing the same files, or others with another fingerprint.
        BadInput: as `new_folder`.
    """
    check_new(out)
    out = out.resolve()
    refusal = f"{out}: another command writes this part of it at this moment; wait for it"
    try:
        with ExitStack() as stack:
            with locked(_lock_of(out)):  # so that whoever holds the lock of a part has made the folder, or found it
                check_new(out)  # again: it may have been finished meanwhile
                if not _is_of(out, fingerprint):
                    _check_no_part_is_written(out)
                stack.enter_context(
                    locked(out.with_name(f".{out.name}.part-{share.number}-of-{share.of}.lock"), refusal)
                )
                partial = _claimed(out, fingerprint)
            yield partial
    except OSError as error:
        raise unwritable(out, error) from error


def _check_no_part_is_written(out: Path) -> None:
    for lock in out.parent.glob(f".{glob.escape(out.name)}.part-*.lock"):
        with locked(lock, f"{out}: another command writes a part of it at this moment; wait for it"):
            pass


def _is_of(out: Path, fingerprint: str) -> bool:
    """Whether the folder with the temporary name is that of this fingerprint."""
    mark = _mark_of(out)
    return mark.exists() and mark.read_text(encoding="utf-8") == fingerprint


def _claimed(out: Path, fingerprint: str) -> Path:
    """The folder with the temporary name, with the finished files of this fingerprint, or empty.

    Raises:
        BadInput: it holds finished files of another fingerprint.
    """
    partial, mark = out.parent / f".{out.name}.partial", _mark_of(out)
    if (partial / FINGERPRINT).exists():  # where earlier versions had it
        os.replace(partial / FINGERPRINT, mark)
    if _is_of(out, fingerprint):
        return partial
    if mark.exists() and any(_finished(partial)):
        raise BadInput(
            f"{partial} holds the finished files of an interrupted command with other settings or other data; "
            "run the same command with the same data to resume it, or remove that folder"
        )
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    mark.write_text(fingerprint, encoding="utf-8")
    return partial


@contextmanager
def _resumed_folder(out: Path, fingerprint: str) -> Iterator[Path]:
    partial = _claimed(out, fingerprint)
    try:
        remove_partial(partial.rglob("*"))
        yield partial
        os.replace(partial, out)
    finally:
        if partial.exists() and not any(_finished(partial)):
            shutil.rmtree(partial)
        if not partial.exists():
            # After the folder has its name: else a kill between would lose all of it.
            _mark_of(out).unlink(missing_ok=True)


@contextmanager
def replaced_folder(out: Path) -> Iterator[Path]:
    """A folder with a temporary name, which replaces `out` when the block succeeds, and is removed otherwise.

    The name is not that of `new_folder`, whose finished files stay for the command that resumes them.

    Raises:
        InUse: another command is writing it.
        BadInput: as `only_writer_of`.
    """
    partial, earlier = (out.with_name(f".{out.name}.{state}") for state in ("replacement", "earlier"))
    with only_writer_of(out):
        for left in (partial, earlier):
            shutil.rmtree(left, ignore_errors=True)
        partial.mkdir()
        try:
            yield partial
            if out.exists():
                os.replace(out, earlier)  # a folder that is not empty cannot be replaced in one step
            os.replace(partial, out)
        finally:
            for left in (partial, earlier):
                shutil.rmtree(left, ignore_errors=True)


@contextmanager
def only_writer_of(out: Path, remedy: str = "wait for it, or choose another --out") -> Iterator[None]:
    """The lock of a folder or file that a command writes, for that time: every command has the same one. The end of its process frees it.

    Temporary files that killed processes have left beside `out`, to become it, are removed.

    Args:
        remedy: what the user of a second command can do.

    Raises:
        InUse: another command is writing it.
        BadInput: the lock cannot be created beside it.
    """
    with ExitStack() as stack:
        try:
            out = out.resolve()
            out.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(_lock_of(out), f"{out}: another command writes it at this moment; {remedy}"))
            remove_left_beside(out)
        except OSError as error:
            raise unwritable(out, error) from error
        yield


def remove_left_beside(out: Path) -> None:
    """Remove temporary files that killed processes have left, to become `out`, whose lock the caller has."""
    for left in out.parent.glob(f".{glob.escape(out.name)}.*.partial"):
        left.unlink()


def _lock_of(out: Path) -> Path:
    return out.with_name(f".{out.name}.lock")


def _mark_of(out: Path) -> Path:
    return out.with_name(f".{out.name}.{FINGERPRINT}")


def tidy(out: Path) -> None:
    """Remove what a command has left beside a folder that was killed when it had finished it."""
    with contextlib.suppress(OSError, InUse):
        if _lock_of(out).exists():
            with locked(_lock_of(out), "in use"):
                _mark_of(out).unlink(missing_ok=True)


def _finished(folder: Path) -> Iterator[Path]:
    return (file for file in folder.rglob("*") if file.is_file() and not _is_partial(file))


def _is_partial(file: Path) -> bool:
    return file.name.startswith(".") and file.name.endswith(".partial")


@contextmanager
def whole_file(path: Path, is_only_writer: bool = False) -> Iterator[Path]:
    """A file with a temporary name beside `path`, renamed to `path` when the block succeeds, and removed otherwise.

    Each writer has a temporary name of its own: if several write at the same time, the last complete file stays. Temporary
    files of killed writers are removed by a later writer, after a day.

    The content is flushed to the disk before the file is renamed: else a crash of the machine could leave an empty file with the
    final name. The mode of the file follows the umask, whatever mode its writer sets.

    Args:
        is_only_writer: the folder is there, and locked, and its writer removes temporary files itself: not once for each of
            very many files, which are searched for in the whole folder.
    """
    if not is_only_writer:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_partial(path.parent.glob(f".{glob.escape(path.name)}.*"), age=ABANDONED)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")
    partial.touch()
    mode = partial.stat().st_mode  # safetensors writes files that only their owner can read
    partial.unlink()
    try:
        yield partial
        partial.chmod(mode)
        fsync_file(partial)
        os.replace(partial, path)
    except OSError as error:
        if error.filename is None or str(error.filename) == str(partial):  # a write to a file does not name it
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)


def remove_partial(files: Iterable[Path], age: float = 0.0) -> None:
    """Remove temporary files of killed writers.

    Args:
        files: candidates; only temporary files among them are removed, and of files with a lock of their own (`only_writer_of`) only
            those whose lock is free.
        age: in seconds; younger files may still have a writer.
    """
    for file in files:
        if _is_partial(file) and file.is_file() and not _is_locked(file):
            with contextlib.suppress(FileNotFoundError):  # another process removes it too, or has renamed it
                if not age or time.time() - file.stat().st_mtime >= age:  # the clock may have been set back since
                    file.unlink()


def _is_locked(partial: Path) -> bool:
    """Whether a command holds the lock of the file that a temporary file is to become."""
    name = partial.name.removesuffix(".partial").rpartition(".")[0]
    lock = partial.with_name(f"{name}.lock")
    if not name or not lock.exists():
        return False
    with contextlib.suppress(OSError):
        if (free := lock_file(lock)) is not None:
            free.close()
            return False
    return True


def fsync_file(path: Path) -> None:
    """Flush a file to the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def write_json(path: Path, data: dict) -> None:
    """Write a JSON file with `whole_file`; lists of numbers or strings are on one line."""
    text = json.dumps(data, indent=2, allow_nan=False)
    text = re.sub(r"\[\n\s+([^][{}]*?)\n\s+\]", lambda match: "[" + re.sub(r"\n\s+", " ", match[1]) + "]", text)
    with whole_file(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


SAFETENSORS = "model.safetensors"
