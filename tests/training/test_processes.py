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
from hf_galaxy.training.processes import start_accelerator
start_accelerator("no", cpu=True)
print(f"{torch.get_num_threads()} of {len(os.sched_getaffinity(0))}")
"""
ACCELERATE = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", "--num_machines", "1",
              "--mixed_precision", "no", "--dynamo_backend", "no")  # fmt: skip


def threads(folder, launch, chosen):
    """The threads and the cores of the process that is started, with the number of threads that a user chose, if any."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"} | chosen
    if not launch:
        others = "" if chosen else "import torch; torch.set_num_threads(torch.get_num_threads() + 1)\n"
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
    number, _ = threads(tmp_path, launch, {"OMP_NUM_THREADS": "1"})
    assert number == 1
    number, cores = threads(tmp_path, launch, {})
    assert number == cores
