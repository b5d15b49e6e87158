"""What visitors send goes away: by age while the Space runs, all of it when it ends."""

import os
import signal
import subprocess
import sys
import time

from temporary import remove_old
from tests.conftest import ROOT


def test_old_files_go_with_their_folders_and_the_pages_own_and_new_ones_stay(tmp_path):
    now = time.time()
    for name, age in (
        ("old/a.jpg", 100),
        ("old/deep/b.jpg", 100),
        ("mixed/old.jpg", 100),
        ("mixed/new.jpg", 1),
        ("own/icon.png", 100),
    ):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
        os.utime(file, (now - age, now - age))
    remove_old(tmp_path, {tmp_path / "own/icon.png"}, now - 50)
    left = {file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file()}
    assert left == {"mixed/new.jpg", "own/icon.png"}
    remove_old(tmp_path, {tmp_path / "own/icon.png"}, now + 50)  # folders are as old as what was last removed from them
    assert {folder.name for folder in tmp_path.iterdir()} == {"own"}


def test_of_too_much_the_oldest_goes(tmp_path):
    now = time.time()
    for age in range(5):
        (tmp_path / str(age)).write_bytes(b"x" * 100)
        os.utime(tmp_path / str(age), (now - age, now - age))
    remove_old(tmp_path, {tmp_path / "4"}, now - 50, max_bytes=250)
    assert {file.name for file in tmp_path.iterdir()} == {"0", "1", "4"}


SERVES = """
import time
from temporary import removed_at_exit, own_folder
folder = own_folder()
with removed_at_exit(folder):
    (folder / "a").write_text("x")
    print(folder, flush=True)
    time.sleep(600)
"""


def test_the_folder_goes_when_the_app_is_told_to_end(tmp_path):
    (tmp_path / "of somebody else").write_text("x")
    environment = os.environ | {"PYTHONPATH": str(ROOT / "spaces_app"), "GRADIO_TEMP_DIR": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", SERVES], env=environment, stdout=subprocess.PIPE, text=True)
    folder = process.stdout.readline().strip()
    assert os.path.exists(f"{folder}/a")
    process.send_signal(signal.SIGTERM)
    assert process.wait(300) == 128 + signal.SIGTERM
    assert [each.name for each in tmp_path.iterdir()] == ["of somebody else"]
    process.stdout.close()
