"""The drift at one step, the correction for it, and how well that does for galaxies that it was not measured on.

Legend: B galaxies, A answers, F folds, R replicates.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtri

from hf_galaxy.evaluation.bootstrap import LEVEL, REPLICATES, or_none, ratios
from hf_galaxy.evaluation.drift import Answers, DriftSums
from hf_galaxy.evaluation.drift_correction import FOLDS, CorrectionSums, Curve
from hf_galaxy.randomness import key_of


class Pairs(NamedTuple):
    """Some galaxies: their keys (B,) and fractions (B, A), of the original and of the degraded pictures."""

    keys: np.ndarray
    before: np.ndarray
    after: np.ndarray

    def of_fold(self, fold: int) -> "Pairs":
        """Those in a fold, which their names alone decide."""
        own = self.keys % FOLDS == fold
        return Pairs(*(each[own] for each in self))


def pairs_of(original: Path, degraded: Path, answers: Answers) -> Iterator[Pairs]:
    """The predictions of the galaxies that two folders of `hf-galaxy predict` both have, one part at a time.

    Args:
        original, degraded: with parts of the same names, for the same galaxies.
    """
    import pyarrow.parquet as pq

    for file in sorted(original.glob("*.parquet")):
        before, after = (
            pq.read_table(folder / file.name, columns=["id_str", *answers.columns]) for folder in (original, degraded)
        )
        names = before["id_str"].to_pylist()
        rows = paired_rows(names, after["id_str"].to_pylist())
        if len(rows):
            fractions = [
                np.stack([table[column].to_numpy()[own] for column in answers.columns], axis=1).astype(np.float64)
                for table, own in zip((before, after), rows.T, strict=True)
            ]
            yield Pairs(np.array([key_of(names[row]) for row in rows[:, 0]]), *fractions)


def paired_rows(before: Sequence[str], after: Sequence[str]) -> np.ndarray:
    """(B, 2) rows of the same galaxies, both in the same order.

    A name that is there more often before, as one of its galaxies is left out, is of none: nobody knows which.
    """
    rows: dict[str, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for side, names in enumerate((before, after)):
        for row, name in enumerate(names):
            rows[name][side].append(row)
    pairs = [pair for own, other in rows.values() if len(own) == len(other) for pair in zip(own, other, strict=True)]
    return np.array(sorted(pairs), int).reshape(-1, 2)


@dataclass(frozen=True, eq=False)
class StepDrift:
    """What is measured at one step.

    Attributes:
        galaxies: number of them.
        answers: of each answer its drift (`DriftSums.of_answers`), and how the correction does (`_held_out`).
        questions: of each question (`DriftSums.of_questions`).
        curves: (A,) of the correction.
    """

    galaxies: int
    answers: list[dict[str, Any]]
    questions: list[dict[str, Any]]
    curves: list[Curve | None]


def step_drift(answers: Answers, pairs: Callable[[], Iterator[Pairs]], replicates: int = REPLICATES) -> StepDrift:
    """Measure one step.

    Args:
        pairs: gives all galaxies, some at a time; called twice.
    """
    drift, folds = DriftSums(answers, replicates), [CorrectionSums(answers, replicates) for _ in range(FOLDS)]
    for some in pairs():
        drift.add(*some)
        for fold, sums in enumerate(folds):
            sums.add(*some.of_fold(fold))
    curves = CorrectionSums.total(folds).curves()
    held_out = _held_out(answers, folds, pairs)
    rows = [own | held for own, held in zip(drift.of_answers(), held_out, strict=True)]
    return StepDrift(drift.galaxies, rows, drift.of_questions(), curves)


def _held_out(
    answers: Answers, folds: list[CorrectionSums], pairs: Callable[[], Iterator[Pairs]]
) -> list[dict[str, Any]]:
    """How the functions of the other folds do for the galaxies of each fold, for each answer.

    `error_before`: mean degraded minus mean original fraction, of galaxies as the correction weights them; `error_after`: the same of the
    corrected fraction. `folds_held`: in how many of the `folds` the interval of the mean held the mean original fraction.
    `single_held`: share of galaxies whose original fraction is in the interval of a single galaxy.
    """
    others = [CorrectionSums.total(folds[:f] + folds[f + 1 :]).curves() for f in range(len(folds))]
    shape = len(folds), len(answers.columns)
    weight, before, after, corrected, inside, scatter = np.zeros((6, *shape))
    shift = np.zeros((*shape, folds[0].replicates))
    for some in pairs():
        for f, curves in enumerate(others):
            own = some.of_fold(f)
            asked = answers.asked(own.after)[:, answers.question_of]
            for a, curve in enumerate(curves):
                if curve is None:
                    continue
                w, o, d = asked[:, a], own.before[:, a], own.after[:, a]
                weight[f, a] += w.sum()
                before[f, a] += w @ o
                after[f, a] += w @ d
                corrected[f, a] += w @ curve.at(d)
                inside[f, a] += w @ ((curve.at(d, curve.single_low) <= o) & (o <= curve.at(d, curve.single_high)))
                scatter[f, a] += w**2 @ curve.at(d, curve.spread) ** 2
                nodes = np.array([w @ np.interp(d, curve.degraded, unit) for unit in np.eye(len(curve.degraded))])
                shift[f, a] += nodes @ (curve.replicates - curve.original[:, None])
    known = weight > 0
    errors = np.sqrt(shift.var(axis=2) + scatter)
    held = (np.abs(corrected - before) <= float(ndtri(0.5 + LEVEL / 2)) * errors) & known
    total = weight.sum(axis=0)
    return [
        {
            "error_before": or_none(ratios((after - before).sum(axis=0), total)[a]),
            "error_after": or_none(ratios((corrected - before).sum(axis=0), total)[a]),
            "folds": int(known[:, a].sum()),
            "folds_held": int(held[:, a].sum()),
            "single_held": or_none(ratios(inside.sum(axis=0), total)[a]),
        }
        for a in range(len(answers.columns))
    ]
