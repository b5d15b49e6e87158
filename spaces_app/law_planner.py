"""The label budget (`hf_galaxy.scaling.label_budget`) of a study, or of a visitor's own pilot runs."""

from __future__ import annotations

import math
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

import law_pictures
from hf_galaxy.errors import BadInput
from hf_galaxy.evaluation.bootstrap import REPLICATES
from hf_galaxy.reports.charts import (
    COLORS,
    GREY,
    draw_curve_with_band,
    draw_level,
    draw_points,
    handle,
    limits,
    log_axis,
)
from hf_galaxy.reports.measures import ALL
from hf_galaxy.reports.text import number
from hf_galaxy.scaling import FEWEST
from hf_galaxy.scaling.label_budget import REACH, budget_of, case_of, series_of
from hf_galaxy.scaling.label_budget_page import two_digits
from hf_galaxy.scaling.study import useless_up_to
from law_curves import doubts_of
from law_records import check_name, json_value, listed, measure_name, percent, study_of, with_interval
from text import sentence

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

PILOT = "pilot"  # dataset of a visitor's own runs
Number = float | str | None  # a text is what a visitor typed instead of a number
MAX_RUNS, MAX_BYTES = 300, 100_000  # of a pilot


def label_budget(
    results: Path, study: str, architecture: str, start: str = "", labels: Number = None, target: Number = None,
    measure: str = "", question: str = ALL,
) -> dict[str, Any]:  # fmt: skip
    """The predicted error for a number of labelled galaxies, and the number for a target error, with 90 % intervals.

    Args:
        study, architecture, start, measure, question: names in the records. A start is required if there are several. By
            default the measure is the error, if there is one, or else the first.
        labels: number of labelled galaxies to train on, or None.
        target: error to reach, or None.

    Returns:
        As `label_budget.LabelBudget.as_dict`, with `sentences` for visitors, and the `baseline`.

    Raises:
        BadInput: in words for visitors: unknown series, or labels or target out of range.
    """
    which = study_of(results, study)
    measure = measure or which.default_measure()
    check_name("measure", measure, which.measures())
    check_name("question", question, which.questions(measure))
    check_name("architecture", architecture, which.fits["data"]["backbones"])
    starts = [each for backbone, each in which.series() if backbone == architecture]
    if not start and len(starts) > 1:
        raise BadInput(sentence("laws.choose_start", available=", ".join(starts)))
    start = start or starts[0]
    check_name("start", start, starts)
    series = series_of(which.points, backbone=architecture, start=start, measure=measure, question=question)
    return answer(series, labels, target, one_length=not which.converged)


def own_budget(text: str, labels: Number = None, target: Number = None) -> dict[str, Any]:
    """The same for a visitor's pilot runs, as read by `pilot_of`."""
    return answer(pilot_of(text), labels, target)


def answer(
    series: pd.DataFrame, labels: Number = None, target: Number = None, one_length: bool = False
) -> dict[str, Any]:
    """As `label_budget`, for runs of `series_of` or `pilot_of`.

    Args:
        one_length: the runs are known to be of a study that has not converged, so that their floor is not one of galaxies.

    Raises:
        BadInput: in words for visitors.
    """
    now, fewest = int(series["galaxies"].max()), int(series["galaxies"].min())
    baseline = float(series.loc[series["galaxies"] == now, "baseline"].mean())
    labels, target = _labels(labels, fewest, now), _target(target, baseline)
    budget = budget_of(series, target, galaxies=labels).as_dict()
    budget |= {"baseline": baseline, "useless_up_to": useless_up_to(series)}
    return json_value(budget | {"sentences": _sentences(budget, one_length)})


def page(budget: dict[str, Any]) -> str:
    """The label budget as HTML: sentences, chart and table."""
    unit, now = _unit(budget), budget["now"]
    rows = [[sentence("laws.now_times", galaxies=f"{now:,}"), *_cells(budget["ahead"][0])]]
    for row in budget["ahead"][1:]:
        times = f"{row['galaxies'] / now:.0f}"
        rows.append([sentence("laws.times_more", galaxies=f"{row['galaxies']:,}", times=times), *_cells(row)])
    names = ("galaxies", "value", "interval")
    points = "; ".join(
        sentence("laws.alt_point", value=number(each["value"]), galaxies=f"{each['galaxies']:,}")
        for each in budget["points"]
    )
    alt = sentence("laws.alt_planner", measure=unit, points=points, sentences=" ".join(budget["sentences"][1:]))
    return "".join((
        law_pictures.paragraphs(budget["sentences"]),
        law_pictures.picture(lambda figure, axes: _draw(budget, axes), alt),
        law_pictures.table(sentence("laws.table_ahead", measure=unit), [sentence(f"laws.column_{name}") for name in names], rows),
    ))  # fmt: skip


@lru_cache(256)
def record_page(
    results: Path, study: str, series: tuple[str, str], measure: str, question: str, labels: Number, target: Number
) -> str:
    """`page` of `label_budget`, cached."""
    backbone, start = series
    return page(label_budget(results, study, backbone, start, labels, target, measure, question))


def pilot_of(text: str) -> pd.DataFrame:
    """A visitor's runs: on each line the number of labels, the error, and optionally the seed.

    Columns are separated by commas, semicolons, tabs or spaces; with another separator than a comma, a comma is a decimal
    point. A first line of names is ignored. Without seeds, all runs are assumed to have different ones.

    Returns:
        A table as of `series_of`, in which the uncertainty by the choice of test galaxies is unknown.

    Raises:
        BadInput: in words for visitors: a line cannot be read, or there are too few or too many.
    """
    lines = [(i, line.strip()) for i, line in enumerate(text.splitlines(), 1) if line.strip()]
    if lines and not any(letter.isdigit() for letter in lines[0][1]):
        lines = lines[1:]
    if not lines:
        raise BadInput(sentence("laws.pilot_empty"))
    if len(lines) > MAX_RUNS or len(text) > MAX_BYTES:
        raise BadInput(sentence("laws.pilot_long", most=MAX_RUNS))
    rows = [_run(i, line) for i, line in lines]
    sizes = len({row["galaxies"] for row in rows})
    if sizes < FEWEST or len(rows) <= FEWEST:
        raise BadInput(sentence("laws.pilot_few", sizes=sizes, runs=len(rows), fewest=FEWEST, least=FEWEST + 1))
    if any(row["seed"] is None for row in rows):
        rows = [row | {"seed": -i} for i, row in enumerate(rows, 1)]
    runs = pd.DataFrame(rows)
    return runs.assign(
        dataset=PILOT, start=PILOT, backbone=PILOT, measure="error", figure=ALL, baseline=math.nan,
        replicates=[[loss] * REPLICATES for loss in runs["loss"]],
    ).sort_values(["galaxies", "seed"])  # fmt: skip


def typed(text: str) -> float | str | None:
    """A number as typed by a visitor (5000, 5,000, 0.12, 0,12); None for empty text, and other text unchanged."""
    text = text.strip()
    bare = re.sub(r"[ \u00a0\u202f]", "", text)
    bare = bare.replace(",", "") if re.fullmatch(r"[1-9]\d{0,2}(,\d{3})+", bare) else bare.replace(",", ".")
    try:
        return float(bare) if bare else None
    except ValueError:
        return text


def read_pilot(file: Path) -> str:
    """The text of an uploaded table.

    Raises:
        BadInput: in words for visitors: it is too large, or not text.
    """
    if file.stat().st_size <= MAX_BYTES:
        try:
            text = file.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            text = "\0"
        if "\0" not in text:
            return text
    raise BadInput(sentence("laws.pilot_file_unread", limit=f"{MAX_BYTES // 1000} kB"))


def _run(i: int, line: str) -> dict[str, Any]:
    separator = next((each for each in (";", "\t", ",") if each in line), None)
    cells = [cell.strip() for cell in line.split(separator)]
    if separator != ",":
        cells = [cell.replace(",", ".") for cell in cells]
    try:
        galaxies, loss, *seed = map(float, cells if cells[-1] else cells[:-1])
        if len(seed) > 1:
            raise ValueError
    except ValueError:
        raise BadInput(sentence("laws.pilot_line", line=i, text=line[:40])) from None
    whole = all(math.isfinite(value) and value == int(value) for value in (galaxies, *seed))
    if not (whole and 1 <= galaxies < 1e12 and 0 < loss < math.inf):
        raise BadInput(sentence("laws.pilot_value", line=i))
    return {"galaxies": int(galaxies), "loss": loss, "seed": int(seed[0]) if seed else None}


def _labels(labels: Number, fewest: int, now: int) -> int | None:
    if labels is None:
        return None
    if not isinstance(labels, (int, float)) or not math.isfinite(labels) or labels != int(labels) or labels < 1:
        raise BadInput(sentence("laws.labels_not_whole"))
    if labels < fewest:
        raise BadInput(sentence("laws.labels_few", fewest=f"{fewest:,}"))
    if labels > REACH * now:
        raise BadInput(sentence("laws.labels_many", now=f"{now:,}", times=REACH, most=f"{REACH * now:,}"))
    return int(labels)


def _target(target: Number, baseline: float) -> float | None:
    if target is None:
        return None
    if not isinstance(target, (int, float)) or not math.isfinite(target) or target <= 0:
        raise BadInput(sentence("laws.target_not_number"))
    if target >= baseline:  # which is NaN for a visitor's pilot
        raise BadInput(sentence("laws.target_baseline", target=number(target), baseline=number(baseline)))
    return float(target)


def _unit(budget: dict[str, Any]) -> str:
    return measure_name(PILOT if budget["dataset"] == PILOT else budget["measure"])


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        number(row["value"]),
        sentence("laws.range", low=number(row["low"]), high=number(row["high"])),
    ]


def _sentences(budget: dict[str, Any], one_length: bool) -> list[str]:
    now, asked, last = f"{budget['now']:,}", budget["asked"], budget["points"][-1]
    sentences = [
        sentence("laws.pilot_now", now=now, measure=_unit(budget), measured=number(last["value"]),
            predicted=with_interval(budget["ahead"][0]))
    ]  # fmt: skip
    if asked:
        sentences.append(sentence("laws.asked", galaxies=f"{asked['galaxies']:,}", predicted=with_interval(asked)))
        if (times := asked["galaxies"] / budget["now"]) > 10:
            sentences.append(sentence("laws.far", galaxies=f"{asked['galaxies']:,}", times=f"{times:.0f}"))
    change, galaxies = with_interval(budget["doubling"], percent), f"{asked['galaxies']:,}" if asked else now
    sentences.append(sentence("laws.doubling", galaxies=galaxies, change=change))
    if budget["target"] is not None:
        sentences.append(_reached(budget))
    if one_length:
        sentences.append(sentence("laws.planner_one_length"))
    elif budget["floor_shown"]:
        sentences.append(sentence("laws.floor_shown", floor=with_interval(budget["laws"]["floor"]["c"])))
    if doubts := doubts_of(budget["doubts"]):
        sentences.append(sentence("laws.planner_doubts", doubts=listed(doubts)))
    if budget["useless_up_to"]:
        useless, baseline = f"{budget['useless_up_to']:,}", number(budget["baseline"])
        sentences.append(sentence("laws.planner_useless", galaxies=useless, baseline=baseline))
    return sentences + ([sentence("laws.pilot_galaxies")] if budget["dataset"] == PILOT else [])


def _reached(budget: dict[str, Any]) -> str:
    now, ends = budget["now"], budget["galaxies_for"]
    values_of = {"target": number(budget["target"]), "now": f"{now:,}", "most": two_digits(REACH * now)}
    values_of |= {name: two_digits(galaxies) for name, galaxies in ends.items() if galaxies}
    case = case_of(now, ends)
    if case == "may be reached":
        return sentence("laws.target_may_up_to" if ends["high"] else "laws.target_may_never", **values_of)
    if case == "needs about":
        more = {name: two_digits(max(ends[end] - now, 1)) for name, end in
                (("more", "value"), ("more_low", "low"), ("more_high", "high"))}  # fmt: skip
        return sentence("laws.target_about", **values_of, **more)
    names = {"out of reach": "never", "reached": "reached", "needs at least": "at_least"}
    return sentence(f"laws.target_{names[case]}", **values_of)


def _draw(budget: dict[str, Any], axes: Axes) -> list[Line2D]:
    points, curve, asked, target = (budget[key] for key in ("points", "curve", "asked", "target"))
    draw_curve_with_band(axes, curve, budget["now"], COLORS[0])
    draw_points(axes, [point["galaxies"] for point in points], points, COLORS[0])
    handles = [
        handle(sentence("laws.legend_measured"), COLORS[0], marker="o", ls="-", lw=1),
        handle(sentence("laws.legend_law"), COLORS[0], ls="-"),
        handle(sentence("laws.legend_predicted"), COLORS[0], ls="--"),
    ]
    losses = [run for point in points for run in point["runs"]] + curve["loss"]
    sizes = [point["galaxies"] for point in points] + curve["galaxies"]
    if asked:
        draw_points(axes, [asked["galaxies"]], [asked], COLORS[1], "D", size=7)
        handles.append(handle(sentence("laws.legend_asked"), COLORS[1], marker="D", ls="-", lw=1.1))
        losses += [end for end in (asked["low"], asked["high"]) if end > asked["value"] / 3]
    if target is not None:
        losses.append(target)
        ends = budget["galaxies_for"]
        sizes += [end for end in ends.values() if end and end <= 10 * max(sizes)]
        draw_level(axes, target, sentence("laws.legend_target"), ":", right=False)
        if ends["low"]:
            most = max(sizes) * 1.25
            axes.plot([min(ends["low"], most), min(ends["high"] or most, most)], [target] * 2, color=COLORS[2], lw=3)
            if ends["value"] and ends["value"] <= most:
                axes.plot([ends["value"]], [target], "^", color=COLORS[2], ms=9, zorder=5)
            handles.append(handle(sentence("laws.legend_needed"), COLORS[2], marker="^", ls="-", lw=3))
    log_axis(axes.xaxis, min(sizes) / 1.25, max(sizes) * 1.25)
    log_axis(axes.yaxis, *limits(losses))
    axes.set(xlabel=sentence("laws.column_galaxies"), ylabel=_unit(budget))
    return [*handles, handle(sentence("laws.legend_run"), GREY, marker="o", ms=3, alpha=0.5)]
