"""The benefit of pretraining on galaxies: averages over the tasks of results/downstream, in sentences, a chart and a table."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import law_pictures
from hf_galaxy.downstream.families import HEADLINE
from hf_galaxy.reports.charts import COLORS, GREY, handle
from law_records import DOWNSTREAM, percent, with_interval
from text import sentence, sentence_or

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

MODES = {"linear": ("o", COLORS[0]), "full": ("s", COLORS[1])}  # marker and colour
_VERDICTS = {"less": "less", "more": "more", "not shown": "unclear", "not known": "unknown"}


@cache
def page(results: Path) -> str:
    """The benefit as HTML, by the present records."""
    averages, benchmark = averages_of(results)
    if not averages:
        return law_pictures.paragraphs([sentence("laws.not_measured")])
    alt = "; ".join(
        sentence(
            "laws.alt_start",
            start=_title(benchmark, row["start"]),
            mode=sentence(f"laws.mode_{row['mode']}"),
            reduction=_cell(row),
        )
        for row in averages
    )
    starts = list(dict.fromkeys(row["start"] for row in averages))
    return "".join((
        law_pictures.paragraphs([_description(averages, benchmark), *sentences_of(averages, benchmark)]),
        law_pictures.picture(
            lambda figure, axes: _draw(averages, benchmark, starts, axes), sentence("laws.alt_pretraining", rows=alt),
            heights=0.25 + 0.09 * len(starts),
        ),
        _table(averages, benchmark, starts),
    ))  # fmt: skip


def averages_of(results: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Mean reductions of the error with the most labels, by the measure of each task, from results.json, and the content of benchmark.json."""
    folder = results / DOWNSTREAM
    rows = json.loads((folder / "results.json").read_text(encoding="utf-8"))["averages"]
    rows = [row for row in rows if row["family"] == HEADLINE]
    most = max((row["share"] for row in rows), default=None)
    return [row for row in rows if row["share"] == most], json.loads(
        (folder / "benchmark.json").read_text(encoding="utf-8")
    )


def sentences_of(averages: list[dict[str, Any]], benchmark: dict[str, Any]) -> list[str]:
    """For each mode, the starts with less error, with more error, and without a clear result."""
    sentences = []
    for mode in MODES:
        for verdict, name in _VERDICTS.items():
            rows = [row for row in averages if (row["mode"], row["error"]) == (mode, verdict)]
            if rows:
                starts = "; ".join(
                    sentence("laws.start_by", start=_title(benchmark, row["start"]), reduction=_cell(row))
                    for row in rows
                )
                mode_name = sentence(f"laws.mode_{mode}").capitalize()
                sentences.append(
                    sentence(f"laws.reduction_{name}", mode=mode_name, reference=_reference(benchmark), starts=starts)
                )
    return sentences


def _description(averages: list[dict[str, Any]], benchmark: dict[str, Any]) -> str:
    share = averages[0]["share"]
    labels = sentence("laws.all_labels") if share == 1 else sentence("laws.part_of_labels", part=f"{1 / share:.3g}")
    tasks = max(len(row["tasks"]) for row in averages)
    return sentence("laws.pretraining_about", tasks=tasks, reference=_reference(benchmark), labels=labels)


def _reference(benchmark: dict[str, Any]) -> str:
    return _title(benchmark, benchmark["reference"])


def _title(benchmark: dict[str, Any], start: str) -> str:
    return sentence_or(f"laws.start_title_{start}", benchmark["starts"][start]["title"])


def _cell(row: dict[str, Any]) -> str:
    tasks = len(row["tasks"])
    name = "cell_reduction" if tasks > 1 else "cell_reduction_one"
    return sentence(f"laws.{name}", reduction=with_interval(row, percent), tasks=tasks)


def _draw(averages: list[dict[str, Any]], benchmark: dict[str, Any], starts: list[str], axes: Axes) -> list[Line2D]:
    axes.axvline(0, color="black", lw=1)
    for row in averages:
        if row["value"] is None:
            continue
        marker, color = MODES[row["mode"]]
        y = starts.index(row["start"]) + (-0.14 if row["mode"] == "linear" else 0.14)
        if row["low"] is not None:
            axes.plot([100 * row["low"], 100 * row["high"]], [y, y], color=color, lw=1.6)
        face = color if row["low"] is not None else "white"
        axes.plot([100 * row["value"]], [y], marker, color=color, mfc=face, ms=6)
    axes.set(
        yticks=range(len(starts)), yticklabels=[_title(benchmark, start) for start in starts], ylim=(len(starts) - 0.5, -0.5),
        xlabel=sentence("laws.x_reduction"),
    )  # fmt: skip
    axes.grid(axis="x", color=GREY, alpha=0.3, lw=0.6)
    handles = [
        handle(f"{sentence(f'laws.mode_{mode}')}, 90 %", color, marker=marker, ls="-")
        for mode, (marker, color) in MODES.items()
        if any(row["mode"] == mode for row in averages)
    ]
    if any(row["low"] is None for row in averages):
        handles.append(handle(sentence("laws.legend_no_interval"), GREY, marker="s", mfc="white"))
    return handles


def _table(averages: list[dict[str, Any]], benchmark: dict[str, Any], starts: list[str]) -> str:
    by_kind = {(row["start"], row["mode"]): row for row in averages}
    rows = []
    for start in starts:
        cells = [by_kind.get((start, mode)) for mode in MODES]
        rows.append(
            [_title(benchmark, start), *(_cell(row) if row else sentence("laws.not_measured") for row in cells)]
        )
    columns = [sentence("laws.column_start"), *(sentence(f"laws.mode_{mode}") for mode in MODES)]
    return law_pictures.table(sentence("laws.table_reductions", reference=_reference(benchmark)), columns, rows)
