"""The figure of a label budget: measured and predicted losses, the check on what was held back, and the galaxies for a target."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pandas as pd

from hf_galaxy.reports import charts
from hf_galaxy.reports.charts import Figure
from hf_galaxy.reports.measures import MEASURES
from hf_galaxy.reports.text import compact_number, interval, number
from hf_galaxy.scaling.figure_data import Row, point_rows
from hf_galaxy.scaling.figures import GALAXIES, LAW, panel_titles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

    from hf_galaxy.scaling.label_budget import LabelBudget

Needed = Row  # `LabelBudget.galaxies_for` a target


def label_budget_figure(budget: LabelBudget) -> Figure:
    """Draw a budget."""
    measure, needed = MEASURES[budget.measure], budget.galaxies_for
    (left, right), losses = _galaxies_axis(budget), _loss_axis(budget)
    with charts.style():
        figure, (axes,) = charts.chart(1)
        charts.draw_curve_with_band(
            axes, budget.curve, max(point["galaxies"] for point in budget.points), charts.COLORS[0]
        )
        charts.draw_points(axes, [point["galaxies"] for point in budget.points], budget.points, charts.COLORS[0])
        for held in budget.held_back:
            _draw_held_back(axes, held)
        charts.log_axis(axes.xaxis, left, right)
        charts.log_axis(axes.yaxis, *losses)
        if budget.target is not None and needed:
            charts.draw_level(axes, budget.target, f"target {number(budget.target)}", ":", right=False)
            _draw_needed(axes, needed, budget.target, right)
        charts.label_axes(figure, [axes], panel_titles([budget.figure]), GALAXIES, measure)
        picture = charts.png(figure, "How many galaxies to label", _legend(budget))
    alt = " ".join([f"{measure} against training galaxies, both logarithmic.", *_sentences(budget)])
    return Figure(f"label-budget-{budget.measure}", picture, charts.csv_text(budget_rows(budget)), alt)


def budget_rows(budget: LabelBudget) -> list[Row]:
    """The numbers in the figure."""
    rows = [
        *point_rows(budget.points),
        *({"kind": "law"} | row for row in pd.DataFrame(budget.curve).to_dict("records")),
    ]
    for held in budget.held_back:
        about = {"galaxies": held["galaxies"]}
        rows += [{"kind": "held back, run"} | about | {"loss": run} for run in held["runs"]]
        rows.append({"kind": "held back, mean"} | about | {"loss": held["measured"]})
        predicted = {"loss": held["predicted"], "low": held["low"], "high": held["high"]}
        rows.append({"kind": "held back, predicted"} | about | predicted)
    if budget.galaxies_for:
        needed = {name: math.inf if galaxies is None else galaxies for name, galaxies in budget.galaxies_for.items()}
        rows.append(
            {"kind": "target", "loss": budget.target}
            | {f"galaxies_{name}": galaxies for name, galaxies in needed.items()}
        )
    return rows


def _galaxies_axis(budget: LabelBudget) -> tuple[float, float]:
    points, curve = budget.points, budget.curve["galaxies"]
    most = max(curve + [point["galaxies"] for point in [*points, *budget.held_back]])
    near = [end for end in (budget.galaxies_for or {}).values() if end is not None and end <= 10 * most]
    return min(curve[0], points[0]["galaxies"]) / 1.25, max([most, *near]) * 1.25


def _loss_axis(budget: LabelBudget) -> tuple[float, float]:
    points, held = budget.points, budget.held_back
    shown = [run for point in [*points, *held] for run in point["runs"]] + budget.curve["loss"]
    shown += [point[end] for point in held for end in ("low", "high")]
    shown += [] if budget.target is None else [budget.target]
    # Intervals too, but not ends near 0, which would take all of a logarithmic axis.
    ends = [(end, point["value"]) for point in points for end in (point["low"], point["high"]) if end is not None]
    return charts.limits(shown + [end for end, value in ends if end > value / 3])


def _draw_held_back(axes: Axes, held: Row) -> None:
    galaxies = held["galaxies"]
    axes.vlines(galaxies, held["low"], held["high"], color=charts.COLORS[1], lw=7, alpha=0.5, zorder=3)
    axes.plot([galaxies], [held["predicted"]], "_", color=charts.COLORS[1], ms=15, mew=2, zorder=4)
    measured = {"value": held["measured"], "runs": held["runs"], "low": None}
    charts.draw_points(axes, [galaxies], [measured], "black", "D", "none", 5)


def _draw_needed(axes: Axes, needed: Needed, target: float, right: float) -> None:
    """The interval of the galaxies that a target needs; an arrow where it does not end on the axis."""
    value, low, high = (math.inf if needed[key] is None else needed[key] for key in ("value", "low", "high"))
    axes.plot(
        [min(low, right), min(high, right)], [target] * 2, color=charts.COLORS[2], lw=3, solid_capstyle="butt", zorder=4
    )
    if low < math.inf and high > right:
        axes.plot([right / 1.02], [target], ">", color=charts.COLORS[2], ms=9, zorder=4)
    if value <= right:
        axes.plot([value], [target], "^", color=charts.COLORS[2], ms=9, mec="white", zorder=5)
    axes.annotate(
        _needed_in_words(needed), (1, target), (-4, 8), xycoords=axes.get_yaxis_transform(), textcoords="offset points",
        ha="right", fontsize=9, bbox=charts.TEXT_BOX, zorder=6,
    )  # fmt: skip


def _legend(budget: LabelBudget) -> list[Line2D]:
    handles = [
        charts.handle("measured: mean of runs, 90 %", charts.COLORS[0], marker="o", ls="-", lw=1),
        charts.handle(f"law {LAW}, 90 % band", charts.COLORS[0], ls="-"),
        charts.handle("beyond the fitted range", charts.COLORS[0], ls="--"),
    ]
    if budget.held_back:
        handles.append(
            charts.handle("held back: predicted, 90 %", charts.COLORS[1], marker="_", ms=10, ls="-", lw=5, alpha=0.6)
        )
        handles.append(charts.handle("held back: measured", "black", marker="D", mfc="white", ms=5))
    if budget.galaxies_for and budget.galaxies_for["low"] is not None:
        handles.append(charts.handle("galaxies for the target, 90 %", charts.COLORS[2], marker="^", ls="-", lw=2))
    return handles


def _sentences(budget: LabelBudget) -> list[str]:
    sentences = []
    if budget.galaxies_for:
        sentences.append(f"A loss of {number(budget.target)}: {_needed_in_words(budget.galaxies_for)}.")
    for held in budget.held_back:
        sentences.append(
            f"With {held['galaxies']:,} galaxies, held back, {interval(held | {'value': held['predicted']})} is predicted and "
            f"{number(held['measured'])} measured, {'inside' if held['inside'] else 'outside'} the interval."
        )
    return sentences


def _needed_in_words(needed: Needed) -> str:
    if needed["low"] is None:
        return "not reached with any number of galaxies"
    if needed["value"] is None:
        return f"{compact_number(needed['low'])} galaxies or more, without an upper end"
    most = "no upper end" if needed["high"] is None else compact_number(needed["high"])
    return f"{compact_number(needed['value'])} galaxies [{compact_number(needed['low'])}, {most}]"
