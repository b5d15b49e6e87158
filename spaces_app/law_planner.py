"""The label budget: `hf_galaxy.scaling.label_budget` asked by a visitor, of the records or of a pilot of the visitor's own."""

import math
import re
from functools import lru_cache
from pathlib import Path

import pandas as pd

import law_pictures
from hf_galaxy.errors import BadInput
from hf_galaxy.evaluation.bootstrap import REPLICATES
from hf_galaxy.reports.charts import (
    COLORS,
    GREY,
    draw_curve_with_band,
    draw_level,
    draw_points,
    handle,
    limits,
    log_axis,
)
from hf_galaxy.reports.measures import ALL
from hf_galaxy.reports.text import number
from hf_galaxy.scaling import FEWEST
from hf_galaxy.scaling.label_budget import REACH, budget_of, case_of, series_of
from hf_galaxy.scaling.label_budget_page import two_digits
from hf_galaxy.scaling.study import useless_up_to
from law_curves import doubts_of
from law_records import known, listed, measured_by, percent, plain, study_of, told
from text import say

PILOT = "pilot"  # dataset of a visitor's own trainings
MOST_RUNS, MOST_BYTES = 300, 100_000  # of a pilot


def label_budget(
    results: Path, study: str, architecture: str, start: str = "", labels=None, target=None,
    measure: str = "", question: str = ALL,
) -> dict:  # fmt: skip
    """What the records of one architecture say of a number of labelled galaxies, and of a target; intervals are of 90 %.

    Args:
        study, architecture, start, measure, question: by the names they have in the records; a start is needed where there
            are several; the measure is by default the error, or else the first.
        labels: labelled galaxies to learn from, or None.
        target: the error to be reached, or None.

    Returns:
        As `label_budget.LabelBudget.as_dict`, with `sentences` in words for visitors, and the `baseline`.

    Raises:
        BadInput: in words for visitors: there is no such series, or labels or target cannot be answered.
    """
    which = study_of(results, study)
    measure = measure or which.usual()
    known("measure", measure, which.measures())
    known("question", question, which.questions(measure))
    known("architecture", architecture, which.fits["data"]["backbones"])
    starts = [each for backbone, each in which.series() if backbone == architecture]
    if not start and len(starts) > 1:
        raise BadInput(say("laws.choose_start", there=", ".join(starts)))
    start = start or starts[0]
    known("start", start, starts)
    series = series_of(which.points, backbone=architecture, start=start, measure=measure, question=question)
    return answer(series, labels, target)


def own_budget(text: str, labels=None, target=None) -> dict:
    """The same for a pilot of the visitor's own, as `pilot_of` reads it."""
    return answer(pilot_of(text), labels, target)


def answer(series: pd.DataFrame, labels=None, target=None) -> dict:
    """As `label_budget`, of runs that `series_of` or `pilot_of` gives.

    Raises:
        BadInput: in words for visitors.
    """
    now, fewest = int(series["galaxies"].max()), int(series["galaxies"].min())
    baseline = float(series.loc[series["galaxies"] == now, "baseline"].mean())
    labels, target = _labels(labels, fewest, now), _target(target, baseline)
    budget = budget_of(series, target, galaxies=labels).as_dict()
    budget |= {"baseline": baseline, "useless_up_to": useless_up_to(series)}
    return plain(budget | {"sentences": _sentences(budget)})


def page(budget: dict) -> str:
    """The answer as HTML: sentences, chart and table."""
    unit, now = _unit(budget), budget["now"]
    rows = [[say("laws.now_times", galaxies=f"{now:,}"), *_cells(budget["ahead"][0])]]
    for row in budget["ahead"][1:]:
        times = f"{row['galaxies'] / now:.0f}"
        rows.append([say("laws.times_more", galaxies=f"{row['galaxies']:,}", times=times), *_cells(row)])
    names = ("galaxies", "value", "interval")
    points = "; ".join(
        say("laws.alt_point", value=number(each["value"]), galaxies=f"{each['galaxies']:,}")
        for each in budget["points"]
    )
    alt = say("laws.alt_planner", measure=unit, points=points, sentences=" ".join(budget["sentences"][1:]))
    return "".join((
        law_pictures.words(budget["sentences"]),
        law_pictures.picture(lambda figure, axes: _draw(budget, axes), alt),
        law_pictures.table(say("laws.table_ahead", measure=unit), [say(f"laws.column_{name}") for name in names], rows),
    ))  # fmt: skip


@lru_cache(256)
def record_page(results: Path, study: str, series: tuple[str, str], measure: str, question: str, labels, target) -> str:
    """`page` of `label_budget`, made once for each question that is asked."""
    backbone, start = series
    return page(label_budget(results, study, backbone, start, labels, target, measure, question))


def pilot_of(text: str) -> pd.DataFrame:
    """A visitor's trainings: on each line the number of labels, the error, and if known the seed.

    Columns are separated by commas, semicolons, tabs or spaces; where they are not by commas, a comma in a number is one of
    decimals. A first line of names is passed over. Without seeds, no two trainings are taken to have one in common.

    Returns:
        A table as `series_of` gives, of which test galaxies it is not known what others would change.

    Raises:
        BadInput: in words for visitors: a line cannot be read, or there are too few or too many.
    """
    lines = [(i, line.strip()) for i, line in enumerate(text.splitlines(), 1) if line.strip()]
    if lines and not any(letter.isdigit() for letter in lines[0][1]):
        lines = lines[1:]
    if not lines:
        raise BadInput(say("laws.pilot_empty"))
    if len(lines) > MOST_RUNS or len(text) > MOST_BYTES:
        raise BadInput(say("laws.pilot_long", most=MOST_RUNS))
    rows = [_run(i, line) for i, line in lines]
    sizes = len({row["galaxies"] for row in rows})
    if sizes < FEWEST or len(rows) <= FEWEST:
        raise BadInput(say("laws.pilot_few", sizes=sizes, runs=len(rows), fewest=FEWEST, least=FEWEST + 1))
    if any(row["seed"] is None for row in rows):
        rows = [row | {"seed": -i} for i, row in enumerate(rows, 1)]
    runs = pd.DataFrame(rows)
    return runs.assign(
        dataset=PILOT, start=PILOT, backbone=PILOT, measure="error", figure=ALL, baseline=math.nan,
        replicates=[[loss] * REPLICATES for loss in runs["loss"]],
    ).sort_values(["galaxies", "seed"])  # fmt: skip


def typed(text: str) -> float | str | None:
    """A number as a visitor types it (5000, 5,000, 0.12, 0,12); None for nothing, and what is no number as it is."""
    text = text.strip()
    bare = re.sub(r"[ \u00a0\u202f]", "", text)
    bare = bare.replace(",", "") if re.fullmatch(r"[1-9]\d{0,2}(,\d{3})+", bare) else bare.replace(",", ".")
    try:
        return float(bare) if bare else None
    except ValueError:
        return text


def read_pilot(file: Path) -> str:
    """The text of an uploaded table.

    Raises:
        BadInput: in words for visitors: it is too large, or no text.
    """
    if file.stat().st_size <= MOST_BYTES:
        try:
            text = file.read_text("utf-8-sig")
        except UnicodeDecodeError:
            text = "\0"
        if "\0" not in text:
            return text
    raise BadInput(say("laws.pilot_file_unread", limit=f"{MOST_BYTES // 1000} kB"))


def _run(i, line):
    separator = next((each for each in (";", "\t", ",") if each in line), None)
    cells = [cell.strip() for cell in line.split(separator)]
    if separator != ",":
        cells = [cell.replace(",", ".") for cell in cells]
    try:
        galaxies, loss, *seed = map(float, cells if cells[-1] else cells[:-1])
        if len(seed) > 1:
            raise ValueError
    except ValueError:
        raise BadInput(say("laws.pilot_line", line=i, text=line[:40])) from None
    whole = all(math.isfinite(value) and value == int(value) for value in (galaxies, *seed))
    if not (whole and 1 <= galaxies < 1e12 and 0 < loss < math.inf):
        raise BadInput(say("laws.pilot_value", line=i))
    return {"galaxies": int(galaxies), "loss": loss, "seed": int(seed[0]) if seed else None}


def _labels(labels, fewest, now):
    if labels is None:
        return None
    if not isinstance(labels, (int, float)) or not math.isfinite(labels) or labels != int(labels) or labels < 1:
        raise BadInput(say("laws.labels_not_whole"))
    if labels < fewest:
        raise BadInput(say("laws.labels_few", fewest=f"{fewest:,}"))
    if labels > REACH * now:
        raise BadInput(say("laws.labels_many", now=f"{now:,}", times=REACH, most=f"{REACH * now:,}"))
    return int(labels)


def _target(target, baseline):
    if target is None:
        return None
    if not isinstance(target, (int, float)) or not math.isfinite(target) or target <= 0:
        raise BadInput(say("laws.target_not_number"))
    if target >= baseline:  # which is no number in a pilot of a visitor's own
        raise BadInput(say("laws.target_baseline", target=number(target), baseline=number(baseline)))
    return float(target)


def _unit(budget):
    return measured_by(PILOT if budget["dataset"] == PILOT else budget["measure"])


def _cells(row):
    return [
        number(row["value"]),
        say("laws.range", low=number(row["low"]), high=number(row["high"])),
    ]


def _sentences(budget):
    now, asked, last = f"{budget['now']:,}", budget["asked"], budget["points"][-1]
    sentences = [
        say("laws.pilot_now", now=now, measure=_unit(budget), measured=number(last["value"]),
            foretold=told(budget["ahead"][0]))
    ]  # fmt: skip
    if asked:
        sentences.append(say("laws.asked", galaxies=f"{asked['galaxies']:,}", foretold=told(asked)))
        if (times := asked["galaxies"] / budget["now"]) > 10:
            sentences.append(say("laws.far", galaxies=f"{asked['galaxies']:,}", times=f"{times:.0f}"))
    change, galaxies = told(budget["doubling"], percent), f"{asked['galaxies']:,}" if asked else now
    sentences.append(say("laws.doubling", galaxies=galaxies, change=change))
    if budget["target"] is not None:
        sentences.append(_reached(budget))
    if budget["floor_shown"]:
        sentences.append(say("laws.floor_shown", floor=told(budget["laws"]["floor"]["c"])))
    if doubts := doubts_of(budget["doubts"]):
        sentences.append(say("laws.planner_doubts", doubts=listed(doubts)))
    if budget["useless_up_to"]:
        useless, baseline = f"{budget['useless_up_to']:,}", number(budget["baseline"])
        sentences.append(say("laws.planner_useless", galaxies=useless, baseline=baseline))
    return sentences + ([say("laws.pilot_galaxies")] if budget["dataset"] == PILOT else [])


def _reached(budget):
    now, ends = budget["now"], budget["galaxies_for"]
    told_of = {"target": number(budget["target"]), "now": f"{now:,}", "most": two_digits(REACH * now)}
    told_of |= {name: two_digits(galaxies) for name, galaxies in ends.items() if galaxies}
    case = case_of(now, ends)
    if case == "may be reached":
        return say("laws.target_may_up_to" if ends["high"] else "laws.target_may_never", **told_of)
    if case == "needs about":
        more = {name: two_digits(max(ends[end] - now, 1)) for name, end in
                (("more", "value"), ("more_low", "low"), ("more_high", "high"))}  # fmt: skip
        return say("laws.target_about", **told_of, **more)
    names = {"out of reach": "never", "reached": "reached", "needs at least": "at_least"}
    return say(f"laws.target_{names[case]}", **told_of)


def _draw(budget, axes):
    points, curve, asked, target = (budget[key] for key in ("points", "curve", "asked", "target"))
    draw_curve_with_band(axes, curve, budget["now"], COLORS[0])
    draw_points(axes, [point["galaxies"] for point in points], points, COLORS[0])
    handles = [
        handle(say("laws.legend_measured"), COLORS[0], marker="o", ls="-", lw=1),
        handle(say("laws.legend_law"), COLORS[0], ls="-"),
        handle(say("laws.legend_foretold"), COLORS[0], ls="--"),
    ]
    seen = [run for point in points for run in point["runs"]] + curve["loss"]
    sizes = [point["galaxies"] for point in points] + curve["galaxies"]
    if asked:
        draw_points(axes, [asked["galaxies"]], [asked], COLORS[1], "D", size=7)
        handles.append(handle(say("laws.legend_asked"), COLORS[1], marker="D", ls="-", lw=1.1))
        seen += [end for end in (asked["low"], asked["high"]) if end > asked["value"] / 3]
    if target is not None:
        seen.append(target)
        ends = budget["galaxies_for"]
        sizes += [end for end in ends.values() if end and end <= 10 * max(sizes)]
        draw_level(axes, target, say("laws.legend_target"), ":", right=False)
        if ends["low"]:
            most = max(sizes) * 1.25
            axes.plot([min(ends["low"], most), min(ends["high"] or most, most)], [target] * 2, color=COLORS[2], lw=3)
            if ends["value"] and ends["value"] <= most:
                axes.plot([ends["value"]], [target], "^", color=COLORS[2], ms=9, zorder=5)
            handles.append(handle(say("laws.legend_needed"), COLORS[2], marker="^", ls="-", lw=3))
    log_axis(axes.xaxis, min(sizes) / 1.25, max(sizes) * 1.25)
    log_axis(axes.yaxis, *limits(seen))
    axes.set(xlabel=say("laws.column_galaxies"), ylabel=_unit(budget))
    return [*handles, handle(say("laws.legend_run"), GREY, marker="o", ms=3, alpha=0.5)]
