"""Scaling laws of the records: what was measured and fitted as plain numbers, in sentences, and as a chart."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import law_pictures
from hf_galaxy.errors import BadInput
from hf_galaxy.reports.charts import GREY, handle
from hf_galaxy.reports.measures import ALL
from hf_galaxy.reports.text import number
from hf_galaxy.scaling import EXPONENT, FALLS, LEFT
from hf_galaxy.scaling.figures import draw_laws, styles_of
from law_records import Study, known, listed, measured_by, percent, plain, question_called, study_of, told
from text import say

_DOUBTS = {FALLS: "falls", EXPONENT: "exponent", LEFT: "left", "how much the seed": "seed"}  # as doubts begin


def scaling_law(
    results: Path, study: str, measure: str, question: str = ALL, architectures: Sequence[str] = ()
) -> dict:
    """What was measured and fitted, as plain numbers; intervals are of 90 %.

    Args:
        study, measure, question: by the names they have in the records.
        architectures: backbones, or all.

    Returns:
        `study`, `measure`, `question`; `baseline`, of the best answer that is the same for every galaxy; `laws`, for each
        architecture and start its `points`, its `law` with a floor (`a`, `b`, `c`, `per_doubling`, `curve` with its band, ...)
        and `plain`, the one without, either None where none could be fitted, and `last_step`, as in scaling.json; `sentences`.

    Raises:
        BadInput: in words for visitors: there is no such study, measure, question or architecture.
    """
    which = study_of(results, study)
    laws = _chosen(which, measure, question, architectures)
    names = ("backbone", "start", "parameters", "points", "law", "plain", "last_step", "useless_up_to", "test_galaxies")
    return plain({
        "study": study, "title": which.title, "measure": measure, "unit": measured_by(measure), "question": question,
        "baseline": laws[0]["baseline"],
        "laws": [{"architecture" if key == "backbone" else key: law[key] for key in names} for law in laws],
        "sentences": _sentences(which, laws),
    })  # fmt: skip


@lru_cache(256)
def page(results: Path, study: str, measure: str, question: str, series: tuple[tuple[str, str], ...]) -> str:
    """The same as HTML: sentences, chart and table.

    Args:
        series: (backbone, start) of those that are shown.

    Raises:
        BadInput: as `scaling_law`; or no series is chosen.
    """
    if not series:
        raise BadInput(say("laws.choose_one"))
    which = study_of(results, study)
    laws = [law for law in _chosen(which, measure, question) if (law["backbone"], law["start"]) in series]
    return "".join((
        law_pictures.words(_sentences(which, laws)),
        law_pictures.picture(lambda figure, axes: _draw(which, laws, axes), alt_of(which, laws)),
        _table(which, laws),
    ))  # fmt: skip


def doubts_of(doubts: list[str]) -> list[str]:
    """What a law leaves open, in words for visitors."""
    return [
        say(f"laws.doubt_{name}") for doubt in doubts for begins, name in _DOUBTS.items() if doubt.startswith(begins)
    ]


def alt_of(study: Study, laws: list[dict]) -> str:
    """What the chart shows, for those who do not see it."""
    parts = []
    for law in laws:
        first, last = law["points"][0], law["points"][-1]
        parts.append(
            say(
                "laws.alt_law", who=_who(study, law), first=number(first["value"]), fewest=f"{first['galaxies']:,}",
                last=told(last), most=f"{last['galaxies']:,}",
            )
        )  # fmt: skip
    measure, question, baseline = laws[0]["measure"], laws[0]["figure"], number(laws[0]["baseline"])
    return say(
        "laws.alt_curves", measure=measured_by(measure), question=question_called(question), study=study.title,
        laws=" ".join(parts), baseline=say("laws.alt_baseline", baseline=baseline),
    )  # fmt: skip


def _chosen(study, measure, question, architectures=()):
    known("measure", measure, study.measures())
    known("question", question, study.questions(measure))
    for backbone in architectures:
        known("architecture", backbone, study.fits["data"]["backbones"])
    return [law for law in study.laws(measure, question) if not architectures or law["backbone"] in architectures]


def _who(study, law):
    return study.called(law["backbone"], law["start"])


def _sentences(study, laws):
    """What the laws show together: the least loss, what the last step brought, and what nothing can be said of."""
    best = min(laws, key=lambda law: law["points"][-1]["value"])
    last = best["points"][-1]
    about = {"galaxies": f"{last['galaxies']:,}", "measure": measured_by(best["measure"]), "value": told(last)}
    sentences = [say("laws.least" if len(laws) > 1 else "laws.last", who=_who(study, best), **about)]

    steps = _grouped(study, laws, lambda law: _step(law["last_step"]))
    for (verdict, first, second), who in steps.items():
        sentences.append(say(f"laws.step_{verdict}", first=first, second=second, who=who))
    doubts = _grouped(study, laws, lambda law: law["law"] and tuple(doubts_of(law["law"]["doubts"])))
    for doubt, who in doubts.items():
        if doubt is None:
            sentences.append(say("laws.nothing", who=who))
        elif doubt:
            sentences.append(say("laws.doubts", who=who, doubts=listed(list(doubt))))
    if useless := _grouped(study, [law for law in laws if law["useless_up_to"]], lambda law: law["useless_up_to"]):
        whose = [say("laws.useless_whose", who=who, galaxies=f"{galaxies:,}") for galaxies, who in useless.items()]
        sentences.append(say("laws.useless", whose="; ".join(whose), baseline=number(best["baseline"])))
    return sentences + _exponents(study, laws)


def _grouped(study, laws, of):
    """What is said -> the laws that it is said of, in words."""
    groups = {}
    for law in laws:
        groups.setdefault(of(law), []).append(_who(study, law))
    return {said: listed(who) for said, who in groups.items()}


def _step(step):
    """What the last step to more galaxies brought, as far as the data say, and from how many to how many it was."""
    if step is None or step["relative"] is None:
        return "unknown", "", ""
    verdict = step["loss"] if step["loss"] in ("less", "more") else "unclear"
    return verdict, f"{step['from']:,}", f"{step['to']:,}"


def _exponents(study, laws):
    """Whether the exponents differ, where all architectures that were compared are shown."""
    about = ("start", "measure", "figure")
    for each in study.fits["exponents"]:
        same = [law for law in laws if [law[key] for key in about] == [each.get(key) for key in about]]
        if (each["across"], each["fit"]) == ("backbone", "law") and len(same) == each["count"]:
            name = "differ" if each["p"] < 0.05 else "alike"
            return [say(f"laws.exponents_{name}", p=f"{each['p']:.2g}")]
    return []


def _draw(study, laws, axes):
    styles = styles_of(study.fits)
    draw_laws(axes, laws, styles, large=True)
    axes.set(xlabel=say("laws.x_galaxies"), ylabel=measured_by(laws[0]["measure"]))
    handles = []
    for law in laws:
        color, marker, fill, _ = styles[law["backbone"], law["start"]]
        handles.append(handle(_who(study, law), color, marker=marker, fillstyle=fill, ls="-"))
    handles.append(handle(say("laws.legend_runs"), GREY, marker="o", ls="-", lw=1))
    handles.append(handle(say("laws.legend_run"), GREY, marker="o", ms=2.5, alpha=0.5))
    if any(law["law"] for law in laws):
        handles.append(handle(say("laws.legend_law"), GREY, ls="-"))
        handles.append(handle(say("laws.legend_beyond"), GREY, ls="--"))
    if any(law["plain"] for law in laws):
        handles.append(handle(say("laws.legend_plain"), GREY, ls=":", lw=1))
    return handles


def _table(study, laws):
    names = ("model", "last", "step", "b", "doubling", "c", "scatter", "foretold")
    rows = []
    for law in laws:
        step = law["last_step"] and law["last_step"]["relative"]
        change = told(step, percent) if step else say("laws.not_known")
        rows.append([_who(study, law), told(law["points"][-1]), change, *_parameters(law["law"])])
    return law_pictures.table(say("laws.table_laws"), [say(f"laws.column_{name}") for name in names], rows)


def _parameters(fit):
    if fit is None:
        return [say("laws.no_law")] + [""] * 4
    left, foretold = fit["leave_out"], say("laws.not_known")
    if left:
        inside = "inside" if left["inside"] else "outside"
        interval = told(left | {"value": left["predicted"]})
        foretold = say(f"laws.foretold_{inside}", interval=interval, measured=number(left["measured"]))
    return [told(fit["b"]), told(fit["per_doubling"]), told(fit["c"]), percent(fit["scatter"]), foretold]
