"""Files and folders that appear whole or not at all, so that an interruption leaves nothing half-written."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hf_galaxy.errors import BadInput


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill under a temporary name beside `out`, renamed to `out` when the block ends well, else removed.

    Raises:
        BadInput: `out` exists already and is not an empty folder, or cannot be made.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise BadInput(f"{out} exists already; remove it or choose another --out")
    partial = out.parent / f".{out.name}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)  # what a killed run left
        partial.mkdir(parents=True)
    except OSError as error:
        raise BadInput(f"{out} cannot be written: {error.strerror} ({error.filename})") from error
    try:
        yield partial
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_json(path: Path, data: dict) -> None:
    """Write a JSON file under a temporary name and rename it."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n")
    os.replace(partial, path)
