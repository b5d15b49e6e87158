"""From a pilot to a budget: the error with more labelled galaxies, and the number of galaxies that a target needs.

A pilot is a sweep over a few subsets of the galaxies that are labelled so far. Its prediction for more galaxies depends most on
the question that it answers least: whether a loss remains with any number of galaxies (the floor of `laws`). So two laws predict, one
with a floor and one without: an interval reaches from the lower of their lower ends to the higher of their higher ends, and a
value is the geometric mean of what the two predict. Where the pilot shows a floor, the law with a floor predicts alone.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_galaxy.errors import BadInput
from hf_galaxy.evaluation.bootstrap import LOSS_FLOOR
from hf_galaxy.reports.measures import ALL
from hf_galaxy.scaling.laws import FEWEST, PowerLaw, doubts_about, ends_of, fit_power_law, held_out_interval, power
from hf_galaxy.scaling.study import (
    CURVE,
    better_than_a_constant,
    doubt_of_baseline,
    law_parameters,
    measured,
    useless_up_to,
)

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 0.98  # level of the interval of the floor; the pilot shows a floor if that interval lies above 0
AHEAD = 1, 2, 4, 8  # multiples of the galaxies so far that are predicted
REACH = 100  # largest multiple of the galaxies so far for which a law is used; beyond it the answer is "never"


@dataclass(frozen=True, kw_only=True)
class LabelBudget:
    """Predictions of a pilot, as plain numbers for budget.json. Intervals are of 90 %, None stands for infinity.

    A prediction has `galaxies`, `value`, `low` and `high`. The number of galaxies that a target needs is where the drawn curve
    falls to it.

    Attributes:
        dataset, start, backbone, measure, figure: of the runs.
        target: the loss to be reached, or None.
        now: the largest number of galaxies that was fitted.
        points: the losses that were fitted (`study.measured`).
        held_back: for each larger number of galaxies the `measured` mean loss and the `runs`, the `predicted` loss, the interval
            of that mean, and whether it lies `inside`.
        asked: the prediction for the number of galaxies that was asked for, or None.
        ahead: predictions for multiples of `now`.
        doubling: relative change of the loss if the galaxies so far, or those asked for, are doubled.
        curve: `galaxies`, `loss`, `low` and `high` of the drawn law.
        galaxies_for: the number of galaxies that the target needs; None without a target.
        laws: parameters of the laws with a `floor` and without (`plain`).
        floor_shown: whether only the law with a floor predicts.
        doubts: what the pilot does not determine.
    """

    dataset: str
    start: str
    backbone: str
    measure: str
    figure: str
    target: float | None
    now: int
    points: list[dict[str, Any]]
    held_back: list[dict[str, Any]]
    asked: dict[str, Any] | None
    ahead: list[dict[str, Any]]
    doubling: dict[str, float]
    curve: dict[str, list[float]]
    galaxies_for: dict[str, Any] | None  # value, low, high: int, or None for infinity
    laws: dict[str, dict[str, Any]]
    floor_shown: bool
    doubts: list[str]

    def as_dict(self) -> dict[str, Any]:
        """The attributes by name."""
        return dataclasses.asdict(self)


def series_of(
    points: pd.DataFrame, *, dataset: str | None = None, start: str | None = None, backbone: str | None = None,
    question: str = ALL, measure: str | None = None,
) -> pd.DataFrame:  # fmt: skip
    """The runs of `points.points_of` that differ in nothing but galaxies and seed.

    Args:
        dataset, start, backbone: as in the points; needed where they have several.
        question: or all questions (or classes) together.
        measure: by default the error, where there is one.

    Raises:
        BadInput: several kinds of runs are left, or none.
    """
    if measure is None and "error" in set(points["measure"]):
        measure = "error"
    chosen = {"dataset": dataset, "start": start, "backbone": backbone, "measure": measure, "question": question}
    for option, value in sorted(chosen.items(), key=lambda item: item[1] is None):  # options that were given come first
        column = "figure" if option == "question" else option
        there = sorted(set(points[column]))
        if value is None and len(there) > 1:
            raise BadInput(f"the runs have {len(there)} kinds of {column}: choose --{option} {' or '.join(there)}")
        if value is not None and value not in there:
            raise BadInput(f"--{option} {value}: was not measured; choose {', '.join(there)}")
        points = points[points[column] == (there[0] if value is None else value)]
    if (twice := points.duplicated(["galaxies", "seed"], keep=False)).any():
        raise BadInput(
            f"{' and '.join(points.loc[twice, 'run'][:2])} have the same galaxies and seed, and differ in other settings; "
            "give a folder with runs of one kind"
        )
    return points.sort_values(["galaxies", "seed"])


def budget_of(
    series: pd.DataFrame, target: float | None = None, hold_back: int = 0, galaxies: int | None = None
) -> LabelBudget:
    """Predict the loss with more galaxies from a pilot.

    Args:
        series: as `series_of` returns it.
        target: a loss to be reached.
        hold_back: this many of the largest numbers of galaxies are predicted instead of fitted, as a check; "now" is then the
            largest that is fitted.
        galaxies: predict this number, too: from the smallest of the pilot to `REACH` times as many as now.

    Raises:
        BadInput: the target is not positive, `galaxies` is out of range, or there are too few runs.
    """
    fitted, held_back = _split(series, target, hold_back, galaxies)
    now, largest = int(fitted["galaxies"].max()), series["galaxies"].max()
    laws = _Laws(*(_fit(_described(fitted), floor) for floor in (True, False)))
    smallest, end = series["galaxies"].min(), max(now * AHEAD[-1], largest, galaxies or 0)
    return LabelBudget(
        **series.iloc[0][["dataset", "start", "backbone", "measure", "figure"]],
        target=target,
        now=now,
        points=[measured(size, part) for size, part in fitted.groupby("galaxies")],
        held_back=[laws.compare(size, part) for size, part in held_back.groupby("galaxies")],
        asked=None if galaxies is None else laws.predict(galaxies),
        ahead=[laws.predict(now * times) for times in AHEAD],
        doubling=laws.doubling(galaxies or now),
        curve=laws.curve(np.unique(np.geomspace(smallest, end, CURVE).round())),
        galaxies_for=None if target is None else laws.galaxies_for(target, REACH * now),
        laws={name: _as_numbers(law) for name, law in (("floor", laws.floor), ("plain", laws.plain))},
        floor_shown=laws.floor_shown,
        doubts=laws.doubts + ([doubt] if (doubt := doubt_of_baseline(useless_up_to(fitted))) else []),
    )


def _split(
    series: pd.DataFrame, target: float | None, hold_back: int, galaxies: int | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The runs that are fitted, and those that are held back; BadInput as `budget_of`."""
    if target is not None and not target > 0:
        raise BadInput(f"--target {target}: give a loss above 0")
    sizes = np.unique(series["galaxies"])
    if hold_back < 0 or len(sizes) - hold_back < FEWEST:
        raise BadInput(
            f"--hold-back {hold_back}: the runs have {len(sizes)} different numbers of galaxies, and at least {FEWEST} have to "
            "be fitted; a sweep with more values for --vary subset adds some"
        )
    now = sizes[len(sizes) - hold_back - 1]
    if galaxies is not None and not sizes[0] <= galaxies <= REACH * now:
        raise BadInput(
            f"{galaxies} galaxies: the pilot has {sizes[0]} to {now}, and predicts none below that range, and none above "
            f"{REACH} times as many"
        )
    fitted = series["galaxies"] <= now
    if fitted.sum() <= FEWEST:
        raise BadInput(
            f"{fitted.sum()} runs: are too few to separate a law from chance; a sweep with --vary seed=1,2,3 adds some"
        )
    return series[fitted], series[~fitted]


def _described(fitted: pd.DataFrame) -> pd.DataFrame:
    """The runs better than a constant prediction, where these are enough for a law; else all."""
    better = better_than_a_constant(fitted)
    return better if better["galaxies"].nunique() >= FEWEST and len(better) > FEWEST else fitted


def _fit(fitted: pd.DataFrame, floor: bool) -> PowerLaw:
    sizes, losses, seeds = (fitted[name].to_numpy() for name in ("galaxies", "loss", "seed"))
    return fit_power_law(sizes, losses, seeds, galaxies=np.stack(fitted["replicates"]), floor=floor)


@dataclass(frozen=True, eq=False)
class _Laws:
    """The laws of a pilot with a floor and without, and what they predict together."""

    floor: PowerLaw
    plain: PowerLaw

    @cached_property
    def floor_shown(self) -> bool:
        return self.floor.interval("c", SHOWN)[0] > 0

    @cached_property
    def used(self) -> list[PowerLaw]:
        return [self.floor] if self.floor_shown else [self.floor, self.plain]

    @cached_property
    def regions(self) -> np.ndarray:
        """(N, 3) laws at the edge of all that are possible."""
        return np.concatenate([law.region() for law in self.used])

    @property
    def doubts(self) -> list[str]:
        return doubts_about(self.regions, self.floor.losses, floor=True)

    def value(self, galaxies: float) -> float:
        return float(np.exp(np.mean([np.log(max(float(law.predict(galaxies)), LOSS_FLOOR)) for law in self.used])))

    def predict(self, galaxies: int) -> dict[str, Any]:
        low, high = ends_of(np.asarray(power(self.regions, galaxies)))
        return {"galaxies": int(galaxies), "value": self.value(galaxies), "low": low, "high": high}

    def doubling(self, galaxies: int) -> dict[str, float]:
        before, after = (np.asarray(power(self.regions, times * galaxies)) for times in (1, 2))
        # A loss of 0 remains 0.
        low, high = ends_of(np.divide(after, before, out=np.ones_like(before), where=before > 0) - 1)
        return {"value": self.value(2 * galaxies) / self.value(galaxies) - 1, "low": low, "high": high}

    def compare(self, galaxies: int, part: pd.DataFrame) -> dict[str, Any]:
        """The prediction for runs that were held back, beside their losses."""
        losses, replicates = part["loss"].to_numpy(), np.stack(part["replicates"])
        lows, highs = zip(*(held_out_interval(law, galaxies, losses, replicates) for law in self.used), strict=True)
        mean, low, high = float(losses.mean()), min(lows), max(highs)
        return {
            "galaxies": int(galaxies), "measured": mean, "runs": losses.tolist(),
            "predicted": self.value(galaxies), "low": low, "high": high, "inside": low <= mean <= high,
        }  # fmt: skip

    def curve(self, galaxies: np.ndarray) -> dict[str, list[float]]:
        rows = [self.predict(each) for each in galaxies]
        names = {"galaxies": "galaxies", "loss": "value", "low": "low", "high": "high"}
        return {name: [row[of] for row in rows] for name, of in names.items()}

    def galaxies_for(self, target: float, most: int) -> dict[str, Any]:
        """The number of galaxies that the target needs; None for more than `most`."""
        lows, highs = zip(*(law.galaxies_interval(target) for law in self.used), strict=True)
        ends = {"value": self._crossing(target, most), "low": min(lows), "high": max(highs)}
        return {name: math.ceil(galaxies) if galaxies <= most else None for name, galaxies in ends.items()}

    def _crossing(self, target: float, most: int) -> float:
        """The number of galaxies with which `value` falls to the target; infinity for more than `most`."""
        if self.value(most) > target:
            return math.inf
        low, high = 0.0, math.log(most)
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self.value(math.exp(middle)) > target else (low, middle)
        return math.exp(high)


def _as_numbers(law: PowerLaw) -> dict[str, Any]:
    return law_parameters(law) | {"scatter": law.scatter, "range": law.range}


def case_of(now: int, galaxies_for: Mapping[str, Any]) -> str:
    """The kind of answer that `LabelBudget.galaxies_for` is.

    The target is "out of reach", "reached" or "may be reached"; or it "needs at least" a number of galaxies, without an upper
    end that the data determine, or "needs about" a number.
    """
    low, high = galaxies_for["low"], galaxies_for["high"]
    if low is None:
        return "out of reach"
    if high is not None and high <= now:
        return "reached"
    if low <= now:
        return "may be reached"
    return "needs at least" if high is None else "needs about"
