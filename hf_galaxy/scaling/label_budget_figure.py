"""The figure of a label budget: the measured losses, the predicted ones, and what a target loss needs."""

import numpy as np
import pandas as pd

from hf_galaxy.reports.charts import (
    COLORS,
    LABEL,
    Figure,
    chart,
    csv_text,
    draw_law,
    draw_level,
    draw_point,
    handle,
    label,
    limits,
    log_axis,
    png,
    style,
)
from hf_galaxy.reports.text import figure_interval, figure_number, short
from hf_galaxy.scaling.figures import GALAXIES, LAW, panel_titles, point_rows
from hf_galaxy.scaling.points import MEASURES

# The label budget


def label_budget_figure(budget: dict) -> Figure:
    """The loss as a law foretells it, what was held back to check that, and the galaxies that a target needs.

    Args:
        budget: `measure`, `figure`, `target` (a loss, or None); `points`, as of a law of the study; `held_back`: galaxies,
            measured, runs, predicted, low, high, inside; `curve`: galaxies, loss, low, high; `galaxies_for` the target: value,
            low, high, with None for infinity; or None where there is no target.
    """
    points, held, curve, target, needed = (
        budget[key] for key in ("points", "held_back", "curve", "target", "galaxies_for")
    )
    measure = MEASURES[budget["measure"]]
    most = max(curve["galaxies"] + [point["galaxies"] for point in [*points, *held]])
    near = [end for end in (needed or {}).values() if end is not None and end <= 10 * most]
    left, right = min(curve["galaxies"][0], points[0]["galaxies"]) / 1.25, max([most, *near]) * 1.25
    seen = [run for point in [*points, *held] for run in point["runs"]] + curve["loss"]
    seen += [point[end] for point in held for end in ("low", "high")] + ([] if target is None else [target])
    # Intervals too, but for ends near 0, which would take all of a logarithmic axis.
    ends = [(end, point["value"]) for point in points for end in (point["low"], point["high"]) if end is not None]
    seen += [end for end, value in ends if end > value / 3]
    rows = [*point_rows(points), *({"kind": "law"} | row for row in pd.DataFrame(curve).to_dict("records"))]
    words = [f"{measure} against galaxies learnt from, both logarithmic."]
    handles = [
        handle("measured: mean of runs, 90 %", COLORS[0], marker="o", ls="-", lw=1),
        handle(f"law {LAW}, 90 % band", COLORS[0], ls="-"),
        handle("beyond what it was fitted to", COLORS[0], ls="--"),
    ]
    with style():
        figure, (axes,) = chart(1)
        draw_law(axes, curve, max(point["galaxies"] for point in points), COLORS[0])
        for point in points:
            draw_point(axes, point["galaxies"], point, COLORS[0], "o", "full", 6)
        for point in held:
            x, inside = point["galaxies"], "inside" if point["inside"] else "outside"
            axes.vlines(x, point["low"], point["high"], color=COLORS[1], lw=7, alpha=0.5, zorder=3)
            axes.plot([x], [point["predicted"]], "_", color=COLORS[1], ms=15, mew=2, zorder=4)
            measured = {"value": point["measured"], "runs": point["runs"], "low": None}
            draw_point(axes, x, measured, "black", "D", "none", 5)
            kinds = (("run", run) for run in point["runs"]), [("mean", point["measured"])]
            rows += [
                {"kind": f"held back, {kind}", "galaxies": x, "loss": loss} for part in kinds for kind, loss in part
            ]
            foretold = {"kind": "held back, foretold", "galaxies": x, "loss": point["predicted"]}
            rows.append(foretold | {"low": point["low"], "high": point["high"]})
            words.append(f"With {x:,} galaxies, held back, {figure_interval(point, 'predicted')} was foretold and ")
            words[-1] += f"{figure_number(point['measured'])} measured, {inside} the interval."
        if held:
            handles.append(handle("held back: foretold, 90 %", COLORS[1], marker="_", ms=10, ls="-", lw=5, alpha=0.6))
            handles.append(handle("held back: measured", "black", marker="D", mfc="white", ms=5))
        log_axis(axes.xaxis, left, right)
        log_axis(axes.yaxis, *limits(seen))
        if target is not None:
            draw_level(axes, target, f"target {figure_number(target)}", ":", right=False)
            rows.append({"kind": "target", "loss": target})
        if needed:
            _draw_needed(axes, needed, target, right)
            rows[-1] |= {f"galaxies_{key}": np.inf if n is None else n for key, n in needed.items()}
            words.insert(1, f"A loss of {figure_number(target)}: {_needed(needed)}.")
            if needed["low"] is not None:
                handles.append(handle("galaxies for the target, 90 %", COLORS[2], marker="^", ls="-", lw=2))
        label(figure, [axes], panel_titles([budget["figure"]]), GALAXIES, measure)
        picture = png(figure, "How many galaxies to label", handles)
    return Figure(f"label-budget-{budget['measure']}", picture, csv_text(rows), " ".join(words))


def _draw_needed(axes, needed, target, right):
    """The interval of the galaxies that a target needs; an arrow where it does not end on the axis."""
    value, low, high = (np.inf if needed[key] is None else needed[key] for key in ("value", "low", "high"))
    axes.plot(np.minimum([low, high], right), [target] * 2, color=COLORS[2], lw=3, solid_capstyle="butt", zorder=4)
    if low < np.inf and high > right:
        axes.plot([right / 1.02], [target], ">", color=COLORS[2], ms=9, zorder=4)
    if value <= right:
        axes.plot([value], [target], "^", color=COLORS[2], ms=9, mec="white", zorder=5)
    axes.annotate(
        _needed(needed), (1, target), (-4, 8), xycoords=axes.get_yaxis_transform(), textcoords="offset points",
        ha="right", fontsize=9, bbox=LABEL, zorder=6,
    )  # fmt: skip


def _needed(needed):
    if needed["low"] is None:
        return "not reached with any number of galaxies"
    if needed["value"] is None:
        return f"{short(needed['low'])} galaxies or more, how many cannot be told"
    most = "cannot be told" if needed["high"] is None else short(needed["high"])
    return f"{short(needed['value'])} galaxies [{short(needed['low'])}, {most}]"
