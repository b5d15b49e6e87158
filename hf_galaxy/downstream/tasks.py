"""Downstream tasks: a dataset, its target, and the loss by which models are compared. The tasks are data, in task_sets/*.toml."""

import dataclasses
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_galaxy.downstream.families import headline_measure
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.reading import Reading
from hf_galaxy.targets import TARGETS, report_class, target_class, task_of
from hf_galaxy.training.settings import Settings
from hf_galaxy.typed_options import checked

if TYPE_CHECKING:
    from hf_galaxy.data.targets import Rows

READING = tuple(field.name for field in dataclasses.fields(Reading))
TASK_SETS = Path(__file__).parent / "task_sets"
# The options of a run that a task may set, beside those of its target. The benchmark sets the others.
OWN = {"title": str, "dataset": str, "measure": str, "folds": bool, "note": str}
OPTIONS = (*READING, "task", "rotate", "flip", "min_votes", "streaming", "head_activation")


@dataclass(frozen=True)
class Task:
    """A downstream task.

    Attributes:
        dataset: folder or Hub id.
        options: fields of `settings.Settings`, by name, that set the target.
        measure: one of the measures of its kind (`target_report.TargetReport`); None until the dataset is opened (`with_label`), which
            may decide it (`families.headline_measure`).
        folds: use five test sets, one seed after the other, instead of the published one.
        note: a remark for the page.
    """

    name: str
    title: str
    dataset: str
    options: dict[str, Any]
    measure: str | None
    folds: bool = False
    note: str = ""

    @property
    def kind(self) -> str:
        """Its target, one of `targets.TARGETS`."""
        return self.options["task"]


def load_tasks(where: str) -> dict[str, Task]:
    """The tasks of a file, by name.

    Args:
        where: a TOML file, or the name of one in downstream/task_sets.

    Raises:
        BadInput: there is no such file, or one of its tables is no task; names the table.
    """
    file = Path(where) if where.endswith(".toml") else TASK_SETS / f"{where}.toml"
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        ours = ", ".join(sorted(path.stem for path in TASK_SETS.glob("*.toml")))
        raise BadInput(f"--tasks {where}: is neither a TOML file nor one of {ours}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"--tasks {where}: cannot be read ({error})") from error
    return {name: _task(f"--tasks {where}: [{name}]", name, table) for name, table in tables.items()}


def _task(place: str, name: str, table: Any) -> Task:
    if not isinstance(table, dict) or not isinstance(table.get("dataset"), str):
        raise BadInput(f"{place} must be a table with a dataset")
    table = dict(table)
    own = {key: table.pop(key) for key in OWN if key in table}
    if wrong := [key for key, value in own.items() if not isinstance(value, OWN[key])]:
        raise BadInput(
            f"{place}: {wrong[0]} = {own[wrong[0]]!r} is no {'text' if OWN[wrong[0]] is str else 'true or false'}"
        )
    allowed = [*OPTIONS, *(option for kind in TARGETS for option in target_class(kind).options)]
    if wrong := [key for key in table if key not in allowed]:
        raise BadInput(f"{place}: {wrong[0]!r} is no option of a task; the options are {', '.join(allowed)}")
    try:
        options = checked(Settings, table)
        kind = options.setdefault("task", task_of(options))
    except BadInput as error:
        raise BadInput(f"{place}: {error}") from error
    measures = report_class(kind)().measures
    own = {"title": name, "measure": None} | own
    if own["measure"] not in (None, *measures):
        raise BadInput(f"{place}: measure = {own['measure']!r} is none of {', '.join(measures)}")
    task = Task(name=name, options=options, **own)
    try:
        Settings(dataset=(task.dataset,), out=Path("out"), **options).check()
    except BadInput as error:
        raise BadInput(f"{place}: {error}") from error
    return task


def with_label(task: Task) -> Task:
    """The task with all options of its target, those that its dataset leaves no choice of may be left out; and with its measure.

    Raises:
        BadInput: the dataset cannot be opened, or leaves a choice.
    """
    from hf_galaxy.importing.dataset import open_dataset

    def rows() -> "Rows":
        return next(iter(open_dataset(task.dataset, Reading.of(task.options)).values()))

    kind, measure = target_class(task.kind), task.measure
    try:
        options = task.options | kind.inferred_options(task.options, rows)
        if measure is None:
            measure = headline_measure(report_class(task.kind)().measures, kind.rarest(options, rows))
    except BadInput as error:
        raise BadInput(f"task {task.name}: {error}") from error
    return dataclasses.replace(task, options=options, measure=measure)
