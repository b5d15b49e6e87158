"""What a model can learn to predict, by the name that --task and run records have for it."""

from importlib import import_module
from typing import Any

from hf_galaxy.errors import BadInput

# Where each is defined (`training.targets.target.TrainingTarget`). It is imported when it is first used, as its model needs torch.
TARGETS = {
    "votes": "hf_galaxy.training.targets.votes.Votes",
    "classes": "hf_galaxy.training.targets.classes.Classes",
    "values": "hf_galaxy.training.targets.values.Values",
    "labels": "hf_galaxy.training.targets.labels.Labels",
}


def target_class(task: str) -> Any:
    """The class of a target, a `TrainingTarget`.

    Raises:
        BadInput: there is no such target.
    """
    if task not in TARGETS:
        raise BadInput(f"task {task!r}: this version of hf_galaxy has {', '.join(TARGETS)}")
    module, _, name = TARGETS[task].rpartition(".")
    return getattr(import_module(module), name)
