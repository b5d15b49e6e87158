"""results.json and benchmark.json -> the page of a downstream benchmark, and all that stands beside it. No number is typed here.

The page is the README.md of a folder that `datasets.load_dataset` reads: its table is what was measured
(`results.points_of`).
"""

import json
from pathlib import Path

from hf_galaxy.downstream.figures import KINDS, figures_of, most_labels
from hf_galaxy.downstream.label_efficiency import FEWER, MORE, series_of
from hf_galaxy.downstream.results import (
    ABOUT,
    CELLS,
    FULL,
    LINEAR,
    points_of,
    read_about,
    read_cells,
    results_of,
)
from hf_galaxy.files import write_json
from hf_galaxy.reports.measures import MEASURES
from hf_galaxy.reports.page import check_page, write_page
from hf_galaxy.reports.text import interval, number, percent, render, table
from hf_galaxy.scaling.points import save_points

MADE = "<!-- Made by scripts/benchmark_downstream.py, which replaces it: write elsewhere. -->"
RESULTS = "results.json"
PAPER = "31 %"  # huggingface.co/papers/2404.02973, abstract: the mean of five other tasks
WORDS = {LINEAR: "a linear probe", FULL: "full finetuning"}


def write_results(out: Path) -> None:
    """Write, from the cells in a benchmark's folder, its results.json, points.parquet, figures with their tables, and page.

    Raises:
        BadInput: as `read_about` and `read_cells`; or the page there is somebody else's.
    """
    check_page(out, MADE)
    about = read_about(out / ABOUT)
    cells = read_cells(out / CELLS, about)
    results = results_of(cells, about)
    figures = figures_of(results, about)
    save_points(points_of(cells, about), out / "points.parquet")
    write_json(out / RESULTS, results)
    text = benchmark_page(json.loads((out / RESULTS).read_text()), about, {f.name: f.alt for f in figures})
    write_page(out, text, figures, KINDS)


def benchmark_page(results: dict, about: dict, figures: dict[str, str]) -> str:
    """README.md of a benchmark.

    Args:
        results: as `results.results_of` gives them.
        about: as `results.read_about` gives it.
        figures: file name -> what it shows, in the order of the page.
    """
    modes = [mode for mode in about["modes"] if any(each["mode"] == mode for each in results["means"])]
    shown = {row["measure"] for row in results["means"] if row["main"]}
    return render(
        Path(__file__).parent / "templates" / "benchmark.md.jinja",
        about=about, data=results["data"], made=MADE, figures=figures, modes=modes, words=WORDS, found=found(results, about),
        measures={name: meaning for name, meaning in MEASURES.items() if name in shown},
        losses={mode: loss_table(results, about, mode) for mode in modes},
        reductions={mode: reduction_table(results, about, mode) for mode in modes},
        linear=linear_table(results, about), labels=label_table(results, about), exponents=exponent_table(results, about), amounts=amount_table(results, about), sizes=size_table(results, about), choices=choice_table(results),
    )  # fmt: skip


def found(results: dict, about: dict) -> list[str]:
    """What the benchmark found, a sentence or some for each of the paper's claims that it can say something on."""
    reference = about["starts"][about["reference"]]["title"]
    told = []
    for mode in about["modes"]:
        if best := _best(results, about, mode):
            title = about["starts"][best["start"]]["title"]
            told.append(
                f"**With all labels and {WORDS[mode]}, the best galaxy start, {title}, {'cuts' if best['value'] > 0 else 'does NOT cut'} the error of "
                f"{reference}{'' if best['value'] > 0 else ','} by {_reduction(best).strip('*')} on average over {_tasks(best)}** ({_shown(best)}). Which start is the best was seen from "
                "these same figures, which flatters it a little."
            )
    if told:
        told.append(
            f"The paper reports {PAPER} on average over its five tasks (Is-LSB, Which-LSB, JWST, GZ Rings, Galaxy10 DECaLS), with far more galaxies and larger backbones."
        )
    for mode in about["modes"]:
        rows = [
            row for row in results["reductions"] if row["main"] and row["mode"] == mode and row["value"] is not None
        ]
        rows = [row for row in rows if about["starts"][row["start"]]["galaxies"]]
        if rows:
            counts = {
                error: sum(row["error"] == error for row in rows)
                for error in ("less", "more", "not shown", "not known")
            }
            unknown = f", and of {counts['not known']} there is no interval" if counts["not known"] else ""
            told.append(
                f"Of the {len(rows)} comparisons of a galaxy start with {reference} by {WORDS[mode]} (tasks x starts x shares of the labels), "
                f"{counts['less']} have less error at 90 %, {counts['more']} more, {counts['not shown']} neither{unknown}."
            )
    for mode in about["modes"]:
        if losing := _losing(results, about, mode):
            told.append(
                f"With all labels and {WORDS[mode]}, more error than {reference} on average, at 90 %: {losing}."
            )
    if results["linear_averages"]:
        most = max(row["share"] for row in results["linear_averages"])
        each = [
            f"{about['starts'][row['start']]['title']} {interval(row)} ({_tasks(row)})"
            for row in results["linear_averages"]
            if row["share"] == most
        ]
        told.append(
            f"The error of a linear probe over that of full finetuning (1: as good; more: worse), with the most labels that both were "
            f"measured with, on average: {'; '.join(each)}."
        )
    for mode in about["modes"]:
        rows = [row for row in results["labels"] if row["mode"] == mode and about["starts"][row["start"]]["galaxies"]]
        if rows:
            fewer = sum(_below(row["galaxies"]["value"], row["most"]) for row in rows)
            surely = sum(
                row["galaxies"]["high"] is not None and _below(row["galaxies"]["high"], row["most"]) for row in rows
            )
            told.append(
                f"By {WORDS[mode]}, in {fewer} of {len(rows)} cases (tasks x galaxy starts) fewer labels than all are enough for the error that "
                f"{reference} has with all of them; in {surely} the whole interval of 90 % says so."
            )
    for mean in most_labels(results["amount_averages"]):
        starts = series_of(about)[mean["series"]]
        told.append(
            f"With more galaxies of {about['starts'][mean['series']]['pretraining'][0]['dataset']} to pretrain with ({', '.join(f'{n:,}' for n in starts.values())}) the error of "
            f"{WORDS[mean['mode']]} with all labels falls as their number to the power of minus {interval(mean)} on average over {_tasks(mean)}."
        )
    return told


def _best(results, about, mode):
    """The galaxy start with the largest average at all labels, among those measured on the most tasks."""
    rows = [row for row in results["averages"] if row["mode"] == mode and row["share"] == max(about["shares"])]
    rows = [row for row in rows if about["starts"][row["start"]]["galaxies"]]
    most = max((len(row["tasks"]) for row in rows), default=0)
    return max((row for row in rows if len(row["tasks"]) == most > 1), key=lambda row: row["value"], default=None)


def _losing(results, about, mode):
    """Starts that lose on average at all labels, in words."""
    rows = [row for row in results["averages"] if row["mode"] == mode and row["share"] == max(about["shares"])]
    titles = {name: start["title"] for name, start in about["starts"].items()}
    return "; ".join(
        f"{titles[row['start']]} {interval(row, percent)} over {_tasks(row)}" for row in rows if row["error"] == "more"
    )


def _tasks(row):
    return "1 task" if len(row["tasks"]) == 1 else f"{len(row['tasks'])} tasks"


def _shown(row):
    return {
        "less": "less error at 90 %", "more": "more error at 90 %", "not shown": "which may be none: the interval holds 0",
        "not known": "no interval: one seed, or too few galaxies",
    }[row["error"]]  # fmt: skip


def _below(galaxies, most):
    return galaxies == FEWER or (galaxies != MORE and galaxies < most)


def _reduction(row):
    if row is None or row["value"] is None:
        return ""
    return interval(row, percent) if row["error"] in ("not shown", "not known") else f"**{interval(row, percent)}**"


def _all_labels(rows, about, mode):
    return {
        (row["task"], row["start"]): row
        for row in rows
        if row["main"] and row["mode"] == mode and row["share"] == max(about["shares"])
    }


def loss_table(results: dict, about: dict, mode: str) -> str:
    """Markdown: tasks x starts, with all labels."""
    rows = _all_labels(results["means"], about, mode)
    starts = [start for start in about["starts"] if any(key[1] == start for key in rows)]
    lines = []
    for task, said in about["tasks"].items():
        own = [rows.get((task, start)) for start in starts]
        if any(own):
            constant = number(next(row["baseline"] for row in own if row))
            lines.append([f"{task} ({said['measure']})", *(interval(row) if row else "" for row in own), constant])
    return table(["task", *(about["starts"][start]["title"] for start in starts), "constant"], lines)


def reduction_table(results: dict, about: dict, mode: str) -> str:
    """Markdown: what each start brings on each task and on average, for each share of the labels."""
    starts = [start for start in about["starts"] if start != about["reference"]]
    lines = []
    for share in sorted(about["shares"], reverse=True):
        alike = {"mode": mode, "share": share}
        rows = {
            (row["task"], row["start"]): row
            for row in results["reductions"]
            if row["main"] and alike.items() <= row.items()
        }
        means = {row["start"]: row for row in results["averages"] if alike.items() <= row.items()}
        for start in starts:
            if start in means:
                own = [_reduction(rows.get((task, start))) for task in about["tasks"]]
                lines.append([_share(share), about["starts"][start]["title"], _average(means[start]), *own])
    return table(["labels", "start", "average", *about["tasks"]], lines)


def _average(mean):
    return _reduction(mean) + (f", {_tasks(mean)}" if mean["without"] else "")


def _share(share):
    return "all" if share == 1 else f"1/{round(1 / share)}"


def linear_table(results: dict, about: dict) -> str | None:
    """Markdown: the loss of linear probes over that of full finetuning, on average; None if only one mode was measured."""
    lines = [
        [_share(row["share"]), about["starts"][row["start"]]["title"], interval(row), len(row["tasks"])]
        for row in sorted(results["linear_averages"], key=lambda row: -row["share"])
    ]
    return table(["labels", "start", "linear over full", "tasks"], lines) if lines else None


def label_table(results: dict, about: dict) -> str | None:
    """Markdown: how many galaxies each start needs for the error that the reference has with all; None if nothing can be said."""
    lines = [
        [
            row["task"], row["mode"], about["starts"][row["start"]]["title"], f"{number(row['target'])} with {row['most']:,}",
            _ends(row["galaxies"], f"up to {row['least']:,}", f"over {row['most']:,}"),
            _ends(row["factor"], "below 1", "more than can be told"),
        ]
        for row in results["labels"]
    ]  # fmt: skip
    columns = [
        "task",
        "mode",
        "start",
        f"error of {about['starts'][about['reference']]['title']}",
        "galaxies needed",
        "times fewer",
    ]
    return table(columns, lines) if lines else None


def exponent_table(results: dict, about: dict) -> str | None:
    """Markdown: the exponents of power laws in galaxies to pretrain with, for all labels; None if there is no series of starts."""
    rows = {(row["series"], row["mode"], row["task"]): row for row in most_labels(results["amounts"])}
    lines = []
    for mean in most_labels(results["amount_averages"]):
        own = [rows.get((mean["series"], mean["mode"], task)) for task in about["tasks"]]
        dataset = about["starts"][mean["series"]]["pretraining"][0]["dataset"]
        each = [_exponent(row) if row else "" for row in own]
        lines.append(
            [f"`{dataset}`", mean["mode"], _exponent(mean) + (f", {_tasks(mean)}" if mean["without"] else ""), *each]
        )
    return table(["galaxies of", "mode", "average", *about["tasks"]], lines) if lines else None


def _exponent(row):
    return interval(row) if row["error"] in ("not shown", "not known") else f"**{interval(row)}**"


def amount_table(results: dict, about: dict) -> str | None:
    """Markdown: what each number of galaxies to pretrain with brings; None if there is no series of starts."""
    reductions, losses = (
        {
            (row["task"], row["mode"], row["start"]): row
            for row in most_labels([row for row in results[of] if row["main"]])
        }
        for of in ("reductions", "means")
    )
    labels = {(row["task"], row["mode"], row["start"]): row for row in results["labels"]}
    lines = []
    for series, members in series_of(about).items():
        for task, mode in dict.fromkeys(
            (row["task"], row["mode"]) for row in results["amounts"] if row["series"] == series
        ):
            for start, galaxies in members.items():
                if (key := (task, mode, start)) in losses:
                    worth = _worth(galaxies, labels[key]["saved"]) if key in labels else ""
                    lines.append(
                        [task, mode, f"{galaxies:,}", interval(losses[key]), _reduction(reductions.get(key)), worth]
                    )
    columns = ["task", "mode", "pretrained with", "loss", "error-rate reduction", "galaxies for each label saved"]
    return table(columns, lines) if lines else None


def _worth(galaxies, saved):
    """How many galaxies to pretrain with save one label, from how many labels they save."""

    def said(value):
        return {FEWER: "saves none", MORE: "fewer than can be told"}.get(value) or number(galaxies / value)

    if saved["low"] is None:
        return f"{said(saved['value'])} (no interval)"
    if saved["value"] == saved["low"] == saved["high"]:
        return f"{said(saved['value'])}, as the whole interval"
    return f"{said(saved['value'])} [{said(saved['high'])}, {said(saved['low'])}]"


def size_table(results: dict, about: dict) -> str | None:
    """Markdown: what the next larger model of a family brings; None if there is no family."""
    lines = [
        [
            row["task"], row["mode"], _share(row["share"]), about["starts"][row["small"]]["title"],
            about["starts"][row["large"]]["title"], " to ".join(f"{n / 1e6:.3g}" for n in row["parameters"]), _reduction(row),
        ]
        for row in results["sizes"]
    ]  # fmt: skip
    columns = ["task", "mode", "labels", "smaller", "larger", "million parameters", "cuts the error by"]
    return table(columns, lines) if lines else None


def _ends(row, fewer, more):
    """A value and its interval, of which ends may lie beyond what was measured."""

    def said(value):
        beyond = {FEWER: fewer, MORE: more}
        return beyond.get(value) or (f"{value:,}" if isinstance(value, int) else number(value))

    if row["low"] is None:
        return f"{said(row['value'])} (no interval)"
    if row["value"] == row["low"] == row["high"]:
        return f"{said(row['value'])}, as the whole interval"
    return f"{said(row['value'])} [{said(row['low'])}, {said(row['high'])}]"


def choice_table(results: dict) -> str:
    """Markdown: which hyper-parameters validation chose, and how often at an edge of the grid."""
    lines = [
        [
            row["mode"], row["start"], row["hyperparameter"].replace("_", " "), ", ".join(f"{value}: {n}" for value, n in row["chosen"].items()),
            f"{row['lowest']} lowest, {row['highest']} highest of {row['choosing']}",
        ]
        for row in results["choices"]
    ]  # fmt: skip
    return table(["mode", "start", "chosen from", "how often", "at an edge of what was tried"], lines)
