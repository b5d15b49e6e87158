"""From a pilot to a budget: what error more labelled galaxies would bring, and how many a target needs.

A pilot is a sweep over a few subsets of the galaxies that are labelled by now. What it says of more galaxies depends most
on what it tells least about: whether something is left with ever more of them (the floor of `scaling`). So two laws answer,
one with a floor and one without: an interval reaches from the lower of their lower ends to the higher of their higher ends,
and a value is the median of the draws of both. Where the first shows a floor, it answers alone.
"""

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np

from hf_galaxy.errors import BadInput
from hf_galaxy.evaluation.bootstrap import LEVEL
from hf_galaxy.reports.text import number, table
from hf_galaxy.scaling.laws import FEWEST, PowerLaw, fit_power_law
from hf_galaxy.scaling.points import ALL, MEASURES
from hf_galaxy.scaling.study import CURVE, measured, useless_up_to

if TYPE_CHECKING:
    import pandas as pd

SURE = 0.98  # level of the interval of the floor; not reaching down to 0, it shows one
AHEAD = 1, 2, 4, 8  # times the galaxies there are now
REACH = 100  # times the galaxies there are now: beyond, no law is to be believed, and "never" is said


def series_of(
    points: "pd.DataFrame", *, dataset: str | None = None, start: str | None = None, backbone: str | None = None,
    question: str = ALL, measure: str | None = None,
) -> "pd.DataFrame":  # fmt: skip
    """Of `points.points_of` the runs that differ in nothing but galaxies and seed.

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
    for option, value in sorted(chosen.items(), key=lambda item: item[1] is None):  # what is given comes first
        column = "figure" if option == "question" else option
        found = sorted(set(points[column]))
        if value is None and len(found) > 1:
            raise BadInput(f"the runs have {len(found)} kinds of {column}: choose --{option} {' or '.join(found)}")
        if value is not None and value not in found:
            raise BadInput(f"--{option} {value}: was not measured; there is {', '.join(found)}")
        points = points[points[column] == (found[0] if value is None else value)]
    if (twice := points.duplicated(["galaxies", "seed"], keep=False)).any():
        raise BadInput(
            f"{' and '.join(points.loc[twice, 'run'][:2])} have the same galaxies and seed, and differ in other settings; "
            "give a folder with runs of one kind"
        )
    return points.sort_values(["galaxies", "seed"])


def budget_of(
    series: "pd.DataFrame", target: float | None = None, hold_back: int = 0, galaxies: int | None = None
) -> dict:
    """What a pilot says of more galaxies, as plain numbers for budget.json. Intervals are of 90 %, infinity is None.

    Values are medians of all draws, so that how many galaxies a target needs is where the drawn curve falls to it.

    Args:
        series: as `series_of` gives it.
        target: a loss to be reached.
        hold_back: so many of the largest numbers of galaxies are not fitted but predicted, to see how well that works;
            "now" is then the largest that is fitted.
        galaxies: a number of galaxies asked about, from the fewest that were learnt from to `REACH` times as many as now.

    Returns:
        `dataset`, `start`, `backbone`, `measure`, `figure`, `target`; `now`, the galaxies learnt from so far; `points`, the
        mean loss that was measured; `held_back`, for each larger number of galaxies the mean loss beside its prediction,
        whose interval holds the scatter of runs and of test galaxies, too; `asked`, the prediction for `galaxies` or None;
        `ahead` and `curve`, predictions; `doubling`, by which share of itself the loss changes if the galaxies now, or those
        asked about, are doubled; `galaxies_for` the target, or None where there is none; `laws`, both; `floor_shown`, whether only the one with a floor answers;
        `doubts`, what the pilot does not tell; `sentences`, the answer in words.

    Raises:
        BadInput: the target is not positive, so many galaxies cannot be asked about, or there are too few runs.
    """
    if target is not None and not target > 0:
        raise BadInput(f"--target {target}: is a loss above 0")
    sizes = np.unique(series["galaxies"])
    if hold_back < 0 or len(sizes) - hold_back < FEWEST:
        raise BadInput(
            f"--hold-back {hold_back}: the runs learnt from {len(sizes)} different numbers of galaxies, of which {FEWEST} "
            "at least have to be fitted; a sweep with more values for --vary subset adds some"
        )
    now = sizes[len(sizes) - hold_back - 1]
    if galaxies is not None and not sizes[0] <= galaxies <= REACH * now:
        raise BadInput(
            f"{galaxies} galaxies: the runs learnt from {sizes[0]} to {now}, which says nothing of fewer, nor of more than "
            f"{REACH} times as many"
        )
    fitted = series[series["galaxies"] <= now]
    if len(fitted) <= FEWEST:
        raise BadInput(f"{len(fitted)} runs: cannot be told from chance; a sweep with --vary seed=1,2,3 adds some")

    # 1. The laws that answer.
    fits = {name: _law(fitted, floor) for name, floor in (("floor", True), ("plain", False))}
    floor_shown = fits["floor"].interval("c", SURE)[0] > 0
    laws = [fits["floor"]] if floor_shown else list(fits.values())
    together = dataclasses.replace(fits["floor"], draws=np.concatenate([law.draws for law in laws]))

    # 2. What it says.
    largest = max(now * AHEAD[-1], sizes[-1], galaxies or 0)
    budget = {
        **series.iloc[0][["dataset", "start", "backbone", "measure", "figure"]],
        "target": target,
        "now": int(now),
        "points": [measured(size, part) for size, part in fitted.groupby("galaxies")],
        "held_back": [
            _foretold(laws, size, part) for size, part in series[series["galaxies"] > now].groupby("galaxies")
        ],
        "asked": None if galaxies is None else _predicted(laws, galaxies),
        "ahead": [_predicted(laws, now * times) for times in AHEAD],
        "doubling": _doubling(laws, galaxies or now),
        "curve": _curve(laws, np.unique(np.geomspace(sizes[0], largest, CURVE).round())),
        "galaxies_for": None if target is None else _needed(laws, together, target, now),
        "laws": {name: _parameters(each) for name, each in fits.items()},
        "floor_shown": floor_shown,
        "doubts": together.doubts + _beside_baseline(fitted),
    }
    return budget | {"sentences": _sentences(budget)}


def page_of(budget: dict, picture: str, alt: str, command: str) -> str:
    """README.md of a budget: what it says in words and tables, and how what was held back came out.

    Args:
        budget: as `budget_of` gives it.
        picture: file name of the figure.
        alt: the figure in words.
        command: with which the page was made.
    """
    measure, held = budget["measure"], budget["held_back"]
    foretold = [[f"{row['galaxies']:,}", number(row["value"]), _between(row)] for row in budget["ahead"]]
    parts = [
        f"# How many galaxies to label: {budget['dataset']}",
        f"{budget['backbone']} from {budget['start']}; {MEASURES[measure]}, fitted to {len(budget['points'])} numbers of "
        f"galaxies from {budget['points'][0]['galaxies']:,} to {budget['now']:,}.",
        *budget["sentences"],
        table(["galaxies", f"{measure} foretold", "90 % interval"], foretold),
    ]
    if held:
        inside = sum(row["inside"] for row in held)
        rows = [
            [f"{row['galaxies']:,}", number(row["predicted"]), _between(row), number(row["measured"]),
             ", ".join(map(number, row["runs"])), "inside" if row["inside"] else "outside"] for row in held
        ]  # fmt: skip
        parts += [
            "## What was held back",
            f"Larger numbers of galaxies that were not fitted: {len(held)}. Of these, {inside} came out inside the interval "
            f"that was foretold, and {len(held) - inside} outside.",
            table(["galaxies", "foretold", "90 % interval", "measured, mean", "runs", ""], rows),
        ]
    parts += [f"![{alt}]({picture})", f"Made with `{command}`; `budget.json` holds all numbers."]
    return "\n\n".join(parts) + "\n"


def _between(row):
    return f"{number(row['low'])} to {number(row['high'])}"


def _law(fitted, floor) -> PowerLaw:
    sizes, losses, seeds = (fitted[name].to_numpy() for name in ("galaxies", "loss", "seed"))
    return fit_power_law(sizes, losses, seeds, galaxies=np.stack(fitted["replicates"]), floor=floor)


def _predicted(laws, galaxies):
    draws = [law.draws_at(galaxies)[:, 0] for law in laws]
    low, high = _edges(draws)
    return {"galaxies": int(galaxies), "value": float(np.median(draws)), "low": low, "high": high}


def _doubling(laws, galaxies):
    pairs = [law.draws_at([galaxies, 2 * galaxies]).T for law in laws]
    # What is 0 already stays so.
    draws = [np.divide(after, before, out=np.ones_like(before), where=before > 0) - 1 for before, after in pairs]
    low, high = _edges(draws)
    return {"value": float(np.median(draws)), "low": low, "high": high}


def _foretold(laws, size, part):
    predicted, measured = _predicted(laws, size)["value"], float(part["loss"].mean())
    # Both sides were measured on the same test galaxies, whose choice matters as far as it moves the two apart.
    moved = np.stack(part["replicates"]).mean(axis=0) - measured
    # Runs on all galaxies of a pilot have them in common, so that the mean of several may lie as far off as one alone.
    noise = np.random.default_rng(len(part)).standard_normal(len(moved))
    low, high = _edges([law.draws_at(size)[:, 0] + predicted * law.scatter * noise - moved for law in laws])
    return {
        "galaxies": int(size), "measured": measured, "runs": part["loss"].tolist(), "predicted": predicted,
        "low": low, "high": high, "inside": low <= measured <= high,
    }  # fmt: skip


def _curve(laws, galaxies):
    rows = [_predicted(laws, each) for each in galaxies]
    names = {"galaxies": "galaxies", "loss": "value", "low": "low", "high": "high"}
    return {name: [row[of] for row in rows] for name, of in names.items()}


def _needed(laws, together, target, now):
    value, _ = together.galaxies_interval(target, 0)  # the median
    lows, highs = zip(*(law.galaxies_interval(target) for law in laws), strict=True)
    ends = {"value": value, "low": min(lows), "high": max(highs)}
    return {name: math.ceil(galaxies) if galaxies <= REACH * now else None for name, galaxies in ends.items()}


def _edges(draws):
    """Of the draws of each law the interval, and of these the outer ends."""
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=1)
    return float(low.min()), float(high.max())


def _parameters(law):
    values = {"a": law.a, "b": law.b, "c": law.c}
    return {
        name: dict(zip(("value", "low", "high"), (value, *law.interval(name)), strict=True))
        for name, value in values.items()
    } | {"scatter": law.scatter, "range": law.range}


def _beside_baseline(fitted):
    useless = useless_up_to(fitted)
    return (
        [f"anything from runs on up to {useless:,} galaxies, no better than a constant prediction"] if useless else []
    )


def _sentences(budget):
    of = "" if budget["figure"] == ALL else f" of {budget['figure']}"
    here, measured = budget["ahead"][0], budget["points"][-1]["value"]
    sentences = [
        f"With {budget['now']:,} galaxies to learn from, the {MEASURES[budget['measure']]}{of} was {_loss(measured)}; by all runs "
        f"together it is {_loss(here['value'])}, between {_loss(here['low'])} and {_loss(here['high'])}."
    ]
    if budget["target"] is not None:
        sentences.append(_answer(budget))
    sentences += [f"The pilot does not tell {doubt}." for doubt in budget["doubts"]]
    for held in budget["held_back"]:
        sentences.append(
            f"Held back: with {held['galaxies']:,} galaxies {_loss(held['predicted'])} was predicted, between "
            f"{_loss(held['low'])} and {_loss(held['high'])}; measured was {_loss(held['measured'])}, "
            f"{'inside' if held['inside'] else 'OUTSIDE'} the interval."
        )
    return sentences


def case_of(budget: dict) -> str:
    """Which answer `galaxies_for` is: the target is "out of reach", "reached", "may be reached"; or it "needs at least" so many
    galaxies, with no end that can be told, or "needs about" so many."""
    now, low, high = budget["now"], budget["galaxies_for"]["low"], budget["galaxies_for"]["high"]
    if low is None:
        return "out of reach"
    if high is not None and high <= now:
        return "reached"
    if low <= now:
        return "may be reached"
    return "needs at least" if high is None else "needs about"


def _answer(budget):
    """How many galaxies the target needs, in words; no number without its interval."""
    now, target = budget["now"], f"The target of {_loss(budget['target'])}"
    value, low, high = (budget["galaxies_for"][name] for name in ("value", "low", "high"))
    never = f"never falls so low, or only with more than {REACH} times as many galaxies"
    case = case_of(budget)
    if case == "out of reach":
        return f"{target} is out of reach: the loss {never}."
    if case == "reached":
        return f"{target} is reached already."
    if case == "may be reached":
        least = f"{target} may be reached already"
        most = high and f"it needs up to {about(high)} galaxies, {about(high - now)} more than now"
        return f"{least}, but the data do not exclude that {most or f'the loss {never}'}."
    if case == "needs at least":
        least = f"{target} needs {about(low)} galaxies at least, {about(low - now)} more than now"
        return f"{least}; the data do not exclude that the loss {never}."
    return (
        f"{target} needs about {about(value)} galaxies (between {about(low)} and {about(high)}): "
        f"{about(value - now)} more than now (between {about(low - now)} and {about(high - now)})."
    )


def _loss(value):
    return f"{value:.3g}"


def about(galaxies: float) -> str:
    """A number of galaxies, in two digits, which are more than a prediction has."""
    return f"{round(galaxies, 1 - int(math.log10(max(galaxies, 1)))):,}"
