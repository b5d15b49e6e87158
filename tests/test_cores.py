"""What a process may use is counted, not what the machine has."""

import os
import runpy
import subprocess
import sys

import pytest

from hf_galaxy.cores import available_cores
from tests.conftest import ROOT


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="macOS has no affinity")
def test_the_cores_are_those_of_the_affinity():
    core = max(os.sched_getaffinity(0))
    program = f"import os; os.sched_setaffinity(0, {{{core}}}); from hf_galaxy.cores import available_cores as of; print(of())"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"[{core}]\n"


def test_without_affinity_all_cores_are_available(monkeypatch):
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    assert available_cores() == [0, 1, 2]


@pytest.mark.parametrize(
    ("command", "settings", "option"), [("publish", "Simulate", "num_proc"), ("check", "Check", "threads")]
)
def test_commands_start_as_much_as_there_are_cores_available(command, settings, option, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {2, 5, 7}, raising=False)
    module = f"hf_galaxy.commands.{command}"
    monkeypatch.delitem(sys.modules, module, raising=False)  # runpy warns of a module that is there already
    defined = runpy.run_module(module, run_name="defined_anew", alter_sys=True)
    assert defined[settings].__dataclass_fields__[option].default == 3
