"""Intervals of mean losses over seeds and test galaxies, from draws of several kinds of runs together.

C: kinds of runs; S: seeds; R: replicates of the bootstrap over test galaxies; D = SEED_DRAWS x R: draws.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hf_galaxy.evaluation.bootstrap import LEVEL
from hf_galaxy.randomness import key_of

SEED_DRAWS = 5  # for each replicate
MIN_DEFINED = 0.9  # fraction of the replicates in which a figure must be defined; a smaller part would not be typical
LOSS_FLOOR = 1e-12  # in place of a loss of 0, which has no logarithm


def draws_of(values: np.ndarray, replicates: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(C, D) draws of the mean losses of several kinds of runs, over other seeds and other test galaxies.

    All kinds are drawn together: seeds and galaxies that are hard for one kind are hard for the others as far as they were so
    here. Both change a loss by a factor, so that none falls below 0. Where seeds have test galaxies of their own (folds), these
    are a part of the differences between seeds; `_galaxy_factor` keeps them from being counted twice. NaN with a single seed,
    and in replicates in which one kind is not defined.

    Args:
        values: (C, S) of seeds that all kinds have.
        replicates: (C, S, R) the same in the replicates of a bootstrap over galaxies.
    """
    kinds, seeds, count = replicates.shape
    if seeds < 2:
        return np.full((kinds, SEED_DRAWS * count), np.nan)  # seeds without an estimate of how they differ
    mean = np.maximum(values.mean(axis=1, keepdims=True), LOSS_FLOOR)
    off = values / mean - 1
    galaxies = np.log(np.maximum(replicates.mean(axis=1), LOSS_FLOOR) / mean)
    galaxies = galaxies * _galaxy_factor(replicates / mean[..., None] - 1 - off[..., None], galaxies)
    # A deviate of Student's t for each draw, which moves all kinds by what they have in common in their seeds.
    normal = rng.standard_normal((seeds, SEED_DRAWS * count)) / (seeds * (seeds - 1)) ** 0.5
    student = (normal - normal.mean(axis=0)) / (rng.chisquare(seeds - 1, SEED_DRAWS * count) / (seeds - 1)) ** 0.5
    draws = mean * np.exp(np.clip(np.repeat(galaxies, SEED_DRAWS, axis=1) + off @ student, -50, 50))
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
        parts: for each kind, seed -> row of `results.points_of`.
        name: of the comparison, which seeds the draws.
    """
    seeds = sorted(set.intersection(*map(set, parts)))
    if not seeds:
        return np.full(len(parts), np.nan), np.full((len(parts), 1), np.nan), 0
    values = np.array([[part[seed].loss for seed in seeds] for part in parts])
    replicates = np.array([[part[seed].replicates for seed in seeds] for part in parts])
    # By name, so that a number does not change when other comparisons are added, and tasks have draws of their own.
    rng = np.random.default_rng(key_of(" ".join(map(str, name))))
    return values.mean(axis=1), draws_of(values, replicates, rng), len(seeds)


def estimate_of(value: float | np.floating, draws: np.ndarray) -> dict[str, float | None]:
    """A value with the ends `low` and `high` of its interval, None where too few of its (D,) draws are defined."""
    defined = np.isfinite(draws)
    low = high = None
    if np.isfinite(value) and defined.mean() >= MIN_DEFINED:
        low, high = np.quantile(draws[defined], [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return {"value": or_none(value), "low": low, "high": high}


def error_of(estimate: Mapping[str, float | None], change: Callable[[float], float] = lambda value: value) -> str:
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


def is_main(part: Mapping[int, Any]) -> bool:
    """Whether rows by seed are of the measure by which their task is compared."""
    return next(iter(part.values())).main
