"""How well the predicted standard deviations of values agree with their errors. Legend: B galaxies, K values, R replicates, L levels.

Sums over batches and processes, as in `value_metrics`; of the test split alone, as every figure has its interval over galaxies.
"""

from typing import Any, NamedTuple, Self

import numpy as np
import torch

from hf_galaxy.evaluation import bootstrap
from hf_galaxy.evaluation.bootstrap import ratios, six_digits
from hf_galaxy.evaluation.pit import PIT_BINS

LEVELS = (50, 68, 90, 95)  # central intervals, in per cent
EDGES = 2.0 ** np.arange(-4, 1.25, 0.5)  # of bins of predicted standard deviations, in those of the training split
ENDS = [(1 - bootstrap.LEVEL) / 2, (1 + bootstrap.LEVEL) / 2]


class Distributions(NamedTuple):
    """Student's t distributions of values.

    Attributes:
        values: (B, K) their centres.
        logs: (B, K) logarithms of their scales, in the standard deviation of the training split.
        tails: (B, K) 1 / degrees of freedom; 0: normal.
    """

    values: torch.Tensor
    logs: torch.Tensor
    tails: torch.Tensor


class SpreadMetrics:
    """Likelihood, coverage and sharpness of predicted distributions.

    Args:
        names: of the K values.
        mean, std: (K,) of the training split: the constant normal distribution that the likelihood is compared with.
    """

    def __init__(self, names: list[str], mean: np.ndarray, std: np.ndarray) -> None:
        self.names, self.mean, self.std = names, mean, std
        self.sums: dict[str, np.ndarray] = {}

    def update(self, labels: torch.Tensor, predicted: Distributions, times: np.ndarray) -> None:
        """Add a batch.

        Args:
            labels: (B, K), NaN where missing.
            times: (B, R) how often each galaxy counts in each replicate.
        """
        from scipy.special import stdtr
        from scipy.stats import norm
        from scipy.stats import t as student

        y, values, logs, tails = (each.detach().cpu().double().numpy() for each in (labels, *predicted))
        known, freedom = ~np.isnan(y), 1 / np.maximum(tails, 1e-6)
        z = np.where(known, (y - values) / self.std * np.exp(-logs), 0)
        std = np.exp(logs - 0.5 * np.log1p(-2 * tails))
        places = stdtr(freedom, z)
        of_galaxies = {
            "known": known.astype(float),
            "model nll": np.where(known, logs - student.logpdf(z, freedom), 0),
            "baseline nll": np.where(known, -norm.logpdf((y - self.mean) / self.std), 0),
        }
        inside = known[..., None] & (np.abs(2 * places - 1)[..., None] < np.array(LEVELS) / 100)
        for name, each in of_galaxies.items():
            self._add(name, each.sum(axis=0))
            self._add(f"{name} (R)", times.T @ each)
        self._add("galaxies", np.array(len(y)))
        self._add("inside", inside.sum(axis=0))
        self._add("inside (R)", np.einsum("br,bkl->rkl", times, inside))
        self._add("std", np.where(known, std, 0).sum(axis=0))
        squares = np.where(known, (y - values) / self.std, 0) ** 2
        bins = np.digitize(std, EDGES)
        histogram, in_bins = np.zeros((len(self.names), PIT_BINS)), np.zeros((3, len(self.names), len(EDGES) + 1))
        for k in range(len(self.names)):
            own = known[:, k]
            histogram[k] = np.histogram(places[own, k], PIT_BINS, (0, 1))[0]
            for i, weights in enumerate((np.ones_like(std), std**2, squares)):
                in_bins[i, k] = np.bincount(bins[own, k], weights[own, k], len(EDGES) + 1)
        self._add("places", histogram)
        self._add("in bins", in_bins)

    def _add(self, name: str, values: np.ndarray) -> None:
        self.sums[name] = self.sums.get(name, 0) + values

    def __add__(self, other: Self) -> Self:
        joined = type(self)(self.names, self.mean, self.std)
        for part in (self, other):
            for name, values in part.sums.items():
                joined._add(name, values)
        return joined

    def compute(self) -> dict[str, Any]:
        """`loss`, the negative log-likelihood of all values of a galaxy, beside that of the constant normal distribution of the training split; and by value:

        `nll`, in nats per galaxy that has it, of the value in standard deviations of the training split, and `nll_interval`; `places` (PIT_BINS,), the PIT histogram, which is flat if the
        distributions are true; `coverage`, per cent -> the share of true values in the central interval of this probability, and
        `coverage_interval`; `std`, the mean standard deviation, beside that of the training split; `bins`, from the predicted standard deviations:
        the galaxies in each, the root mean square of what was predicted, and that of the errors, in the unit of the value.
        """
        sums = self.sums
        known = sums["known"]
        loss = {who: float(sums[f"{who} nll"].sum() / sums["galaxies"]) for who in ("model", "baseline")}
        return {"loss": loss, "values": {name: self._of_value(k) for k, name in enumerate(self.names) if known[k]}}

    def _of_value(self, k: int) -> dict[str, Any]:
        sums = self.sums
        known, drawn = sums["known"][k], sums["known (R)"][:, k]
        covered = ratios(sums["inside (R)"][:, k], drawn[:, None])
        counts, variances, squares = sums["in bins"][:, k]
        return {
            "galaxies": int(known),
            "nll": {who: float(sums[f"{who} nll"][k] / known) for who in ("model", "baseline")},
            "nll_interval": _ends(ratios(sums["model nll (R)"][:, k], drawn)),
            "places": six_digits(sums["places"][k] / known),
            "coverage": dict(zip(map(str, LEVELS), six_digits(sums["inside"][k] / known), strict=True)),
            "coverage_interval": {str(level): _ends(covered[:, i]) for i, level in enumerate(LEVELS)},
            "std": {"model": float(sums["std"][k] / known * self.std[k]), "baseline": float(self.std[k])},
            "bins": {
                "galaxies": counts.astype(int).tolist(),
                "predicted": six_digits(np.sqrt(ratios(variances, counts)) * self.std[k]),
                "error": six_digits(np.sqrt(ratios(squares, counts)) * self.std[k]),
            },
        }


def _ends(replicates: np.ndarray) -> list[float | None] | None:
    """The ends of the interval over replicates in which a galaxy counts."""
    finite = replicates[np.isfinite(replicates)]
    return six_digits(np.quantile(finite, ENDS)) if len(finite) else None
