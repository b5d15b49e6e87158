"""How every command starts: settings from the command line, a log for its user, and a user's mistakes answered in one line.

A module of a command imports at its top only what its options need. What does the work, and takes seconds to import, is imported by
the functions that use it: so --help, and a wrong option, are answered at once.
"""

import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import tyro

from hf_galaxy.errors import BadInput, Interrupted

STOPPED = 128 + signal.SIGTERM  # the exit status of what SIGTERM ended, by the shells' convention
RANKS = (
    "RANK",
    "PMI_RANK",
    "OMPI_COMM_WORLD_RANK",
    "MV2_COMM_WORLD_RANK",
)  # where launchers number the processes of a run


def run(
    settings: Any, main: Callable[[Any], object], defaults: Callable[[Any, list[str]], object] | None = None
) -> None:
    """Read `settings` (a dataclass, or a union of them as subcommands) from the command line and call `main` with it.

    BadInput, and a loss that is not finite, end the command with one line and exit status 1; SIGTERM, if `main` handles it, with
    one line and 143; every other exception is a bug and shows its traceback.

    Args:
        defaults: from `settings` and the arguments, an instance of the settings with other defaults.
    """
    try:
        options = {"default": defaults(settings, sys.argv[1:])} if defaults else {}
        values = tyro.cli(settings, **options)
        show_log()
        main(values)
    except (BadInput, FloatingPointError) as error:
        sys.exit(f"error: {error}")
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(STOPPED)


def show_log() -> None:
    """Show what hf_galaxy logs from INFO on, and warnings of other libraries, on stderr; a log that is set up stays as it is.

    Of several processes of a run only the first shows INFO, since all of them log the same.
    """
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.logging import RichHandler

        handler: logging.Handler = RichHandler(console=Console(stderr=True), show_path=False)
        logging.basicConfig(format="%(message)s", datefmt="%X", handlers=[handler])
    else:  # of a file, each message is one line
        logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", datefmt="%X")
    rank = next((os.environ[name] for name in RANKS if name in os.environ), "0")
    logging.getLogger("hf_galaxy").setLevel(logging.INFO if rank == "0" else logging.WARNING)
