"""What pretraining on galaxies brings: the averages over tasks of results/downstream, in sentences, a chart and a table."""

import json
from functools import cache
from pathlib import Path

import law_pictures
from hf_galaxy.reports.charts import COLORS, GREY, handle
from law_records import DOWNSTREAM, percent, told
from text import say

MODES = {"linear": ("o", COLORS[0]), "full": ("s", COLORS[1])}  # marker and colour
_VERDICTS = {"less": "less", "more": "more", "not shown": "unclear", "not known": "unknown"}


@cache
def page(results: Path) -> str:
    """As HTML, of what the records hold by now."""
    averages, about = averages_of(results)
    if not averages:
        return law_pictures.words([say("laws.not_measured")])
    alt = "; ".join(
        say(
            "laws.alt_start",
            start=_title(about, row["start"]),
            mode=say(f"laws.mode_{row['mode']}"),
            reduction=_cell(row),
        )
        for row in averages
    )
    starts = list(dict.fromkeys(row["start"] for row in averages))
    return "".join((
        law_pictures.words([_about(averages, about), *sentences_of(averages, about)]),
        law_pictures.picture(
            lambda figure, axes: _draw(averages, about, starts, axes), say("laws.alt_pretraining", rows=alt),
            heights=0.25 + 0.09 * len(starts),
        ),
        _table(averages, about, starts),
    ))  # fmt: skip


def averages_of(results: Path) -> tuple[list[dict], dict]:
    """Mean reductions of the error with the most labels, as in results.json, and what benchmark.json says of the rest."""
    folder = results / DOWNSTREAM
    rows = json.loads((folder / "results.json").read_text())["averages"]
    most = max((row["share"] for row in rows), default=None)
    return [row for row in rows if row["share"] == most], json.loads((folder / "benchmark.json").read_text())


def sentences_of(averages: list[dict], about: dict) -> list[str]:
    """For each mode which starts had less error, which more, and of which nothing can be said."""
    sentences = []
    for mode in MODES:
        for verdict, name in _VERDICTS.items():
            rows = [row for row in averages if (row["mode"], row["error"]) == (mode, verdict)]
            if rows:
                starts = "; ".join(
                    say("laws.start_by", start=_title(about, row["start"]), reduction=_cell(row)) for row in rows
                )
                called = say(f"laws.mode_{mode}").capitalize()
                sentences.append(say(f"laws.reduction_{name}", mode=called, reference=_reference(about), starts=starts))
    return sentences


def _about(averages, about):
    share = averages[0]["share"]
    labels = say("laws.all_labels") if share == 1 else say("laws.part_of_labels", part=f"{1 / share:.3g}")
    tasks = max(len(row["tasks"]) for row in averages)
    return say("laws.pretraining_about", tasks=tasks, reference=_reference(about), labels=labels)


def _reference(about):
    return _title(about, about["reference"])


def _title(about, start):
    return about["starts"][start]["title"]


def _cell(row):
    tasks = len(row["tasks"])
    name = "cell_reduction" if tasks > 1 else "cell_reduction_one"
    return say(f"laws.{name}", reduction=told(row, percent), tasks=tasks)


def _draw(averages, about, starts, axes):
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
        yticks=range(len(starts)), yticklabels=[_title(about, start) for start in starts], ylim=(len(starts) - 0.5, -0.5),
        xlabel=say("laws.x_reduction", reference=_reference(about)),
    )  # fmt: skip
    axes.grid(axis="x", color=GREY, alpha=0.3, lw=0.6)
    handles = [
        handle(f"{say(f'laws.mode_{mode}')}, 90 %", color, marker=marker, ls="-")
        for mode, (marker, color) in MODES.items()
        if any(row["mode"] == mode for row in averages)
    ]
    if any(row["low"] is None for row in averages):
        handles.append(handle(say("laws.legend_no_interval"), GREY, marker="s", mfc="white"))
    return handles


def _table(averages, about, starts):
    by_kind = {(row["start"], row["mode"]): row for row in averages}
    rows = []
    for start in starts:
        cells = [by_kind.get((start, mode)) for mode in MODES]
        rows.append([_title(about, start), *(_cell(row) if row else say("laws.not_measured") for row in cells)])
    columns = [say("laws.column_start"), *(say(f"laws.mode_{mode}") for mode in MODES)]
    return law_pictures.table(say("laws.table_reductions", reference=_reference(about)), columns, rows)
