"""How every script starts: settings from a dataclass, and a person's mistakes answered in one line."""

import signal
import sys
from collections.abc import Callable

import tyro

from hf_galaxy.errors import BadInput, Interrupted

STOPPED = 128 + signal.SIGTERM  # the exit status of what SIGTERM ended, by the shells' convention


def run(settings: type, main: Callable, defaults: Callable | None = None) -> None:
    """Read `settings` (a dataclass, or a union of them as subcommands) from the command line and call `main` with it.

    BadInput, and a loss that is not finite, end the script with one line and exit status 1; SIGTERM, where `main` heeds
    it, with one line and 143; every other exception is a bug and shows its traceback.

    Args:
        defaults: given the settings and the arguments, an instance of the settings with other defaults.
    """
    try:
        given = tyro.cli(settings, **({"default": defaults(settings, sys.argv[1:])} if defaults else {}))
        main(given)
    except (BadInput, FloatingPointError) as error:
        sys.exit(f"error: {error}")
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(STOPPED)
