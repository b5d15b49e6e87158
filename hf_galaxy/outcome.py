"""How a command ended, as a file: a program that starts a command reads it there, instead of in what the command printed.

The program names a folder in the environment variable HF_GALAXY_OUTCOME; `command_line.Command` writes `outcome.json` into it, and
`--estimate` of a training `estimate.json` (`training.estimate.Estimate`). Nothing is written where the variable is not set.
"""

import json
import logging
import os
import signal
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from hf_galaxy.files import write_json

VARIABLE = "HF_GALAXY_OUTCOME"
FILE = "outcome.json"
STOPPED = 128 + signal.SIGTERM  # the exit status of a process that SIGTERM ended, by the shells' convention

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        kind: "finished"; "interrupted", by SIGTERM: the same command resumes it; "bad_input": the same command would end in
            the same way, by a mistake of its user or a loss that is not finite; "in_use": another process writes there
            now; "crashed": anything else.
        message: one line; empty for a finished command.
        status: its exit status; None if no process ended.
    """

    kind: Literal["finished", "interrupted", "bad_input", "in_use", "crashed"]
    message: str = ""
    status: int | None = None

    @classmethod
    def load(cls, folder: Path) -> "Outcome | None":
        """The outcome that a command has written into the folder; None if it was killed before it could."""
        try:
            return cls(**json.loads((folder / FILE).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    @classmethod
    def of(cls, folder: Path, status: int) -> "Outcome":
        """The outcome of a command that has ended, also of one that could not write it.

        Args:
            status: as `subprocess.Popen.wait` returns it, of the command or of its launcher: negative for a signal.
        """
        if (outcome := cls.load(folder)) is not None:
            return outcome
        if status in (-signal.SIGTERM, STOPPED):
            return cls("interrupted", "", status)
        if status == 0:
            return cls("finished", "", status)
        if status == 2:  # of every reader of command lines
            return cls("bad_input", "exit status 2, of wrong options", status)
        cause = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        return cls("crashed", cause, status)


def folder_of_outcome() -> Path | None:
    """The folder in which the program that started this command wants to read how it ended, if there is one."""
    return Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None


def write_outcome(outcome: Outcome) -> None:
    """Write how this command ended, if its starter wants to know; of several processes, the first that fails is believed."""
    if (folder := folder_of_outcome()) is None:
        return
    try:
        earlier = Outcome.load(folder)
        if earlier is None or earlier.kind == "finished":
            write_json(folder / FILE, asdict(outcome))
    except OSError as error:  # must not hide how the command ended
        logger.warning("%s: cannot be written (%s)", folder / FILE, error.strerror)
