"""How answers drift with distance or with worse pictures, in words: sentences, tables, the page and the figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_galaxy.evaluation.drift import Answers
from hf_galaxy.evaluation.drift_measurement import StepDrift
from hf_galaxy.reports import charts
from hf_galaxy.reports.charts import Figure
from hf_galaxy.reports.text import table
from hf_galaxy.safe_text import code, csv_cell, markdown, visible

FIGURE, MARK = "drift", "<!-- made by hf-galaxy degrade -->"
AXES = {
    "distance": "times farther away", "redshift": "redshift", "psf_fwhm": "FWHM of the PSF", "magnitudes": "magnitudes shallower",
    "pixels": "times wider pixels", "step_number": "number of the step",
}  # fmt: skip
LARGEST = 6  # answers of the table in words
SEEN = 0.05  # of those that ask a question at first: a smaller part tells nothing of it


@dataclass(frozen=True, eq=False)
class Drift:
    """What `hf-galaxy degrade` has measured.

    Attributes:
        axis: what changes from step to step, a key of AXES.
        reference: its value for the original pictures.
        places: its value at each step.
        names: of the steps.
        answers: that were predicted.
        steps: what was measured at each.
        left_out: number of galaxies that could not make each step.
        how: facts of how pictures were degraded, in words.
    """

    axis: str
    reference: float
    places: tuple[float, ...]
    names: tuple[str, ...]
    answers: Answers
    steps: tuple[StepDrift, ...]
    left_out: tuple[int, ...]
    how: Mapping[str, str]

    def rows(self) -> list[dict[str, Any]]:
        """A row for each step and answer, with the numbers of its question."""
        return [
            {"step": name, self.axis: place}
            | answer
            | {key: value for key, value in step.questions[q].items() if key not in answer}
            for name, place, step in zip(self.names, self.places, self.steps, strict=True)
            for answer, q in zip(step.answers, self.answers.question_of, strict=True)
        ]

    def as_dict(self) -> dict[str, Any]:
        """All numbers but those of the correction, for drift.json."""
        return {
            "axis": self.axis, "reference": self.reference, "how": dict(self.how),
            "steps": [
                {"name": name, "place": place, "galaxies": step.galaxies, "left_out": left, "answers": step.answers, "questions": step.questions}
                for name, place, step, left in zip(self.names, self.places, self.steps, self.left_out, strict=True)
            ],
        }  # fmt: skip

    @property
    def asked(self) -> list[int]:
        """The questions that are asked of enough of the galaxies to be shown."""
        return [q for q, each in enumerate(self.steps[0].questions) if each["asked_original"] >= SEEN]

    def short(self, a: int) -> str:
        """An answer without its question."""
        question, name = self.answers.questions[self.answers.question_of[a]][0], self.answers.columns[a]
        return plain(name.removeprefix(f"{question}_"))


def plain(column: str) -> str:
    """An answer with its question, as people call it."""
    return column.removesuffix("_fraction").removesuffix("_probability")


def csv_of(drift: Drift) -> str:
    """drift.csv"""
    return charts.csv_text(
        {csv_cell(name): csv_cell(value) if isinstance(value, str) else value for name, value in row.items()}
        for row in drift.rows()
    )


def points(estimate: Mapping[str, Any], name: str, factor: float = 100) -> str:
    """value [low, high] with a sign, in hundredths."""
    value, low, high = (estimate[key] for key in (name, f"{name}_low", f"{name}_high"))
    if value is None:
        return "-"
    return f"{factor * value:+.1f}" + ("" if low is None else f" [{factor * low:+.1f}, {factor * high:+.1f}]")


def share(estimate: Mapping[str, Any], name: str) -> str:
    """value [low, high] in per cent."""
    value, low, high = (estimate[key] for key in (name, f"{name}_low", f"{name}_high"))
    if value is None:
        return "-"
    return f"{100 * value:.1f} %" + ("" if low is None else f" [{100 * low:.1f} %, {100 * high:.1f} %]")


def sentences_of(drift: Drift, shown: Any = visible) -> list[str]:
    """The answer in plain words, for the terminal and the page."""
    step, place = drift.steps[-1], drift.names[-1]
    rows = [
        row
        for row, q in zip(step.answers, drift.answers.question_of, strict=True)
        if q in drift.asked and row["drift"] is not None
    ]
    largest = max(rows, key=lambda row: abs(row["drift"]))
    clear = [row for row in rows if row["drift_low"] is not None and row["drift_low"] * row["drift_high"] > 0]
    first = step.questions[0]
    errors = [(abs(row["error_before"]), abs(row["error_after"])) for row in rows if row["error_after"] is not None]
    folds, held = (sum(row[key] for row in rows) for key in ("folds", "folds_held"))
    sentences = [
        f"{shown(place)}, {step.galaxies:,} galaxies: the mean fraction of {shown(plain(largest['answer']))} drifts by {points(largest, 'drift')} points, "
        f"from {100 * largest['mean_original']:.1f} % to {100 * largest['mean']:.1f} %, the most of {len(rows)} answers; {len(clear)} of them drift by more than their interval.",
        f"{shown(first['question'])}: another answer is the largest for {share(first, 'changed')} of the galaxies.",
    ]
    if errors:
        before, after = 100 * np.mean(errors, axis=0)
        sentences.append(
            f"On galaxies held out, means of fractions are off by {before:.1f} points on average over the answers, and by {after:.2f} after the correction; "
            f"its interval of 90 % held the mean {held} of {folds} times."
        )
    return sentences


def page_of(drift: Drift, figure: Figure, command: str) -> str:
    """README.md"""
    last = drift.steps[-1]
    how = "\n".join(f"- {name}: {text}" for name, text in drift.how.items())
    steps = table(
        ["step", "galaxies", "left out"],
        [
            [markdown(name), f"{step.galaxies:,}", f"{left:,}"]
            for name, step, left in zip(drift.names, drift.steps, drift.left_out, strict=True)
        ],
    )
    questions = table(
        ["question", "asked, %", "drift of asked, points", "another answer is largest", "no longer asked"],
        [
            [markdown(each["question"]), f"{100 * each['asked_original']:.1f}", points(each, "asked_drift"), share(each, "changed"), share(each, "no_longer_asked")]
            for q, each in enumerate(last.questions) if q in drift.asked
        ],
    )  # fmt: skip
    answers = table(
        ["answer", "original, %", *(markdown(name) for name in drift.names)],
        [
            [markdown(name), f"{100 * drift.steps[0].answers[a]['mean_original']:.1f}", *(points(step.answers[a], "drift") for step in drift.steps)]
            for a, name in enumerate(drift.answers.columns) if drift.answers.question_of[a] in drift.asked
        ],
    )  # fmt: skip
    said = "\n".join(f"- {sentence}" for sentence in sentences_of(drift, markdown))
    return f"""{MARK}

# How answers drift: {markdown(AXES[drift.axis])}

{said}

![{figure.alt}]({figure.name}.png)

Each galaxy is compared with itself. In brackets intervals of 90 %, over galaxies. A question counts for a galaxy as much as it is asked of the original picture; questions that are asked of fewer than {100 * SEEN:.0f} % are in the tables of numbers only.

## How pictures were degraded

{how}

{steps}

## Questions at the last step

"No longer asked": of the galaxies of which the question was asked with a probability above one half, the share of which it no longer is.

{questions}

## Drift of the mean fraction, in points

{answers}

## Files

| file | |
| --- | --- |
| `drift.csv`, `drift.json` | all numbers of this page, and of seldom asked questions |
| `correction.parquet`, `correction.csv` | from the fraction of a degraded picture back to that of the original |
| `predictions/` | the predictions at each step, as `hf-galaxy predict` writes them, and which galaxies are left out of it |

Made with {code(command)}
"""


def figure_of(drift: Drift) -> Figure:
    """The drift of every answer against the steps, a panel for each question."""
    asked = drift.asked
    rows = -(-len(asked) // charts.COLUMNS)
    with charts.style():
        figure, panels = charts.chart(len(asked), None if len(asked) == 1 else 2.3 * rows + 0.2)
        places = np.array([drift.reference, *drift.places])
        spare = np.ptp(places) or 1.0
        for axes, q in zip(panels, asked, strict=True):
            where = drift.answers.questions[q][1]
            for i, a in enumerate(range(where.start, where.stop)):
                _draw_answer(axes, drift, a, i, places, 0.008 * spare * (i - (where.stop - where.start - 1) / 2))
            axes.axhline(0, color=charts.GREY, lw=0.8, zorder=1)
            axes.grid(axis="y", color=charts.GRID, lw=0.6, zorder=0)
            axes.legend(
                fontsize=6.5,
                frameon=False,
                loc="best",
                ncols=1 if where.stop - where.start < 4 else 2,
                handletextpad=0.2,
                borderaxespad=0.1,
            )
        titles = [_short(drift.answers.questions[q][0]) for q in asked]
        charts.label_axes(figure, panels, titles, AXES[drift.axis], "drift of the mean fraction, points")
        picture = charts.png(
            figure,
            f"Drift of answers: {AXES[drift.axis]}",
            [charts.handle("mean over galaxies, 90 %", charts.GREY, marker="o", ls="-", lw=1.1)],
        )
    alt = f"Drift of the mean fraction of each answer; {sentences_of(drift, markdown)[0]}"
    return Figure(FIGURE, picture, csv_of(drift), alt)


def _draw_answer(axes: Any, drift: Drift, a: int, i: int, places: np.ndarray, shift: float) -> None:
    """One answer: its means with intervals, joined by a thin line that begins at the original pictures."""
    rows = [step.answers[a] for step in drift.steps]
    estimates = [{"value": 0.0, "low": None, "high": None}] + [
        {
            end: None if row[key] is None else 100 * row[key]
            for end, key in (("value", "drift"), ("low", "drift_low"), ("high", "drift_high"))
        }
        for row in rows
    ]
    color, marker = charts.COLORS[i % len(charts.COLORS)], charts.MARKERS[i % len(charts.MARKERS)]
    known = [k for k, each in enumerate(estimates) if each["value"] is not None]
    axes.plot(places[known] + shift, [estimates[k]["value"] for k in known], color=color, lw=0.9, zorder=2)
    for k in known[1:]:
        low, high = estimates[k]["low"], estimates[k]["high"]
        if low is not None:
            axes.vlines(places[k] + shift, low, high, color=color, lw=1.1, zorder=3)
    axes.plot(
        places[known[1:]] + shift,
        [estimates[k]["value"] for k in known[1:]],
        marker,
        color=color,
        ms=3.5,
        zorder=4,
        label=_short(drift.short(a)),
    )


def _short(text: str, letters: int = 24) -> str:
    text = csv_cell(visible(text))
    return text if len(text) <= letters else f"{text[: letters - 1]}…"


def columns_of(drift: Drift) -> Sequence[str]:
    """Of the table in the terminal."""
    return ["answer", "original, %", *(visible(name) for name in drift.names)]


def table_rows(drift: Drift) -> list[list[str]]:
    """The answers that drift most, for the terminal."""
    places = [a for a in range(len(drift.answers.columns)) if drift.answers.question_of[a] in drift.asked]
    places.sort(key=lambda a: -abs(drift.steps[-1].answers[a]["drift"] or 0))
    return [
        [
            visible(plain(drift.answers.columns[a])),
            f"{100 * drift.steps[0].answers[a]['mean_original']:.1f}",
            *(points(step.answers[a], "drift") for step in drift.steps),
        ]
        for a in places[:LARGEST]
    ]
