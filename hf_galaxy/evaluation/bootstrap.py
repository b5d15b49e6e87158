"""The uncertainty of figures over test galaxies and seeds.

Over test galaxies: the Poisson bootstrap. In each replicate a galaxy counts 0, 1, 2, ... times, at random with mean 1 (Chamandy et
al. 2012, "Estimating uncertainty for massive data streams"). How often depends on its name and the replicate alone, so that sums
of weighted figures can be added up over batches and processes, and two models measured on the same galaxies are compared on equal
terms.

Over seeds and test galaxies: draws of the mean losses of several kinds of runs together (`mean_draws`), from which the interval of
a mean, a difference, a ratio or an exponent is read (`estimate_of`).

C: kinds of runs; S: seeds; R: replicates; D = SEED_DRAWS x R: draws.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import numpy as np

from hf_galaxy.randomness import GOLDEN, key_of, split_mix, to_unit_interval

REPLICATES = 200
LEVEL = 0.9  # of intervals
SEED_DRAWS = 25  # for each replicate
MIN_DEFINED = 0.9  # fraction of the draws in which a figure must be defined; a smaller part would not be typical
LOSS_FLOOR = 1e-12  # in place of a loss of 0, which has no logarithm
# A Poisson number of mean 1 is above k with one minus this probability; above 15 in none of 2^44.
_CUMULATIVE = np.cumsum([1 / np.prod(np.arange(1.0, k + 1)) for k in range(16)]) / np.e


def counts(keys: np.ndarray, replicates: int = REPLICATES) -> np.ndarray:
    """(N, replicates) float64: how often each galaxy counts in each replicate.

    Args:
        keys: (N,) int64, as `key_of` gives.
    """
    with np.errstate(over="ignore"):  # arithmetic is modulo 2**64
        steps = np.arange(1, replicates + 1, dtype=np.uint64) * GOLDEN
        uniform = to_unit_interval(split_mix(keys.astype(np.uint64)[:, None] + steps))
    return np.searchsorted(_CUMULATIVE, uniform, side="right").astype(np.float64)


def mean_draws(values: np.ndarray, replicates: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(C, D) draws of the mean losses of several kinds of runs, with other seeds and other test galaxies.

        draw = mean * exp(galaxies + seeds)

    `galaxies` is the logarithm of the mean loss in a replicate over the mean loss. `seeds` is Student's t with S - 1 degrees of
    freedom, the distribution of the mean of few normal deviates, times the standard error of the losses relative to their mean.
    The effects are factors because a loss is positive and its scatter grows with it; where they are small, the draws are
    those of mean + differences. All kinds get the same replicate and the same deviate of each seed, so that what they have in
    common cancels in their differences and ratios.

    The differences between seeds contain a part of the effect of test galaxies: that which each seed has of its own, the whole of
    it where seeds have test galaxies of their own (folds). `_galaxy_factor` keeps it from being counted twice.

    NaN with a single seed, which does not show how seeds differ, and in replicates in which one kind is not defined.

    Args:
        values: (C, S) losses, of seeds that all kinds have.
        replicates: (C, S, R) the same in the replicates of a bootstrap over galaxies.
    """
    kinds, seeds, count = replicates.shape
    size = SEED_DRAWS * count
    if seeds < 2:
        return np.full((kinds, size), np.nan)
    effects = Effects.of(values, replicates, normal_deviates(seeds, size, rng))
    return effects.draws(chi_deviates(effects.free, size, rng))


def normal_deviates(seeds: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """(S, size) standard normal deviates of seeds."""
    return np.stack([rng.permutation(_normal_quantiles(size)) for _ in range(seeds)])


def chi_deviates(free: float, size: int, rng: np.random.Generator) -> np.ndarray:
    """(size,) standard deviations of samples, with this many degrees of freedom, where the true one is 1."""
    return (rng.permutation(_chi2_quantiles(free, size)) / free) ** 0.5


@lru_cache(maxsize=8)
def _normal_quantiles(size: int) -> np.ndarray:
    from scipy.stats import norm

    return quantiles(norm, size)


@lru_cache(maxsize=64)
def _chi2_quantiles(free: float, size: int) -> np.ndarray:
    from scipy.stats import chi2

    return quantiles(chi2(free), size)


@dataclass(frozen=True)
class Effects:
    """The effects on the mean losses of several kinds of runs, as logarithms of factors.

    Attributes:
        mean: (C, 1) the mean losses.
        galaxies: (C, R) of other test galaxies.
        seeds: (C, D) of other seeds, were the standard deviation of seeds the measured one.
        free: degrees of freedom of that standard deviation.
    """

    mean: np.ndarray
    galaxies: np.ndarray
    seeds: np.ndarray
    free: int

    @classmethod
    def of(cls, values: np.ndarray, replicates: np.ndarray, normal: np.ndarray) -> Self:
        """The effects that some losses show (arguments as of `mean_draws`); normal: (S, D) deviates of their seeds, two or more."""
        mean = np.maximum(values.mean(axis=1, keepdims=True), LOSS_FLOOR)
        relative, free = values / mean - 1, len(normal) - 1
        galaxies = np.log(np.maximum(replicates.mean(axis=1), LOSS_FLOOR) / mean)
        galaxies = galaxies * _galaxy_factor(replicates / mean[..., None] - 1 - relative[..., None], galaxies)
        deviates = (normal - normal.mean(axis=0)) / (len(normal) * free) ** 0.5
        return cls(mean, galaxies, relative @ deviates, free)

    def draws(self, chi: np.ndarray) -> np.ndarray:
        """(C, D) draws of the mean losses; chi: (D,) of `chi_deviates`."""
        galaxies = np.repeat(self.galaxies, SEED_DRAWS, axis=1)
        draws = self.mean * np.exp(np.clip(galaxies + self.seeds / chi, -50, 50))
        return np.where(np.isfinite(draws).all(axis=0), draws, np.nan)


def _galaxy_factor(own: np.ndarray, galaxies: np.ndarray) -> float:
    """The factor by which the effect of galaxies shrinks, as a part of it is already in the differences between seeds.

    The variance of a mean over seeds is that of replicates which all seeds share, and 1 / S of that which each seed has of its
    own; the latter is a part of the differences between seeds.

    Args:
        own: (C, S, R) relative deviations in the replicates of each seed.
        galaxies: (C, R) those of the means over seeds.
    """
    defined = np.isfinite(galaxies).all(axis=0)
    if not defined.any():
        return 0.0
    own, galaxies = own[..., defined], galaxies[:, defined]
    if len(own) > 1:
        own, galaxies = own - own.mean(axis=0), galaxies - galaxies.mean(axis=0)
    of_mean, of_seeds = galaxies.var(axis=1).sum(), own.var(axis=1, ddof=1).mean(axis=1).sum() / own.shape[1]
    return max(0.0, 1 - of_seeds / of_mean) ** 0.5 if of_mean > 0 else 0.0


def mean_and_draws(parts: Sequence[Mapping[int, Any]], *name: object) -> tuple[np.ndarray, np.ndarray, int]:
    """(C,) mean losses over the seeds that all parts share, (C, D) draws of them, and the number of these seeds.

    Args:
        parts: for each kind, seed -> a row with its `loss` and the loss in the (R,) `replicates`.
        name: of the comparison, which seeds the draws.
    """
    seeds = sorted(set.intersection(*map(set, parts)))
    if not seeds:
        return np.full(len(parts), np.nan), np.full((len(parts), 1), np.nan), 0
    values = np.array([[part[seed].loss for seed in seeds] for part in parts])
    replicates = np.array([[part[seed].replicates for seed in seeds] for part in parts])
    # By name, so that a number does not change when other comparisons are added, and tasks have draws of their own.
    rng = np.random.default_rng(key_of(" ".join(map(str, name))))
    return values.mean(axis=1), mean_draws(values, replicates, rng), len(seeds)


def estimate_of(value: float | np.floating, draws: np.ndarray) -> dict[str, float | None]:
    """A value with the ends `low` and `high` of its interval, None where too few of its (D,) draws are defined."""
    defined = np.isfinite(draws)
    low = high = None
    if np.isfinite(value) and defined.mean() >= MIN_DEFINED:
        low, high = np.quantile(draws[defined], [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return {"value": or_none(value), "low": low, "high": high}


def verdict_of(estimate: Mapping[str, float | None], change: Callable[[float], float] = lambda value: value) -> str:
    """Whether the error decreases: "less", "more", "not shown" (the interval holds 0) or "not known" (there is no interval).

    Args:
        change: from an end of the interval to the change of the error.
    """
    low, high = estimate["low"], estimate["high"]
    if low is None or high is None:
        return "not known"
    ends = change(low), change(high)
    return "less" if max(ends) < 0 else "more" if min(ends) > 0 else "not shown"


def or_none(value: float | np.floating) -> float | None:
    """The number; None where there is none."""
    return float(value) if np.isfinite(value) else None


def spread(distribution: Any, count: int, rng: np.random.Generator) -> np.ndarray:
    """(count,) numbers that represent a distribution of scipy: its equally spaced quantiles, in random order."""
    return rng.permutation(quantiles(distribution, count))


def quantiles(distribution: Any, count: int) -> np.ndarray:
    """(count,) equally spaced quantiles of a distribution of scipy."""
    return distribution.ppf((np.arange(count) + 0.5) / count)


def six_digits(values: np.ndarray) -> list[float | None]:
    """Numbers of six digits, for a record; None where a number is not finite."""
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values]


def ratios(totals: np.ndarray, counts: np.ndarray) -> Any:
    """Totals divided by counts; NaN where the count is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return totals / counts


def mean_of_counted(values: np.ndarray) -> np.ndarray:
    """(R,) means of the rows (R, ...) over their finite numbers."""
    there = np.isfinite(values)
    return ratios(np.where(there, values, 0).sum(1), there.sum(1))
