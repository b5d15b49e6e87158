"""The numbers that the figures of a study show, as rows: each figure draws them, and they are its CSV.

`law` is an entry of `laws` in scaling.json, and a figure (of merit) is a question or all questions together.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from hf_galaxy.reports.charts import limits
from hf_galaxy.scaling.convergence import is_converged
from hf_galaxy.scaling.laws import EXPONENT, FALLS, FORM

ABOUT = ["start", "backbone", "measure", "figure"]
BEYOND = 1.6  # factor by which the map of a joint law extends beyond the measured range
COEFFICIENTS = ("E", "A", "alpha", "B", "beta", "share")

Row = dict[str, Any]
Item = TypeVar("Item", bound=Mapping[str, Any])


def by_figure(rows: Sequence[Item]) -> dict[str, list[Item]]:
    """Rows or laws by their figure (question), in order of appearance."""
    groups: dict[str, list[Item]] = {}
    for row in rows:
        groups.setdefault(row["figure"], []).append(row)
    return groups


def pages_of(name: str, laws: Sequence[Row], most: int) -> dict[str, list[Row]]:
    """Name of a picture -> its laws, with at most `most` figures (questions) in each; several pictures are numbered."""
    groups = by_figure(laws)
    parts = np.array_split(list(groups), -(-len(groups) // most)) if groups else []
    names = [f"{name}-{i}" for i in range(1, len(parts) + 1)] if len(parts) > 1 else [name]
    return dict(zip(names, ([law for each in part for law in groups[each]] for part in parts), strict=bool(parts)))


def laws_to_show(study: Mapping[str, Any]) -> list[Row]:
    """The laws of a study; those of trainings that have not converged are their points alone, as they are not laws of galaxies."""
    if is_converged(study):
        return list(study["laws"])
    return [law | {"law": None, "plain": None} for law in study["laws"]]


def is_constrained(law: Row) -> bool:
    """Whether the law with a floor holds and the data determine its exponent; the floor itself is another question."""
    return not any(doubt.startswith((FALLS, EXPONENT, FORM)) for doubt in law["law"]["doubts"])


# Loss against galaxies


def point_rows(points: Sequence[Row]) -> Iterator[Row]:
    """Runs, and their mean with its interval."""
    for point in points:
        yield from ({"kind": "run", "galaxies": point["galaxies"], "loss": run} for run in point["runs"])
        mean = {"kind": "mean", "galaxies": point["galaxies"], "loss": point["value"]}
        yield mean | {"low": point["low"], "high": point["high"]}


def curve_rows(group: Sequence[Row]) -> list[Row]:
    """Points and laws of one figure (question), and the baseline where it is shown."""
    rows = [{key: law[key] for key in ABOUT} | row for law in group for row in _rows_of_law(law)]
    about = {key: group[0][key] for key in ("measure", "figure")}
    levels = loss_axis(group)[2]
    return rows + [about | {"kind": level, "loss": value} for level, value in levels.items()]


def _rows_of_law(law: Row) -> Iterator[Row]:
    yield from point_rows(law["points"])
    for kind, fit in (("law", law["law"]), ("plain law", law["plain"])):
        if fit:
            # The plain law is drawn without its band.
            shown = ("galaxies", "loss", "low", "high") if kind == "law" else ("galaxies", "loss")
            yield from pd.DataFrame({"kind": kind} | {key: fit["curve"][key] for key in shown}).to_dict("records")


def loss_axis(group: Sequence[Row]) -> tuple[float, float, dict[str, float]]:
    """Limits of the axis of losses; and the baseline, unless it would squeeze everything else."""
    values = [run for law in group for point in law["points"] for run in point["runs"]]
    values += [loss for law in group if law["law"] for loss in law["law"]["curve"]["loss"]]
    low, high = with_ends(limits(values), [point for law in group for point in law["points"]])
    room = max(high / low, 1.2) ** 0.6
    baseline = group[0]["baseline"]
    levels = {"baseline": baseline} if baseline and low / room <= baseline <= high * room else {}
    return *limits([low, high, *levels.values()], 0.03 if levels else 0), levels


def with_ends(shown: tuple[float, float], points: Sequence[Row]) -> tuple[float, float]:
    """Limits that show the intervals of points, too, up to a point: one of few runs may be far wider than all else."""
    ends = [point[end] for point in points for end in ("low", "high") if point[end] is not None]
    return limits([*shown, *np.clip(ends, shown[0] / 1.3, shown[1] * 1.3)], 0)


# Exponents


def exponent_rows(study: Row, laws: Sequence[Row]) -> list[Row]:
    """The exponents of fitted laws of one measure, each beside that which all backbones would share, by figure and start."""
    common = {
        (each["figure"], each["start"]): each
        for each in study["exponents"]
        if (each["across"], each["measure"]) == ("backbone", laws[0]["measure"])
    }
    rows = []
    for group in by_figure(laws).values():
        for law in sorted(group, key=lambda law: study["data"]["starts"].index(law["start"])):
            b, shared = law["law"]["b"], common.get((law["figure"], law["start"]))
            row = {"b": b["value"], "low": b["low"], "high": b["high"], "pinned_down": is_constrained(law)}
            rows.append(
                {key: law[key] for key in ABOUT}
                | row
                | {"common": shared and shared["b"]["value"], "p": shared and shared["p_adjusted"]}
            )
    return rows


# Loss against parameters


def size_rows(study: Row, laws: Sequence[Row]) -> list[Row]:
    """The losses with the most galaxies, each with the change from the next smaller model of the family."""
    steps = {tuple(step[key] for key in ("start", "large", "measure", "figure")): step for step in study["parameters"]}
    names = {"smaller": "small", "change": "value", "change_low": "low", "change_high": "high", "verdict": "loss"}
    rows = []
    for law in sorted(laws, key=lambda law: law["parameters"]):
        alike = [other for other in laws if (other["figure"], other["start"]) == (law["figure"], law["start"])]
        point = law["points"][-1]
        if point["galaxies"] < max(other["points"][-1]["galaxies"] for other in alike):
            continue
        row = {key: law[key] for key in (*ABOUT, "family", "parameters")}
        row |= {"galaxies": point["galaxies"], "loss": point["value"], "low": point["low"], "high": point["high"]}
        step = steps.get(tuple(law[key] for key in ABOUT), {})
        relative = (step.get("relative") or {}).get("value")
        rows.append(row | {new: step.get(old) for new, old in names.items()} | {"relative": relative})
    return [row for question in by_figure(laws) for row in rows if row["figure"] == question]


# Loss against both


def map_range(law: Row, key: str) -> tuple[float, float]:
    """The range of "parameters" or "galaxies" in which a joint law is drawn."""
    values = [point[key] for point in law["points"]]
    return min(values) / BEYOND, max(values) * BEYOND


def frontier_in(law: Row) -> pd.DataFrame:
    """The part of the frontier that lies on the map: columns parameters, galaxies."""
    frontier = pd.DataFrame(law["frontier"] or {"parameters": [], "galaxies": []})
    inside = [frontier[key].between(*map_range(law, key)) for key in ("parameters", "galaxies")]
    return frontier[inside[0] & inside[1]]


def joint_rows(law: Row) -> list[Row]:
    """Measured losses, the frontier on the map, and the coefficients."""
    rows = [{"kind": "measured", **point} for point in law["points"]]
    rows += [{"kind": "frontier", **point} for point in frontier_in(law).to_dict("records")]
    return rows + [{"kind": key, **law[key]} for key in COEFFICIENTS if key in law]
