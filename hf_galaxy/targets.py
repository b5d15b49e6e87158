"""What a model can learn to predict, by the name that --task and run records have for it."""

from collections.abc import Collection
from importlib import import_module
from typing import Any

from hf_galaxy.errors import BadInput

# The class of each (`training.targets.target.TrainingTarget`), and that of its report (`reports.target_report.TargetReport`). They are
# imported when they are first used: the model of a target needs torch, its report does not.
TARGETS = {
    "votes": ("hf_galaxy.training.targets.votes.Votes", "hf_galaxy.reports.vote_report.VoteReport"),
    "classes": ("hf_galaxy.training.targets.classes.Classes", "hf_galaxy.reports.class_report.ClassReport"),
    "values": ("hf_galaxy.training.targets.values.Values", "hf_galaxy.reports.value_report.ValueReport"),
    "labels": ("hf_galaxy.training.targets.labels.Labels", "hf_galaxy.reports.label_report.LabelReport"),
}

# The option that names the columns of a target, where it has not the name of the target. It is here for the command line, which
# imports no target.
COLUMN_OPTIONS = dict(votes="tree", classes="label")


def column_option(task: str) -> str:
    """The option of a run that names the columns of this target, the first of the `options` of its class."""
    return COLUMN_OPTIONS.get(task, task)


def task_of(options: Collection[str]) -> str:
    """The target whose columns these options of a run name; votes, if they name none.

    Raises:
        BadInput: they name those of two targets.
    """
    named = [task for task in TARGETS if column_option(task) in options]
    if len(named) > 1:
        given = " and ".join(f"--{column_option(task)}" for task in named)
        raise BadInput(f"{given}: each names a target; give one of them")
    return named[0] if named else "votes"


def target_class(task: str) -> Any:
    """The class of a target.

    Raises:
        BadInput: there is no such target.
    """
    return _imported(task, 0)


def report_class(task: str) -> Any:
    """The class of the report of a target; raises as `target_class`."""
    return _imported(task, 1)


def _imported(task: str, which: int) -> Any:
    if task not in TARGETS:
        raise BadInput(f"task {task!r}: this version of hf_galaxy has {', '.join(TARGETS)}")
    module, _, name = TARGETS[task][which].rpartition(".")
    return getattr(import_module(module), name)
