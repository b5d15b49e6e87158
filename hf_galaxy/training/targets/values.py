"""The target values: one or several numbers, by regression. Legend of shapes: N rows, K values."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import datasets
import numpy as np
import pyarrow as pa
import torch

from hf_galaxy.data.targets import Rows, tables_of
from hf_galaxy.errors import BadInput
from hf_galaxy.evaluation.value_metrics import ConstantValues, ValueMetrics
from hf_galaxy.models.model import GalaxyConfig, GalaxyForRegression
from hf_galaxy.training.targets.target import TrainingTarget

if TYPE_CHECKING:
    from hf_galaxy.reports.run_record import RunRecord
    from hf_galaxy.training.settings import Settings


@dataclass(frozen=True)
class Values(TrainingTarget):
    """Columns of numbers, one or several; null or NaN is a missing one.

    Attributes:
        unit_interval: the numbers are in [0, 1], such as fractions.
    """

    columns: tuple[str, ...]
    unit_interval: bool = False

    @classmethod
    def of_rows(cls, rows: Rows, columns: Collection[str], dataset: str, unit_interval: bool = False) -> Self:
        """The values in these columns.

        Args:
            columns: of integers or floats.
            dataset: for the message.

        Raises:
            BadInput: none are named, or there is no such column, or it holds something else.
        """
        wrong = [column for column in columns if not _is_number(rows.features.get(column))]
        if wrong or not columns:
            having = [column for column, feature in rows.features.items() if _is_number(feature)]
            having.sort(
                key=lambda column: not rows.features[column].dtype.startswith("float")
            )  # integers are often votes
            raise BadInput(
                f"--dataset {dataset}: has no column of numbers {', '.join(map(repr, wrong)) or 'to learn without --values'}; those "
                f"that it has: {', '.join(having[:20]) or 'none'}{', ...' if len(having) > 20 else ''}"
            )
        return cls(tuple(columns), unit_interval)

    @classmethod
    def of(cls, settings: Settings, splits: dict[str, list[Rows]]) -> Self:
        target, *_ = [
            cls.of_rows(rows, settings.values or (), name, settings.unit_interval)
            for parts in splits.values()
            for rows, name in zip(parts, settings.dataset, strict=True)
        ]
        return target

    @classmethod
    def from_record(cls, record: RunRecord, config: GalaxyConfig) -> Self:
        return cls(tuple(record.dataset["values"]), config.unit_interval)

    @property
    def name(self) -> str:
        return " or ".join(map(repr, self.columns))

    def columns_of(self, rows: Rows) -> list[str]:
        return list(self.columns)

    def numbers(self, table: pa.Table) -> np.ndarray:
        """(N, K) float64 values of some rows, NaN where missing."""
        return np.stack([table[column].cast(pa.float64(), safe=False).to_numpy() for column in self.columns], axis=1)

    def tensors(self, table: pa.Table, features: datasets.Features) -> dict[str, torch.Tensor]:
        return {"labels": torch.from_numpy(self.numbers(table)).float()}

    def strata(self, table: pa.Table, features: datasets.Features) -> np.ndarray:
        """Which of the values a galaxy has: bit k is set for value k."""
        return _present(self.numbers(table))

    def labelled(self, rows: Rows, where: str, training: bool = False) -> tuple[Rows, np.ndarray]:
        numbers = self.numbers(rows.select_columns(list(self.columns)).with_format("arrow")[:])
        # Training and metrics calculate in float32. A comparison with NaN is false.
        too_large = np.abs(numbers) > np.finfo(np.float32).max
        self._refuse(too_large, numbers, rows, where, "is too large; use another unit, or its logarithm")
        if self.unit_interval:
            outside = (numbers < 0) | (numbers > 1)
            self._refuse(outside, numbers, rows, where, "is not in [0, 1], as --unit-interval has it")
        having = np.flatnonzero(~np.isnan(numbers).all(axis=1))
        if not len(having):
            raise BadInput(f"{where}: none of its {len(rows):,} galaxies has {' or '.join(self.columns)}")
        return (rows if len(having) == len(rows) else rows.select(having)), _present(numbers[having])

    def _refuse(self, wrong: np.ndarray, numbers: np.ndarray, rows: Rows, where: str, reason: str) -> None:
        """BadInput with the first of some wrong numbers; the row's number would be that among the chosen rows."""
        for row, k in np.argwhere(wrong)[:1].tolist():
            name = rows.select_columns(["id_str"]).with_format("arrow")[[row]]["id_str"][0].as_py()
            raise BadInput(f"{where}, id_str {name}, column {self.columns[k]}: {numbers[row, k]:g} {reason}")

    def measurable(self, splits: list[Rows], datasets: list[str], split: str) -> list[Rows]:
        return [
            self.of_rows(rows, self.columns, name, self.unit_interval).labelled(
                rows, f"--dataset {name}: split {split}"
            )[0]
            for rows, name in zip(splits, datasets, strict=True)
        ]

    def baseline(self, settings: Settings, train: list[Rows], strata: list[np.ndarray] | None) -> dict:
        constant = ConstantValues.of(
            np.concatenate([self.numbers(table) for rows in train for table in tables_of(rows, self.columns)])
        )
        self.check_varied(constant)
        return constant.to_dict()

    def check_varied(self, constant: ConstantValues) -> None:
        """Refuse values that are the same for all training galaxies."""
        for column, std in zip(self.columns, constant.std.tolist(), strict=True):
            if not std > np.finfo(np.float32).tiny:  # nor is NaN, that of a value which no galaxy has
                raise BadInput(
                    f"--values {column}: no two training galaxies have different ones, in the numbers that float32 holds; "
                    "leave it out, or use another unit"
                )

    def model(
        self, settings: Settings, fields: dict, baseline: dict, strata: list[np.ndarray] | None
    ) -> GalaxyForRegression:
        scale = dict(value_mean=baseline["mean"], value_std=baseline["std"])
        config = GalaxyConfig(values=list(self.columns), unit_interval=self.unit_interval, **scale, **fields)
        return GalaxyForRegression(config)

    def metrics(self, record: RunRecord, config: GalaxyConfig) -> ValueMetrics:
        return ValueMetrics(list(self.columns), ConstantValues.from_dict(record.baseline))

    def description(self) -> dict:
        return {"values": list(self.columns)}


def _present(numbers: np.ndarray) -> np.ndarray:
    return ~np.isnan(numbers) @ (1 << np.arange(numbers.shape[1]))


def _is_number(feature: Any) -> bool:
    return type(feature) is datasets.Value and feature.dtype.startswith(("int", "uint", "float"))
