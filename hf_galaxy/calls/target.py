"""The target of a call: from the name of a column to the options of the command, by the type of the column."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import datasets

from hf_galaxy.data.targets import is_text
from hf_galaxy.decision_tree import available_trees
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.dataset import open_dataset
from hf_galaxy.importing.reading import Reading
from hf_galaxy.targets import TARGETS, target_class
from hf_galaxy.training.targets.columns import ColumnsTarget

VOTES = "votes"


def with_target(target: str | Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with those that name the target: `task`, and the option for its column or columns.

    Args:
        target: "votes", a column, COLUMN=CLASS, or a list of columns.
        options: of the call, with `dataset`. `task`, or an option such as `label` in place of a target, leave no choice.

    Raises:
        BadInput: a dataset has no such column, its type leaves a choice, or the target is named twice.
    """
    options = dict(options)
    naming = {task: target_class(task).options[0] for task in TARGETS if task != VOTES}
    given = [name for name in naming.values() if options.get(name) is not None]
    if isinstance(target, str) and target == VOTES:
        if given and "task" not in options:
            if len(given) > 1:
                raise BadInput(f"{' and '.join(given)}: each names a target; give one of them")
            options["task"] = next(task for task, name in naming.items() if name == given[0])
        return options
    if not target or (not isinstance(target, str) and not all(isinstance(each, str) for each in target)):
        raise BadInput(f"target {target!r}: give 'votes', a column, or a list of columns")
    if given:
        raise BadInput(f"target {target!r} and {given[0]} {options[given[0]]!r}: name the target once")
    columns = (target,) if isinstance(target, str) else tuple(target)
    task = options.get("task")
    if task == VOTES:
        raise BadInput(f"target {target!r}: has a column, but task='votes' has none; leave out one of them")
    if task is None:
        features = {name: _features(name, options) for name in options["dataset"]}
        task = options["task"] = _task_of(columns, not isinstance(target, str), features)
    option = naming[task]
    if option == "label" and len(columns) > 1:
        raise BadInput(f"target {target!r}: names {len(columns)} columns, but classes have one")
    return options | {option: columns[0] if option == "label" else columns}


def _features(dataset: str, options: Mapping[str, Any]) -> datasets.Features:
    opened = open_dataset(dataset, Reading.of(options), options.get("streaming", False))
    return next(iter(opened.values())).features


def _task_of(columns: tuple[str, ...], several: bool, features: Mapping[str, datasets.Features]) -> str:
    """The only task for which all datasets have these columns.

    Args:
        several: the columns are a list.
        features: of each dataset.
    """
    tasks = set(TARGETS)
    for dataset, own in features.items():
        kinds = [own[column] for column in (_column(each, own, dataset) for each in columns)]
        tasks &= _tasks_for(kinds, several)
    if len(tasks) == 1:
        return tasks.pop()
    target = repr(columns[0]) if not several else repr(list(columns))
    first = next(iter(features.values()))
    held = ", ".join(dict.fromkeys(_described(first[_column(each, first, "")]) for each in columns))
    if not tasks:
        raise BadInput(
            f"target {target}: {held} is no target; classes are texts or a ClassLabel, values are numbers, and labels are bool, 0 and 1, "
            "or a ClassLabel of two classes, all columns of a list alike"
        )
    choices = " or ".join(f"task={task!r}" for task in TARGETS if task in tasks)
    raise BadInput(
        f"target {target}: {held} can be numbers to estimate (values) or yes/no labels (labels); say which: {choices}; for the votes of "
        "volunteers, target='votes'"
    )


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


def _tasks_for(kinds: Sequence[Any], several: bool) -> set[str]:
    """The tasks that columns of these types of `datasets` can be."""
    if not several and (isinstance(kinds[0], datasets.ClassLabel) or is_text(kinds[0])):
        return {"classes"}
    possible = {task: target_class(task) for task in TARGETS if issubclass(target_class(task), ColumnsTarget)}
    return {task for task, target in possible.items() if all(map(target.is_possible, kinds))}


def _described(kind: Any) -> str:
    if isinstance(kind, datasets.ClassLabel):
        return f"a ClassLabel of {len(kind.names)} classes"
    return f"a column of {getattr(kind, 'dtype', type(kind).__name__)}"
