"""Figures of a downstream benchmark, each with the table of the numbers in it.

They are drawn from results.json (`results.results_of`), with the titles in benchmark.json. A start has the same colour and marker in all figures.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from hf_galaxy.downstream.forest_figure import reduction_figure
from hf_galaxy.downstream.looks import MODE_TITLES, Look, groups_of, looks_of, share_name
from hf_galaxy.downstream.results import FULL, LINEAR, headline_averages
from hf_galaxy.reports.charts import (
    COLUMNS,
    GREY,
    LOG_FLOOR,
    Figure,
    chart,
    csv_text,
    draw_level,
    draw_points,
    handle,
    label_axes,
    limits,
    log_axis,
    png,
    style,
)
from hf_galaxy.reports.text import truncated

KINDS = ("labels-", "reductions-", "linear-against-full")  # beginnings of the names of figures
STEP = 1.03  # factor between markers of the same number of galaxies, or their intervals would hide each other
Row = dict[str, Any]


def figures_of(results: dict[str, Any], about: dict[str, Any]) -> list[Figure]:
    """All figures that a benchmark has data for, in the order of the page.

    For each mode `labels-*`, the loss against the number of training galaxies, a panel for each task; `reductions-*`, the
    relative error-rate reductions with all labels and with the fewest; and `linear-against-full`.

    Args:
        results: from `results.results_of`.
        about: from `results.read_about`.
    """
    looks, figures = looks_of(results, about), []
    with style():
        for mode in about["modes"]:
            if means := [each for each in results["means"] if each["main"] and each["mode"] == mode]:
                figures.append(_label_figure(mode, means, about, looks))
        for mode in about["modes"]:
            rows = [each for each in results["reductions"] if each["main"] and each["mode"] == mode]
            averages = [each for each in headline_averages(results) if each["mode"] == mode]
            if rows := [row for row in rows if row["value"] is not None]:
                figures.append(reduction_figure(mode, rows, averages, about, looks))
        if pairs := _pairs(results):
            figures.append(_linear_figure(pairs, about, looks))
    return figures


def _task_title(about: dict[str, Any], task: str) -> str:
    return f"{truncated(about['tasks'][task]['title'], 48)} ({about['tasks'][task]['measure']})"


def _legend(looks: dict[str, Look], starts: set[str]) -> list[Line2D]:
    return [
        handle(look.title, look.color, marker=look.marker, ls=look.line, lw=1.2)
        for start, look in looks.items()
        if start in starts
    ]


# Loss against labels


def _label_figure(mode: str, means: list[Row], about: dict[str, Any], looks: dict[str, Look]) -> Figure:
    tasks = groups_of(means, "task")
    figure, panels = _panels(len(tasks), 2.75)
    rows = []
    for axes, own in zip(panels, tasks.values(), strict=True):
        starts = groups_of(own, "start")
        for start, points in starts.items():
            color, marker, line, _ = looks[start]
            points = sorted(points, key=lambda point: point["galaxies"])
            offset = STEP ** ([*looks].index(start) - (len(looks) - 1) / 2)
            x = [point["galaxies"] * offset for point in points]
            axes.plot(x, [max(point["value"], LOG_FLOOR) for point in points], color=color, ls=line, lw=1.2, zorder=2)
            for place, point in zip(x, points, strict=True):
                draw_points(axes, [place], [{**point, "runs": []}], color, marker, "full", 4.5)
            columns = (
                "task",
                "start",
                "mode",
                "share",
                "galaxies",
                "measure",
                "seeds",
                "value",
                "low",
                "high",
                "baseline",
            )
            rows += [{key: point[key] for key in columns} for point in points]
        sizes = [point["galaxies"] for point in own]
        room = STEP ** (len(looks) / 2 + 1)
        low, high, baseline = _loss_limits(own)
        log_axis(axes.xaxis, min(sizes) / room / 1.05, max(sizes) * room * 1.05)
        log_axis(axes.yaxis, low, high)
        if baseline:
            draw_level(axes, baseline, "baseline", "-.", right=True)
    label_axes(
        figure, panels, [_task_title(about, task) for task in tasks], "training galaxies", "loss on test galaxies"
    )
    handles = _legend(looks, {each["start"] for each in means})
    handles.append(handle("mean of seeds, 90 %; moved sideways slightly", GREY, marker="|", ms=9))
    title = f"Loss against training galaxies: {MODE_TITLES.get(mode, mode)}"
    alt = f"{title}, both logarithmic: a panel for each of {len(tasks)} tasks, a curve for each start."
    return Figure(f"labels-{mode}", png(figure, title, handles), csv_text(rows), alt)


def _loss_limits(points: list[Row]) -> tuple[float, float, float | None]:
    """Limits of the axis; and the baseline, where it does not squeeze the losses."""
    values = [point["value"] for point in points]
    low, high = limits(values)
    ends = [point[end] for point in points for end in ("low", "high") if point[end] is not None]
    low, high = limits([low, high, *np.clip(ends, low / 1.2, high * 1.2)], 0)
    baseline = max(points, key=lambda point: point["share"])["baseline"]  # of the most labels
    if baseline and low < baseline <= high * max(high / low, 1.2) ** 0.4:
        return *limits([low, high, baseline], 0.03), baseline
    return low, high, None


# Linear against full


def _pairs(results: dict[str, Any]) -> list[Row]:
    """The losses of each task and start in both modes, with the most labels."""
    main = [each for each in results["means"] if each["main"]]
    both = {(row["task"], row["start"], row["share"]): row for row in results["linear"] if row["value"] is not None}
    most = max((share for *_, share in both), default=None)
    by_mode = {(each["task"], each["start"], each["mode"]): each for each in main if each["share"] == most}
    return [
        {
            "task": task,
            "start": start,
            "share": share,
            "ratio": row,
            "modes": {m: by_mode[task, start, m] for m in (LINEAR, FULL)},
        }
        for (task, start, share), row in both.items()
        if share == most
    ]


def _linear_figure(pairs: list[Row], about: dict[str, Any], looks: dict[str, Look]) -> Figure:
    tasks = groups_of(pairs, "task")
    figure, panels = _panels(len(tasks), 3.3)
    rows = []
    for axes, own in zip(panels, tasks.values(), strict=True):
        values = [each["value"] for pair in own for each in pair["modes"].values()]
        low, high = limits(values)
        ends = [each[end] for pair in own for each in pair["modes"].values() for end in ("low", "high")]
        low, high = limits(
            [low, high, *np.clip([end for end in ends if end is not None], low / 1.15, high * 1.15)], 0.02
        )
        for pair in own:
            color, marker, *_ = looks[pair["start"]]
            linear, full = (pair["modes"][mode] for mode in (LINEAR, FULL))
            draw_points(axes, [full["value"]], [{**linear, "runs": []}], color, marker, "full", 5.5)
            if full["low"] is not None:
                axes.hlines(linear["value"], max(full["low"], LOG_FLOOR), full["high"], color=color, lw=1.1, zorder=3)
            row = {key: pair[key] for key in ("task", "start", "share")}
            for mode, each in pair["modes"].items():
                row |= {mode: each["value"], f"{mode}_low": each["low"], f"{mode}_high": each["high"]}
            ratio = pair["ratio"]
            row |= {"ratio": ratio["value"], "ratio_low": ratio["low"], "ratio_high": ratio["high"]}
            rows.append(row)
        axes.plot([low, high], [low, high], "--", color=GREY, lw=1, zorder=1)
        for axis in (axes.xaxis, axes.yaxis):
            log_axis(axis, low, high)
        axes.set_box_aspect(1)
    label_axes(
        figure,
        panels,
        [_task_title(about, task) for task in tasks],
        "loss of full finetuning",
        "loss of a linear probe",
    )
    handles = [
        handle(called, color, marker=marker)
        for start, (color, marker, _, called) in looks.items()
        if any(pair["start"] == start for pair in pairs)
    ]
    handles.append(handle("equal: above it the linear probe is worse", GREY, ls="--", lw=1))
    title = f"Linear probe against full finetuning, with {share_name(pairs[0]['share'])}"
    counts = {error: sum(pair["ratio"]["error"] == error for pair in pairs) for error in ("more", "less")}
    alt = (
        f"{title}: a panel for each of {len(tasks)} tasks, a point for each start. Of {len(pairs)} probes {counts['more']} have more error than "
        f"finetuning at 90 %, {counts['less']} less."
    )
    return Figure("linear-against-full", png(figure, title, handles), csv_text(rows), alt)


def _panels(count: int, height: float) -> tuple[Canvas, Sequence[Axes]]:
    return chart(count) if count == 1 else chart(count, height=height * -(-count // COLUMNS))
