"""How every command starts: settings from the command line, a log for its user, and a user's mistakes answered in one line.

A module of a command imports at its top only what its options need. What does the work, and takes seconds to import, is imported by
the functions that use it: so --help, and a wrong option, are answered at once.
"""

import contextlib
import copy
import inspect
import io
import logging
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from hf_galaxy import plain_values
from hf_galaxy.errors import BadInput, Interrupted, InUse, system_message
from hf_galaxy.outcome import STOPPED, Outcome, folder_of_outcome, write_outcome
from hf_galaxy.safe_text import visible

# Where launchers number the processes of a run.
RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")


# Options that many commands have, with the names that other tools of Hugging Face have for them.
DatasetConfig = Annotated[str | None, tyro.conf.arg(name="dataset-config")]
OutputPath = Annotated[Path, tyro.conf.arg(aliases=("--output-dir",))]
RunNames = Annotated[tuple[str, ...], tyro.conf.arg(aliases=("--model",))]
RunFolder = Annotated[Path, tyro.conf.arg(aliases=("--model",))]
PushTo = Annotated[str | None, tyro.conf.arg(aliases=("--push-to-hub",))]

NUMBERS = ConstructorRegistry()  # how all options read numbers


@NUMBERS.primitive_rule
def _plain_number(kind: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    read: dict[Any, Callable[[str], Any]] = {int: plain_values.whole_number, float: plain_values.number}
    if kind.type not in read:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=kind.type.__name__.upper(),
        instance_from_str=lambda words: read[kind.type](words[0]),
        is_instance=lambda value: type(value) is kind.type or (kind.type is float and type(value) is int and "~"),
        str_from_instance=lambda value: [str(value)],
    )


SETTINGS_FILE = (
    "--config FILE reads options from a YAML or JSON file, or from the run.json of a run; options beside it take precedence. "
    "--print-config prints all options as such a file, and ends."
)


@dataclass(frozen=True)
class Command:
    """A command: what it reads from the command line, and what it does with it.

    BadInput, a loss that is not finite, and errors of the system that the user can mend, such as a full disk, end it with one line and exit
    status 1. So do SIGINT and SIGTERM, with one line and the signal itself, or, where `main` handles SIGTERM, 143. Every other
    exception is a bug and shows its traceback.

    Attributes:
        settings: a dataclass, or a union of them as subcommands.
        main: what is done with the settings.
        defaults: from `settings` and the arguments, an instance of the settings with other defaults.
        rest_at: the place among the words of a command line from which on they are not read but given to `main`, too.
    """

    settings: Any
    main: Callable[..., object]
    defaults: Callable[[Any, list[str]], object] | None = None
    rest_at: Callable[[Sequence[str]], int] | None = None

    def read(self, arguments: Sequence[str], program: str | None = None) -> Any:
        """The settings of a command line; SystemExit after --help, --print-config, and words that cannot be read.

        Raises:
            BadInput: of a file of settings, or of `defaults`.
        """
        from hf_galaxy.settings_file import text_of, with_file

        words = with_file(self.settings, [word for word in arguments if word != "--print-config"])
        options: dict[str, Any] = {"default": self.defaults(self.settings, words)} if self.defaults else {}
        description = "\n\n".join(
            filter(None, [inspect.getdoc(self.settings) if isinstance(self.settings, type) else "", SETTINGS_FILE])
        )
        values = tyro.cli(self.settings, args=words, prog=program, description=description, registry=NUMBERS, **options)
        plain_values.check_texts("", values)
        if "--print-config" in arguments:
            print(text_of(values), end="")
            raise SystemExit
        return values

    def __call__(self, arguments: Sequence[str] | None = None, program: str | None = None) -> None:
        """Run it.

        Args:
            arguments: by default those of this process.
            program: its name in the help; by default that of this process.
        """
        words = list(sys.argv[1:] if arguments is None else arguments)
        rest: list[list[str]] = []
        if self.rest_at:
            end = self.rest_at(words)
            words, rest = words[:end], [words[end:]]
        try:
            with _usage_as_outcome():
                settings = self.read(words, program)
            show_log()
            with _sigterm_as_exception():
                self.main(settings, *rest)
        except (BadInput, FloatingPointError) as error:
            write_outcome(Outcome("in_use" if isinstance(error, InUse) else "bad_input", _one_line(str(error)), 1))
            sys.exit(f"error: {visible(' '.join(str(error).splitlines()))}")
        except OSError as error:
            if (message := system_message(error)) is None:
                write_outcome(Outcome("crashed", _one_line(f"{type(error).__name__}: {error}"), 1))
                raise
            write_outcome(Outcome("bad_input", _one_line(message), 1))
            sys.exit(f"error: {visible(_one_line(message))}")
        except Interrupted as stopped:
            write_outcome(Outcome("interrupted", _one_line(str(stopped)), STOPPED))
            print(stopped, file=sys.stderr)
            sys.exit(STOPPED)
        except KeyboardInterrupt as stopped:
            print("interrupted; the same command goes on from what is finished", file=sys.stderr)
            number = signal.SIGTERM if isinstance(stopped, _Terminated) else signal.SIGINT
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)  # so that who started this process sees what ended it
        except Exception as error:
            if message := _hub_message(error):
                write_outcome(Outcome("crashed", message, 1))  # not for good: a sweep tries again
                sys.exit(f"error: {visible(message)}")
            write_outcome(Outcome("crashed", _one_line(f"{type(error).__name__}: {error}"), 1))
            raise
        write_outcome(Outcome("finished", "", 0))


class _Terminated(KeyboardInterrupt):
    """SIGTERM: what an interrupted command cleans up, it cleans up then, too."""


@contextlib.contextmanager
def _sigterm_as_exception() -> Iterator[None]:
    """Raise _Terminated on SIGTERM, which else would end this process on the spot; a fork of it ends so."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    process = os.getpid()

    def terminate(*_: object) -> None:
        if os.getpid() == process:
            raise _Terminated
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def typed(*left_out: str) -> str:
    """The command line of this process, as somebody would type it to repeat it, without some words."""
    program = Path(sys.argv[0])
    if program.stem == "hf-galaxy":
        words = ["hf-galaxy"]
    elif program.parent.name == "commands" and program.parent.parent.name == "hf_galaxy":
        words = ["hf-galaxy", *([program.stem] if program.stem != "main" else [])]
    else:
        words = ["python", sys.argv[0]]
    return shlex.join([*words, *(word for word in sys.argv[1:] if word not in left_out)])


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


def _hub_message(error: Exception) -> str | None:
    """One line about an answer of the Hub, or none, that no caller has expected; None if it is something else."""
    hub = sys.modules.get("huggingface_hub.errors")  # which need not be imported to know that it is none of its errors
    if hub is None or not isinstance(error, hub.HTTPError):
        return None
    return f"{_one_line(f'the Hub: {error}')}; when it answers again, the same command goes on from what is finished"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]


class _Harmless(logging.Formatter):
    """Messages with names of others in them, which do not change the terminal. Ours are one line, as nobody shall write lines of a log, but for
    those with the attribute `lines`, such as tables, in which the names are harmless already.
    """

    def format(self, record: logging.LogRecord) -> str:
        shown = copy.copy(record)  # other handlers have the message as it is
        ours = record.name.startswith("hf_galaxy") and not hasattr(record, "lines")
        keep = "" if ours else "\n\t"
        shown.msg, shown.args = visible(record.getMessage(), keep), ()
        return super().format(shown)


def show_log() -> None:
    """Show what hf_galaxy logs from INFO on, and warnings of other libraries, on stderr; a log that is set up stays as it is.

    Of several processes of a run only the first shows INFO, since all of them log the same.
    """
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.logging import RichHandler

        handler: logging.Handler = RichHandler(console=Console(stderr=True), show_path=False)
        handler.setFormatter(_Harmless("%(message)s", "%X"))
    else:  # of a file, each message is one line
        handler = logging.StreamHandler()
        handler.setFormatter(_Harmless("%(asctime)s %(levelname)s %(message)s", "%X"))
    logging.basicConfig(handlers=[handler])
    rank = next((os.environ[name] for name in RANKS if name in os.environ), "0")
    logging.getLogger("hf_galaxy").setLevel(logging.INFO if rank == "0" else logging.WARNING)
