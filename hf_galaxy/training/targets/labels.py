"""The target labels: several yes/no columns at once (multi-label classes). Legend of shapes: N rows, K labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import datasets
import numpy as np
import pyarrow as pa
import torch

from hf_galaxy.data.targets import Rows
from hf_galaxy.errors import BadInput
from hf_galaxy.evaluation.label_metrics import LabelMetrics
from hf_galaxy.models.model import GalaxyConfig, GalaxyForImageClassification
from hf_galaxy.training.targets.columns import ColumnsTarget
from hf_galaxy.training.targets.target import Before

if TYPE_CHECKING:
    from hf_galaxy.reports.run_record import RunRecord
    from hf_galaxy.training.settings import Settings


@dataclass(frozen=True)
class Labels(ColumnsTarget):
    """Columns of yes (1) and no (0): bool, numbers, or a ClassLabel of two classes. Null, NaN and -1 are missing labels."""

    options: ClassVar = ("labels",)
    loss_options: ClassVar = ("mixup", "cutmix")
    usual: ClassVar = ("bool", "int")
    kind: ClassVar = "yes/no column (bool, 0 and 1, or a ClassLabel of two classes)"

    @classmethod
    def is_possible(cls, feature: Any) -> bool:
        if isinstance(feature, datasets.ClassLabel):
            return len(feature.names) == 2
        return type(feature) is datasets.Value and feature.dtype.startswith(("bool", "int", "uint", "float"))

    def numbers(self, table: pa.Table) -> np.ndarray:
        """(N, K) float64: 1 for yes, 0 for no, NaN where missing; another number stays as it is."""
        numbers = [table[column].cast(pa.float64(), safe=False).to_numpy() for column in self.columns]
        return np.where(np.equal(numbers, -1), np.nan, numbers).T

    def combinations(self, numbers: np.ndarray) -> np.ndarray:
        """The combination of labels, in base 3: digit k is 0 where label k is missing, 1 for no, 2 for yes."""
        digits = np.where(np.isnan(numbers), 0, numbers + 1).astype(np.int64)
        return digits @ np.cumprod([1, *[3] * (numbers.shape[1] - 1)])

    def mistakes(self, numbers: np.ndarray) -> Iterator[tuple[np.ndarray, str]]:
        yield ~np.isnan(numbers) & (numbers != 0) & (numbers != 1), "is no label: 0, 1, or missing (null, NaN or -1)"

    def baseline(self, settings: Settings, train: list[Rows], strata: list[np.ndarray] | None) -> dict:
        numbers = self.training_numbers(train)
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

    def metrics(self, record: RunRecord, config: GalaxyConfig, before: Before | None = None) -> LabelMetrics:
        return LabelMetrics(list(self.columns), torch.tensor(record.baseline["rates"], dtype=torch.float64))
