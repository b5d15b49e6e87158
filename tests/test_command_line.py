"""Commands: what they show of the log, and how they end."""

import os
import signal
import subprocess
import sys

import pytest

from hf_galaxy.command_line import RANKS
from tests.conftest import ROOT
from tests.forks import run_code

COMMAND = """
import logging, sys
from dataclasses import dataclass
from hf_galaxy.command_line import Command
from hf_galaxy.errors import BadInput, Interrupted

@dataclass
class Settings:
    end: str = "well"

def main(settings):
    for name in ("hf_galaxy.data.dataset", "somebody.else"):
        log = logging.getLogger(name)
        log.info("%s informs %s", name, "x" * 300)
        log.warning("%s warns", name)
    print("result")
    if settings.end != "well":
        raise {"bad": BadInput("no such file"), "nan": FloatingPointError("loss is nan"), "stopped": Interrupted("at step 3"),
               "bug": KeyError("a bug"), "ctrl-c": KeyboardInterrupt()}[settings.end]

Command(Settings, main)()
"""


def run(end="well", **environment):
    environment = {name: value for name, value in os.environ.items() if name not in RANKS} | environment
    return run_code(COMMAND, "--end", end, environment=environment)


def test_the_log_is_lines_on_stderr_and_results_are_alone_on_stdout():
    done = run()
    assert done.stdout == "result\n"
    lines = done.stderr.splitlines()
    assert [line.split(" ", 2)[1:] for line in lines] == [
        ["INFO", f"hf_galaxy.data.dataset informs {'x' * 300}"],
        ["WARNING", "hf_galaxy.data.dataset warns"],
        ["WARNING", "somebody.else warns"],
    ]


def test_a_terminal_shows_the_log_with_rich():
    import pty

    there, here = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", COMMAND], cwd=ROOT, stderr=here, stdout=subprocess.PIPE, timeout=300, check=True
    )
    os.close(here)
    shown = os.read(there, 100_000).decode()
    os.close(there)
    assert done.stdout == b"result\n"
    assert "INFO" in shown
    assert "\x1b[" in shown  # colours
    assert "somebody.else informs" not in shown


@pytest.mark.parametrize("name", RANKS)
def test_only_the_first_process_of_a_run_informs(name):
    assert "informs" in run(**{name: "0"}).stderr
    other = run(**{name: "3"})
    assert "informs" not in other.stderr
    assert other.stderr.count("warns") == 2


@pytest.mark.parametrize(
    ("end", "status", "last"),
    [
        ("bad", 1, "error: no such file"),
        ("nan", 1, "error: loss is nan"),
        ("stopped", 143, "at step 3"),
        ("bug", 1, "KeyError: 'a bug'"),
    ],
)
def test_mistakes_and_interruptions_are_one_line_and_bugs_a_traceback(end, status, last):
    done = run(end)
    assert done.returncode == status
    assert done.stderr.splitlines()[-1] == last
    assert ("Traceback" in done.stderr) == (end == "bug")


def test_the_library_alone_is_silent_below_warnings():
    code = (
        "import logging, hf_galaxy; logging.getLogger('hf_galaxy.data').info('informs'); print(logging.root.handlers)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300, check=True
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_ctrl_c_ends_a_command_without_a_traceback_and_as_the_signal_does():
    done = run("ctrl-c")
    assert done.returncode == -signal.SIGINT
    assert done.stderr.endswith("interrupted; the same command goes on from what is finished\n")
    assert "Traceback" not in done.stderr
