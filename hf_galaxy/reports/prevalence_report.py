"""How many galaxies of a survey are of a kind, in words: sentences, tables, the page and the figure."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from hf_galaxy.evaluation.prevalence import LEAST, Estimate, Prevalence
from hf_galaxy.reports import charts
from hf_galaxy.reports.charts import Figure
from hf_galaxy.reports.text import number, table
from hf_galaxy.safe_text import code, csv_cell, csv_rows, markdown, visible

COUNTED = {"yes/no": "predictions above 0.5", "fraction": "the mean prediction", "value": "the mean prediction"}
FIGURE, MOST_LETTERS, WIDEST = "prevalence", 24, 100  # letters of a name, and below the axis


class Bin(NamedTuple):
    """A bin of a column: its name, the median of its galaxies if they are numbers, and what is in it."""

    name: str
    middle: float | None
    result: Prevalence


@dataclass(frozen=True)
class Answer:
    """How many there are.

    Attributes:
        what: the label that is counted, or whose mean is estimated.
        kind: of the labels: "yes/no", "fraction" or "value".
        level: of the intervals.
        prediction: the column of the predictions.
        whole: of the survey.
        by: the column of the bins; None: there are none.
        bins: of `by`.
        outside: galaxies in no bin.
        strata, weight: the columns of a sample that is not simply random.
    """

    what: str
    kind: str
    level: float
    prediction: str
    whole: Prevalence
    by: str | None = None
    bins: tuple[Bin, ...] = ()
    outside: int = 0
    strata: str | None = None
    weight: str | None = None

    def show(self, value: float) -> str:
        """A share in per cent, or a value."""
        return number(value) if self.kind == "value" else f"{_digits(100 * value)} %"

    def as_dict(self) -> dict[str, Any]:
        """All numbers, for prevalence.json."""
        about = {
            name: getattr(self, name)
            for name in ("what", "kind", "level", "prediction", "by", "strata", "weight", "outside")
        }
        bins = [{"name": each.name, "middle": each.middle} | numbers_of(each.result, self.kind) for each in self.bins]
        return about | {"survey": numbers_of(self.whole, self.kind), "bins": bins}

    def rows(self) -> list[dict[str, Any]]:
        """A row for the survey and for each bin, as of the CSV table."""
        rows = [("all", None, self.whole), *self.bins]
        return [{"bin": name, "middle": middle} | _flat(result, self.kind) for name, middle, result in rows]


def numbers_of(result: Prevalence, kind: str) -> dict[str, Any]:
    """A result as plain numbers; only of yes and no there is a number of galaxies."""
    counts = result.share if kind == "yes/no" else None

    def ends(estimate: Estimate | None, factor: float = 1.0) -> dict[str, float] | None:
        return None if estimate is None else {key: each * factor for key, each in estimate._asdict().items()}

    return {
        "galaxies": result.galaxies, "labelled": result.labelled, "sum_of_labels": result.positives, "share": ends(result.share),
        "number": ends(counts, result.galaxies), "labels_alone": ends(result.alone), "counting_predictions": result.counted,
        "counting_is_off_by": ends(result.off), "interval_excludes_counting": result.is_counting_excluded,
        "effective_labels": result.effective_labels,
    }  # fmt: skip


def _flat(result: Prevalence, kind: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, each in numbers_of(result, kind).items():
        if name in ("share", "number", "labels_alone", "counting_is_off_by"):
            ends = each or dict.fromkeys(Estimate._fields)
            flat |= {name if key == "value" else f"{name}_{key}": value for key, value in ends.items()}
        else:
            flat[name] = each
    return flat


def csv_of(answer: Answer) -> str:
    """prevalence.csv"""
    rows = answer.rows()
    cells = list(csv_rows([list(rows[0]), *(list(row.values()) for row in rows)]))
    return charts.csv_text(dict(zip(rows[0], line, strict=True)) for line in cells[1:])


def _digits(value: float) -> str:
    """Two digits behind the point, and of larger numbers one."""
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def estimate_in_words(answer: Answer, estimate: Estimate | None) -> str:
    """value [low, high]"""
    if estimate is None:
        return "-"
    low, high = answer.show(estimate.low), answer.show(estimate.high)
    return f"{answer.show(estimate.value)} [{low}, {high}]"


def _number_in_words(result: Prevalence) -> str:
    if result.share is None:
        return "-"
    value, low, high = (f"{round(each * result.galaxies):,}" for each in result.share)
    return f"{value} [{low}, {high}]"


def table_rows(answer: Answer, shown: Callable[[str], str] = visible) -> list[list[str]]:
    """Rows of texts below `columns_of`, for the terminal or for the page.

    Args:
        shown: makes names of others harmless there.
    """
    rows = []
    for name, _, result in [("all", None, answer.whole), *answer.bins]:
        cells = [shown(name), f"{result.galaxies:,}", f"{result.labelled:,}"]
        cells.append(_in_cell(answer, result.share))
        if answer.kind == "yes/no":
            cells.append(_number_in_words(result))
        counted = _in_cell(answer, Estimate(result.counted, 0, 0)).split()[0] + (
            " x" if result.is_counting_excluded else ""
        )
        effective = "-" if result.effective_labels is None else f"{result.effective_labels:,.0f}"
        rows.append([*cells, _in_cell(answer, result.alone), counted, effective])
    return rows


def _in_cell(answer: Answer, estimate: Estimate | None) -> str:
    """value [low, high], in per cent without its sign."""
    if estimate is None:
        return "-"
    value, low, high = (number(each) if answer.kind == "value" else _digits(100 * each) for each in estimate)
    return f"{value} [{low}, {high}]"


def columns_of(answer: Answer, shown: Callable[[str], str] = visible) -> list[str]:
    """The columns of the table; an x is beside a count that the interval excludes."""
    unit = "" if answer.kind == "value" else ", %"
    columns = [shown(answer.by or ""), "galaxies", "labels", ("share" if answer.kind == "yes/no" else "mean") + unit]
    columns += ["number"] if answer.kind == "yes/no" else []
    return [*columns, f"labels alone{unit}", f"counting{unit}", "worth labels"]


def sentences_of(answer: Answer, shown: Callable[[str], str] = visible) -> list[str]:
    """The answer for the whole survey in plain words.

    Args:
        shown: makes names of others harmless where the sentences are shown.
    """
    whole, share, alone = answer.whole, answer.whole.share, answer.whole.alone
    assert share
    assert alone
    assert whole.effective_labels is not None
    level, off = f"{100 * answer.level:g} %", whole.off
    assert off
    what = shown(answer.what)
    if answer.kind == "yes/no":
        first = f"{what}: {estimate_in_words(answer, share)} of the {whole.galaxies:,} galaxies, {_number_in_words(whole)} in number."
    else:
        first = f"{what}: the mean of the {whole.galaxies:,} galaxies is {estimate_in_words(answer, share)}."
    sentences = [first, f"Brackets hold intervals of {level}."]
    alone_text = f"The {whole.labelled:,} labels alone give {estimate_in_words(answer, alone)}"
    ratio = whole.effective_labels / whole.labelled
    if ratio > 1.05:
        alone_text += f"; with the predictions they are as good as {whole.effective_labels:,.0f} random labels."
    else:
        alone_text += "; with the predictions the interval is not narrower."
    sentences.append(alone_text)
    sign = "too high" if off.value > 0 else "too low"
    counting = f"Counting the predictions ({COUNTED[answer.kind]}) gives {answer.show(whole.counted)}"
    if answer.kind == "yes/no":
        counting += f", {round(whole.counted * whole.galaxies):,} galaxies"
    low, high = sorted((abs(off.low), abs(off.high)))
    if whole.is_counting_excluded:
        sentences.append(
            f"{counting}: {sign} by {answer.show(abs(off.value))} [{answer.show(low)}, {answer.show(high)}]. The interval excludes it."
        )
    else:
        sentences.append(f"{counting}, which the interval does not exclude.")
    if few := [each.name for each in answer.bins if each.result.share is None]:
        names = ", ".join(map(shown, few[:5])) + (", ..." if len(few) > 5 else "")
        sentences.append(f"Bins with fewer than {LEAST} labels have no interval: {names}.")
    if answer.outside:
        sentences.append(
            f"{answer.outside:,} galaxies are in no bin: their {shown(answer.by or '')} is empty or outside of the edges."
        )
    return sentences


def page_of(answer: Answer, figure: Figure | None, command: str) -> str:
    """README.md"""
    title = f"How many are there: {answer.what}" if answer.kind == "yes/no" else f"The mean of {answer.what}"
    drawn = "at random"
    if answer.strata is not None:
        drawn = f"at random in each stratum of {code(answer.strata)}, whose sizes are known"
    elif answer.weight is not None:
        drawn = f"with known chances, whose weights are in {code(answer.weight)}"
    parts = [
        f"# {markdown(title)}",
        *sentences_of(answer, markdown),
        table(columns_of(answer, markdown), table_rows(answer, markdown)),
        f"Counting is of {COUNTED[answer.kind]}; an x: the interval excludes it. The last column: how many random labels would give an interval as narrow "
        "without predictions.",
        *([f"![{markdown(figure.alt)}]({figure.name}.png)"] if figure else []),
        "## How this was estimated",
        f"From the predictions for all galaxies ({code(answer.prediction)}) and {answer.whole.labelled:,} labelled ones, which must have been drawn {drawn}, whatever "
        "they look like. The labels show how often predictions are right; so the estimate is right on average even if the predictions are bad, and only the "
        "interval is wider. Counting the predictions has no such protection: for a rare class most of what is counted may be wrong.",
        "The method is prediction-powered inference with predictions that the labels recalibrate; in simulations and on real surveys its intervals hold the "
        "truth as often as they say, for rare classes and few labels, too.",
        f"Made with {code(command)}; `prevalence.json` holds all numbers, `prevalence.csv` the table.",
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def figure_of(answer: Answer) -> Figure:
    """The share in each bin, with that of the labels alone and that of counting beside it."""
    factor = 1 if answer.kind == "value" else 100
    numeric = all(each.middle is not None for each in answer.bins)
    shown = [each for each in answer.bins if each.result.galaxies]
    places = [each.middle if numeric and each.middle is not None else float(i) for i, each in enumerate(shown)]
    step = min((b - a for a, b in itertools.pairwise(places)), default=1.0) if places else 1.0
    with charts.style():
        figure, (axes,) = charts.chart(1, 3.4)
        for i, (which, color, marker, fill) in enumerate(
            (("share", charts.COLORS[0], "o", "full"), ("alone", charts.LIGHT_GREY, "s", "none"))
        ):
            pairs = [(x, getattr(each.result, which)) for x, each in zip(places, shown, strict=True)]
            pairs = [(x + 0.12 * i * step, each) for x, each in pairs if each is not None]
            points = [{name: factor * end for name, end in each._asdict().items()} for _, each in pairs]
            charts.draw_points(axes, [x for x, _ in pairs], points, color, marker, fill)
        counted = [factor * each.result.counted for each in shown]
        axes.plot(places, counted, "x", color=charts.COLORS[1], ms=7, mew=1.6, zorder=4)
        if numeric:
            axes.margins(x=0.08)
        else:
            names = [_short(each.name) for each in shown]
            axes.set_xticks(places, names, rotation=90 if len("  ".join(names)) > WIDEST else 0)
            axes.set_xlim(-0.6, len(shown) - 0.4)
        if answer.kind != "value":
            axes.set_ylim(bottom=0)
        axes.grid(axis="y", color=charts.GRID, lw=0.6, zorder=0)
        axes.set(xlabel=_short(answer.by or ""), ylabel=_short(answer.what) + (", %" if factor == 100 else ""))
        level = f"{100 * answer.level:g} %"
        handles = [
            charts.handle(f"predictions and labels, {level}", charts.COLORS[0], marker="o", ls="-", lw=1.1),
            charts.handle(f"labels alone, {level}", charts.LIGHT_GREY, marker="s", ls="-", lw=1.1, fillstyle="none"),
            charts.handle(f"counting ({COUNTED[answer.kind]})", charts.COLORS[1], marker="x", mew=1.6),
        ]
        picture = charts.png(figure, f"{_short(answer.what)} by {_short(answer.by or '')}", handles)
    shares = "; ".join(f"{each.name}: {estimate_in_words(answer, each.result.share)}" for each in answer.bins)
    alt = f"{visible(answer.what)} in bins of {visible(answer.by or '')}: {visible(shares)}."
    return Figure(FIGURE, picture, csv_of(answer), alt)


def _short(text: str) -> str:
    text = csv_cell(visible(text))
    return text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 1]}…"
