"""What a training will need, found by trying out some steps of it: time, disk, memory."""

import dataclasses
import math
import resource
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator

from hf_galaxy import checkpoints
from hf_galaxy.sequence import Share
from hf_galaxy.settings import Settings
from hf_galaxy.sources import Sources

TRIED_STEPS = 8  # after as many that do not count: buffers are made, kernels chosen, a backbone compiled
STORED = 2  # batches that each loader worker has in store when the clock starts, after a validation


@dataclass(frozen=True)
class Estimate:
    """What a whole training will need.

    Attributes:
        steps: of the optimiser, if patience does not end it before.
        galaxies_per_second: in training, all processes together, loading included.
        seconds: all steps, and all validations.
        checkpoint_bytes: of one checkpoint.
        disk_bytes: of all that are kept at the same time, one of them being written.
        memory_bytes: the most that the first process takes, of its GPU or else of the machine.
    """

    steps: int
    galaxies_per_second: float
    seconds: float
    checkpoint_bytes: int
    disk_bytes: int
    memory_bytes: int

    def __str__(self):
        hours, minutes = divmod(round(self.seconds / 60), 60)
        return (
            f"{self.steps:,} steps at {self.galaxies_per_second:,.1f} galaxies/s: about {hours} h {minutes} min without early "
            f"stopping; {self.disk_bytes / 1e6:,.0f} MB of disk for checkpoints of {self.checkpoint_bytes / 1e6:,.0f} MB; "
            f"{self.memory_bytes / 1e9:.2f} GB of memory in the first process"
        )


def estimate(
    train: Callable[..., dict], settings: Settings, sources: Sources, share: Share, accelerator: Accelerator
) -> Estimate:
    """Try out some steps in a folder that is removed again.

    Args:
        train: given a recipe, a number of galaxies, a folder and the rows of the splits, trains as `train.fit` does; and if
            the backbone's features are computed first, takes them of these rows only, and says in `features` what it cost.
    """
    recipe = dataclasses.replace(settings, epochs=2, validate_every=1, warmup=0.0, cooldown=0.5, keep_at=())
    tried = TRIED_STEPS + 4 * STORED * settings.workers // share.accumulate
    few = {
        split: [rows.select(range(min(len(rows), TRIED_STEPS * settings.batch_size))) for rows in sources.splits[split]]
        for split in ("train", "validation")
    }
    with tempfile.TemporaryDirectory() as folder:
        training = train(recipe, tried * settings.batch_size, Path(folder), few)
        size = max((file.stat().st_size for file in checkpoints.all_in(Path(folder))), default=0)
        accelerator.wait_for_everyone()
    if accelerator.device.type == "cuda":
        memory = torch.cuda.max_memory_reserved()
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    last = training["history"][-1]
    steps, speed = settings.steps(sources.count("train")), last["galaxies_per_second"]
    validating = last["validation_seconds"] * sources.count("validation") / sum(map(len, few["validation"]))
    seconds = steps * settings.batch_size / speed + math.ceil(settings.epochs / settings.validate_every) * validating
    if "features" in training:
        times = sum(map(sources.count, few)) / sum(len(rows) for parts in few.values() for rows in parts)
        seconds += times * training["features"]["seconds"]
        if accelerator.device.type != "cuda":  # whose memory they are not in
            memory += round((times - 1) * training["features"]["bytes"])
    return Estimate(steps, speed, seconds, size, size * (settings.keep_checkpoints + 1), memory)
