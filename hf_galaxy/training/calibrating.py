"""Calibrates the model of a run on galaxies that it was not trained on."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from hf_galaxy.data.targets import Rows
from hf_galaxy.models.calibration_fit import FittedCalibration, composed
from hf_galaxy.models.model import GalaxyConfig, GalaxyPreTrainedModel
from hf_galaxy.reports.run_record import RunRecord
from hf_galaxy.training.targets.target import Metrics, TrainingTarget
from hf_galaxy.training.task import collect

MOST = 20_000  # galaxies: more would not make the few numbers of a calibration any better


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
        """Add a batch, which has `keys`; galaxies without a vote are left out."""
        target, predictions = self.target.to_calibrate(batch, outputs, self.config)
        known = self.target.is_known(target)
        self.parts.append((target[known], predictions[known], batch["keys"][known]))
        if len(self) > 2 * MOST:
            self.parts = [self.sample()]

    def __len__(self) -> int:
        return sum(len(keys) for *_, keys in self.parts)

    @property
    def usable(self) -> int:
        """How many of them a calibration can be fitted to."""
        return self.target.count(torch.cat([target for target, *_ in self.parts])) if self.parts else 0

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
        batch = {self.target.labels_name: target, "keys": keys}
        metrics.update(batch, self.target.predicted(target, after, self.config))
        return metrics


def calibrate(
    model: GalaxyPreTrainedModel, target: TrainingTarget, splits: Sequence[Rows], batch_size: int, workers: int,
    accelerator: Accelerator,
) -> tuple[FittedCalibration | None, HeldOut]:  # fmt: skip
    """Calibrate a model, if that helps (`FittedCalibration.helps`). Every process must call it.

    A calibration that the model has is corrected: questions without votes keep theirs.

    Args:
        splits: galaxies that it was not trained on.

    Returns:
        The fit, None with fewer than `TrainingTarget.least` galaxies; and the predictions that it is of.
    """
    empty = HeldOut(target, model.config)
    held_out = collect(model, target, splits, batch_size, workers, accelerator, empty, keyed=True)
    if held_out.usable < target.least:
        return None, held_out
    # Processes of other machines may round otherwise.
    fits = [held_out.fit() if accelerator.is_main_process else None]
    if accelerator.num_processes > 1:
        broadcast_object_list(fits)
    [fitted] = fits
    assert fitted is not None
    if fitted.helps:
        tree = model.config.decision_tree if model.config.tree else None
        model.config.calibration = composed(model.config.calibration, fitted.numbers, tree)
    return fitted, held_out


def in_words(fitted: FittedCalibration | None, held_out: HeldOut) -> str:
    """A sentence on what a calibration brings."""
    count = f"{held_out.usable:,} galaxies with votes, labels or all values"
    if fitted is None:
        return f"not calibrated: {count}, and it takes {held_out.target.least}"
    gain = f"{fitted.gain.mean():+.3g} +- {fitted.gain.std() / len(fitted.gain) ** 0.5:.2g} nats per galaxy"
    if fitted.helps:
        return f"calibrated on {count}: by cross-validation their likelihood changes by {gain}"
    return f"not calibrated: by cross-validation it would change the likelihood of {count} by {gain}"


def recorded(fitted: FittedCalibration | None, held_out: HeldOut) -> dict[str, Any]:
    """What a run record keeps of a calibration."""
    about = {"galaxies": held_out.usable, "used": fitted is not None and fitted.helps}
    return about if fitted is None else about | {"gain": float(fitted.gain.mean()), "prior_std": fitted.prior_std}
