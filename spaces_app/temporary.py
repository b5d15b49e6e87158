"""Deletion of visitors' files: a folder of our own, which is searched for old files at intervals.

gradio's own `delete_cache` is not reliable: its task ends if visitors come while it runs, and it leaves folders.
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

INTERVAL, MAX_AGE = 60, 1800  # seconds between two searches; age at which files are deleted
MAX_BYTES = 5_000_000_000  # of all files; above, the oldest are deleted before that age


def own_folder() -> Path:
    """A new folder for gradio's files, in GRADIO_TEMP_DIR if that is set; must be called before gradio is imported."""
    within = os.environ.get("GRADIO_TEMP_DIR")
    if within:
        os.makedirs(within, exist_ok=True)
    folder = tempfile.mkdtemp(prefix="hf_galaxy-space-", dir=within)
    os.environ["GRADIO_TEMP_DIR"] = folder
    return Path(folder)


@contextmanager
def removed_at_exit(folder: Path) -> Iterator[None]:
    """Delete the folder when the block ends, also by an exception or SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def start_sweeping(folder: Path) -> None:
    """Delete old files at intervals, in a thread. Files that exist now belong to the page and stay."""
    ours = {file for file in folder.rglob("*") if file.is_file()}

    def search() -> None:
        while True:
            time.sleep(INTERVAL)
            remove_old(folder, ours, time.time() - MAX_AGE)

    threading.Thread(target=search, daemon=True).start()


def remove_old(folder: Path, spared: set[Path], before: float, max_bytes: int = MAX_BYTES) -> None:
    """Delete files last changed before a time, the oldest of the others until at most `max_bytes` are left, and empty folders.

    Others may add and remove files at the same time.

    Args:
        spared: files that stay, and do not count.
        before: seconds since the epoch.
    """
    found = []
    for file in set(folder.rglob("*")) - spared:
        try:
            found.append((file.stat(), file))
        except FileNotFoundError:  # another process deleted it
            continue
    files = sorted(((stat.st_mtime, stat.st_size, file) for stat, file in found if not file.is_dir()))
    left = sum(size for _, size, _ in files)
    for changed, size, file in files:
        if changed < before or left > max_bytes:
            file.unlink(missing_ok=True)
            left -= size
    for stat, inner in sorted(found, key=lambda each: each[1], reverse=True):  # inner folders first
        if inner.is_dir() and stat.st_mtime < before:
            try:
                inner.rmdir()
            except OSError:  # not empty, or deleted
                continue
