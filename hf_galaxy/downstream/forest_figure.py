"""The figure of error-rate reductions: for each task and on average, a line for each start with its interval."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from hf_galaxy.downstream.looks import LINE_LETTERS, MODE_TITLES, Look, groups_of, share_name, titles_of
from hf_galaxy.reports.charts import COLORS, GREY, Figure, chart, csv_text, forest_axes, handle, margin_text, png
from hf_galaxy.reports.text import interval, percent, truncated

AVERAGE = "Average over tasks"


@dataclass(frozen=True)
class Estimate:
    """A point with its interval.

    Attributes:
        y: of the line of its start.
        row: of `reductions` or `averages` in results.json.
        all_labels: whether it is that of the largest share of the labels; else of the smallest.
    """

    y: int
    row: dict[str, Any]
    all_labels: bool


def reduction_figure(
    mode: str, rows: list[dict[str, Any]], averages: list[dict[str, Any]], about: dict[str, Any], looks: dict[str, Look]
) -> Figure:
    """The relative error-rate reductions of a mode, with the most labels and with the fewest.

    Args:
        rows: of `reductions` in results.json, averages: of `averages`.
    """
    most, fewest = (choose(row["share"] for row in rows) for choose in (max, min))
    groups = {about["tasks"][task]["title"]: own for task, own in groups_of(rows, "task").items()}
    if len(groups) > 1:
        groups = {AVERAGE: averages} | groups
    starts = [start for start in looks if any(row["start"] == start for row in rows)]
    titles = titles_of(starts, about, LINE_LETTERS)
    lines = sum(1 + len({row["start"] for row in group}) for group in groups.values())
    figure, (axes,) = chart(1, height=0.185 * lines + 0.6)

    estimates, y = [], 0
    for number, (title, group) in enumerate(groups.items()):
        own = [start for start in starts if any(row["start"] == start for row in group)]
        if number % 2 == 0:
            axes.axhspan(y - 0.5, y + len(own) + 0.5, color="#F1F1F1", lw=0, zorder=0)
        margin_text(axes, y, truncated(title, LINE_LETTERS), left=True, weight="bold")
        for line, start in enumerate(own, y + 1):
            margin_text(axes, line, titles[start], left=True)
            by_share = {row["share"]: row for row in group if row["start"] == start}
            estimates += [
                Estimate(line, by_share[share], share == most)
                for share in dict.fromkeys((fewest, most))
                if share in by_share
            ]
        y += 1 + len(own)
    for estimate in estimates:
        _draw(axes, estimate, looks)
    reference = truncated(about["starts"][about["reference"]]["title"], 40)
    _set_axes(axes, y, [estimate.row for estimate in estimates], reference)

    handles = [handle(f"with {share_name(most)}, 90 %", GREY, marker="o", ls="-")]
    if fewest < most:
        handles.append(handle(f"with {share_name(fewest)}, 90 %", GREY, marker="o", fillstyle="none", ls="-", lw=1))
    handles.append(handle("in red: more error, at 90 %", COLORS[1], marker="_", ms=9))
    title = f"Error-rate reduction of each start: {MODE_TITLES.get(mode, mode)}"
    alt = f"{title}, with {share_name(most)} and its interval: a line for each start on each task{_range(averages, most)}."
    table = [_table_row(estimate.row, mode) for estimate in estimates]
    return Figure(f"reductions-{mode}", png(figure, title, handles), csv_text(table), alt)


def _range(averages: list[dict[str, Any]], share: float) -> str:
    """The smallest and the largest average, in words."""
    rows = sorted((row for row in averages if row["share"] == share), key=lambda row: row["value"])
    if len(rows) < 2:
        return ""
    low, high = rows[0], rows[-1]
    return f"; on average from {percent(low['value'])} ({low['start']}) to {percent(high['value'])} ({high['start']})"


def _draw(axes: Axes, estimate: Estimate, looks: dict[str, Look]) -> None:
    """Draw a point with its interval; with all labels also its number."""
    row, full = estimate.row, estimate.all_labels
    look = looks[row["start"]]
    y = estimate.y + (-0.1 if full else 0.2)
    if row["low"] is not None:
        axes.plot([100 * row["low"], 100 * row["high"]], [y, y], color=look.color, lw=1.6 if full else 0.9, zorder=2)
    fill, size = (look.color, 5.5) if full else ("white", 3.5)
    axes.plot([100 * row["value"]], [y], look.marker, color=look.color, mfc=fill, ms=size, zorder=3)
    if not full:
        return
    count = len(row.get("tasks", ()))
    text = interval(row, percent) + (f", {count} task{'s' * (count > 1)}" if "tasks" in row else "")
    margin_text(axes, estimate.y, text, left=False, color="black" if row["error"] != "more" else COLORS[1])


def _set_axes(axes: Axes, lines: int, rows: Sequence[dict[str, Any]], reference: str) -> None:
    """Limits that hold all values, and of their intervals what does not squeeze them."""
    ends = [row[key] for row in rows for key in ("value", "low", "high") if row[key] is not None]
    values = [row["value"] for row in rows] + [0.0]
    span = max(max(values) - min(values), 0.05)
    left, right = max(min(ends), min(values) - 0.5 * span), min(max(ends), max(values) + 0.5 * span)
    forest_axes(axes, lines, f"relative error-rate reduction against {reference} (%)")
    axes.axvline(0, color="black", lw=1, zorder=1)
    axes.set(xlim=(100 * (min(left, 0) - 0.04 * span), 100 * (max(right, 0) + 0.04 * span)))


def _table_row(row: dict[str, Any], mode: str) -> dict[str, Any]:
    is_average = "tasks" in row
    return {
        "task": "average" if is_average else row["task"], "start": row["start"], "mode": mode, "share": row["share"],
        "tasks": len(row["tasks"]) if is_average else 1, **{key: row[key] for key in ("value", "low", "high", "error")},
    }  # fmt: skip
