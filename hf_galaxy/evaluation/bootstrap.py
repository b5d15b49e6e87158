"""The uncertainty of a figure over test galaxies: the Poisson bootstrap.

In each replicate a galaxy counts 0, 1, 2, ... times, at random with mean 1 (Chamandy et al. 2012, "Estimating uncertainty for
massive data streams"). How often depends on its name and the replicate alone, so that sums of weighted figures can be
added up over batches and processes, and two models measured on the same galaxies are compared on equal terms.
"""

from typing import Any

import numpy as np

from hf_galaxy.randomness import GOLDEN, split_mix, to_unit_interval

REPLICATES = 200
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
    """(R,) draws of the mean over runs that differ in their seed: with other seeds and other galaxies.

    For a difference between two kinds of runs pass the difference for each seed: then what both have in common cancels.

    Args:
        values: (S,) figures, or differences of figures, one for each seed.
        replicates: (S, R) the same in the replicates of a bootstrap over galaxies.
    """
    from scipy.stats import t

    seeds, count = replicates.shape
    if seeds < 2:
        return np.full(count, np.nan)  # one run does not show how seeds differ
    # The mean of few normal deviates has Student's t distribution.
    return replicates.mean(axis=0) + values.std(ddof=1) / seeds**0.5 * spread(t(seeds - 1), count, rng)


def spread(distribution: Any, count: int, rng: np.random.Generator) -> np.ndarray:
    """(count,) numbers that represent a distribution of scipy: its equally spaced quantiles, in random order."""
    return rng.permutation(distribution.ppf((np.arange(count) + 0.5) / count))


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


LEVEL = 0.9  # of intervals
