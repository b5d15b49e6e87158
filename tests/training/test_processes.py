"""How the processes of a run start together."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.forks import run_code

PROGRAM = """
import os
import torch
import threading
from hf_galaxy.training.processes import start_accelerator
start_accelerator("no", cpu=True)
watched = any(thread.name == "watch of waiting threads" for thread in threading.enumerate())
print(f"{torch.get_num_threads()} of {len(os.sched_getaffinity(0))} of {watched:d}")
"""
ACCELERATE = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", "--num_machines", "1",
              "--mixed_precision", "no", "--dynamo_backend", "no")  # fmt: skip


def threads(folder, launch, chosen):
    """Of the process that is started, with what a user chose: the threads, the cores, and whether how threads wait is watched."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")} | chosen
    if not launch:
        others = (
            "" if "OMP_NUM_THREADS" in chosen else "import torch; torch.set_num_threads(torch.get_num_threads() + 1)\n"
        )
        done = run_code(others + PROGRAM, environment=environment)
        return map(int, done.stdout.splitlines()[-1].split(" of "))
    (folder / "program.py").write_text(PROGRAM)
    command = [sys.executable, *launch, str(folder / "program.py")]
    done = subprocess.run(
        command, cwd=ROOT, env=environment | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    return map(int, done.stdout.splitlines()[-1].split(" of "))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc, to see what a launcher was started with")
@pytest.mark.skipif(len(getattr(os, "sched_getaffinity", lambda _: [])(0)) < 2, reason="one core is one thread")
@pytest.mark.parametrize("launch", [(), ACCELERATE], ids=["python", "accelerate"])
def test_the_number_of_threads_is_the_users_else_that_of_the_cores(launch, tmp_path):
    number, _, watched = threads(tmp_path, launch, {"OMP_NUM_THREADS": "1"})
    assert (number, watched) == (1, 0)
    number, cores, watched = threads(tmp_path, launch, {})
    assert (number, watched) == (cores, 1)
