"""The table of a study -> its laws, each with its intervals and its check on held-out runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hf_galaxy.evaluation.bootstrap import estimate_of, mean_and_draws, mean_draws, verdict_of
from hf_galaxy.reports.measures import ALL
from hf_galaxy.scaling.common_exponent import common_exponent
from hf_galaxy.scaling.convergence import lengths_of
from hf_galaxy.scaling.joint_law import JointLaw, fit_joint_law
from hf_galaxy.scaling.laws import FALLS, FEWEST, PowerLaw, fit_power_law, leave_out
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
        family, with the most galaxies; `exponents`: whether laws with a floor have one exponent, among backbones or questions;
        `joint`: laws over parameters and galaxies.
    """
    pairs = [
        _law(series, dict(zip([*SERIES, "backbone"], key, strict=True)))
        for key, series in points.groupby([*SERIES, "backbone"], sort=False)
    ]
    laws = [law for law, _ in pairs]
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
        "exponents": _exponents(pairs),
        "joint": [joint for about, series in groups if (joint := _joint(about, series))],
    }


class _Fit(NamedTuple):
    """A law with a floor, and the (galaxies, seed) of its runs."""

    law: PowerLaw
    runs: list[tuple[int, int]]


def _law(series: pd.DataFrame, about: dict[str, Any]) -> tuple[dict[str, Any], _Fit | None]:
    series = series.sort_values(["galaxies", "seed"])
    last = series.iloc[-1]  # the baseline is that of the most galaxies
    about |= {key: _plain(last[key]) for key in ("family", "parameters", "baseline", "subtracted", "test_galaxies")}
    parts, used = list(series.groupby("galaxies")), better_than_a_constant(series)
    law, plain = (_fitted(used, floor) for floor in (True, False))
    entry = about | {
        "points": [measured(size, part) for size, part in parts],
        "law": law and _as_numbers(law, used),
        "plain": plain and _as_numbers(plain, used),
        "useless_up_to": useless_up_to(series),
        "last_step": _difference(parts[-2], parts[-1], "galaxies") if len(parts) > 1 else None,
    }
    return entry, _Fit(law, list(zip(used["galaxies"], used["seed"], strict=True))) if law else None


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


def better_than_a_constant(series: pd.DataFrame) -> pd.DataFrame:
    """The runs that laws are fitted to: those on more galaxies than any with which runs are no better than a constant.

    Up to there a loss often stays what it is, on a plateau, that no law c + a D^-b describes.
    """
    useless = useless_up_to(series)
    return series if useless is None else series[series["galaxies"] > useless]


def doubt_of_baseline(galaxies: int | None) -> str | None:
    """What runs up to this number of galaxies (`useless_up_to`) do not determine."""
    if galaxies is None:
        return None
    return f"how the loss falls up to {galaxies:,} galaxies, where runs are no better than a constant prediction"


def _fitted(series: pd.DataFrame, floor: bool) -> PowerLaw | None:
    """A law; None where there are too few sizes for it, or a run has no error at all."""
    sizes, losses, seeds = _runs_of(series)
    if (
        len(set(sizes)) < FEWEST + floor or not (losses > 0).all()
    ):  # as many sizes as parameters would leave nothing to check
        return None
    return fit_power_law(sizes, losses, seeds, galaxies=np.stack(series["replicates"]), floor=floor)


def _runs_of(series: pd.DataFrame) -> tuple[Any, Any, Any]:
    return series["galaxies"].to_numpy(), series["loss"].to_numpy(), series["seed"].to_numpy()


def _as_numbers(law: PowerLaw, series: pd.DataFrame) -> dict[str, Any]:
    sizes, losses, seeds = _runs_of(series)
    curve = np.geomspace(*law.range[:1], 4 * law.range[1], CURVE)
    low, high = law.band(curve)
    left_out = None
    if len(set(sizes)) > FEWEST + law.floor:
        left = leave_out(sizes, losses, seeds, galaxies=np.stack(series["replicates"]), floor=law.floor)
        left_out = {
            "galaxies": left.galaxies, "predicted": left.predicted, "low": left.interval[0], "high": left.interval[1],
            "measured": left.measured, "miss": left.miss, "inside": left.inside, "before": left.before, "miss_of_before": left.miss_of_before,
        }  # fmt: skip
    return {
        **law_parameters(law, ("a", "b", "c", "per_doubling") if law.floor else ("a", "b", "per_doubling")),
        "range": law.range,
        "scatter": law.scatter,
        "r2": law.r2,
        "lack_of_fit": law.lack_of_fit,
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


def _exponents(pairs: Sequence[tuple[Mapping[str, Any], _Fit | None]]) -> list[dict[str, Any]]:
    """Whether laws with a floor have one exponent: among backbones for a figure, among questions for a backbone.

    Laws that do not fit are left out. `p_adjusted` is p among all comparisons of the same kind and measure (Holm 1979).
    """
    comparisons: list[dict[str, Any]] = []
    for across, alike in (("backbone", SERIES), ("figure", ["dataset", "start", "measure", "backbone"])):
        groups: dict[tuple, list[_Fit]] = {}
        for about, fit in pairs:
            if fit and fit.law.fits and not (across == "figure" and about["figure"] == ALL):
                groups.setdefault(tuple(about[key] for key in alike), []).append(fit)
        for key, fits in groups.items():
            if len(fits) > 1:
                common = common_exponent([fit.law.profile for fit in fits], [fit.runs for fit in fits])
                about = dict(zip(alike, key, strict=True)) | {"across": across, "count": len(fits)}
                comparisons.append(about | {"b": _with_ends(common.b, common.interval), "p": common.p})
    families = [(each["across"], each["measure"]) for each in comparisons]
    for family in dict.fromkeys(families):
        own = [each for each, of in zip(comparisons, families, strict=True) if of == family]
        for each, p in zip(own, adjusted([each["p"] for each in own]), strict=True):
            each["p_adjusted"] = p
    return comparisons


def adjusted(ps: Sequence[float]) -> list[float]:
    """p of several tests, such that with any number of them one below 0.05 arises by chance in one of twenty studies (Holm 1979)."""
    order = np.argsort(ps)
    most = np.maximum.accumulate(np.asarray(ps)[order] * np.arange(len(ps), 0, -1))
    result = np.empty(len(ps))
    result[order] = np.minimum(most, 1)
    return result.tolist()


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
