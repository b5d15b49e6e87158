"""How every script starts: settings from a dataclass, and a person's mistakes answered in one line."""

import sys
from collections.abc import Callable

import tyro

from hf_galaxy.errors import BadInput


def run(settings: type, main: Callable) -> None:
    """Read `settings` (a dataclass, or a union of them as subcommands) from the command line and call `main` with it.

    BadInput, and a loss that is not finite, end the script with one line and exit status 1; every other exception is
    a bug and shows its traceback.
    """
    given = tyro.cli(settings)
    try:
        main(given)
    except (BadInput, FloatingPointError) as error:
        sys.exit(f"error: {error}")
