"""What a training will need, measured by some steps of it: time, disk, memory."""

import json
import math
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import psutil
import torch

from hf_galaxy.data.targets import Rows
from hf_galaxy.files import write_json
from hf_galaxy.training.checkpoint_files import list_checkpoints
from hf_galaxy.training.context import RunContext
from hf_galaxy.training.loop import Checkpointing
from hf_galaxy.training.recipe import Recipe
from hf_galaxy.training.settings import Settings

TRIED_STEPS = 8  # after as many that do not count: buffers are made, kernels chosen, a backbone compiled
FILE = "estimate.json"  # in the folder that `outcome.folder_of_outcome` names
STORED = 2  # batches that each loader worker has in store when the clock starts, after a validation


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a whole training will need.

    Attributes:
        subset, epochs, validate_every, batch_size, cooldown: its settings.
        doublings: of the epochs, at most; 0 unless it is to train until converged.
        galaxies: split -> galaxies in it.
        galaxies_per_second: in training, all processes together, with loading.
        evaluated_per_second: galaxies in validation.
        features_seconds: to compute the features of a galaxy, once, where only a head is trained; else 0.
        saving_seconds: after each validation.
        tried_seconds: of the steps that were tried, without the start of the command.
        weights_bytes: of the finished model.
        checkpoint_bytes: of one checkpoint.
        checkpoints: on the disk at the same time, one of them being written.
        kept: checkpoints for runs that branch off.
        memory_bytes: the most that the first process has, of its GPU or else of the machine.
    """

    subset: float
    epochs: float
    validate_every: float
    batch_size: int
    cooldown: float
    doublings: int
    galaxies: dict[str, int]
    galaxies_per_second: float
    evaluated_per_second: float
    features_seconds: float
    saving_seconds: float
    tried_seconds: float
    weights_bytes: int
    checkpoint_bytes: int
    checkpoints: int
    kept: int
    memory_bytes: int

    @property
    def steps(self) -> int:
        """Steps of the optimiser, without early stopping; of all lengths that may be tried."""
        longest = 2**self.doublings
        epochs = self.epochs * (longest + self.cooldown * (longest - 1))  # shorter ones add their cool-downs
        return Recipe(epochs=epochs, batch_size=self.batch_size).steps(self.galaxies["train"])

    @property
    def seen(self) -> int:
        """Galaxies in all steps, each as often as it is seen."""
        return self.steps * self.batch_size

    @property
    def seconds(self) -> float:
        """Features, then all steps and all validations, each with its checkpoint."""
        validation = self.galaxies["validation"] / self.evaluated_per_second + self.saving_seconds
        validations = math.ceil(self.epochs / self.validate_every) * (1 + self.doublings)
        training = self.seen / self.galaxies_per_second + validations * validation
        return training + (self.galaxies["train"] + self.galaxies["validation"]) * self.features_seconds

    @property
    def test_seconds(self) -> float:
        """The test split, once."""
        return self.galaxies["test"] * (1 / self.evaluated_per_second + self.features_seconds)

    @property
    def disk_bytes(self) -> int:
        """All checkpoints that are on the disk at the same time."""
        return self.checkpoint_bytes * (self.checkpoints + self.kept)

    @property
    def left_bytes(self) -> int:
        """The finished run: weights, and checkpoints for runs that branch off."""
        return self.weights_bytes + self.checkpoint_bytes * self.kept

    def with_settings(
        self, subset: float | None = None, epochs: float | None = None, validate_every: float | None = None
    ) -> "Estimate":
        """The estimate of a training that differs in these; for another subset, to within a few galaxies."""
        share = (self.subset if subset is None else subset) / self.subset
        return replace(
            self,
            subset=self.subset * share,
            epochs=self.epochs if epochs is None else epochs,
            validate_every=self.validate_every if validate_every is None else validate_every,
            galaxies=self.galaxies | {"train": max(1, round(self.galaxies["train"] * share))},
        )

    def __str__(self) -> str:
        hours, minutes = divmod(round(self.seconds / 60), 60)
        return (
            f"{'at most ' if self.doublings else ''}{self.steps:,} steps at {self.galaxies_per_second:,.1f} galaxies/s: about {hours} h {minutes} min without early "
            f"stopping; {self.disk_bytes / 1e6:,.0f} MB of disk for checkpoints of {self.checkpoint_bytes / 1e6:,.0f} MB; "
            f"{self.memory_bytes / 1e9:.2f} GB of memory in the first process"
        )

    def save(self, folder: Path) -> None:
        """Write `folder`/estimate.json."""
        write_json(folder / FILE, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> "Estimate | None":
        """The estimate in a folder; None if there is none."""
        try:
            return cls(**json.loads((folder / FILE).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None


def estimate(
    train: Callable[[Settings, int, dict[str, list[Rows]], Checkpointing], dict],
    context: RunContext,
    weights_bytes: int,
) -> Estimate:
    """Try out some steps of a run, in a folder that is removed again.

    Args:
        train: `engines.WholeModel.train`; where the backbone's features are computed first, these are of the first rows only, and
            `features` in its result is what they cost.
        weights_bytes: of the whole model; a checkpoint may hold only the head.
    """
    settings, sources, accelerator = context.settings, context.sources, context.accelerator
    trial = replace(settings, epochs=2, validate_every=1, warmup=0.0, cooldown=0.5, keep_at=(), until_converged=False)
    galaxies = (TRIED_STEPS + 4 * STORED * context.workers // context.shard.accumulate) * settings.batch_size
    few = {
        split: [
            rows.select(np.arange(min(len(rows), TRIED_STEPS * settings.batch_size))) for rows in sources.splits[split]
        ]
        for split in ("train", "validation")
    }
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        training = train(trial, galaxies, few, Checkpointing(Path(folder)))
        size = max((file.stat().st_size for file in list_checkpoints(Path(folder))), default=0)
        accelerator.wait_for_everyone()
    rounds = training["history"]
    in_rounds = galaxies * sum(1 / each["galaxies_per_second"] for each in rounds)
    in_rounds += sum(each["validation_seconds"] for each in rounds)
    features = training.get("features", {"seconds": 0.0, "bytes": 0})
    tried_rows = sum(len(rows) for parts in few.values() for rows in parts)
    more = 0 if accelerator.device.type == "cuda" else sum(map(sources.count, few)) / tried_rows - 1
    return Estimate(
        **{name: getattr(settings, name) for name in ("subset", "epochs", "validate_every", "batch_size", "cooldown")},
        doublings=settings.max_doublings if settings.until_converged else 0,
        galaxies={split: sources.count(split) for split in sources.splits},
        galaxies_per_second=rounds[-1]["galaxies_per_second"],
        evaluated_per_second=sum(map(len, few["validation"])) / rounds[-1]["validation_seconds"],
        features_seconds=features["seconds"] / tried_rows,
        saving_seconds=(training["seconds"] - in_rounds) / len(rounds),
        tried_seconds=time.perf_counter() - start,
        weights_bytes=weights_bytes,
        checkpoint_bytes=size,
        # One more is written before the others are removed, and one is kept where a longer training goes on.
        checkpoints=settings.keep_checkpoints + (3 if settings.until_converged else 1),
        kept=len(settings.keep_at),
        memory_bytes=_peak_memory(accelerator.device) + round(more * features["bytes"]),  # these are not on the GPU
    )


def _peak_memory(device: torch.device) -> int:
    """Bytes, the most that this process has held of its GPU or else of the machine; where the system does not keep it, now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved()
    try:
        import resource
    except ImportError:  # on Windows
        memory = psutil.Process().memory_info()
        return getattr(memory, "peak_wset", memory.rss)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
