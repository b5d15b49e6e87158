"""Figures of merit of predicted values, beside those of the best constants. Legend: N, B galaxies, K values, R replicates."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch

from hf_galaxy.evaluation import bootstrap
from hf_galaxy.evaluation.bootstrap import six_digits
from hf_galaxy.evaluation.spread_metrics import Distributions, SpreadMetrics
from hf_galaxy.losses import standardised_squared_error


@dataclass
class ConstantValues:
    """The best constant predictions of values, from the training split.

    Attributes:
        mean: (K,) float64; the constant of least squared error.
        std: (K,) standard deviations, by which errors are measured in the loss.
        median: (K,) the constant of least absolute error.
    """

    mean: torch.Tensor
    std: torch.Tensor
    median: torch.Tensor

    @classmethod
    def of(cls, numbers: np.ndarray) -> Self:
        """From (N, K) training values, NaN where missing; of a value that no galaxy has, all three are NaN."""
        present = [column[~np.isnan(column)] for column in numbers.T]
        parts = [
            [function(column) if len(column) else np.nan for column in present]
            for function in (np.mean, np.std, np.median)
        ]
        return cls(*(torch.tensor(part, dtype=torch.float64) for part in parts))

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Self:
        """The same on a device."""
        return type(self)(**{name: values.to(device, dtype) for name, values in vars(self).items()})

    def to_dict(self) -> dict:
        """Plain lists, for a run record."""
        return {name: values.tolist() for name, values in vars(self).items()}

    @classmethod
    def from_dict(cls, data: dict) -> Self:
        """What `to_dict` wrote."""
        return cls(**{name: torch.tensor(values, dtype=torch.float64) for name, values in data.items()})


class ValueMetrics:
    """RMSE, mean absolute error and R^2 of each value, over the galaxies that have it; and the loss that training minimises.

    Beside each stands the best constant of the training split: for RMSE, R^2 and the loss its mean, for the mean absolute error
    its median. R^2 = 1 - sum of squared errors / sum of squared deviations from the mean of the measured galaxies; it is 1 for perfect
    predictions and about 0 for a constant.

    Args:
        names: of the K values.
        baseline: the constants of the training split.
        distributions: from the outputs of a model to the distributions that it predicts, which are measured where batches have keys (`SpreadMetrics`);
            None: it predicts values alone.
        uncalibrated: of a calibrated model: from its distributions to those before the calibration, which are measured, too.
    """

    def __init__(
        self,
        names: list[str],
        baseline: ConstantValues,
        distributions: Callable[[Any], Distributions] | None = None,
        uncalibrated: Callable[[Distributions], Distributions] | None = None,
    ) -> None:
        self.names, self.baseline, self.distributions, self.uncalibrated = names, baseline, distributions, uncalibrated
        self.sums: dict[str, torch.Tensor] = {}
        self.spreads: dict[str, SpreadMetrics] = {}
        if distributions is not None:
            unit = (baseline.mean.double().numpy(), baseline.std.double().numpy())
            self.spreads = {which: SpreadMetrics(names, *unit) for which in ("model", "uncalibrated")}

    def update(self, batch: dict[str, torch.Tensor], outputs: Any) -> None:
        """Add a batch: `labels` (B, K) and perhaps `keys` (B,) of the batch, `values` (B, K) of the outputs."""
        device = batch["labels"].device
        precise = torch.float32 if device.type == "mps" else torch.float64  # Apple's GPUs have no float64
        self.baseline = self.baseline.to(device, precise)
        labels, values = batch["labels"].to(precise), outputs.values.to(precise)
        known = labels == labels  # NaN equals nothing
        mean, std, median = (constants.expand_as(labels) for constants in vars(self.baseline).values())

        def errors(predictions: torch.Tensor) -> torch.Tensor:
            return torch.where(known, predictions - labels, 0)

        of_galaxies = {
            "galaxies": labels.new_ones(len(labels)),
            "known": known.to(precise),
            "model loss": standardised_squared_error(labels, values, std),
            "model squares": errors(values) ** 2,
            "model absolutes": errors(values).abs(),
            "baseline loss": standardised_squared_error(labels, mean, std),
            "baseline squares": errors(mean) ** 2,
            "baseline absolutes": errors(median).abs(),
            "deviations": errors(mean),
        }
        for name, each in of_galaxies.items():
            self._add(name, each.sum(0))
        if "keys" in batch:
            counts = bootstrap.counts(batch["keys"].cpu().numpy())
            self._measure_spread(batch["labels"], outputs, counts)
            times = torch.from_numpy(counts).to(device, precise).T
            for name, each in of_galaxies.items():
                self._add(f"{name} (R)", times @ each)

    def _measure_spread(self, labels: torch.Tensor, outputs: Any, times: np.ndarray) -> None:
        if self.distributions is None:
            return
        predicted = self.distributions(outputs)
        self.spreads["model"].update(labels, predicted, times)
        if self.uncalibrated is not None:
            self.spreads["uncalibrated"].update(labels, self.uncalibrated(predicted), times)

    def _add(self, name: str, values: torch.Tensor) -> None:
        self.sums[name] = self.sums.get(name, 0) + values

    def cpu(self) -> Self:
        """Move the sums off the device, to be sent to other processes."""
        self.sums = {name: values.cpu() for name, values in self.sums.items()}
        self.baseline = self.baseline.to("cpu", torch.float64)
        return self

    def __add__(self, other: "ValueMetrics") -> "ValueMetrics":
        joined = ValueMetrics(self.names, self.baseline, self.distributions, self.uncalibrated)
        joined.spreads = {which: each + other.spreads[which] for which, each in self.spreads.items()}
        for part in (self, other):
            for name, values in part.sums.items():
                joined._add(name, values)
        return joined

    @property
    def loss(self) -> float:
        """Mean over galaxies of the squared error in standard deviations: what training minimises."""
        return (self.sums["model loss"] / self.sums["galaxies"]).item()

    def compute(self) -> dict:
        """All figures; errors are in the units of the values, the loss in squared standard deviations of the training split."""
        figures = {who: self._figures(who) for who in ("model", "baseline")}

        def both(name: str, k: int | None = None) -> dict[str, float | None]:
            return {who: _or_none(each[name] if k is None else each[name][k]) for who, each in figures.items()}

        return {
            "galaxies": int(self.sums["galaxies"]),
            "loss": both("loss"),
            "values": {
                name: {"galaxies": int(self.sums["known"][k])} | {f: both(f, k) for f in ("rmse", "mae", "r2")}
                for k, name in enumerate(self.names)
            },
            **({"calibration": self._calibration()} if any(each.sums for each in self.spreads.values()) else {}),
            **({"bootstrap": self._bootstrap()} if "galaxies (R)" in self.sums else {}),
        }

    def _calibration(self) -> dict:
        """That of the model (`SpreadMetrics.compute`); of a calibrated one, `uncalibrated` has the figures without that."""
        model, before = (each.compute() if each.sums else None for each in self.spreads.values())
        return model | ({} if before is None else {"uncalibrated": before})  # type: ignore[operator]

    def _bootstrap(self) -> dict:
        """The model's figures in each replicate, rounded to six digits; None where too few galaxies count."""
        figures = self._figures("model", " (R)")
        return {
            "loss": {"model": six_digits(figures["loss"])},
            "values": {
                name: {f: {"model": six_digits(figures[f][:, k])} for f in ("rmse", "mae", "r2")}
                for k, name in enumerate(self.names)
            },
        }

    def _figures(self, who: str, of: str = "") -> dict[str, np.ndarray]:
        """loss (...), rmse, mae, r2 (..., K) of the sums, or with `of=" (R)"` of those in each replicate; NaN where undefined."""
        names = (
            "galaxies",
            "known",
            f"{who} loss",
            f"{who} squares",
            f"{who} absolutes",
            "baseline squares",
            "deviations",
        )
        galaxies, known, losses, squares, absolutes, about_mean, deviations = (
            self.sums[name + of].double().numpy() for name in names
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            spread = about_mean - deviations**2 / known
            spread = np.where(spread > 1e-12 * about_mean, spread, np.nan)  # equal values leave rounding errors
            return {
                "loss": losses / galaxies,
                "rmse": np.sqrt(squares / known),
                "mae": absolutes / known,
                "r2": 1 - squares / spread,
            }


def _or_none(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
