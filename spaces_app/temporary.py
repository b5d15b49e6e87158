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


@contextmanager
def own_folder() -> Iterator[Path]:
    """A folder for all that gradio keeps in files: GRADIO_TEMP_DIR, or a new one; what is in it then goes away, also by SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    folder = Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.mkdtemp(prefix="hf_galaxy-space-"))
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(folder: Path) -> None:
    """From now on remove files that are older than KEPT, but those that are there already, which belong to the page."""
    ours = {file for file in folder.rglob("*") if file.is_file()}

    def look():
        while True:
            time.sleep(LOOK)
            remove_old(folder, ours, time.time() - KEPT)

    threading.Thread(target=look, daemon=True).start()


def remove_old(folder: Path, spared: set[Path], before: float) -> None:
    """Remove all files in a folder that were last changed before a time, and the folders that become empty; others may add files meanwhile."""
    for inner, _, names in os.walk(folder, topdown=False):
        for name in names:
            file = Path(inner, name)
            try:
                if file not in spared and file.stat().st_mtime < before:
                    file.unlink()
            except FileNotFoundError:  # somebody else removed it
                continue
        try:
            if Path(inner) != folder and os.stat(inner).st_mtime < before:
                os.rmdir(inner)
        except OSError:  # it is not empty, or gone
            continue
