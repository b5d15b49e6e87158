"""The tables of the page of a downstream benchmark, in Markdown.

Arguments are `results` from `results.results_of` and `about` from `results.read_about`. A table that has no rows is None.
"""

from typing import Any

from hf_galaxy.downstream.families import FAMILIES
from hf_galaxy.downstream.findings import task_count
from hf_galaxy.downstream.label_efficiency import FEWER, MORE
from hf_galaxy.downstream.results import headline_averages, with_most_labels
from hf_galaxy.reports.text import interval, number, percent, table


def loss_table(results: dict[str, Any], about: dict[str, Any], mode: str) -> str:
    """Tasks x starts: the losses with all labels."""
    rows = {
        (row["task"], row["start"]): row
        for row in results["means"]
        if row["main"] and row["mode"] == mode and row["share"] == max(about["shares"])
    }
    starts = [start for start in about["starts"] if any(key[1] == start for key in rows)]
    lines = []
    for name, task in about["tasks"].items():
        own = [rows.get((name, start)) for start in starts]
        if any(own):
            constant = number(next(row["baseline"] for row in own if row))
            lines.append([f"{name} ({task['measure']})", *map(_loss, own), constant])
    return table(["task", *(about["starts"][start]["title"] for start in starts), "constant"], lines)


def reduction_table(results: dict[str, Any], about: dict[str, Any], mode: str) -> str:
    """The error-rate reduction of each start on each task and on average, for each share of the labels."""
    lines = []
    for share in sorted(about["shares"], reverse=True):
        group = {"mode": mode, "share": share}
        reductions = [row for row in results["reductions"] if row["main"] and group.items() <= row.items()]
        rows = {(row["task"], row["start"]): row for row in reductions}
        means = {row["start"]: row for row in headline_averages(results) if group.items() <= row.items()}
        for start in about["starts"]:
            if start in means and start != about["reference"]:
                own = [_reduction(rows.get((task, start))) for task in about["tasks"]]
                average = _reduction(means[start]) + _incomplete(means[start])
                lines.append([_share(share), about["starts"][start]["title"], average, *own])
    return table(["labels", "start", "average", *about["tasks"]], lines)


def family_table(results: dict[str, Any], about: dict[str, Any]) -> str | None:
    """The average reduction of each start with the most labels, by each family of measures."""
    rows = with_most_labels(results["averages"])
    lines = [
        [mode, about["starts"][start]["title"], *(_average_of(rows, mode, start, family) for family in FAMILIES)]
        for mode in about["modes"]
        for start in about["starts"]
        if any((row["mode"], row["start"]) == (mode, start) for row in rows)
    ]
    return table(["mode", "start", *FAMILIES], lines) if lines else None


def _average_of(rows: list[dict[str, Any]], mode: str, start: str, family: str) -> str:
    own = {"mode": mode, "start": start, "family": family}
    return next((_reduction(row) + _incomplete(row) for row in rows if own.items() <= row.items()), "")


def linear_table(results: dict[str, Any], about: dict[str, Any]) -> str | None:
    """The loss of linear probes over that of full finetuning, on average over tasks."""
    lines = [
        [_share(row["share"]), about["starts"][row["start"]]["title"], interval(row), len(row["tasks"])]
        for row in sorted(results["linear_averages"], key=lambda row: -row["share"])
    ]
    return table(["labels", "start", "linear over full", "tasks"], lines) if lines else None


def label_table(results: dict[str, Any], about: dict[str, Any]) -> str | None:
    """How many galaxies each start needs for the error of the reference with all of them."""
    lines = [
        [
            row["task"], row["mode"], about["starts"][row["start"]]["title"], f"{number(row['target'])} with {row['most']:,}",
            _bounded(row["galaxies"], {FEWER: f"up to {row['least']:,}", MORE: f"over {row['most']:,}"}),
            _bounded(row["factor"], {FEWER: "below 1", MORE: "unbounded"}),
        ]
        for row in results["labels"]
    ]  # fmt: skip
    error = f"error of {about['starts'][about['reference']]['title']}"
    return table(["task", "mode", "start", error, "galaxies needed", "times fewer"], lines) if lines else None


def choice_table(results: dict[str, Any]) -> str:
    """The hyper-parameters that validation chose, and how often at an edge of the grid."""
    lines = [
        [
            row["mode"], row["start"], row["hyperparameter"].replace("_", " "), ", ".join(f"{value}: {n}" for value, n in row["chosen"].items()),
            f"{row['lowest']} lowest, {row['highest']} highest of {row['choosing']}",
        ]
        for row in results["choices"]
    ]  # fmt: skip
    return table(["mode", "start", "hyper-parameter", "chosen values: cells", "at an edge of the values tried"], lines)


# Cells of tables


def _share(share: float) -> str:
    return "all" if share == 1 else f"1/{round(1 / share)}"


def _loss(row: dict[str, Any] | None) -> str:
    """A loss with its interval, in italics where it is not less than that of the constant."""
    if row is None:
        return ""
    return interval(row) if row["constant"]["error"] in ("less", "not known") else f"*{interval(row)}*"


def _reduction(row: dict[str, Any] | None) -> str:
    return "" if row is None or row["value"] is None else _bold(row, interval(row, percent))


def _bold(row: dict[str, Any], text: str) -> str:
    """The text, in bold where the whole interval is on one side of no difference."""
    return text if row["error"] in ("not shown", "not known") else f"**{text}**"


def _incomplete(mean: dict[str, Any]) -> str:
    """The number of tasks in an average that lacks some."""
    return f", {task_count(mean)}" if mean["without"] else ""


def _bounded(row: dict[str, Any], bounds: dict[str, str]) -> str:
    """A value and its interval, whose ends may lie beyond the measured sizes: then they are named in `bounds`."""

    def form(value: float | str) -> str:
        if isinstance(value, str):
            return bounds[value]
        return f"{value:,}" if isinstance(value, int) else number(value)

    value, low, high = (row[end] for end in ("value", "low", "high"))
    if low is None:
        return f"{form(value)} (no interval)"
    if value == low == high:
        return f"{form(value)}, as the whole interval"
    return f"{form(value)} [{form(low)}, {form(high)}]"
