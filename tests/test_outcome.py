"""How a command ended reaches the program that started it, by a file, whatever the command ends with."""

import signal
import sys
from dataclasses import dataclass

import pytest

from hf_galaxy.command_line import Command
from hf_galaxy.errors import BadInput, Interrupted, InUse
from hf_galaxy.outcome import VARIABLE, Outcome, write_outcome


@dataclass
class Options:
    """A command that ends as it is told.

    Args:
        end: the name of an error.
    """

    end: str = ""


ERRORS = {
    "refused": BadInput("--end refused: file x,\nrow 3"),
    "diverged": FloatingPointError("the loss is nan"),
    "occupied": InUse("x: another process"),
    "stopped": Interrupted("stopped after step 3"),
    "bug": KeyError("a bug"),
}


def main(options):
    if options.end:
        raise ERRORS[options.end]


def status_of(monkeypatch, *arguments):
    """The exit status that a process would end with."""
    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    try:
        Command(Options, main)()
    except SystemExit as stopped:
        return 1 if isinstance(stopped.code, str) else stopped.code
    except KeyError:
        return 1
    return 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), Outcome("finished", "", 0)),
        (("--end", "refused"), Outcome("bad_input", "--end refused: file x, row 3", 1)),
        (("--end", "diverged"), Outcome("bad_input", "the loss is nan", 1)),
        (("--end", "occupied"), Outcome("in_use", "x: another process", 1)),
        (("--end", "stopped"), Outcome("interrupted", "stopped after step 3", 143)),
        (("--end", "bug"), Outcome("crashed", "KeyError: 'a bug'", 1)),
    ],
)
def test_the_outcome_is_that_of_the_command(arguments, expected, tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert status_of(monkeypatch, *arguments) == expected.status
    assert Outcome.load(tmp_path) == Outcome.of(tmp_path, -signal.SIGKILL) == expected


def test_options_that_cannot_be_read_are_named_in_the_outcome_and_to_the_user(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert status_of(monkeypatch, "--unknown", "3") == 2
    outcome = Outcome.load(tmp_path)
    assert (outcome.kind, outcome.status) == ("bad_input", 2)
    assert "--unknown" in outcome.message
    assert "│" not in outcome.message


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (0, "finished", ""),
        (-signal.SIGTERM, "interrupted", ""),
        (128 + signal.SIGTERM, "interrupted", ""),
        (-signal.SIGKILL, "crashed", "killed by SIGKILL"),
        (3, "crashed", "exit status 3"),
        (2, "bad_input", "exit status 2, of wrong options"),
    ],
)
def test_a_command_that_wrote_nothing_is_judged_by_its_exit_status(status, kind, message, tmp_path):
    assert Outcome.of(tmp_path, status) == Outcome(kind, message, status)


def test_of_several_processes_the_first_that_fails_is_believed(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    bug = Outcome("crashed", "KeyError: 'a bug'", 1)
    for outcome in (Outcome("finished", "", 0), bug, Outcome("interrupted", "by the launcher", 143)):
        write_outcome(outcome)
    assert Outcome.load(tmp_path) == bug


def test_nothing_is_written_where_nobody_asks(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    assert status_of(monkeypatch) == 0
    assert not list(tmp_path.iterdir())
