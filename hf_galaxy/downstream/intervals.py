"""Draws of mean losses of several kinds of runs together, and what an interval of them says.

C: kinds of runs; S: seeds; R: replicates of the bootstrap over test galaxies; D = TIMES x R: draws.
"""

import numpy as np

from hf_galaxy.evaluation.bootstrap import LEVEL
from hf_galaxy.randomness import key_of

TIMES = 5  # draws of seeds for each replicate
DEFINED = 0.9  # share of the replicates that a figure must be defined in; those left would not be typical
LEAST = 1e-12  # in place of a loss of 0, whose logarithm is none


def draws_of(values: np.ndarray, replicates: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(C, D) mean losses of several kinds of runs, as they could have come out together with other seeds and other galaxies.

    As `bootstrap.mean_draws`, but of all kinds at once: seeds and galaxies that are hard for one are hard for the others as
    far as they were so here. Both change a loss by a factor, so that none falls below 0. Where seeds have test galaxies of
    their own (folds), these are a part of how seeds differ; `_not_of_seeds` keeps them from being counted twice. No number
    with a single seed, nor in replicates that one kind is not defined in.

    Args:
        values: (C, S) of seeds that all kinds have.
        replicates: (C, S, R) the same in the replicates of a bootstrap over galaxies.
    """
    kinds, seeds, count = replicates.shape
    if seeds < 2:
        return np.full((kinds, TIMES * count), np.nan)  # nothing is known of how seeds differ
    mean = np.maximum(values.mean(axis=1, keepdims=True), LEAST)
    off = values / mean - 1
    galaxies = np.log(np.maximum(replicates.mean(axis=1), LEAST) / mean)
    galaxies = galaxies * _not_of_seeds(replicates / mean[..., None] - 1 - off[..., None], galaxies)
    # A deviate of Student's t for each draw, which moves all kinds by what they have in common in their seeds.
    normal = rng.standard_normal((seeds, TIMES * count)) / (seeds * (seeds - 1)) ** 0.5
    student = (normal - normal.mean(axis=0)) / (rng.chisquare(seeds - 1, TIMES * count) / (seeds - 1)) ** 0.5
    draws = mean * np.exp(np.clip(np.repeat(galaxies, TIMES, axis=1) + off @ student, -50, 50))
    return np.where(np.isfinite(draws).all(axis=0), draws, np.nan)


def _not_of_seeds(own, galaxies):
    """How much of what galaxies change in comparisons of kinds is not in the differences among seeds already: a factor.

    A mean over seeds varies by what replicates have in common in all seeds, and by 1 / S of what each seed has for itself; of
    the latter the differences among seeds tell by themselves.

    Args:
        own: (C, S, R) relative deviations in the replicates of each seed.
        galaxies: (C, R) those of the means over seeds.
    """
    known = np.isfinite(galaxies).all(axis=0)
    if not known.any():
        return 0.0
    own, galaxies = own[..., known], galaxies[:, known]
    if len(own) > 1:
        own, galaxies = own - own.mean(axis=0), galaxies - galaxies.mean(axis=0)
    of_mean, of_seeds = galaxies.var(axis=1).sum(), own.var(axis=1, ddof=1).mean(axis=1).sum() / own.shape[1]
    return max(0.0, 1 - of_seeds / of_mean) ** 0.5 if of_mean > 0 else 0.0


def mean_and_draws(parts: list[dict], *name) -> tuple[np.ndarray, np.ndarray, int]:
    """(C,) mean losses over the seeds that all parts have, draws of them (C, D), and how many seeds there are.

    Args:
        parts: of each kind, seed -> row of `results.points_of`.
        name: of what is compared.
    """
    seeds = sorted(set.intersection(*map(set, parts)))
    if not seeds:
        return np.full(len(parts), np.nan), np.full((len(parts), 1), np.nan), 0
    values = np.array([[part[seed].loss for seed in seeds] for part in parts])
    replicates = np.array([[part[seed].replicates for seed in seeds] for part in parts])
    # By name, so that a number does not change when others are added, and tasks are not drawn alike.
    rng = np.random.default_rng(key_of(" ".join(map(str, name))))
    return values.mean(axis=1), draws_of(values, replicates, rng), len(seeds)


def estimate_of(value: float, draws: np.ndarray) -> dict[str, float | None]:
    """A value with the ends `low` and `high` of its interval, None where too few of its (D,) draws are defined."""
    known = np.isfinite(draws)
    low = high = None
    if np.isfinite(value) and known.mean() >= DEFINED:
        low, high = np.quantile(draws[known], [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return {"value": plain(value), "low": low, "high": high}


def error_of(estimate: dict, change=lambda value: value) -> str:
    """Whether the error is less or more, by how an estimate says that it changes: "less", "more", "not shown" or "not known"."""
    if estimate["low"] is None:
        return "not known"
    ends = change(estimate["low"]), change(estimate["high"])
    return "less" if max(ends) < 0 else "more" if min(ends) > 0 else "not shown"


def plain(value: float) -> float | None:
    """The number; None where there is none."""
    return float(value) if np.isfinite(value) else None


def is_main(part: dict) -> bool:
    """Whether a figure, of rows by seed, is the measure of its task."""
    return next(iter(part.values())).main
