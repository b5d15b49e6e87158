"""Fits the weights from which a model of values predicts standard deviations, to training galaxies at the end of a run."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from hf_galaxy.data.targets import Rows
from hf_galaxy.models.regression import GalaxyForRegression
from hf_galaxy.models.spread_fit import fit_log_scales
from hf_galaxy.training.targets.target import TrainingTarget
from hf_galaxy.training.task import collect

MOST = 8_192  # galaxies: enough for a weight of each feature


class FeaturesAndErrors:
    """Features of galaxies and the errors of their values, in standard deviations, collected batch by batch like metrics.

    Args:
        seen: the inputs of the head in the last batch.
    """

    def __init__(self, seen: list[torch.Tensor], unit: torch.Tensor) -> None:
        self.seen, self.unit = seen, unit
        self.parts: list[tuple[torch.Tensor, ...]] = []

    def update(self, batch: dict[str, torch.Tensor], outputs: Any) -> None:
        """Add a batch, which has `keys`."""
        errors = (batch["labels"] - outputs.values) / self.unit
        self.parts.append((self.seen.pop().float(), errors.float(), batch["keys"]))

    def cpu(self) -> Self:
        """Move the batches off the device, to be sent to other processes."""
        self.parts = [tuple(each.cpu() for each in part) for part in self.parts]
        self.seen, self.unit = [], self.unit.cpu()
        return self

    def __add__(self, other: Self) -> Self:
        joined = type(self)(self.seen, self.unit)
        joined.parts = self.parts + other.parts
        return joined

    def fit(self) -> tuple[np.ndarray, np.ndarray]:
        """The weights and biases."""
        features, errors, keys = (torch.cat(each) for each in zip(*self.parts, strict=True))
        order = keys.argsort(stable=True)  # whatever the number of processes
        return fit_log_scales(features[order].numpy(), errors[order].double().numpy())


def evenly_spaced(rows: int, share: float) -> np.ndarray:
    """The numbers of a share of some rows, at least of one."""
    return np.linspace(0, rows - 1, max(1, round(share * rows))).astype(int)


def fit_spread(
    model: GalaxyForRegression, target: TrainingTarget, splits: Sequence[Rows], batch_size: int, workers: int,
    accelerator: Accelerator,
) -> None:  # fmt: skip
    """Fit them to at most MOST training galaxies, which `splits` hold. Every process must call it."""
    share = MOST / sum(map(len, splits))
    some = splits if share >= 1 else [rows.select(evenly_spaced(len(rows), share)) for rows in splits]
    seen: list[torch.Tensor] = []
    with model.head.register_forward_pre_hook(lambda head, inputs: seen.append(inputs[0])):
        empty = FeaturesAndErrors(seen, model.value_std.to(accelerator.device))
        collected = collect(model, target, some, batch_size, workers, accelerator, empty, keyed=True)
    fits = [collected.fit() if accelerator.is_main_process else None]
    if accelerator.num_processes > 1:
        broadcast_object_list(fits)
    [fitted] = fits
    assert fitted is not None
    model.set_spread(*map(torch.from_numpy, fitted))
