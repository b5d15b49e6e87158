"""The target values: one or several numbers, by regression. Legend of shapes: N rows, K values."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self

import datasets
import numpy as np
import pyarrow as pa
import torch

from hf_galaxy.data.targets import Rows
from hf_galaxy.errors import BadInput
from hf_galaxy.evaluation.spread_metrics import Distributions
from hf_galaxy.evaluation.value_metrics import ConstantValues, ValueMetrics
from hf_galaxy.models.calibration import TAIL, log_scales_of, uncalibrated_log_scales
from hf_galaxy.models.calibration_fit import FittedCalibration
from hf_galaxy.models.model import GalaxyConfig
from hf_galaxy.models.regression import GalaxyForRegression
from hf_galaxy.models.spread_fit import LEAST, fit_values
from hf_galaxy.training.targets.columns import ColumnsTarget
from hf_galaxy.training.targets.target import Before

if TYPE_CHECKING:
    from hf_galaxy.reports.run_record import RunRecord
    from hf_galaxy.training.settings import Settings


@dataclass(frozen=True)
class Values(ColumnsTarget):
    """Columns of numbers, one or several; null or NaN is a missing one.

    Attributes:
        unit_interval: the numbers are in [0, 1], such as fractions.
    """

    unit_interval: bool = False

    is_calibrated: ClassVar = True
    has_spread: ClassVar = True
    least: ClassVar = LEAST
    options: ClassVar = ("values", "unit_interval")
    kind: ClassVar = "column of numbers"

    @classmethod
    def check(cls, settings: Settings) -> None:
        super().check(settings)
        if settings.balance > 0:
            raise BadInput("--balance: is for classes, labels or campaigns; values have no classes")

    @classmethod
    def from_record(cls, record: RunRecord, config: GalaxyConfig) -> Self:
        return dataclasses.replace(super().from_record(record, config), unit_interval=config.unit_interval)

    @classmethod
    def is_possible(cls, feature: Any) -> bool:
        return type(feature) is datasets.Value and feature.dtype.startswith(("int", "uint", "float"))

    def numbers(self, table: pa.Table) -> np.ndarray:
        return np.stack([table[column].cast(pa.float64(), safe=False).to_numpy() for column in self.columns], axis=1)

    def combinations(self, numbers: np.ndarray) -> np.ndarray:
        """Which of the values a galaxy has: bit k is set for value k."""
        return ~np.isnan(numbers) @ (1 << np.arange(numbers.shape[1]))

    def mistakes(self, numbers: np.ndarray) -> Iterator[tuple[np.ndarray, str]]:
        # Training and metrics calculate in float32. A comparison with NaN is false.
        yield np.abs(numbers) > np.finfo(np.float32).max, "is too large; use another unit, or its logarithm"
        if self.unit_interval:
            yield (numbers < 0) | (numbers > 1), "is not in [0, 1], as --unit-interval has it"

    def baseline(self, settings: Settings, train: list[Rows], strata: list[np.ndarray] | None) -> dict:
        constant = ConstantValues.of(self.training_numbers(train))
        for column, std in zip(self.columns, constant.std.tolist(), strict=True):
            if not std > np.finfo(np.float32).tiny:  # nor is NaN, that of a value which no galaxy has
                raise BadInput(
                    f"--values {column}: no two training galaxies have different ones, in the numbers that float32 holds; "
                    "leave it out, or use another unit"
                )
        return constant.to_dict()

    def model(
        self, settings: Settings, fields: dict, baseline: dict, strata: list[np.ndarray] | None
    ) -> GalaxyForRegression:
        scale = dict(value_mean=baseline["mean"], value_std=baseline["std"])
        config = GalaxyConfig(values=list(self.columns), unit_interval=self.unit_interval, **scale, **fields)
        return GalaxyForRegression(config)

    def metrics(self, record: RunRecord, config: GalaxyConfig, before: Before | None = None) -> ValueMetrics:
        measured: dict[str, Any] = {}
        if config.spread or config.calibration is not None:
            measured["distributions"] = partial(_distributions, config=config)
        if before is not None:
            measured["uncalibrated"] = lambda predicted: Distributions(*before(torch.stack(predicted, dim=1)).unbind(1))
        elif config.calibration is not None:
            measured["uncalibrated"] = partial(_uncalibrated, config=config)
        return ValueMetrics(list(self.columns), ConstantValues.from_dict(record.baseline), **measured)

    def to_calibrate(
        self, batch: dict[str, torch.Tensor], outputs: Any, config: GalaxyConfig
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, K) values, and their predicted `Distributions` (B, 3, K)."""
        return batch["labels"], torch.stack(_distributions(outputs, config), dim=1)

    def predicted(self, target: torch.Tensor, predictions: torch.Tensor, config: GalaxyConfig) -> Distributions:
        return Distributions(*predictions.unbind(1))

    def count(self, target: torch.Tensor) -> int:
        """Of the value that the fewest have."""
        return int((target == target).sum(0).min())

    def fit_calibration(
        self, target: np.ndarray, predictions: np.ndarray, keys: np.ndarray, config: GalaxyConfig
    ) -> FittedCalibration:
        errors = (target - predictions[:, 0]) / np.array(config.value_std)
        return fit_values(predictions, errors, keys, needed=config.calibration is None)


def _distributions(outputs: Any, config: GalaxyConfig) -> Distributions:
    """What a model predicts; without a spread or calibration, the standard deviation of the training split."""
    if isinstance(outputs, Distributions):
        return outputs
    values = outputs.values.float()
    tails = config.calibration["tails"] if config.calibration else [TAIL] * values.shape[1]
    tails, unit = (torch.tensor(each, dtype=values.dtype, device=values.device) for each in (tails, config.value_std))
    logs = torch.zeros_like(values) if outputs.std is None else log_scales_of(outputs.std.float(), tails, unit)
    return Distributions(values, logs, tails.expand_as(values))


def _uncalibrated(predicted: Distributions, config: GalaxyConfig) -> Distributions:
    logs = uncalibrated_log_scales(predicted.logs, config.calibration)  # type: ignore[arg-type]  # it has one
    return predicted._replace(logs=logs, tails=torch.full_like(predicted.tails, TAIL))
