"""scaling.json -> the page of a study: what was measured, and what the data show and do not show. No number is typed here.

The page is the README.md of a folder that `datasets.load_dataset` reads: its table holds the points (`points.points_of`).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_galaxy.evaluation.bootstrap import LEVEL
from hf_galaxy.reports.measures import ALL, MEASURES
from hf_galaxy.reports.text import interval, number, percent, render, table
from hf_galaxy.scaling.laws import FALLS, SIGNIFICANT
from hf_galaxy.scaling.study import doubt_of_baseline

MADE = "<!-- Made by hf-galaxy fit, which replaces it: write elsewhere. -->"
TAIL = (1 - LEVEL) / 2  # probability that an interval lies wholly above, or below, a value that it should contain

Study = dict[str, Any]  # as `study.study_of` returns it
Law = dict[str, Any]


def study_page(study: Study, title: str, figures: dict[str, str], command: str) -> str:
    """README.md of a study.

    Args:
        study: as `study.study_of` returns it.
        figures: file name -> the figure in words, in the order of the page.
        command: the command that made the page.
    """
    measures = list(dict.fromkeys(law["measure"] for law in study["laws"]))
    return render(
        Path(__file__).parent / "templates" / "study.md.jinja",
        study=study, title=title, made=MADE, figures=figures, command=command, measures={m: MEASURES[m] for m in measures},
        seeds=_span(count for sizes in study["data"]["cells"].values() for count in sizes.values()),
        tables={measure: law_table(study, measure) for measure in measures},
        doubts={measure: _doubts(study, measure) for measure in measures},
        steps={measure: step_table(study, measure) for measure in measures},
        comparisons={measure: _comparisons(study, measure) for measure in measures},
        joints={(joint["start"], joint["measure"]): joint for joint in study["joint"] if joint["figure"] == ALL},
        claims=claims(study), families={about["family"] for about in study["data"]["backbones"].values()},
    )  # fmt: skip


def law_table(study: Study, measure: str) -> str:
    """Markdown: for each figure and backbone the law, and its prediction for the largest number of galaxies."""
    starts = len(study["data"]["starts"]) > 1
    columns = ["figure", "backbone", *(["start"] if starts else []), "with the most galaxies", "constant"]
    columns += ["b", "left by a doubling", "c", "plain law's b", "scatter", "lack of fit, p", "plain law's p"]
    columns += ["held out, miss", "plain law's miss", "miss of no change"]
    rows = []
    for law in _laws_of(study, measure):
        fit, plain = law["law"], law["plain"]
        cells = [law["figure"], law["backbone"], *([law["start"]] if starts else [])]
        cells += [interval(law["points"][-1]), number(law["baseline"])]
        cells += [interval(fit and fit[name]) for name in ("b", "per_doubling", "c")]
        cells += [interval(plain and plain["b"]), percent(fit["scatter"]) if fit else "-"]
        cells += [_p_of(fit), _p_of(plain), _miss(fit), _miss(plain)]
        held_out = plain and plain["leave_out"]
        cells += [percent(held_out["miss_of_before"]) if held_out else "-"]
        rows.append(cells)
    return table(columns, rows)


def step_table(study: Study, measure: str) -> str:
    """Markdown: the change of the loss in the last step of galaxies, and with a larger model of the same family."""
    starts, rows = len(study["data"]["starts"]) > 1, []
    for law in _laws_of(study, measure):
        if (step := law["last_step"]) is not None:
            kind = f"{step['from']:,} to {step['to']:,} galaxies"
            rows.append([law["figure"], law["backbone"], *([law["start"]] if starts else []), kind, *_change(step)])
    for step in _model_steps(study, measure):
        kind = f"{step['from'] / 1e6:.2g} to {step['to'] / 1e6:.2g} million parameters"
        models = f"{step['small']} to {step['large']}"
        rows.append([step["figure"], models, *([step["start"]] if starts else []), kind, *_change(step)])
    columns = [
        "figure",
        "backbone",
        *(["start"] if starts else []),
        "from, to",
        "change of the loss",
        "relative",
        "loss is",
    ]
    return table(columns, rows)


def _change(step: Law) -> list[str]:
    return [interval(step), interval(step["relative"], percent), step["loss"]]


def _comparisons(study: Study, measure: str) -> str | None:
    """How many changes of `step_table` are significant, beside the number that chance would give."""
    steps = [law["last_step"] for law in _laws_of(study, measure) if law["last_step"]] + _model_steps(study, measure)
    known = [step for step in steps if step["loss"] != "not known"]
    if not known:
        return None
    counts = Counter(step["loss"] for step in known)
    return (
        f"Of {len(known)} changes with an interval, {counts['less']} are less and {counts['more']} more at 90 %; if nothing "
        f"changed, {_by_chance(known)} of each would be expected by chance."
    )


def claims(study: Study) -> list[dict[str, str]]:
    """The results of the study on each claim of the paper that it can test: `claim` and `result`, both in words.

    Measures are counted separately, as they are of the same runs.
    """
    measures = list(dict.fromkeys(law["measure"] for law in study["laws"]))
    results: dict[str, list[str | None]] = {
        "More labelled galaxies lower the error, by a power law, for every architecture and every question.": [
            _on_galaxies(study, measure) for measure in measures
        ],
        "The exponent is nearly the same for all architectures.": [
            _on_exponents(study, measure, "backbone", "architectures") for measure in measures
        ],
        "The exponent is nearly the same for all questions.": [
            _on_exponents(study, measure, "figure", "questions") for measure in measures
        ],
        "More parameters help only some questions, those that volunteers disagree on more.": [
            _on_parameters(study, measure) for measure in measures
        ],
    }
    return [
        {"claim": claim, "result": " ".join(filter(None, sentences))}
        for claim, sentences in results.items()
        if any(sentences)
    ]


def _on_galaxies(study: Study, measure: str) -> str | None:
    single = [law for law in study["laws"] if law["measure"] == measure and _is_single(study, law)]
    fitted = [law for law in single if law["law"]]
    if not fitted:
        return None
    falls = sum(not any(doubt.startswith(FALLS) for doubt in law["law"]["doubts"]) for law in fitted)
    words = f"{measure}: of {len(fitted)} laws of a backbone on a {_kind(study)}, {falls} fall with more galaxies at 90 %, where chance alone would give {_by_chance(fitted)}."
    if len(fitted) < len(single):
        words += (
            f" For {len(single) - len(fitted)} more, too few numbers of galaxies are better than a constant prediction."
        )
    return " ".join([words, *filter(None, (_on_form(fitted), _on_forecasts(fitted)))])


def _on_form(fitted: Sequence[Law]) -> str | None:
    """How many laws are rejected: a power law, and one with a floor."""
    counts = []
    for fit, words in (("plain", "A power law"), ("law", "a law with a floor")):
        if tested := [law[fit] for law in fitted if law[fit] and law[fit]["lack_of_fit"] is not None]:
            rejected = sum(each["lack_of_fit"] < SIGNIFICANT for each in tested)
            counts.append(f"{words} is rejected for {rejected} of {len(tested)}")
    return (
        f"{', '.join(counts)} (lack of fit, p below 0.05, by chance {_by_chance(fitted, SIGNIFICANT)})."
        if counts
        else None
    )


def _on_forecasts(fitted: Sequence[Law]) -> str | None:
    """How well laws predict the loss with the most galaxies, beside the forecast that it stays what it was."""
    counts, before = [], []
    for fit, words in (("law", "with a floor"), ("plain", "without")):
        held_out = [law[fit]["leave_out"] for law in fitted if law[fit] and law[fit]["leave_out"]]
        if held_out:
            inside = sum(each["inside"] for each in held_out)
            counts.append(f"{words} {inside} of {len(held_out)} (median miss {_median(held_out, 'miss')})")
            before = before or held_out
    if not counts:
        return None
    return (
        f"Fitted without the largest number of galaxies, the interval contains the loss measured there for laws {' and '.join(counts)}; "
        f"90 % are expected. The forecast that the loss stays what it was misses by {_median(before, 'miss_of_before')}."
    )


def _on_exponents(study: Study, measure: str, across: str, many: str) -> str | None:
    groups = [each for each in study["exponents"] if (each["across"], each["measure"]) == (across, measure)]
    if not groups:
        return None
    differing, single = (sum(each[p] < SIGNIFICANT for each in groups) for p in ("p_adjusted", "p"))
    shared = [each["b"] for each in groups]
    ends = number(min(b["value"] for b in shared)), number(max(b["value"] for b in shared))
    common = (
        f"Common exponents lie between {ends[0]} and {ends[1]}"
        if len(groups) > 1
        else f"The common exponent is {interval(shared[0])}"
    )
    return (
        f"{measure}: a common exponent, with floors of their own, is rejected in {differing} of {len(groups)} comparisons of "
        f"{_span(each['count'] for each in groups)} {many} (likelihood ratio; p below 0.05, adjusted for {len(groups)} comparisons; without "
        f"that in {single}, by chance {_by_chance(groups, SIGNIFICANT)}). {common}."
    )


def _on_parameters(study: Study, measure: str) -> str | None:
    steps = [step for step in _model_steps(study, measure) if _is_single(study, step)]
    if not steps:
        return None
    counts = Counter(step["loss"] for step in steps)
    names = [step["figure"] for step in steps if step["loss"] == "less"] if _kind(study) == "question" else []
    which = f" ({', '.join(dict.fromkeys(names))})" if names else ""
    return (
        f"{measure}: with the most galaxies, of {len(steps)} pairs of a {_kind(study)} and a next larger model of the same family, the "
        f"loss is less in {counts['less']}{which} and more in {counts['more']} at 90 %, where chance alone would give "
        f"{_by_chance(steps)} of each; in {counts['not shown'] + counts['not known']} no change is shown."
    )


def _by_chance(comparisons: Sequence[Law], probability: float = TAIL) -> str:
    """The expected number of significant ones among comparisons without any effect."""
    return f"about {probability * len(comparisons):.2g}"


def _doubts(study: Study, measure: str) -> list[str]:
    """What the data do not determine, a line for each law that leaves something open."""
    starts, lines = len(study["data"]["starts"]) > 1, []
    for law in study["laws"]:
        if law["measure"] == measure:
            doubts = [*(law["law"]["doubts"] if law["law"] else []), doubt_of_baseline(law["useless_up_to"])]
            if doubts := list(filter(None, doubts)):
                name = f"{law['backbone']}, {law['figure']}{', ' + law['start'] if starts else ''}"
                lines.append(f"{name}: {'; '.join(doubts)}")
    return lines


def _laws_of(study: Study, measure: str) -> list[Law]:
    """Of one measure, all questions together first."""
    laws = (law for law in study["laws"] if law["measure"] == measure)
    return sorted(laws, key=lambda law: (law["figure"] != ALL, law["figure"]))


def _model_steps(study: Study, measure: str) -> list[Law]:
    return [step for step in study["parameters"] if step["measure"] == measure]


def _is_single(study: Study, about: Law) -> bool:
    """Whether it is of one question, if the study has questions."""
    return about["figure"] != ALL or _kind(study) == "figure"


def _kind(study: Study) -> str:
    return "question" if any(law["figure"] != ALL for law in study["laws"]) else "figure"


def _median(held_out: Sequence[Law], miss: str) -> str:
    misses = sorted(abs(each[miss]) for each in held_out)
    return percent(misses[len(misses) // 2])


def _span(counts: Iterable[int]) -> str:
    low, high = min(counts := list(counts)), max(counts)
    return f"{low}" if low == high else f"{low} to {high}"


def _p_of(fit: Mapping[str, Any] | None) -> str:
    return "-" if fit is None or fit["lack_of_fit"] is None else f"{fit['lack_of_fit']:.2g}"


def _miss(fit: Mapping[str, Any] | None) -> str:
    held_out = fit and fit["leave_out"]
    return f"{percent(held_out['miss'])}, {'inside' if held_out['inside'] else 'outside'}" if held_out else "-"
