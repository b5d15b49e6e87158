"""Files and folders that appear whole or not at all, so that an interruption leaves nothing half-written."""

import contextlib
import glob
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from hf_galaxy.errors import BadInput
from hf_galaxy.locks import locked

FINGERPRINT = "fingerprint"
ABANDONED = 24 * 3600  # seconds after which nobody is taken to write on


def check_new(out: Path) -> None:
    """Refuse a folder that cannot be made, before work is done for it.

    Raises:
        BadInput: it exists already and is not empty, or its parent cannot be written to.
    """
    out = out.resolve()
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise BadInput(f"{out} exists already; remove it or choose another --out")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"{out} cannot be written: {error.strerror} ({error.filename})") from error
    if not os.access(out.parent, os.W_OK):
        raise BadInput(f"{out} cannot be written: no permission to write in {out.parent}")


@contextmanager
def new_folder(out: Path, fingerprint: str) -> Iterator[Path]:
    """A folder to fill under a temporary name beside `out`, renamed to `out` when the block ends well.

    If it ends otherwise, or is killed, the files with their final names (`whole_file`) stay under the temporary name, and
    are found there by the next block of the same fingerprint; without any the folder is removed.

    Args:
        fingerprint: of all that the files depend on.

    Raises:
        BadInput: as `check_new`; another process is writing the folder; files of another fingerprint are there; or the
            disk is full.
    """
    check_new(out)
    out = out.resolve()
    try:
        with _only_writer_of(out):
            check_new(out)  # once more: it may have been written since
            with _resumed_folder(out, fingerprint) as partial:
                yield partial
    except OSError as error:
        raise BadInput(f"{out} cannot be written: {error.strerror} ({error.filename})") from error


@contextmanager
def _resumed_folder(out: Path, fingerprint: str) -> Iterator[Path]:
    partial = out.parent / f".{out.name}.partial"
    mark = partial / FINGERPRINT
    if mark.exists() and mark.read_text() != fingerprint and any(_finished(partial)):
        raise BadInput(
            f"{partial} holds the finished files of an interrupted publication with other settings or other data; "
            "give the same command and data to go on, or remove it"
        )
    try:
        if not mark.exists() or mark.read_text() != fingerprint:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            mark.write_text(fingerprint)
        remove_partial(partial.rglob("*"))
        yield partial
        mark.unlink()
        os.replace(partial, out)
    finally:
        if partial.exists() and not any(_finished(partial)):
            shutil.rmtree(partial)


@contextmanager
def replaced_folder(out: Path) -> Iterator[Path]:
    """A folder to fill, which takes the place of `out` when the block ends well, and is removed if it does not.

    Raises:
        BadInput: another process is writing it.
    """
    partial, earlier = (out.with_name(f".{out.name}.{state}") for state in ("partial", "earlier"))
    out.parent.mkdir(parents=True, exist_ok=True)
    with _only_writer_of(out):
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


def _only_writer_of(out: Path) -> AbstractContextManager[None]:
    refusal = f"{out}: another process is writing this folder now; let it finish, or choose another --out"
    return locked(out.with_name(f".{out.name}.lock"), refusal)


def _finished(folder: Path) -> Iterator[Path]:
    return (file for file in folder.rglob("*") if file.is_file() and file.name != FINGERPRINT and not _is_partial(file))


def _is_partial(file: Path) -> bool:
    return file.name.startswith(".") and file.name.endswith(".partial")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file to write under a temporary name beside `path`, renamed to `path` when the block ends well, else removed.

    Each writer has a temporary name of its own: of several that write at the same time, the last leaves its whole file. What
    a killed one has left is removed a day later by the next.

    The content is on the disk before the file is renamed: else a machine that stops could leave an empty file under the new
    name. Others may read it as far as the umask allows, whatever mode its writer gives it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_partial(path.parent.glob(f".{glob.escape(path.name)}.*"), age=ABANDONED)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")
    partial.touch()
    mode = partial.stat().st_mode  # safetensors lets nobody else read what it writes
    partial.unlink()
    try:
        yield partial
        partial.chmod(mode)
        fsync_file(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def remove_partial(files: Iterable[Path], age: float = 0.0) -> None:
    """Remove what killed writers have left.

    Args:
        files: among them; others are left alone.
        age: in seconds; what is younger may still be written.
    """
    for file in files:
        if _is_partial(file) and file.is_file():
            with contextlib.suppress(FileNotFoundError):  # another process removes it, too, or has finished it
                if time.time() - file.stat().st_mtime >= age:
                    file.unlink()


def fsync_file(path: Path) -> None:
    """Wait till what was written to a file is on the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def write_json(path: Path, data: dict) -> None:
    """Write a JSON file under a temporary name and rename it; a list of numbers or words stands on one line."""
    text = json.dumps(data, indent=2, allow_nan=False)
    text = re.sub(r"\[\n\s+([^][{}]*?)\n\s+\]", lambda found: "[" + re.sub(r"\n\s+", " ", found[1]) + "]", text)
    with whole_file(path) as partial:
        partial.write_text(text + "\n")


SAFETENSORS = "model.safetensors"
