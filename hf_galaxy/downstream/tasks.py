"""Downstream tasks: a dataset, its target, and the loss by which models are compared. The tasks are data, in task_sets/*.toml."""

import dataclasses
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_galaxy.errors import BadInput
from hf_galaxy.training.settings import Settings

TASK_SETS = Path(__file__).parent / "task_sets"
# Names in `reports.measures.MEASURES` by which tasks of each kind may be compared, the default first.
TASK_MEASURES = {
    "classes": ("error", "balanced_error", "nll", "missed_auc", "missed_precision"),
    "values": ("rmse",),
    "votes": ("excess", "rmse"),
    "labels": ("error", "nll", "missed_precision"),
}
# The options of a run that a task may set: its target, and the augmentations that its images allow. The benchmark sets the others.
OPTIONS = (
    "config", "task", "label", "values", "unit_interval", "labels", "tree", "rotate", "flip", "min_votes", "streaming",
)  # fmt: skip


@dataclass(frozen=True)
class Task:
    """A downstream task.

    Attributes:
        dataset: folder or Hub id.
        options: fields of `settings.Settings`, by name, that set the target.
        measure: one of `TASK_MEASURES` of its kind.
        folds: use five test sets, one seed after the other, instead of the published one.
        note: a remark for the page.
    """

    name: str
    title: str
    dataset: str
    options: dict[str, Any]
    measure: str
    folds: bool = False
    note: str = ""

    @property
    def kind(self) -> str:
        """classes, values or votes."""
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
        tables = tomllib.loads(file.read_text())
    except OSError as error:
        ours = ", ".join(sorted(path.stem for path in TASK_SETS.glob("*.toml")))
        raise BadInput(f"--tasks {where}: is neither a TOML file nor one of {ours}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"--tasks {where}: cannot be read ({error})") from error
    return {name: _task(f"--tasks {where}: [{name}]", name, table) for name, table in tables.items()}


def _task(place: str, name: str, table: Any) -> Task:
    if not isinstance(table, dict) or not isinstance(table.get("dataset"), str):
        raise BadInput(f"{place} must be a table with a dataset")
    table = dict(table)
    own = {key: table.pop(key) for key in ("title", "dataset", "measure", "folds", "note") if key in table}
    if wrong := [key for key in table if key not in OPTIONS]:
        raise BadInput(f"{place}: {wrong[0]!r} is no option of a task; the options are {', '.join(OPTIONS)}")
    options: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    kind = options.setdefault("task", "votes")
    if kind not in TASK_MEASURES:
        raise BadInput(f"{place}: task = {kind!r} is none of {', '.join(TASK_MEASURES)}")
    own = {"title": name, "measure": TASK_MEASURES[kind][0]} | own
    if own["measure"] not in TASK_MEASURES[kind]:
        raise BadInput(f"{place}: measure = {own['measure']!r} is none of {', '.join(TASK_MEASURES[kind])}")
    task = Task(name=name, options=options, **own)
    Settings(dataset=(task.dataset,), out=Path(name), **options).check()
    return task


def with_label(task: Task) -> Task:
    """The task with its label column: where it names none, the only column of classes that its dataset has.

    Raises:
        BadInput: the dataset cannot be opened, or has none or several.
    """
    from hf_galaxy.data.dataset import open_dataset
    from hf_galaxy.training.targets.classes import label_columns

    if task.kind != "classes" or task.options.get("label"):
        return task
    rows = next(iter(open_dataset(task.dataset, task.options.get("config")).values()))
    if len(columns := label_columns(rows)) != 1:
        raise BadInput(
            f"task {task.name}: give its label column; {task.dataset} has {', '.join(columns) or 'no column of classes'}"
        )
    return dataclasses.replace(task, options=task.options | {"label": columns[0]})
