"""A target that hf_galaxy does not have: grades, whole numbers from 0 to 4. It is the one file that a contributor would write."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import datasets
import numpy as np
import pyarrow as pa
import torch

from hf_galaxy.data.targets import Rows
from hf_galaxy.evaluation import bootstrap
from hf_galaxy.models.model import GalaxyConfig
from hf_galaxy.models.regression import GalaxyForRegression
from hf_galaxy.reports.target_report import TargetReport
from hf_galaxy.training.targets.columns import ColumnsTarget

if TYPE_CHECKING:
    from hf_galaxy.reports.run_record import RunRecord
    from hf_galaxy.training.settings import Settings

HIGHEST = 4


class GradeMetrics:
    """The mean distance between true and predicted grades, beside that of the training split's mean grade."""

    def __init__(self, names: list[str], means: list[float]) -> None:
        self.names, self.means = names, torch.tensor(means)
        self.rows: list[torch.Tensor] = []
        self.keys: list[torch.Tensor] = []

    def update(self, batch: dict[str, torch.Tensor], outputs: Any) -> None:
        distances = [abs(guess - batch["labels"]) for guess in (outputs.values, self.means.to(outputs.values.device))]
        self.rows.append(HIGHEST * torch.stack(distances))
        if "keys" in batch:
            self.keys.append(batch["keys"])

    def cpu(self) -> Self:
        self.rows, self.keys = ([each.cpu() for each in parts] for parts in (self.rows, self.keys))
        return self

    def __add__(self, other: Self) -> Self:
        joined = type(self)(self.names, self.means.tolist())
        joined.rows, joined.keys = self.rows + other.rows, self.keys + other.keys
        return joined

    @property
    def loss(self) -> float:
        return torch.cat(self.rows, dim=1)[0].nanmean().item()

    def compute(self) -> dict:
        distances = torch.cat(self.rows, dim=1).double().numpy()
        model, baseline = np.nanmean(distances, axis=1)
        results = {
            "galaxies": distances.shape[1],
            "loss": {"model": self.loss, "baseline": float(np.nanmean(distances[1]))},
            "grades": {
                name: {
                    "galaxies": int(np.isfinite(distances[0, :, k]).sum()),
                    "distance": {"model": float(model[k]), "baseline": float(baseline[k])},
                }
                for k, name in enumerate(self.names)
            },
        }
        if self.keys:
            times, drawn = bootstrap.counts(torch.cat(self.keys).numpy()), np.nan_to_num(distances[0])
            means = bootstrap.ratios(times.T @ drawn, times.T @ np.isfinite(distances[0]))
            results["bootstrap"] = {
                "loss": {"model": bootstrap.six_digits(means.mean(axis=1))},
                "grades": {
                    name: {"distance": {"model": bootstrap.six_digits(means[:, k])}}
                    for k, name in enumerate(self.names)
                },
            }
        return results


class GradeReport(TargetReport):
    """Figures of each grade."""

    loss, loss_unit = "distance", "grades"
    parts = "grades"
    figures: ClassVar = {"distance": "mean distance"}
    studied = ("distance",)


@dataclass(frozen=True)
class Grades(ColumnsTarget):
    """Columns of whole numbers from 0 to 4; null is a missing one."""

    options: ClassVar = ("grades",)
    kind: ClassVar = "column of whole numbers"

    @classmethod
    def is_possible(cls, feature: Any) -> bool:
        return type(feature) is datasets.Value and feature.dtype.startswith("int")

    def numbers(self, table: pa.Table) -> np.ndarray:
        return np.stack([table[c].cast(pa.float64()).to_numpy() / HIGHEST for c in self.columns], axis=1)

    def combinations(self, numbers: np.ndarray) -> np.ndarray:
        return np.nan_to_num(numbers * HIGHEST, nan=-1)[:, 0].astype(np.int64)

    def mistakes(self, numbers: np.ndarray) -> Iterator[tuple[np.ndarray, str]]:
        yield (numbers < 0) | (numbers > 1), f"x {HIGHEST} is no grade"

    def baseline(self, settings: Settings, train: list[Rows], strata: list[np.ndarray] | None) -> dict:
        return {"means": np.nanmean(self.training_numbers(train), axis=0).tolist()}

    def model(
        self, settings: Settings, fields: dict, baseline: dict, strata: list[np.ndarray] | None
    ) -> GalaxyForRegression:
        values = dict(values=list(self.columns), value_mean=baseline["means"], unit_interval=True)
        return GalaxyForRegression(GalaxyConfig(**values, **fields))

    def metrics(self, record: RunRecord, config: GalaxyConfig) -> GradeMetrics:
        return GradeMetrics(list(self.columns), record.baseline["means"])
