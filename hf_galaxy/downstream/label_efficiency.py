"""The number of labelled galaxies that a start needs for the loss of the reference."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from hf_galaxy.downstream.comparison import Comparison
from hf_galaxy.evaluation.bootstrap import LEVEL, LOSS_FLOOR, MIN_DEFINED, ratios

FEWER, MORE = "fewer", "more"  # than the measured sizes


def is_main(key: tuple, about: dict[str, Any]) -> bool:
    """Whether (measure, task, ...) has the measure by which the task is compared."""
    measure, task, *_ = key
    return measure == about["tasks"][task]["measure"]


def labels_of(kinds: dict[tuple, dict[int, Any]], about: dict[str, Any]) -> list[dict[str, Any]]:
    """The number of galaxies that each start needs for the loss of the reference with all of them, the number that the reference
    needs over it, and the number of labels saved.

    Args:
        kinds: (measure, task, start, mode, share) -> seed -> row of `results.points_of`.
        about: from `results.read_about`.
    """
    rows = []
    main = {key[1:]: (key[0], part) for key, part in kinds.items() if is_main(key, about)}
    for task, start, mode in itertools.product(about["tasks"], about["starts"], about["modes"]):
        shares = [
            share
            for share in sorted({key[-1] for key in main})
            if {(task, who, mode, share) for who in (start, about["reference"])} <= main.keys()
        ]
        if start == about["reference"] or len(shares) < 2:
            continue
        parts = [main[task, who, mode, share][1] for who in (about["reference"], start) for share in shares]
        if (comparison := Comparison.of(parts)) is None:
            continue
        draws = comparison.draws("labels", task, start, mode)
        sizes = np.array([np.mean([run.galaxies for run in part.values()]) for part in parts[: len(shares)]])
        (target,), (needed,), (factor,), (saved,) = (
            each.tolist() for each in _needed(sizes, comparison.means[:, None])
        )
        _, of_needed, of_factor, of_saved = _needed(sizes, draws)
        rows.append({
            "task": task, "start": start, "mode": mode, "measure": main[task, start, mode, shares[0]][0], "seeds": comparison.seeds,
            "target": target, "least": round(sizes[0]), "most": round(sizes[-1]),
            "galaxies": _ends(needed, of_needed, lambda value: math.ceil(value - 1e-6)),
            "factor": _ends(factor, of_factor, float),
            "saved": _ends(saved, of_saved, lambda value: math.floor(value + 1e-6)),
        })  # fmt: skip
    return rows


def _needed(sizes: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The target, the galaxies needed for it, the factor and the difference to the need of the reference: four (D,) arrays.

    Args:
        sizes: (K,) numbers of galaxies.
        losses: (2 K, D) of the reference, then of a start. The target is the loss of the reference with all galaxies.
    """
    reference, start = (falling(np.log(np.maximum(part, LOSS_FLOOR)).T) for part in np.split(losses, 2))
    target = reference[:, -1]
    theirs = np.clip(galaxies_for(sizes, reference, target), sizes[0], sizes[-1])
    needed = galaxies_for(sizes, start, target)
    with np.errstate(divide="ignore"):  # a start that needs fewer than the smallest size saves an unknown number
        factor = np.where(needed > 0, theirs / np.abs(needed), np.inf)
    saved = np.where(theirs - needed >= 1, theirs - needed, -np.inf)
    return np.exp(target), needed, *(np.where(np.isnan(needed), np.nan, each) for each in (factor, saved))


def falling(curves: np.ndarray) -> np.ndarray:
    """(D, K) the nearest curves, by least squares, that never rise: by chance alone a loss rises with more labels.

    The min-max formula of isotonic regression (Barlow et al. 1972).
    """
    sums = np.cumsum(np.pad(curves, ((0, 0), (1, 0))), axis=1)
    size = curves.shape[1]

    def mean(first: int, last: int) -> np.ndarray:
        return (sums[:, last + 1] - sums[:, first]) / (last + 1 - first)

    return np.stack(
        [
            np.min([np.max([mean(j, k) for k in range(i, size)], axis=0) for j in range(i + 1)], axis=0)
            for i in range(size)
        ],
        axis=1,
    )


def galaxies_for(sizes: np.ndarray, curves: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(D,) where falling curves reach their targets: between two sizes by a power law, beyond them -inf or inf.

    Args:
        sizes: (K,) galaxies, rising.
        curves: (D, K) logarithms of losses, which never rise.
        targets: (D,) such logarithms.
    """
    reached = curves <= targets[:, None] + 1e-12
    after = np.clip(reached.argmax(axis=1), 1, None)
    rows = np.arange(len(curves))
    above, below = curves[rows, after - 1], curves[rows, after]
    part = np.clip(ratios(above - targets, above - below), 0, 1)
    logs = np.log(sizes)
    needed = np.exp(logs[after - 1] + part * (logs[after] - logs[after - 1]))
    needed = np.where(reached[:, 0], -np.inf, np.where(reached[:, -1], needed, np.inf))
    return np.where(np.isfinite(curves).all(axis=1) & np.isfinite(targets), needed, np.nan)


def _ends(value: float, draws: np.ndarray, number: Callable[[float], float]) -> dict[str, float | str | None]:
    """A value and its interval, of which each end may be FEWER or MORE."""

    def bounded(end: float) -> float | str:
        return MORE if end == np.inf else FEWER if end in (-np.inf, 0) else number(end)

    defined = np.sort(draws[~np.isnan(draws)])
    low = high = None
    if len(defined) >= MIN_DEFINED * len(draws):
        low, high = (bounded(defined[math.ceil(q * len(defined)) - 1]) for q in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return {"value": bounded(value), "low": low, "high": high}
