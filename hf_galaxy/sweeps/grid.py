"""A grid of runs: its axes, and its cells, each of which is a run folder that one command makes."""

import itertools
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

from hf_galaxy.errors import BadInput, unwritable
from hf_galaxy.files import whole_file
from hf_galaxy.reports.records_file import recorded
from hf_galaxy.reports.run_record import RunRecord
from hf_galaxy.training.checkpoint_files import list_checkpoints, step_of

COMMANDS = ("pretrain", "finetune")  # that make a run folder
STATE_DIR = ".cells"  # in the sweep's folder: the locks and logs of its cells


class Cell(Protocol):
    """A cell of a grid, as the scheduler needs it."""

    @property
    def name(self) -> str: ...

    def state_file(self, kind: str) -> Path:
        """The file of some kind that belongs to the state of the cell, such as its `lock`; in STATE_DIR."""
        ...

    def record(self) -> object | None:
        """The result of the finished cell; None if it is not finished."""
        ...


@dataclass(frozen=True)
class RunCell:
    """A cell that is a run of a sweep.

    Attributes:
        options: that differ between cells: option -> value, both as on the command line.
        command: that makes its run folder.
        out: the sweep's folder.
    """

    options: dict[str, str]
    command: tuple[str, ...]
    out: Path

    @property
    def name(self) -> str:
        """The name of its folder, which depends neither on the order of the axes nor on the other values along them."""
        return name_of(self.options)

    @property
    def folder(self) -> Path:
        """Its run folder."""
        return self.out / self.name

    def state_file(self, kind: str) -> Path:
        """Beside the run folders: its `lock`, its `log`, the number of its `job` on a cluster, the `outcome` of an attempt."""
        return self.out / STATE_DIR / f"{self.name}.{kind}"

    def record(self) -> RunRecord | None:
        """The record of its finished run, from its folder or the records file of the study; None if it is not finished."""
        try:
            record = RunRecord.load(self.folder)
        except (BadInput, NotADirectoryError):
            record = None
        if record and record.finished:
            return record
        return RunRecord(**fields) if (fields := recorded(self.folder)) else None

    def step(self) -> int | None:
        """The step of its newest checkpoint; None without one."""
        return max(map(step_of, list_checkpoints(self.folder)), default=None)


def name_of(options: dict[str, str]) -> str:
    """A name such as `backbone=resnet18,subset=1-64`, sorted by option; characters that a file system may not allow become hyphens."""
    parts = (f"{option}={re.sub(r'[^A-Za-z0-9._+-]', '-', value)}" for option, value in sorted(options.items()))
    return re.sub(r"\.$", "-", ",".join(parts))


def axis_of(text: str) -> list[dict[str, str]]:
    """The values along one axis of a grid, each as a dict of the options that it sets.

    Args:
        text: `seed=1,2,3`, or `backbone+learning-rate=convnext_atto+1e-3,resnet18+3e-3` for options that vary together.

    Raises:
        BadInput: the text is no axis.
    """
    option_text = f"--vary {text}"
    names, equals, values = text.partition("=")
    options = [name.removeprefix("--").replace("_", "-") for name in names.split("+")]
    if not equals or not all(re.fullmatch("[a-z][a-z0-9-]*", option) for option in options):
        raise BadInput(f"{option_text}: give an option and its values, such as seed=1,2,3")
    if len(set(options)) < len(options):
        raise BadInput(f"{option_text}: names an option twice")
    axis = []
    for value in values.split(","):
        parts = value.split("+") if len(options) > 1 else [value]
        if len(parts) != len(options):
            raise BadInput(f"{option_text}: {value!r} is not {len(options)} values joined by +")
        if wrong := [part for part in parts if not part or "=" in part or part != part.strip()]:
            raise BadInput(
                f"{option_text}: {wrong[0]!r} is no value; a value is not empty and has no comma, = or space around it"
            )
        if flags := [option for option, part in zip(options, parts, strict=True) if part in ("True", "False")]:
            raise BadInput(
                f"{option_text}: --{flags[0]} takes no value, so it cannot be varied; make a sweep with it and one without"
            )
        axis.append(dict(zip(options, parts, strict=True)))
    meanings = [tuple(map(_meaning, values.values())) for values in axis]
    if repeated := [values for i, values in enumerate(axis) if meanings[i] in meanings[:i]]:
        raise BadInput(f"{option_text}: {'+'.join(repeated[0].values())} is repeated")
    return axis


def _meaning(value: str) -> Fraction | str:
    try:
        return Fraction(value)  # 1/4 and 0.25, 1e-3 and 0.001 would be the same run twice
    except (ValueError, ZeroDivisionError):
        return value


def cells_of(vary: Sequence[str], common: Sequence[str], launch: Sequence[str], out: Path) -> list[RunCell]:
    """Every combination of the axes' values, the last axis fastest.

    Args:
        vary: the axes, each a text for `axis_of`.
        common: the command (pretrain, finetune) or script, and the options that all cells share.
        launch: the words before it, such as the Python interpreter.
        out: the sweep's folder.

    Raises:
        BadInput: the axes are no grid, or the common command has one of their options.
    """
    if not vary:
        raise BadInput("give at least one axis of the grid, such as --vary seed=1,2,3")
    axes = [axis_of(text) for text in vary]
    varied = [option for axis in axes for option in axis[0]]
    if twice := sorted({option for option in varied if varied.count(option) > 1}):
        raise BadInput(f"--vary: two axes set --{twice[0]}")
    if not common:
        raise BadInput("give the command that all cells share after --, such as: -- pretrain --dataset data/ceers")
    program = program_of(common[0])
    shared = {word[2:].partition("=")[0].replace("_", "-") for word in common[1:] if word.startswith("--")}
    also = {"output-dir": "out", "model": "start" if Path(common[0]).stem == "finetune" else "backbone"}
    varied, shared = [also.get(option, option) for option in varied], {also.get(option, option) for option in shared}
    for option in (*varied, "out"):
        if option in shared or f"no-{option}" in shared:
            raise BadInput(f"--{option}: the sweep sets it; leave it out of the command after --")
    if "out" in varied:
        raise BadInput("--vary out: the sweep gives each cell a folder of its own in --out")
    cells, words_of = [], {}
    for combination in itertools.product(*axes):
        options = {option: value for values in combination for option, value in values.items()}
        own = [word for option, value in options.items() for word in (f"--{option}", value)]
        cell = RunCell(options, (*launch, *program, *common[1:], *own, "--out", str(out / name_of(options))), out)
        if len(cell.name) > 200:
            raise BadInput(
                f"{cell.name}: is too long for the name of a folder; link the files that it names to shorter paths"
            )
        # Some file systems do not distinguish upper and lower case.
        if other := words_of.get(cell.name.lower()):
            raise BadInput(f"{' '.join(own)} and {' '.join(other)} would have the same folder {cell.name}")
        words_of[cell.name.lower()] = own
        cells.append(cell)
    return cells


def program_of(name: str) -> tuple[str, ...]:
    """The words for the Python interpreter, or a launcher, that start a command of ours or a script.

    Raises:
        BadInput: there is neither.
    """
    if name in COMMANDS:
        return "-m", f"hf_galaxy.commands.{name}"
    if not Path(name).is_file():
        raise BadInput(f"{name}: no such command or script; after -- comes {' or '.join(COMMANDS)}, then its options")
    return (name,)


def prepare(out: Path, common: Sequence[str]) -> None:
    """Create the sweep's folder, and write the common command into it, so that all its cells are runs of the same command.

    Raises:
        BadInput: the folder cannot be written, or `check_common` refuses it.
    """
    file = out / STATE_DIR / "command"
    check_common(out, common)
    try:
        if not file.exists():
            with whole_file(file) as partial:
                partial.write_text("\n".join(common) + "\n", encoding="utf-8")
    except OSError as error:
        raise unwritable(f"--out {out}:", error) from error
    check_common(out, common)


def check_common(out: Path, common: Sequence[str]) -> None:
    """Refuse a folder that is not the folder of a sweep of the same command.

    Raises:
        BadInput: it is a run folder, or its cells share another command.
    """
    file = out / STATE_DIR / "command"
    if (out / "run.json").exists():
        raise BadInput(f"--out {out}: is a run folder; choose another for the sweep")
    if file.exists() and (earlier := file.read_text(encoding="utf-8").splitlines()) != list(common):
        raise BadInput(
            f"--out {out}: its cells share another command ({shlex.join(earlier)}); "
            f"choose another --out, or remove {file} if the difference does not matter"
        )
