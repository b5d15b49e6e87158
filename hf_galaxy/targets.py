"""What a model can learn to predict, by the name that --task and run records have for it."""

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
