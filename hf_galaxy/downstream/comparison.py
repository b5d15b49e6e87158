"""Losses of several kinds of cells on the same galaxies, which are compared; and averages of comparisons over tasks.

A unit is what varies independently: the cells of one seed, or, where a start has several pretrainings, all cells of one of them.
So an interval over units has the variance of pretraining in it, where there is more than one; else it is that of these weights.

C: kinds of cells; U: units; R: replicates of a bootstrap over test galaxies; D: draws.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_galaxy.evaluation.bootstrap import SEED_DRAWS, Effects, chi_deviates, mean_draws, normal_deviates
from hf_galaxy.randomness import key_of

Contrast = Callable[[np.ndarray], Any]  # of (C, D) losses, (D,)


@dataclass(frozen=True)
class Comparison:
    """The losses of several kinds of cells by unit.

    Attributes:
        values: (C, U) means over the seeds of a unit; replicates: (C, U, R) the same in the replicates.
        units: their names: the first seed of each.
        seeds: the number of seeds.
        pretrainings: whether the units differ in the pretraining of a start, and so have something in common over all tasks.
    """

    values: np.ndarray
    replicates: np.ndarray
    units: tuple[int, ...]
    seeds: int
    pretrainings: bool

    @classmethod
    def of(cls, parts: Sequence[Mapping[int, Any]]) -> "Comparison | None":
        """The comparison over the seeds that all parts share; None if there are none.

        Args:
            parts: for each kind, seed -> a row with its `loss`, the loss in the (R,) `replicates`, the number of its
                `pretraining` and the number of `pretrainings` of its start.
        """
        seeds = sorted(set.intersection(*map(set, parts)))
        if not seeds:
            return None
        units = units_of(parts, seeds)
        return cls(
            np.array([[np.mean([part[seed].loss for seed in unit]) for unit in units] for part in parts]),
            np.array([[np.mean([part[seed].replicates for seed in unit], axis=0) for unit in units] for part in parts]),
            tuple(unit[0] for unit in units),
            len(seeds),
            any(row.pretrainings > 1 for part in parts for row in part.values()),
        )

    @property
    def means(self) -> np.ndarray:
        """(C,) mean losses."""
        return self.values.mean(axis=1)

    def draws(self, *name: object) -> np.ndarray:
        """(C, D) draws of the mean losses, as of `bootstrap.mean_draws`; name: of the comparison, which seeds them."""
        return mean_draws(self.values, self.replicates, _generator(*name))


def units_of(parts: Sequence[Mapping[int, Any]], seeds: Sequence[int]) -> list[list[int]]:
    """The seeds by unit: two seeds belong together if they share one of several pretrainings of a start."""
    units: list[list[int]] = []
    for seed in seeds:
        mine = [unit for unit in units if any(_share_pretraining(parts, seed, other) for other in unit)]
        joined = sorted([seed, *itertools.chain.from_iterable(mine)])
        units = [unit for unit in units if unit not in mine] + [joined]
    return sorted(units)


def _share_pretraining(parts: Sequence[Mapping[int, Any]], one: int, other: int) -> bool:
    return any(part[one].pretrainings > 1 and part[one].pretraining == part[other].pretraining for part in parts)


def average_draws(
    comparisons: Mapping[str, Comparison], datasets: Mapping[str, str], contrast: Contrast, *name: object
) -> np.ndarray:
    """(D,) draws of the mean over tasks of a contrast.

    Tasks are independent given the weights, but for those of one dataset, which share galaxies: these have the same deviate of
    each seed. So have all tasks, where units are pretrainings. The variance of the mean is the sum of those of the
    groups, each with few degrees of freedom f; the sum has those of Welch (1947, "The generalization of Student's problem when
    several different population variances are involved"),

        (sum of v)^2 / sum of v^2 / (f + 2) - 2

    Args:
        comparisons, datasets: by task.
        contrast: from the losses of the kinds to what is averaged.
        name: of the average, which seeds the draws.
    """
    size = SEED_DRAWS * max(each.replicates.shape[2] for each in comparisons.values())
    if any(len(each.units) < 2 for each in comparisons.values()):
        return np.full(size, np.nan)
    effects, groups = [], dict[str, list[tuple[np.ndarray, int]]]()
    for task, each in comparisons.items():
        group = "pretrainings" if each.pretrainings else datasets[task]
        normal = np.concatenate(
            [normal_deviates(1, size, _generator(*name, group, "unit", unit)) for unit in each.units]
        )
        effects.append(Effects.of(each.values, each.replicates, normal))
        of_seeds = contrast(effects[-1].mean * np.exp(np.clip(effects[-1].seeds, -50, 50)))
        groups.setdefault(group, []).append((of_seeds, effects[-1].free))
    parts = [(np.mean([d for d, _ in own], axis=0) * len(own), min(free for _, free in own)) for own in groups.values()]
    free = welch([np.nanvar(draws) for draws, _ in parts], [free for _, free in parts])
    chi = chi_deviates(free, size, _generator(*name, "chi"))
    return np.mean([contrast(each.draws(chi)) for each in effects], axis=0)


def welch(variances: Sequence[float], free: Sequence[int]) -> float:
    """The degrees of freedom of a sum of estimated variances, from those of each."""
    v, f = np.array(variances), np.array(free, float)
    if not v.sum() > 0:
        return float(f.min())
    return float((v.sum() ** 2 / (v**2 / (f + 2)).sum()) - 2)


def _generator(*name: object) -> np.random.Generator:
    # By name, so that a number does not change when other comparisons are added.
    return np.random.default_rng(key_of(" ".join(map(str, name))))
