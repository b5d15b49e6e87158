"""The target values: one or several numbers, by regression. Legend of shapes: N rows, K values."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import datasets
import numpy as np
import pyarrow as pa

from hf_galaxy.data.targets import Rows
from hf_galaxy.errors import BadInput
from hf_galaxy.evaluation.value_metrics import ConstantValues, ValueMetrics
from hf_galaxy.models.model import GalaxyConfig
from hf_galaxy.models.regression import GalaxyForRegression
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
        return ValueMetrics(list(self.columns), ConstantValues.from_dict(record.baseline))
