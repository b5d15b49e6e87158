"""The scaling laws of a study: measurements and fits as numbers, in sentences, and as a chart."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import law_pictures
from hf_galaxy.errors import BadInput
from hf_galaxy.reports.charts import GREY, handle
from hf_galaxy.reports.measures import ALL
from hf_galaxy.reports.text import number
from hf_galaxy.scaling import EXPONENT, FALLS, FORM, LEFT
from hf_galaxy.scaling.figures import draw_laws, styles_of
from law_records import (
    Study,
    check_name,
    json_value,
    listed,
    measure_name,
    percent,
    question_name,
    study_of,
    with_interval,
)
from text import sentence

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

_DOUBTS = {
    FORM: "form",
    FALLS: "falls",
    EXPONENT: "exponent",
    LEFT: "left",
    "how much the seed": "seed",
}  # beginning of a doubt -> its name


def scaling_law(
    results: Path, study: str, measure: str, question: str = ALL, architectures: Sequence[str] = ()
) -> dict[str, Any]:
    """Measurements and fits as numbers, with 90 % intervals.

    Args:
        study, measure, question: names in the records; no measure: the error, if there is one, or else the first.
        architectures: backbones; empty: all.

    Returns:
        `study`, `measure`, `question`; `baseline`, of the best constant prediction; `laws`, for each architecture and start
        the `points`, the `law` with a floor (`a`, `b`, `c`, `per_doubling`, `curve` with its band, ...), `plain`, the law without
        one, each None if it could not be fitted or the study has not converged, and `last_step`, as in scaling.json; `sentences`.

    Raises:
        BadInput: in words for visitors: unknown study, measure, question or architecture.
    """
    which = study_of(results, study)
    measure = measure or which.default_measure()
    laws = _chosen(which, measure, question, architectures)
    names = ("backbone", "start", "parameters", "points", "law", "plain", "last_step", "useless_up_to", "test_galaxies")
    return json_value({
        "study": study, "title": which.title, "measure": measure, "unit": measure_name(measure), "question": question,
        "baseline": laws[0]["baseline"],
        "laws": [{"architecture" if key == "backbone" else key: law[key] for key in names} for law in laws],
        "sentences": _sentences(which, laws),
    })  # fmt: skip


@lru_cache(256)
def page(results: Path, study: str, measure: str, question: str, series: tuple[tuple[str, str], ...]) -> str:
    """The laws as HTML: sentences, chart and table.

    Args:
        series: (backbone, start) of each law.

    Raises:
        BadInput: as `scaling_law`; or there is no series.
    """
    if not series:
        raise BadInput(sentence("laws.choose_one"))
    which = study_of(results, study)
    laws = [law for law in _chosen(which, measure, question) if (law["backbone"], law["start"]) in series]
    return "".join((
        law_pictures.paragraphs(_sentences(which, laws)),
        law_pictures.picture(lambda figure, axes: _draw(which, laws, axes), alt_of(which, laws)),
        _table(which, laws),
    ))  # fmt: skip


def doubts_of(doubts: list[str]) -> list[str]:
    """The doubts about a law, in words for visitors."""
    return [
        sentence(f"laws.doubt_{name}")
        for doubt in doubts
        for begins, name in _DOUBTS.items()
        if doubt.startswith(begins)
    ]


def alt_of(study: Study, laws: list[dict[str, Any]]) -> str:
    """Alternative text of the chart."""
    parts = []
    for law in laws:
        first, last = law["points"][0], law["points"][-1]
        parts.append(
            sentence(
                "laws.alt_law", who=_who(study, law), first=number(first["value"]), fewest=f"{first['galaxies']:,}",
                last=with_interval(last), most=f"{last['galaxies']:,}",
            )
        )  # fmt: skip
    measure, question, baseline = laws[0]["measure"], laws[0]["figure"], number(laws[0]["baseline"])
    return sentence(
        "laws.alt_curves", measure=measure_name(measure), question=question_name(question), study=study.title,
        laws=" ".join(parts), baseline=sentence("laws.alt_baseline", baseline=baseline),
    )  # fmt: skip


def _chosen(study: Study, measure: str, question: str, architectures: Sequence[str] = ()) -> list[dict[str, Any]]:
    check_name("measure", measure, study.measures())
    check_name("question", question, study.questions(measure))
    for backbone in architectures:
        check_name("architecture", backbone, study.fits["data"]["backbones"])
    return [law for law in study.laws(measure, question) if not architectures or law["backbone"] in architectures]


def _who(study: Study, law: dict[str, Any]) -> str:
    return study.series_name(law["backbone"], law["start"])


def _sentences(study: Study, laws: list[dict[str, Any]]) -> list[str]:
    """Summary of the laws: the lowest loss, the effect of the last step, and what remains open."""
    best = min(laws, key=lambda law: law["points"][-1]["value"])
    last = best["points"][-1]
    about = {
        "galaxies": f"{last['galaxies']:,}",
        "measure": measure_name(best["measure"]),
        "value": with_interval(last),
    }
    sentences = [sentence("laws.least" if len(laws) > 1 else "laws.last", who=_who(study, best), **about)]

    steps = _grouped(study, laws, lambda law: _step(law["last_step"]))
    for (verdict, first, second), who in steps.items():
        sentences.append(sentence(f"laws.step_{verdict}", first=first, second=second, who=who))
    sentences += _fits_in_words(study, laws) if study.converged else [sentence("laws.one_length")]
    if useless := _grouped(study, [law for law in laws if law["useless_up_to"]], lambda law: law["useless_up_to"]):
        whose = [sentence("laws.useless_whose", who=who, galaxies=f"{galaxies:,}") for galaxies, who in useless.items()]
        sentences.append(sentence("laws.useless", whose="; ".join(whose), baseline=number(best["baseline"])))
    return sentences


def _fits_in_words(study: Study, laws: list[dict[str, Any]]) -> list[str]:
    """What the data do not determine, and whether the exponents differ."""
    doubts = _grouped(study, laws, lambda law: law["law"] and tuple(doubts_of(law["law"]["doubts"])))
    sentences = []
    for doubt, who in doubts.items():
        if doubt is None:
            sentences.append(sentence("laws.nothing", who=who))
        elif doubt:
            sentences.append(sentence("laws.doubts", who=who, doubts=listed(list(doubt))))
    return sentences + _exponents(study, laws)


def _grouped(
    study: Study, laws: list[dict[str, Any]], statement: Callable[[dict[str, Any]], Hashable]
) -> dict[Any, str]:
    """Statement -> the laws that it applies to, in words."""
    groups: dict[Hashable, list[str]] = {}
    for law in laws:
        groups.setdefault(statement(law), []).append(_who(study, law))
    return {each: listed(who) for each, who in groups.items()}


def _step(step: dict[str, Any] | None) -> tuple[str, str, str]:
    """The effect of the last step to more galaxies, and its two numbers of galaxies."""
    if step is None or step["relative"] is None:
        return "unknown", "", ""
    verdict = step["loss"] if step["loss"] in ("less", "more") else "unclear"
    return verdict, f"{step['from']:,}", f"{step['to']:,}"


def _exponents(study: Study, laws: list[dict[str, Any]]) -> list[str]:
    """Whether the exponents differ, if all compared architectures are shown."""
    about = ("start", "measure", "figure")
    for each in study.fits["exponents"]:
        same = [law for law in laws if [law[key] for key in about] == [each.get(key) for key in about]]
        if each["across"] == "backbone" and len(same) == each["count"]:
            name = "differ" if each["p_adjusted"] < 0.05 else "alike"
            return [sentence(f"laws.exponents_{name}", p=f"{each['p_adjusted']:.2g}")]
    return []


def _draw(study: Study, laws: list[dict[str, Any]], axes: Axes) -> list[Line2D]:
    styles = styles_of(study.fits)
    draw_laws(axes, laws, styles, large=True)
    axes.set(xlabel=sentence("laws.x_galaxies"), ylabel=measure_name(laws[0]["measure"]))
    handles, line = [], "-" if study.converged else "none"
    for law in laws:
        color, marker, fill, _ = styles[law["backbone"], law["start"]]
        handles.append(handle(_who(study, law), color, marker=marker, fillstyle=fill, ls=line))
    handles.append(handle(sentence("laws.legend_runs"), GREY, marker="o", ls="-", lw=1))
    handles.append(handle(sentence("laws.legend_run"), GREY, marker="o", ms=2.5, alpha=0.5))
    if any(law["law"] for law in laws):
        handles.append(handle(sentence("laws.legend_law"), GREY, ls="-"))
        handles.append(handle(sentence("laws.legend_beyond"), GREY, ls="--"))
    if any(law["plain"] for law in laws):
        handles.append(handle(sentence("laws.legend_plain"), GREY, ls=":", lw=1))
    return handles


def _table(study: Study, laws: list[dict[str, Any]]) -> str:
    names = ["model", "last", "step"]
    if study.converged:
        names += ["b", "doubling", "c", "scatter", "predicted"]
    rows = []
    for law in laws:
        step = law["last_step"] and law["last_step"]["relative"]
        change = with_interval(step, percent) if step else sentence("laws.not_known")
        fit = _parameters(law["law"]) if study.converged else []
        rows.append([_who(study, law), with_interval(law["points"][-1]), change, *fit])
    title = sentence("laws.table_laws" if study.converged else "laws.table_losses")
    return law_pictures.table(title, [sentence(f"laws.column_{name}") for name in names], rows)


def _parameters(fit: dict[str, Any] | None) -> list[str]:
    if fit is None:
        return [sentence("laws.no_law")] + [""] * 4
    held_out, predicted = fit["leave_out"], sentence("laws.not_known")
    if held_out:
        inside = "inside" if held_out["inside"] else "outside"
        interval = with_interval(held_out | {"value": held_out["predicted"]})
        measured = number(held_out["measured"])
        predicted = sentence(f"laws.predicted_{inside}", interval=interval, measured=measured)
    return [
        with_interval(fit["b"]),
        with_interval(fit["per_doubling"]),
        with_interval(fit["c"]),
        percent(fit["scatter"]),
        predicted,
    ]
