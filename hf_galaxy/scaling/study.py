"""The table of a study -> its laws, each with its intervals and its check on held-out runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_galaxy.evaluation.bootstrap import estimate_of, mean_and_draws, mean_draws, verdict_of
from hf_galaxy.reports.measures import ALL
from hf_galaxy.scaling.convergence import lengths_of
from hf_galaxy.scaling.fitting import EXPONENTS
from hf_galaxy.scaling.laws import FALLS, FEWEST, JointLaw, PowerLaw, fit_joint_law, fit_power_law, leave_out
from hf_galaxy.scaling.points import SERIES

if TYPE_CHECKING:
    import pandas as pd

CURVE = 41  # points of a drawn law


def study_of(points: pd.DataFrame) -> dict[str, Any]:
    """Fit all laws of a table of points; plain numbers for scaling.json. Intervals are of 90 %.

    Returns:
        `data`: datasets, backbones, and numbers of runs, also of those that `converged`; `lengths`: what each length of training brought
        (`lengths_of`); `laws`: for each backbone and figure its points, the law with a floor
        (`law`) and without (`plain`), how well both predict the largest number of galaxies (`leave_out`), and the change of the
        loss in the last step of galaxies; `parameters`: for each figure, the change of the loss with a larger model of the same
        family, with the most galaxies; `exponents`: whether those of laws with a floor (`fit` is "law"), or without, differ
        among backbones or questions; `joint`: laws over parameters and galaxies.
    """
    laws = [
        _law(series, dict(zip([*SERIES, "backbone"], key, strict=True)))
        for key, series in points.groupby([*SERIES, "backbone"], sort=False)
    ]
    groups = [(dict(zip(SERIES, key, strict=True)), series) for key, series in points.groupby(SERIES, sort=False)]
    return {
        "data": {
            "runs": int(points["run"].nunique()),
            "converged": int(points.drop_duplicates("run")["converged"].sum()),
            "datasets": sorted(set(points["dataset"])),
            "starts": sorted(set(points["start"])),
            "backbones": {
                name: {key: _plain(part.iloc[0][key]) for key in ("family", "parameters", "flops")}
                for name, part in points.groupby("backbone", sort=False)
            },
            "galaxies": sorted(map(int, set(points["galaxies"]))),
            "seeds": sorted(map(int, set(points["seed"]))),
            "cells": {
                name: {str(size): int(part["seed"].nunique()) for size, part in own.groupby("galaxies")}
                for name, own in points.groupby("backbone", sort=False)
            },
            "hours": float(points.drop_duplicates("run")["seconds"].sum() / 3600),
            "test_galaxies": int(points.loc[points["figure"] == ALL, "test_galaxies"].max()),
        },
        "lengths": lengths_of(points),
        "laws": laws,
        "parameters": [each for about, series in groups for each in _larger_models(about, series)],
        "exponents": _exponents(laws),
        "joint": [joint for about, series in groups if (joint := _joint(about, series))],
    }


def _law(series: pd.DataFrame, about: dict[str, Any]) -> dict[str, Any]:
    series = series.sort_values(["galaxies", "seed"])
    last = series.iloc[-1]  # the baseline is that of the most galaxies
    about |= {key: _plain(last[key]) for key in ("family", "parameters", "baseline", "subtracted", "test_galaxies")}
    parts = [(size, part) for size, part in series.groupby("galaxies")]
    fitted = {name: _fitted(series, floor) for name, floor in (("law", True), ("plain", False))}
    return about | {
        "points": [measured(size, part) for size, part in parts],
        **fitted,
        "useless_up_to": useless_up_to(series),
        "last_step": _difference(parts[-2], parts[-1], "galaxies") if len(parts) > 1 else None,
    }


def measured(galaxies: int, part: pd.DataFrame) -> dict[str, Any]:
    """The losses of runs on one number of galaxies: `runs`, their mean `value`, and its interval, None where there is one seed."""
    values, replicates = part["loss"].to_numpy(), np.stack(part["replicates"])
    (draws,) = mean_draws(values[None], replicates[None], np.random.default_rng(len(part)))
    return {"galaxies": int(galaxies), "runs": values.tolist(), **estimate_of(values.mean(), draws)}


def useless_up_to(series: pd.DataFrame) -> int | None:
    """The largest number of galaxies with which runs are, on average, no better than a constant prediction."""
    means = series.groupby("galaxies")[["loss", "baseline"]].mean()
    useless = means.index[means["loss"] >= means["baseline"]]
    return int(useless.max()) if len(useless) else None


def doubt_of_baseline(galaxies: int | None) -> str | None:
    """What runs up to this number of galaxies (`useless_up_to`) do not determine."""
    if galaxies is None:
        return None
    return f"how the loss falls up to {galaxies:,} galaxies, where runs are no better than a constant prediction"


def _fitted(series: pd.DataFrame, floor: bool) -> dict[str, Any] | None:
    """A law as plain numbers; None where there are too few sizes for it, or a run has no error at all."""
    sizes, losses, seeds = (series[name].to_numpy() for name in ("galaxies", "loss", "seed"))
    needed = FEWEST + floor  # as many sizes as parameters would leave no degree of freedom
    if len(set(sizes)) < needed or not (losses > 0).all():
        return None
    galaxies = np.stack(series["replicates"])
    law = fit_power_law(sizes, losses, seeds, galaxies=galaxies, floor=floor)
    curve = np.geomspace(*law.range[:1], 4 * law.range[1], CURVE)
    low, high = law.band(curve)
    left_out = None
    if len(set(sizes)) > needed:
        left = leave_out(sizes, losses, seeds, galaxies=galaxies, floor=floor)
        left_out = {
            "galaxies": left.galaxies, "predicted": left.predicted, "low": left.interval[0], "high": left.interval[1],
            "measured": left.measured, "miss": left.miss, "inside": left.inside,
        }  # fmt: skip
    return {
        **law_parameters(law, ("a", "b", "c", "per_doubling") if floor else ("a", "b", "per_doubling")),
        "range": law.range,
        "scatter": law.scatter,
        "r2": law.r2,
        "doubts": law.doubts + ([] if len(set(seeds)) > 1 else ["how much the seed matters: there is one"]),
        "curve": {"galaxies": curve.tolist(), "loss": np.asarray(law.predict(curve)).tolist(), "low": low.tolist(), "high": high.tolist()},
        "leave_out": left_out,
    }  # fmt: skip


def law_parameters(law: PowerLaw, names: Sequence[str] = ("a", "b", "c")) -> dict[str, dict[str, float]]:
    """Parameters of a law with their intervals: `value`, `low`, `high`."""
    values = {"a": law.a, "b": law.b, "c": law.c, "per_doubling": 2**-law.b}
    return {name: _with_ends(values[name], law.interval(name)) for name in names}


def _with_ends(value: float, ends: tuple[float, float]) -> dict[str, float]:
    return {"value": value, "low": ends[0], "high": ends[1]}


def _larger_models(about: dict[str, Any], series: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """With the most galaxies: the next larger model of the same family compared with each model."""
    most = series[series["galaxies"] == series["galaxies"].max()]
    for family, part in most.groupby("family"):
        models = sorted(part.groupby("backbone"), key=lambda each: each[1]["parameters"].iloc[0])
        for (small, few), (large, many) in itertools.pairwise(models):
            difference = _difference((few["parameters"].iloc[0], few), (many["parameters"].iloc[0], many), "parameters")
            yield about | {"family": family, "small": small, "large": large, **difference}


def _difference(first: tuple[float, pd.DataFrame], second: tuple[float, pd.DataFrame], of: str) -> dict[str, Any]:
    """The change of the mean loss from one kind of runs to another, paired by seed, and whether it is less or more.

    Args:
        first, second: number of galaxies or parameters, and the runs.
        of: "galaxies" or "parameters".
    """
    parts = [{row.seed: row for row in part.itertuples()} for _, part in (first, second)]
    (before, after), draws, seeds = mean_and_draws(parts, "difference", of, first[0], second[0])
    estimate = estimate_of(after - before, draws[1] - draws[0])
    verdict = verdict_of(estimate)
    relative = None if verdict == "not known" else estimate_of(after / before - 1, draws[1] / draws[0] - 1)
    return {
        "of": of, "from": _plain(first[0]), "to": _plain(second[0]), "seeds": seeds, **estimate,
        "relative": relative, "loss": verdict,
    }  # fmt: skip


def _exponents(laws: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Whether exponents differ by more than their intervals: among backbones for a figure, among questions for a backbone.

    Cochran's Q: the squares of the differences from the weighted mean, over the variances; it follows chi-square where all
    exponents are equal. Exponents that the data constrain on one side only are left out. Runs share their test galaxies, so that
    their exponents differ less than independent ones would.
    """
    comparisons = []
    kinds = ("backbone", SERIES), ("figure", ["dataset", "start", "measure", "backbone"])
    for fit, (across, alike) in itertools.product(("law", "plain"), kinds):
        groups: dict[tuple, list[dict[str, float]]] = {}
        for law in laws:
            if law[fit] and _regular(law[fit]) and not (across == "figure" and law["figure"] == ALL):
                groups.setdefault(tuple(law[key] for key in alike), []).append(law[fit]["b"])
        for key, exponents in groups.items():
            if len(exponents) > 1:
                about = dict(zip(alike, key, strict=True)) | {"fit": fit, "across": across}
                comparisons.append(about | _heterogeneity(exponents))
    return comparisons


def _regular(fit: Mapping[str, Any]) -> bool:
    """Whether the exponent is constrained on both sides, within the scanned range."""
    low, high = 1.01 * EXPONENTS[0], 0.99 * EXPONENTS[1]
    return low < fit["b"]["low"] < fit["b"]["high"] < high and not any(d.startswith(FALLS) for d in fit["doubts"])


def _heterogeneity(exponents: Sequence[Mapping[str, float]]) -> dict[str, float]:
    from scipy.stats import chi2

    # Of the logarithms, whose intervals are nearly symmetric: 2 x 1.645 standard deviations wide.
    logs, width = (
        np.log(values) for values in zip(*((b["value"], b["high"] / b["low"]) for b in exponents), strict=True)
    )
    weights = (2 * 1.645 / np.maximum(width, 1e-9)) ** 2
    mean = weights @ logs / weights.sum()
    q = float(weights @ (logs - mean) ** 2)
    return {"count": len(logs), "mean": float(np.exp(mean)), "q": q, "p": float(chi2.sf(q, len(logs) - 1))}


def _joint(about: dict[str, Any], series: pd.DataFrame) -> dict[str, Any] | None:
    few = series["parameters"].nunique() < FEWEST or series["galaxies"].nunique() < FEWEST
    if few or not (series["loss"] > 0).all():
        return None
    replicates = np.stack(series["replicates"])
    law = fit_joint_law(*(series[name] for name in ("parameters", "galaxies", "loss", "seed")), galaxies=replicates)
    values = law.values | {"share": law.values["alpha"] / (law.values["alpha"] + law.values["beta"])}
    # Without an effect of one of the two there is no best ratio.
    falls = not any(doubt.startswith(FALLS) for doubt in law.doubts)
    products = np.geomspace((law.parameters * law.sizes).min(), (law.parameters * law.sizes).max(), CURVE)
    frontier = [values.tolist() for values in law.frontier(products)] if falls else None
    means = series.groupby(["backbone", "parameters", "galaxies"], as_index=False)["loss"].mean()
    return about | {
        **{
            name: _with_ends(values[name], law.interval(name))
            for name in (*JointLaw.NAMES, *(["share"] if falls else []))
        },
        "scatter": law.scatter,
        "doubts": law.doubts,
        "points": means.to_dict("records"),
        "frontier": frontier and dict(zip(("parameters", "galaxies"), frontier, strict=True)),
    }


def _plain(value: Any) -> Any:
    """A number or text as JSON has it; None for a number that is not finite."""
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, (int, np.integer)):
        return int(value)
    return float(value) if np.isfinite(value) else None
