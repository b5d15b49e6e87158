"""What a run trains on, and with: the whole model on pictures, or a head on features of a frozen backbone."""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from accelerate.utils import broadcast_object_list
from torch import nn

from hf_galaxy.data.galaxies import Galaxies
from hf_galaxy.data.targets import Rows
from hf_galaxy.models.backbones import layer_groups
from hf_galaxy.models.model import GalaxyPreTrainedModel
from hf_galaxy.reports.run_record import RunRecord
from hf_galaxy.training.calibrating import calibrate, in_words, recorded
from hf_galaxy.training.context import RunContext
from hf_galaxy.training.features import GalaxyFeatures, features_of, without_backbone
from hf_galaxy.training.lengths import Lengths
from hf_galaxy.training.loop import Batch, Checkpointing, Trainer
from hf_galaxy.training.mixture import mixed
from hf_galaxy.training.optimizers import make_optimizer, parameter_groups
from hf_galaxy.training.processes import on_main_process
from hf_galaxy.training.random_views import random_views, target_of_views
from hf_galaxy.training.sequence import Positions, TrainingSequence, training_batches
from hf_galaxy.training.settings import Settings
from hf_galaxy.training.spread import fit_spread
from hf_galaxy.training.task import measure, model_inputs

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GalaxyData:
    """The batches of a run, as `loop.TrainingData`.

    Attributes:
        sequence: the training galaxies, in the order in which they are seen.
        validation: of each dataset.
        workers: processes that decode pictures.
    """

    context: RunContext
    record: RunRecord
    model: GalaxyPreTrainedModel
    sequence: Positions
    validation: list[Rows] | list[GalaxyFeatures]
    workers: int

    @property
    def accumulate(self) -> int:
        """Micro-batches per step."""
        return self.context.shard.accumulate

    def batches(self, steps: range) -> Iterator[Batch]:
        """As `sequence.training_batches`."""
        context = self.context
        return training_batches(self.sequence, context.settings.batch_size, steps, context.shard, self.workers)

    def to_inputs(self, batch: Batch) -> Batch:
        """Pictures become random views of them, features stay as they are."""
        if "features" in batch:
            return model_inputs(batch, batch["features"])
        return model_inputs(target_of_views(batch, self.model), random_views(batch, self.model))

    def validate(self, model: nn.Module) -> float:
        """The loss on the validation split."""
        context = self.context
        return measure(model, self.record, self.validation, context.micro_batch, self.workers, context.accelerator).loss


class WholeModel:
    """Trains the model on pictures.

    Args:
        record: of the run; names its target and holds its baseline.
    """

    def __init__(self, context: RunContext, model: GalaxyPreTrainedModel, record: RunRecord) -> None:
        self.context, self.model, self.record = context, model, record

    def train(
        self, settings: Settings, galaxies: int, splits: dict[str, list[Rows]], checkpointing: Checkpointing
    ) -> dict:
        """Train as `loop.Trainer.run` does.

        Args:
            settings: those of the run, or of an estimate of it.
            galaxies: one epoch of the schedule.
            splits: "validation" is validated on; the training galaxies are always those of the run.
        """
        sources, framing = self.context.sources, self.model.config.framing
        scales = settings.blur > 0
        pictures = [
            Galaxies(rows, framing, sources.target, fast=True, scales=scales) for rows in sources.splits["train"]
        ]
        sequence = self._sequence(pictures, sources.strata)
        return self._fit(settings, galaxies, sequence, splits["validation"], self.context.workers, checkpointing)

    def test(self) -> dict:
        """The results on the test split, with a bootstrap over galaxies."""
        context = self.context
        rows, workers = context.sources.splits["test"], context.workers
        return measure(
            self.model, self.record, rows, context.micro_batch, workers, context.accelerator, bootstrap=True
        ).compute()

    def calibrate(self) -> dict:
        """Calibrate the model on the validation split; what the record keeps of it.

        If it is to predict standard deviations, their weights are fitted to training galaxies before, and forgotten if there are too few validation galaxies.
        """
        context, sources = self.context, self.context.sources
        how = (context.micro_batch, context.workers, context.accelerator)
        if sources.target.has_spread and sources.count("validation") >= sources.target.least:
            fit_spread(self.model, sources.target, sources.splits["train"], *how)  # type: ignore[arg-type]  # it is of values
        fitted, held_out = calibrate(self.model, sources.target, sources.splits["validation"], *how)
        if fitted is None and self.model.config.spread:
            self.model.forget_spread()  # type: ignore[operator]
        logger.info("%s", in_words(fitted, held_out))
        return recorded(fitted, held_out)

    def _fit(
        self, settings: Settings, galaxies: int, sequence: Positions, validation: list[Rows] | list[GalaxyFeatures],
        workers: int, checkpointing: Checkpointing,
    ) -> dict:  # fmt: skip
        layers = layer_groups(self.model.backbone) if settings.layer_decay < 1 else []
        layers = [[f"backbone.{name}" for name in group] for group in layers]
        groups = parameter_groups(self.model, settings.weight_decay, layers, settings.layer_decay)
        return Trainer(
            self.model,
            make_optimizer(settings.optimizer, groups),
            Lengths(settings, galaxies, settings.keep_at, self._least(settings)),
            GalaxyData(self.context, self.record, self.model, sequence, validation, workers),
            self.context.accelerator,
            checkpointing,
        ).run()

    def _least(self, settings: Settings) -> float:
        """The validation loss that no training can improve, where the settings need it."""
        if not settings.until_converged:
            return 0.0
        context = self.context
        if (count := context.sources.count("validation")) < context.sources.target.least:
            logger.warning("--until-converged decides by the loss of %d validation galaxies, which are few", count)
        found = [
            on_main_process(
                context.accelerator, context.sources.target.least_loss, context.sources.splits["validation"]
            )
        ]
        if context.accelerator.num_processes > 1:  # or some would go on and others not, where they round otherwise
            broadcast_object_list(found)
        [least] = found
        assert least is not None
        return least

    def _sequence(self, galaxies: list[Galaxies] | list[GalaxyFeatures], strata: list[np.ndarray] | None) -> Positions:
        """The training galaxies of each dataset in the order in which they are seen."""
        settings = self.context.settings
        order: dict[str, Any] = dict(
            seed=settings.seed, augmentation=settings.augmentation, shard=self.context.shard, batch_size=settings.batch_size
        )  # fmt: skip
        if len(galaxies) == 1 and not settings.balance:
            return TrainingSequence(galaxies[0], **order)
        weights = settings.weights or tuple(map(len, galaxies))
        strata = strata if settings.balance else None
        return mixed(galaxies, list(weights), **order, strata=strata, power=settings.balance)


class HeadOnFeatures(WholeModel):
    """Trains the head of the model on features of its backbone, which are computed once, also by a run that resumes."""

    def train(
        self, settings: Settings, galaxies: int, splits: dict[str, list[Rows]], checkpointing: Checkpointing
    ) -> dict:
        """Train as `loop.Trainer.run` does; its result has `features`, the seconds and bytes that these took, too.

        Args:
            settings: those of the run, or of an estimate of it.
            galaxies: one epoch of the schedule.
            splits: "train" and "validation"; of an estimate, the first rows of each dataset.
        """
        context = self.context
        start = time.perf_counter()
        splits = {split: splits[split] for split in ("train", "validation")}
        features = features_of(
            self.model, splits, context.sources.target, context.micro_batch, context.shard, context.workers,
            context.accelerator,
        )  # fmt: skip
        cost = {
            "seconds": time.perf_counter() - start,
            "bytes": sum(each.bytes for parts in features.values() for each in parts),
        }
        strata = context.sources.strata
        if strata is not None:
            strata = [kinds[: len(rows)] for kinds, rows in zip(strata, splits["train"], strict=True)]
        sequence = self._sequence(features["train"], strata)
        with without_backbone(self.model):
            training = self._fit(settings, galaxies, sequence, features["validation"], 0, checkpointing)
        return training | {"features": cost}
