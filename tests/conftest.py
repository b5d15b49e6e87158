"""What all tests share: no hub, a cache of their own, and a small published mock survey."""

import os
import tempfile

# Before any Hugging Face library is imported; the scripts that tests start inherit it.
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HOME": tempfile.mkdtemp(prefix="hf_galaxy-tests-"),
    "ACCELERATE_USE_CPU": "true",
}

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def run_script():
    """Run a script of the project as a user would; returns the finished process, with its output."""

    def run(name, *arguments, launch=("-m", "accelerate.commands.launch"), expect=0):
        command = [sys.executable, *launch, f"scripts/{name}.py", *map(str, arguments)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == expect, f"{command}\n{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture(scope="session")
def mock_dataset(tmp_path_factory, run_script):
    """Folder of a published mock survey of 96 galaxies, 48 px."""
    folder = tmp_path_factory.mktemp("published") / "mock"
    run_script("publish_dataset", "simulate", "--galaxies", 96, "--size", 48, "--out", folder, launch=())
    return folder


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real galaxies, where there is one."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("real galaxies are not part of the project: ../shared/data is not here")
    return folder
