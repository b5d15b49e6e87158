"""The target of a call: from the name of a column to the options of the command, by the type of the column."""

import difflib
import logging
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import datasets
import pyarrow as pa

from hf_galaxy.data.schema import is_text
from hf_galaxy.data.targets import Rows, column_of
from hf_galaxy.decision_tree import available_trees, load_tree
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.dataset import open_dataset, reading_of_each
from hf_galaxy.importing.reading import VotesReading
from hf_galaxy.targets import TARGETS, column_option, target_class, task_of
from hf_galaxy.training.targets.class_column import is_bool, may_hold_classes
from hf_galaxy.training.targets.columns import ColumnsTarget

VOTES = "votes"

logger = logging.getLogger(__name__)


def with_target(target: str | Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with those that name the target: `task`, and the option for its column or columns.

    Args:
        target: "votes", a column, COLUMN=CLASS, or a list of columns.
        options: of the call, with `dataset`. `task`, or an option such as `label` in place of a target, leave no choice.

    Raises:
        BadInput: a dataset has no such column, its type leaves a choice, or the target is named twice.
    """
    options = dict(options)
    named = [name for name, value in options.items() if value is not None]
    if isinstance(target, str) and target == VOTES:
        task = VOTES if "task" in options else task_of(named)
        return options if task == VOTES else options | {"task": task}
    if not target or (not isinstance(target, str) and not all(isinstance(each, str) for each in target)):
        raise BadInput(f"target {target!r}: give 'votes', a column, or a list of columns")
    if given := [name for task in TARGETS if task != VOTES and (name := column_option(task)) in named]:
        raise BadInput(f"target {target!r} and {given[0]} {options[given[0]]!r}: name the target once")
    columns = (target,) if isinstance(target, str) else tuple(target)
    task = options.get("task")
    if task == VOTES:
        raise BadInput(f"target {target!r}: has a column, but task='votes' has none; leave out one of them")
    if task is None:
        names = options["dataset"]
        readings = reading_of_each(names, VotesReading.of(options))
        splits = {name: _rows(name, reading, options) for name, reading in zip(names, readings, strict=True)}
        task = options["task"] = _task_of(columns, not isinstance(target, str), splits)
    option = column_option(task)
    if option == "label" and len(columns) > 1:
        raise BadInput(f"target {target!r}: names {len(columns)} columns, but classes have one")
    return options | {option: columns[0] if option == "label" else columns}


def _rows(dataset: str, reading: VotesReading, options: Mapping[str, Any]) -> Rows:
    """Those of its first split."""
    opened = open_dataset(dataset, reading, options.get("streaming", False))
    return next(iter(opened.values()))


def _task_of(columns: tuple[str, ...], several: bool, splits: Mapping[str, Rows]) -> str:
    """The only task for which all datasets have these columns.

    Args:
        several: the columns are a list.
        splits: of each dataset one.
    """
    tasks = set(TARGETS)
    for dataset, rows in splits.items():
        held = [_column(each, rows.features, dataset) for each in columns]
        tasks &= _tasks_for_list(rows, held) if several else _tasks_for_column(rows, held[0], columns[0])
    target = repr(columns[0]) if not several else repr(list(columns))
    first = next(iter(splits.values())).features
    kinds = ", ".join(dict.fromkeys(_described(first[_column(each, first, "")]) for each in columns))
    if len(tasks) == 1:
        task = tasks.pop()
        if task == "classes" and not _is_named(first[_column(columns[0], first, "")]):
            logger.info(
                "target %s: %s, learnt as classes; for a yes/no label give a list, [%s], for numbers task='values'",
                target, kinds, target,
            )  # fmt: skip
        return task
    if not tasks:
        raise BadInput(
            f"target {target}: {kinds} is no target; a column of texts, bool, 0 and 1, or a ClassLabel holds classes, numbers are values, and "
            "a list of columns holds values, or labels: bool, 0 and 1, or a ClassLabel of two classes, all columns alike"
        )
    choices = " or ".join(f"task={task!r}" for task in TARGETS if task in tasks)
    raise BadInput(
        f"target {target}: {kinds} can be {_meanings(tasks)}; say which: {choices}; for the votes of volunteers, target='votes'"
    )


def _meanings(tasks: Collection[str]) -> str:
    meanings = {"classes": "classes", "values": "numbers to estimate (values)", "labels": "yes/no labels (labels)"}
    return " or ".join(meaning for task, meaning in meanings.items() if task in tasks)


def _column(name: str, features: datasets.Features, dataset: str) -> str:
    """The column that a target names, as COLUMN or COLUMN=CLASS."""
    column = name if name in features else name.partition("=")[0]
    if column in features:
        return column
    near = difflib.get_close_matches(column, list(features), 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    if column in available_trees():
        hint = f"for the votes of this campaign give target='votes', tree={column!r}; "
    having = [each for each in features if each not in ("id_str", "image")]
    having.sort(key=lambda each: getattr(features[each], "dtype", "") == "int32")  # mostly votes
    raise BadInput(
        f"target {name!r}: {dataset} has no such column; {hint}it has {', '.join(having[:20])}{', ...' if len(having) > 20 else ''}"
    )


def _tasks_for_column(rows: Rows, column: str, target: str) -> set[str]:
    """The tasks that a column can be.

    Args:
        target: names it, as COLUMN or COLUMN=CLASS.
    """
    feature = rows.features[column]
    if not may_hold_classes(feature):
        return set()
    if target != column or _is_named(feature) or is_bool(feature):
        return {"classes"}
    votes = {each for name in available_trees() for each in load_tree(name).columns}
    numbers = column_of(rows, column).cast(pa.float64(), safe=False).drop_null().unique().to_pylist()
    if column not in votes and all(number in (0, 1, -1) or math.isnan(number) for number in numbers):
        return {"classes"}
    if feature.dtype.startswith("float"):
        return {"values"}
    return {"classes", "values", "labels"}  # votes, ids and counts look alike


def _tasks_for_list(rows: Rows, columns: Sequence[str]) -> set[str]:
    """The tasks that several columns can be."""
    kinds = [rows.features[column] for column in columns]
    possible = {task: target_class(task) for task in TARGETS if issubclass(target_class(task), ColumnsTarget)}
    tasks = {task for task, target in possible.items() if all(map(target.is_possible, kinds))}
    floats = any(str(getattr(kind, "dtype", "")).startswith("float") for kind in kinds)
    return tasks - {"labels"} if floats else tasks


def _is_named(feature: Any) -> bool:
    """Whether the classes in a column of this type have names."""
    return isinstance(feature, datasets.ClassLabel) or is_text(feature)


def _described(kind: Any) -> str:
    if isinstance(kind, datasets.ClassLabel):
        return f"a ClassLabel of {len(kind.names)} classes"
    return f"a column of {getattr(kind, 'dtype', type(kind).__name__)}"
