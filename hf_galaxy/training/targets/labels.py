"""The target labels: several yes/no columns at once (multi-label classes). Legend of shapes: N rows, K labels."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import datasets
import numpy as np
import pyarrow as pa
import torch

from hf_galaxy.data.targets import Rows, galaxy_of, tables_of
from hf_galaxy.errors import BadInput
from hf_galaxy.evaluation.label_metrics import LabelMetrics
from hf_galaxy.models.model import GalaxyConfig, GalaxyForImageClassification
from hf_galaxy.training.targets.target import TrainingTarget

if TYPE_CHECKING:
    from hf_galaxy.reports.run_record import RunRecord
    from hf_galaxy.training.settings import Settings


@dataclass(frozen=True)
class Labels(TrainingTarget):
    """Columns of yes (1) and no (0): bool, whole numbers, or a ClassLabel of two classes. Null and -1 are missing labels."""

    columns: tuple[str, ...]

    @classmethod
    def of_rows(cls, rows: Rows, columns: Collection[str], dataset: str) -> Self:
        """The labels in these columns.

        Raises:
            BadInput: none are named, or there is no such column, or its type cannot be that of a label.
        """
        wrong = [column for column in columns if not _is_binary(rows.features.get(column))]
        if wrong or not columns:
            having = [column for column, feature in rows.features.items() if _is_binary(feature)]
            having.sort(key=lambda column: str(getattr(rows.features[column], "dtype", "")) == "int32")  # often votes
            raise BadInput(
                f"--dataset {dataset}: has no yes/no column {', '.join(map(repr, wrong)) or 'to learn without --labels'} (bool, "
                f"0 and 1, or a ClassLabel of two classes); candidates: {', '.join(having[:20]) or 'none'}"
                f"{', ...' if len(having) > 20 else ''}"
            )
        return cls(tuple(columns))

    @classmethod
    def of(cls, settings: Settings, splits: dict[str, list[Rows]]) -> Self:
        target, *_ = [
            cls.of_rows(rows, settings.labels or (), name)
            for parts in splits.values()
            for rows, name in zip(parts, settings.dataset, strict=True)
        ]
        return target

    @classmethod
    def from_record(cls, record: RunRecord, config: GalaxyConfig) -> Self:
        return cls(tuple(record.dataset["labels"]))

    @property
    def name(self) -> str:
        return " or ".join(map(repr, self.columns))

    def columns_of(self, rows: Rows) -> list[str]:
        return list(self.columns)

    def numbers(self, table: pa.Table) -> np.ndarray:
        """(N, K) float64: 1 for yes, 0 for no, NaN where missing; another number stays as it is."""
        numbers = [table[column].cast(pa.int64()).cast(pa.float64()).to_numpy() for column in self.columns]
        return np.where(np.equal(numbers, -1), np.nan, numbers).T

    def tensors(self, table: pa.Table, features: datasets.Features) -> dict[str, torch.Tensor]:
        return {"labels": torch.from_numpy(self.numbers(table)).float()}

    def strata(self, table: pa.Table, features: datasets.Features) -> np.ndarray:
        """The combination of labels, in base 3: digit k is 0 where label k is missing, 1 for no, 2 for yes."""
        return _combinations(self.numbers(table))

    def labelled(self, rows: Rows, where: str, training: bool = False) -> tuple[Rows, np.ndarray]:
        numbers = self.numbers(rows.select_columns(list(self.columns)).with_format("arrow")[:])
        for row, k in np.argwhere(~np.isnan(numbers) & (numbers != 0) & (numbers != 1))[:1].tolist():
            raise BadInput(
                f"{where}: {galaxy_of(rows, row)}, column {self.columns[k]}: {numbers[row, k]:g}, but labels are 0, 1, or "
                "missing (null or -1)"
            )
        having = np.flatnonzero(~np.isnan(numbers).all(axis=1))
        if not len(having):
            raise BadInput(f"{where}: none of its {len(rows):,} galaxies has {' or '.join(self.columns)}")
        return (rows if len(having) == len(rows) else rows.select(having)), _combinations(numbers[having])

    def measurable(self, splits: list[Rows], datasets: list[str], split: str) -> list[Rows]:
        return [
            self.of_rows(rows, self.columns, name).labelled(rows, f"--dataset {name}: split {split}")[0]
            for rows, name in zip(splits, datasets, strict=True)
        ]

    def baseline(self, settings: Settings, train: list[Rows], strata: list[np.ndarray] | None) -> dict:
        numbers = np.concatenate([self.numbers(table) for rows in train for table in tables_of(rows, self.columns)])
        positive, negative = (numbers == 1).sum(0), (numbers == 0).sum(0)
        for column, *counts in zip(self.columns, positive, negative, strict=True):
            if not all(counts):
                raise BadInput(
                    f"--labels {column}: {counts[0]:,} training galaxies have it and {counts[1]:,} do not; to learn it takes "
                    "both; leave it out"
                )
        return {"rates": (positive / (positive + negative)).tolist()}

    def model(
        self, settings: Settings, fields: dict, baseline: dict, strata: list[np.ndarray] | None
    ) -> GalaxyForImageClassification:
        names = dict(id2label=dict(enumerate(self.columns)), label2id={name: i for i, name in enumerate(self.columns)})
        return GalaxyForImageClassification(GalaxyConfig(problem_type="multi_label_classification", **names, **fields))

    def metrics(self, record: RunRecord, config: GalaxyConfig) -> LabelMetrics:
        return LabelMetrics(list(self.columns), torch.tensor(record.baseline["rates"], dtype=torch.float64))

    def description(self) -> dict:
        return {"labels": list(self.columns)}


def _combinations(numbers: np.ndarray) -> np.ndarray:
    digits = np.where(np.isnan(numbers), 0, numbers + 1).astype(np.int64)
    return digits @ np.cumprod([1, *[3] * (numbers.shape[1] - 1)])


def _is_binary(feature: Any) -> bool:
    if isinstance(feature, datasets.ClassLabel):
        return len(feature.names) == 2
    return type(feature) is datasets.Value and feature.dtype.startswith(("bool", "int", "uint"))
