"""What visitors send goes away: a folder of our own, and a look through it now and then.

gradio's own `delete_cache` is not relied on: its task ends for good where visitors come while it looks, and it leaves folders.
"""

import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOOK, KEPT = 60, 1800  # seconds between two looks; age at which files go
MOST = 5_000_000_000  # bytes, above which the oldest go before that


def own_folder() -> Path:
    """A new folder for all that gradio keeps in files, in GRADIO_TEMP_DIR if that is set; it has to be asked for before gradio is imported."""
    within = os.environ.get("GRADIO_TEMP_DIR")
    if within:
        os.makedirs(within, exist_ok=True)
    folder = tempfile.mkdtemp(prefix="hf_galaxy-space-", dir=within)
    os.environ["GRADIO_TEMP_DIR"] = folder
    return Path(folder)


@contextmanager
def gone_at_the_end(folder: Path) -> Iterator[None]:
    """The folder goes away when the block ends, in whatever way, SIGTERM too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(folder: Path) -> None:
    """From now on remove files that are old or too many, but those that are there already, which belong to the page."""
    ours = {file for file in folder.rglob("*") if file.is_file()}

    def look():
        while True:
            time.sleep(LOOK)
            remove_old(folder, ours, time.time() - KEPT)

    threading.Thread(target=look, daemon=True).start()


def remove_old(folder: Path, spared: set[Path], before: float, most: int = MOST) -> None:
    """Remove what was last changed before a time, and of the rest the oldest until no more than `most` bytes are left; empty folders, too.

    Others may add and remove files meanwhile.

    Args:
        spared: files that stay, and do not count.
    """
    found = []
    for file in set(folder.rglob("*")) - spared:
        try:
            found.append((file.stat(), file))
        except FileNotFoundError:  # somebody else removed it
            continue
    files = sorted(((stat.st_mtime, stat.st_size, file) for stat, file in found if not file.is_dir()))
    left = sum(size for _, size, _ in files)
    for changed, size, file in files:
        if changed < before or left > most:
            file.unlink(missing_ok=True)
            left -= size
    for stat, inner in sorted(found, key=lambda each: each[1], reverse=True):  # the inner ones first
        if inner.is_dir() and stat.st_mtime < before:
            try:
                inner.rmdir()
            except OSError:  # it is not empty, or gone
                continue
