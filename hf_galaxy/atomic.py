"""Files and folders that appear whole or not at all, so that an interruption leaves nothing half-written."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hf_galaxy.errors import BadInput

FINGERPRINT = "fingerprint"


@contextmanager
def new_folder(out: Path, fingerprint: str) -> Iterator[Path]:
    """A folder to fill under a temporary name beside `out`, renamed to `out` when the block ends well.

    If it ends otherwise, or is killed, the files with their final names (`whole_file`) stay under the temporary name, and
    are found there by the next block of the same fingerprint; without any the folder is removed.

    Args:
        fingerprint: of all that the files depend on; files made for another one are thrown away.

    Raises:
        BadInput: `out` exists already and is not an empty folder, or cannot be made.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise BadInput(f"{out} exists already; remove it or choose another --out")
    partial = out.parent / f".{out.name}.partial"
    mark = partial / FINGERPRINT
    try:
        if not mark.exists() or mark.read_text() != fingerprint:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            mark.write_text(fingerprint)
    except OSError as error:
        raise BadInput(f"{out} cannot be written: {error.strerror} ({error.filename})") from error
    try:
        yield partial
        mark.unlink()
        os.replace(partial, out)
    finally:
        if partial.exists() and not any(_finished(partial)):
            shutil.rmtree(partial)


def _finished(folder):
    return (file for file in folder.rglob("*") if file.is_file() and file.name != FINGERPRINT and not _is_partial(file))


def _is_partial(file):
    return file.name.startswith(".") and file.name.endswith(".partial")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file to write under a temporary name beside `path`, renamed to `path` when the block ends well, else removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, data: dict) -> None:
    """Write a JSON file under a temporary name and rename it."""
    with whole_file(path) as partial:
        partial.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n")
