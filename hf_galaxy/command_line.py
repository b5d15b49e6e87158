"""How every command starts: settings from the command line, a log for its user, and a user's mistakes answered in one line.

A module of a command imports at its top only what its options need. What does the work, and takes seconds to import, is imported by
the functions that use it: so --help, and a wrong option, are answered at once.
"""

import contextlib
import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import tyro

from hf_galaxy.errors import BadInput, Interrupted, InUse
from hf_galaxy.outcome import STOPPED, Outcome, folder_of_outcome, write_outcome

# Where launchers number the processes of a run.
RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")


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
        with _usage_as_outcome():
            options: dict[str, Any] = {"default": defaults(settings, sys.argv[1:])} if defaults else {}
            values = tyro.cli(settings, **options)
        show_log()
        main(values)
    except (BadInput, FloatingPointError) as error:
        write_outcome(Outcome("in_use" if isinstance(error, InUse) else "bad_input", _one_line(str(error)), 1))
        sys.exit(f"error: {error}")
    except Interrupted as stopped:
        write_outcome(Outcome("interrupted", _one_line(str(stopped)), STOPPED))
        print(stopped, file=sys.stderr)
        sys.exit(STOPPED)
    except Exception as error:
        write_outcome(Outcome("crashed", _one_line(f"{type(error).__name__}: {error}"), 1))
        raise
    write_outcome(Outcome("finished", "", 0))


@contextlib.contextmanager
def _usage_as_outcome() -> Iterator[None]:
    """Options that cannot be read are an outcome, too, for the program that started the command, if one asks for it."""
    if folder_of_outcome() is None:
        yield
        return
    stderr = sys.stderr
    with contextlib.redirect_stderr(io.StringIO()) as usage:
        try:
            yield
        except SystemExit as stopped:
            if stopped.code:
                frame = str.maketrans(dict.fromkeys("╭╮╰╯│─", " "))
                write_outcome(Outcome("bad_input", _one_line(usage.getvalue().translate(frame)), 2))
            raise
        finally:
            stderr.write(usage.getvalue())


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]


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
