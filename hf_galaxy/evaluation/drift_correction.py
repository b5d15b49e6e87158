"""From the fraction that is predicted of a degraded picture back to that of the original one, with its uncertainty.

For each answer and step the mean original fraction o is a function of the degraded one d: the means of o in bins of d, made monotone by the
pool-adjacent-violators algorithm (Barlow et al. 1972), with straight lines between the bins, and shifted a little, so that the mean of all galaxies is right. It is
the regression of o on d: right on average for galaxies like those it was measured on, and it draws each towards their mean by as much as d
has forgotten. Galaxies of a child question count as much as the question is asked of the degraded pictures, which is what a catalogue knows.

Two uncertainties: the function is known within that of its replicates (a bootstrap over galaxies), which all galaxies share; and a single
galaxy scatters about it. `Correction.mean` has both.

Legend: B galaxies, A answers, R replicates, D bins of degraded and O of original fractions, K nodes of a function.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from scipy.optimize import isotonic_regression
from scipy.special import ndtri

from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.errors import BadInput
from hf_galaxy.evaluation.bootstrap import LEVEL, REPLICATES
from hf_galaxy.evaluation.drift import Answers, weights_of

if TYPE_CHECKING:
    import pandas as pd

BINS, ORIGINAL_BINS = 100, 100
LEAST = 10.0  # galaxies in a bin, in weight
FOLDS = 5
FILE = "correction.parquet"


class CorrectionSums:
    """What is kept of the galaxies of one fold at one step."""

    def __init__(self, answers: Answers, replicates: int = REPLICATES) -> None:
        self.answers, self.replicates = answers, replicates
        a = len(answers.columns)
        self.weight = np.zeros((a, BINS, replicates + 1))
        self.original = np.zeros((a, BINS, replicates + 1))
        self.degraded = np.zeros((a, BINS))
        self.squares = np.zeros((a, BINS))
        self.histogram = np.zeros((a, BINS, ORIGINAL_BINS))

    def add(self, keys: np.ndarray, before: np.ndarray, after: np.ndarray) -> None:
        """Some galaxies, as of `DriftSums.add`."""
        often = weights_of(keys, self.replicates)
        asked = self.answers.asked(after)[:, self.answers.question_of]
        places, originals = (
            np.clip((each * count).astype(int), 0, count - 1)
            for each, count in ((after, BINS), (before, ORIGINAL_BINS))
        )
        for a in range(len(self.answers.columns)):
            weights = np.zeros((BINS, len(keys)))
            weights[places[:, a], np.arange(len(keys))] = asked[:, a]
            self.weight[a] += weights @ often
            self.original[a] += (weights * before[:, a]) @ often
            self.degraded[a] += weights @ after[:, a]
            self.squares[a] += weights @ before[:, a] ** 2
            np.add.at(self.histogram[a], (places[:, a], originals[:, a]), asked[:, a])

    @classmethod
    def total(cls, parts: Sequence[CorrectionSums]) -> CorrectionSums:
        """Of the galaxies of several folds."""
        total = cls(parts[0].answers, parts[0].replicates)
        for name in ("weight", "original", "degraded", "squares", "histogram"):
            setattr(total, name, np.sum([getattr(part, name) for part in parts], axis=0))
        return total

    def curves(self) -> list[Curve | None]:
        """(A,) the function of each answer."""
        return [self.curve(a) for a in range(len(self.answers.columns))]

    def curve(self, a: int) -> Curve | None:
        """The function of answer a; None: its question is hardly ever asked."""
        groups = _groups(self.weight[a, :, 0])
        if not groups:
            return None
        starts = [first for first, _ in groups]

        def merged(values: np.ndarray) -> np.ndarray:
            return np.add.reduceat(values, starts, axis=0)

        weight, original = merged(self.weight[a]), merged(self.original[a])
        main = weight[:, 0]
        means = original / np.maximum(weight, 1e-12)
        means = np.where(weight > 0, means, means[:, :1])
        monotone = np.stack(
            [
                isotonic_regression(mean, weights=np.maximum(own, 1e-9)).x
                for mean, own in zip(means.T, weight.T, strict=True)
            ],
            axis=1,
        )
        fitted = monotone[:, 0]  # not the means themselves, about which few galaxies scatter too little
        spread = np.sqrt(np.maximum(merged(self.squares[a]) / main - 2 * fitted * means[:, 0] + fitted**2, 0))
        low, high = _quantiles(merged(self.histogram[a]), (0.5 - LEVEL / 2, 0.5 + LEVEL / 2)).T
        nodes = merged(self.degraded[a]) / main
        values = self._with_mean(a, nodes, monotone)
        return Curve(nodes, values[:, 0], values[:, 1:], spread, low, high, main)

    def _with_mean(self, a: int, nodes: np.ndarray, values: np.ndarray) -> np.ndarray:
        """(K, R + 1) values of nodes, shifted so that straight lines between them have the mean of the original fractions."""
        weight = self.weight[a]
        places = self.degraded[a] / np.maximum(weight[:, 0], 1e-12)
        parts = np.array([np.interp(places, nodes, unit) for unit in np.eye(len(nodes))]) @ weight  # (K, R + 1)
        total = np.maximum(weight.sum(axis=0), 1e-12)
        return np.clip(values + (self.original[a].sum(axis=0) - (parts * values).sum(axis=0)) / total, 0, 1)


class Curve(NamedTuple):
    """The function of one answer at one step.

    Attributes:
        degraded: (K,) increasing.
        original: (K,) the mean there.
        replicates: (K, R) of the mean.
        spread: (K,) standard deviation of single galaxies.
        single_low, single_high: (K,) ends of the interval of a single galaxy.
        weight: (K,) galaxies.
    """

    degraded: np.ndarray
    original: np.ndarray
    replicates: np.ndarray
    spread: np.ndarray
    single_low: np.ndarray
    single_high: np.ndarray
    weight: np.ndarray

    def at(self, degraded: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
        """(B,) the mean original fraction of galaxies, or other values of the nodes (K,); beyond the last node as there."""
        return np.interp(degraded, self.degraded, self.original if values is None else values)


def _groups(weight: np.ndarray) -> list[tuple[int, int]]:
    """First and last bin of each node: neighbours are merged until each has `LEAST` galaxies."""
    groups: list[tuple[int, int]] = []
    first, total = 0, 0.0
    for place, own in enumerate(weight):
        total += own
        if total >= LEAST:
            groups.append((first, place))
            first, total = place + 1, 0.0
    if groups and first < len(weight):
        groups[-1] = (groups[-1][0], len(weight) - 1)
    return groups


def _quantiles(histogram: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """(K, len(shares)) quantiles of original fractions, from their histograms (K, O)."""
    edges = np.linspace(0, 1, ORIGINAL_BINS + 1)
    below = np.concatenate([np.zeros((len(histogram), 1)), histogram.cumsum(axis=1)], axis=1)
    below /= np.maximum(below[:, -1:], 1e-12)
    return np.array([[np.interp(share, own, edges) for share in shares] for own in below])


@dataclass(frozen=True, eq=False)
class Correction:
    """The functions of all answers and steps.

    Attributes:
        axis: what changes from step to step, such as "redshift".
        reference: its value for the original pictures.
        places: its value at each step.
        curves: by answer and step; None where a question is hardly ever asked.
        tree: that says when a question is asked; None: always.
    """

    axis: str
    reference: float
    places: tuple[float, ...]
    curves: dict[str, tuple[Curve | None, ...]]
    tree: DecisionTree | None = None

    def rows(self) -> list[dict[str, Any]]:
        """A row for each node, as of the tables; `replicates` is a list of R numbers."""
        rows = []
        for answer, own in self.curves.items():
            for place, curve in zip(self.places, own, strict=True):
                for k in range(len(curve.degraded) if curve else 0):
                    assert curve
                    low, high = np.quantile(curve.replicates[k], (0.5 - LEVEL / 2, 0.5 + LEVEL / 2))
                    rows.append({
                        "answer": answer, self.axis: place, "degraded": curve.degraded[k], "original": curve.original[k], "original_low": low,
                        "original_high": high, "spread": curve.spread[k], "single_low": curve.single_low[k], "single_high": curve.single_high[k],
                        "galaxies": curve.weight[k], "replicates": curve.replicates[k].astype(np.float32),
                    })  # fmt: skip
        return rows

    @classmethod
    def read(cls, folder: Path | str) -> Self:
        """What `hf-galaxy degrade` has written into a folder.

        Raises:
            BadInput: there is none.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        file = Path(folder) / FILE
        try:
            table = pq.read_table(file)
            facts = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
            axis, reference = facts["axis"], float(facts["reference"])
            places = tuple(map(float, facts["places"].split()))
            tree = DecisionTree.from_dict(json.loads(facts["tree"])) if "tree" in facts else None
        except (OSError, KeyError, ValueError, pa.ArrowException) as error:
            raise BadInput(f"{file}: is no table of corrections, as hf-galaxy degrade writes it ({error})") from error
        curves: dict[str, tuple[Curve | None, ...]] = {}
        frame = table.to_pandas()
        for answer, own in frame.groupby("answer", sort=False):
            parts = {place: part for place, part in own.groupby(axis)}
            curves[str(answer)] = tuple(_curve_of(parts[place]) if place in parts else None for place in places)
        return cls(axis, reference, places, curves, tree)

    def write(self, folder: Path) -> None:
        """correction.parquet and, without the replicates, correction.csv."""
        import pandas as pd
        import pyarrow as pa
        import pyarrow.parquet as pq

        from hf_galaxy.files import whole_file

        frame = pd.DataFrame(self.rows())
        facts = {"axis": self.axis, "reference": repr(self.reference), "places": " ".join(map(repr, self.places))}
        if self.tree is not None:
            facts["tree"] = json.dumps(self.tree.to_dict())
        with whole_file(folder / FILE) as partial:
            pq.write_table(
                pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(facts),
                partial,
                compression="zstd",
            )
        with whole_file((folder / FILE).with_suffix(".csv")) as partial:
            frame.drop(columns="replicates").to_csv(partial, index=False, float_format="%.6g")

    def corrected(self, catalogue: pd.DataFrame, at: str | float) -> pd.DataFrame:
        """The catalogue's fractions as of the original pictures, beside those of the degraded ones.

        Args:
            catalogue: with columns of answers, as `hf-galaxy predict` writes them.
            at: its column of the redshift, the distance, or whatever `axis` is; or one number for all. Between steps functions are
                interpolated; nearer than the original pictures nothing changes, and beyond the last step there is no number (NaN).

        Returns:
            A copy. Beside each answer ANSWER that has a function are ANSWER_corrected, and ANSWER_single_low and ANSWER_single_high, the
            ends of the interval of a single galaxy. What is said of galaxies that are not asked (`asked`) means nothing.

        Raises:
            BadInput: there is no such column, or it has none of the answers; or a number in it is none.
        """
        places, new = self._places(catalogue, at), {}
        for answer in self._answers(catalogue):
            fractions = _numbers(catalogue, answer)
            for name, what in (("corrected", "original"), ("single_low", "single_low"), ("single_high", "single_high")):
                new[f"{answer}_{name}"] = self._interpolated(answer, fractions, places, what)
        return catalogue.assign(**new)

    def asked(self, catalogue: pd.DataFrame, answer: str) -> np.ndarray:
        """(B,) the probability that the question of an answer is asked, as predicted of the degraded pictures; 1 of classes and labels.

        Raises:
            BadInput: there is no such answer, or the catalogue lacks one that the question depends on.
        """
        self._check_answer(answer)
        if self.tree is None:
            return np.ones(len(catalogue))
        columns = Answers.of_tree(self.tree).columns
        question, needed = self.tree.question_of_answer[columns.index(answer)], set()
        waiting = [question]
        while waiting:  # all answers above it
            above = self.tree.parents[waiting.pop()]
            needed.update(above)
            waiting += [self.tree.question_of_answer[a] for a in above]
        if missing := [columns[a] for a in sorted(needed) if columns[a] not in catalogue.columns]:
            raise BadInput(f"the catalogue has no column {missing[0]!r}, which says how often {answer} is asked for")
        fractions = np.ones((len(catalogue), len(columns)))
        for a in needed:
            fractions[:, a] = _numbers(catalogue, columns[a])
        return np.asarray(self.tree.asked_probability(fractions)[question])

    def mean(self, catalogue: pd.DataFrame, answer: str, at: str | float) -> dict[str, float]:
        """The mean corrected fraction of the galaxies of a catalogue.

        Each counts as much as it is asked of its degraded picture (`asked`), as those do that the functions were measured on; those without
        a number, or beyond the last step, are left out.

        Args:
            catalogue, at: as of `corrected`, with the answers that the question depends on.

        Returns:
            `value`, the ends `low` and `high` of its interval, and the number of `galaxies` that count; NaN if it is 0. The interval is for
            the mean original fraction of these galaxies, with the same weights, if they are like those of the correction.

        Raises:
            BadInput: as `corrected` and `asked`.
        """
        weights = self.asked(catalogue, answer)
        if answer not in catalogue.columns:
            raise BadInput(f"the catalogue has no column {answer!r}; give the predictions of the same model")
        places, fractions = self._places(catalogue, at), _numbers(catalogue, answer)
        values = self._interpolated(answer, fractions, places, "original")
        known = np.isfinite(values) & (weights > 0)
        if not known.any():
            return {"value": np.nan, "low": np.nan, "high": np.nan, "galaxies": 0}
        shares = weights[known] / weights[known].sum()
        fractions, places = fractions[known], places[known]
        value = float(shares @ values[known])
        shift: Any = 0.0
        for steps, curve in zip(self._steps(places).T[1:], self.curves[answer], strict=True):
            if curve is not None:
                nodes = [
                    (shares * steps) @ np.interp(fractions, curve.degraded, unit)
                    for unit in np.eye(len(curve.degraded))
                ]
                shift = shift + np.array(nodes) @ (curve.replicates - curve.original[:, None])
        spread = self._interpolated(answer, fractions, places, "spread")
        wide = float(ndtri(0.5 + LEVEL / 2) * np.hypot(np.std(shift), np.sqrt(shares**2 @ spread**2)))
        return {"value": value, "low": value - wide, "high": value + wide, "galaxies": int(known.sum())}

    def _check_answer(self, answer: str) -> None:
        if answer not in self.curves:
            raise BadInput(f"{answer}: has no correction; those that have one are {', '.join([*self.curves][:20])}")

    def _answers(self, catalogue: pd.DataFrame) -> list[str]:
        answers = [answer for answer in self.curves if answer in catalogue.columns]
        if not answers:
            raise BadInput(
                f"the catalogue has none of the answers, such as {next(iter(self.curves))}; give the predictions of the same model"
            )
        return answers

    def _places(self, catalogue: pd.DataFrame, at: str | float) -> np.ndarray:
        if not isinstance(at, str):
            places, where = np.full(len(catalogue), float(at)), f"at={at}"
        elif at not in catalogue.columns:
            raise BadInput(f"the catalogue has no column {at!r}, which says its {self.axis}")
        else:
            places, where = _numbers(catalogue, at), f"column {at!r}"
        if (below := np.flatnonzero(places < 0)).size:
            raise BadInput(
                f"{where} is {places[below[0]]:g} in row {below[0]}, which is no {self.axis}; leave such galaxies out, or give NaN"
            )
        return places

    def _steps(self, places: np.ndarray) -> np.ndarray:
        """(B, steps + 1) weights of the original, and of each step, for galaxies at these places; NaN beyond the last."""
        nodes = np.array([self.reference, *self.places])
        weights = np.stack([np.interp(places, nodes, unit) for unit in np.eye(len(nodes))], axis=1)
        weights[~(places <= nodes[-1] * (1 + 1e-9))] = np.nan
        return weights

    def _interpolated(self, answer: str, fractions: np.ndarray, places: np.ndarray, what: str) -> np.ndarray:
        weights = self._steps(places)
        result = weights[:, 0] * (0 if what == "spread" else fractions)
        for weight, curve in zip(weights.T[1:], self.curves[answer], strict=True):
            own = np.nan if curve is None else curve.at(fractions, getattr(curve, what))
            result = result + np.where(weight == 0, 0, weight * own)
        return result


def _numbers(catalogue: pd.DataFrame, column: str) -> np.ndarray:
    """(B,) of a column; NaN where there is none."""
    import pandas as pd

    values = catalogue[column]
    numbers = pd.to_numeric(values, errors="coerce")
    if (texts := np.flatnonzero(numbers.isna() & values.notna())).size:
        raise BadInput(f"column {column!r} is {values.iloc[texts[0]]!r} in row {texts[0]}; a plain number is needed")
    return np.asarray(numbers.to_numpy(float, na_value=np.nan))


def _curve_of(part: pd.DataFrame) -> Curve:
    return Curve(
        part["degraded"].to_numpy(), part["original"].to_numpy(), np.stack(part["replicates"].to_list()), part["spread"].to_numpy(),
        part["single_low"].to_numpy(), part["single_high"].to_numpy(), part["galaxies"].to_numpy(),
    )  # fmt: skip
