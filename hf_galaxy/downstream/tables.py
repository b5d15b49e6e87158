"""The tables of the page of a downstream benchmark, in Markdown.

Arguments are `results` from `results.results_of` and `about` from `results.read_about`. A table that has no rows is None.
"""

from collections.abc import Callable
from typing import Any

from hf_galaxy.downstream.findings import task_count
from hf_galaxy.downstream.label_efficiency import FEWER, MORE, series_of
from hf_galaxy.downstream.results import with_most_labels
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
            lines.append([f"{name} ({task['measure']})", *(interval(row) if row else "" for row in own), constant])
    return table(["task", *(about["starts"][start]["title"] for start in starts), "constant"], lines)


def reduction_table(results: dict[str, Any], about: dict[str, Any], mode: str) -> str:
    """The error-rate reduction of each start on each task and on average, for each share of the labels."""
    lines = []
    for share in sorted(about["shares"], reverse=True):
        group = {"mode": mode, "share": share}
        reductions = [row for row in results["reductions"] if row["main"] and group.items() <= row.items()]
        rows = {(row["task"], row["start"]): row for row in reductions}
        means = {row["start"]: row for row in results["averages"] if group.items() <= row.items()}
        for start in about["starts"]:
            if start in means and start != about["reference"]:
                own = [_reduction(rows.get((task, start))) for task in about["tasks"]]
                average = _reduction(means[start]) + _incomplete(means[start])
                lines.append([_share(share), about["starts"][start]["title"], average, *own])
    return table(["labels", "start", "average", *about["tasks"]], lines)


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


def exponent_table(results: dict[str, Any], about: dict[str, Any]) -> str | None:
    """The exponents of power laws in galaxies to pretrain with, for all labels."""
    rows = {(row["series"], row["mode"], row["task"]): row for row in with_most_labels(results["amounts"])}
    lines = []
    for mean in with_most_labels(results["amount_averages"]):
        own = [rows.get((mean["series"], mean["mode"], task)) for task in about["tasks"]]
        dataset = about["starts"][mean["series"]]["pretraining"][0]["dataset"]
        average = _bold(mean, interval(mean)) + _incomplete(mean)
        exponents = [_bold(row, interval(row)) if row else "" for row in own]
        lines.append([f"`{dataset}`", mean["mode"], average, *exponents])
    return table(["galaxies of", "mode", "average", *about["tasks"]], lines) if lines else None


def amount_table(results: dict[str, Any], about: dict[str, Any]) -> str | None:
    """The loss, the error-rate reduction and the labels saved, for each number of galaxies to pretrain with."""
    reductions, losses = (
        {
            (row["task"], row["mode"], row["start"]): row
            for row in with_most_labels([row for row in results[name] if row["main"]])
        }
        for name in ("reductions", "means")
    )
    labels = {(row["task"], row["mode"], row["start"]): row for row in results["labels"]}
    lines = []
    for series, members in series_of(about).items():
        rows = [row for row in results["amounts"] if row["series"] == series]
        for task, mode in dict.fromkeys((row["task"], row["mode"]) for row in rows):
            for start, galaxies in members.items():
                if (key := (task, mode, start)) in losses:
                    price = _galaxies_per_label(galaxies, labels[key]["saved"]) if key in labels else ""
                    reduction = _reduction(reductions.get(key))
                    lines.append([task, mode, f"{galaxies:,}", interval(losses[key]), reduction, price])
    columns = ["task", "mode", "pretrained with", "loss", "error-rate reduction", "galaxies for each label saved"]
    return table(columns, lines) if lines else None


def size_table(results: dict[str, Any], about: dict[str, Any]) -> str | None:
    """The error-rate reduction of the next larger model of a family."""
    lines = [
        [
            row["task"], row["mode"], _share(row["share"]), about["starts"][row["small"]]["title"],
            about["starts"][row["large"]]["title"], " to ".join(f"{n / 1e6:.3g}" for n in row["parameters"]), _reduction(row),
        ]
        for row in results["sizes"]
    ]  # fmt: skip
    columns = ["task", "mode", "labels", "smaller", "larger", "million parameters", "cuts the error by"]
    return table(columns, lines) if lines else None


def choice_table(results: dict[str, Any]) -> str:
    """The hyper-parameters that validation chose, and how often at an edge of the grid."""
    lines = [
        [
            row["mode"], row["start"], row["hyperparameter"].replace("_", " "), ", ".join(f"{value}: {n}" for value, n in row["chosen"].items()),
            f"{row['lowest']} lowest, {row['highest']} highest of {row['choosing']}",
        ]
        for row in results["choices"]
    ]  # fmt: skip
    return table(["mode", "start", "chosen from", "how often", "at an edge of the values tried"], lines)


# Cells of tables


def _share(share: float) -> str:
    return "all" if share == 1 else f"1/{round(1 / share)}"


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

    return _interval_of_forms(form, row["value"], row["low"], row["high"])


def _galaxies_per_label(galaxies: int, saved: dict[str, Any]) -> str:
    """The galaxies to pretrain with that save one label, from the number of labels that they save."""

    def form(value: float | str) -> str:
        if isinstance(value, str):
            return {FEWER: "saves none", MORE: "too few to tell"}[value]
        return number(galaxies / value)

    return _interval_of_forms(form, saved["value"], saved["high"], saved["low"])


def _interval_of_forms(form: Callable[[Any], str], value: Any, first: Any, last: Any) -> str:
    if first is None:
        return f"{form(value)} (no interval)"
    if value == first == last:
        return f"{form(value)}, as the whole interval"
    return f"{form(value)} [{form(first)}, {form(last)}]"
