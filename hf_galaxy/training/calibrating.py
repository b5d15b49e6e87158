"""Calibrates the model of a run on galaxies that it was not trained on. Legend: N galaxies, A answers, C classes."""

import logging
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from hf_galaxy.data.targets import Rows
from hf_galaxy.models.calibration import composed
from hf_galaxy.models.calibration_fit import FittedCalibration
from hf_galaxy.models.model import GalaxyConfig, GalaxyPreTrainedModel
from hf_galaxy.reports.run_record import RunRecord
from hf_galaxy.training.targets.target import Metrics, TrainingTarget
from hf_galaxy.training.task import collect

MOST = 20_000  # galaxies: more would not make the few numbers of a calibration any better

logger = logging.getLogger(__name__)


class HeldOut:
    """The predictions for galaxies and their target, collected batch by batch like metrics; of at most MOST galaxies.

    If there are more, those with the smallest keys are kept, which are a random sample.

    Attributes:
        parts: targets, predictions and keys of the galaxies, as `TrainingTarget.fit_calibration` takes them.
    """

    def __init__(self, target: TrainingTarget, config: GalaxyConfig) -> None:
        self.target, self.config = target, config
        self.parts: list[tuple[torch.Tensor, ...]] = []

    def update(self, batch: dict[str, torch.Tensor], outputs: Any) -> None:
        """Add a batch, which has `keys`."""
        self.parts.append((*self.target.to_calibrate(batch, outputs, self.config), batch["keys"]))
        if sum(len(keys) for *_, keys in self.parts) > 2 * MOST:
            self.parts = [self.sample()]

    def sample(self) -> tuple[torch.Tensor, ...]:
        """Targets, predictions and keys of at most MOST galaxies."""
        joined = [torch.cat(each) for each in zip(*self.parts, strict=True)]
        kept = joined[-1].argsort(stable=True)[:MOST]
        return tuple(each[kept] for each in joined)

    def cpu(self) -> Self:
        """Move the batches off the device, to be sent to other processes."""
        self.parts = [tuple(each.cpu() for each in part) for part in self.parts]
        return self

    def __add__(self, other: Self) -> Self:
        joined = type(self)(self.target, self.config)
        joined.parts = self.parts + other.parts
        return joined

    def fit(self) -> FittedCalibration:
        """The calibration that they ask for."""
        target, predictions, keys = (each.numpy() for each in self.sample())
        return self.target.fit_calibration(target, predictions.astype(np.float64), keys, self.config)

    def metrics(self, record: RunRecord, fitted: FittedCalibration) -> Metrics:
        """How good the predictions are with the calibration of the other folds: what to expect of other galaxies."""
        target, before, keys = self.sample()
        after = torch.from_numpy(fitted.predictions)
        metrics = self.target.metrics(record, self.config, lambda _: before)
        batch = {"labels" if target.ndim == 1 else "votes": target, "keys": keys}
        metrics.update(batch, self.target.predicted(target, after, self.config))
        return metrics


def calibrate(
    model: GalaxyPreTrainedModel, target: TrainingTarget, splits: Sequence[Rows], batch_size: int, workers: int,
    accelerator: Accelerator,
) -> tuple[FittedCalibration, HeldOut]:  # fmt: skip
    """Correct the predictions of a model by a calibration, if it helps with these galaxies, by cross-validation. Every process must call it.

    It comes on top of the calibration that the model has: that of questions without votes stays.

    Args:
        splits: galaxies that it was not trained on.

    Returns:
        The correction, and the predictions that it was fitted to.
    """
    empty = HeldOut(target, model.config)
    held_out = collect(model, target, splits, batch_size, workers, accelerator, empty, keyed=True)
    # Processes of other machines may round otherwise.
    fitted = [held_out.fit() if accelerator.is_main_process else None]
    if accelerator.num_processes > 1:
        broadcast_object_list(fitted)
    [calibration] = fitted
    assert calibration is not None
    if calibration.helps:
        tree = model.config.decision_tree if model.config.tree else None
        model.config.calibration = composed(model.config.calibration, calibration.numbers, tree)
    logger.info("%s", in_words(calibration))
    return calibration, held_out


def in_words(fitted: FittedCalibration) -> str:
    """A sentence on what a calibration brings."""
    gain = fitted.gain.mean()
    if fitted.helps:
        return f"calibrated on {fitted.galaxies:,} galaxies: by cross-validation the loss falls by {gain:.3g} nats per galaxy"
    return f"not calibrated: of {fitted.galaxies:,} galaxies, those left out of the fit would be predicted worse, by {-gain:.3g} nats"


def recorded(fitted: FittedCalibration) -> dict[str, Any]:
    """What a run record keeps of a calibration."""
    return {"galaxies": fitted.galaxies, "gain": float(fitted.gain.mean()), "used": fitted.helps}
