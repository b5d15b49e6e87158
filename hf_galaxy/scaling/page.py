"""scaling.json -> the page of a study: what was measured, what it shows, and what it does not. No number is typed here.

The page is the README.md of a folder that `datasets.load_dataset` reads: its table is what was measured (`points.points_of`).
"""

from collections import Counter
from pathlib import Path

from hf_galaxy.reports.text import interval, number, percent, percents, render, table
from hf_galaxy.scaling.laws import FALLS
from hf_galaxy.scaling.points import ALL, MEASURES

MADE = "<!-- Made by scripts/fit_scaling.py, which replaces it: write elsewhere. -->"


def study_page(study: dict, title: str, figures: dict[str, str], command: str) -> str:
    """README.md of a study.

    Args:
        study: what `study.study_of` returned.
        figures: file name -> what it shows, in the order of the page.
        command: with which the page was made.
    """
    measures = list(dict.fromkeys(law["measure"] for law in study["laws"]))
    return render(
        Path(__file__).parent / "templates" / "study.md.jinja",
        study=study, title=title, made=MADE, figures=figures, command=command, measures={m: MEASURES[m] for m in measures},
        starting=len(study["data"]["starts"]) > 1, seeds=_seeds(study),
        tables={measure: law_table(study, measure) for measure in measures},
        steps={measure: step_table(study, measure) for measure in measures},
        joints={(joint["start"], joint["measure"]): joint for joint in study["joint"] if joint["figure"] == ALL},
        claims=claims(study), families={about["family"] for about in study["data"]["backbones"].values()},
    )  # fmt: skip


def law_table(study: dict, measure: str) -> str:
    """Markdown: for each figure and backbone the law, and how well it foretold the largest number of galaxies."""
    starts = len(study["data"]["starts"]) > 1
    columns = ["figure", "backbone", *(["start"] if starts else []), "with the most galaxies", "constant"]
    columns += ["b", "left by a doubling", "c", "plain law's b", "scatter", "foretold, miss", "plain law's miss"]
    rows = []
    for law in _of(study, measure):
        fits = law["law"], law["plain"]
        cells = [law["figure"], law["backbone"], *([law["start"]] if starts else [])]
        cells += [interval(law["points"][-1]), number(law["baseline"]), _exponent(fits[0]), _doubling(fits[0])]
        cells += [interval(fits[0] and fits[0]["c"]), _exponent(fits[1]), percent(fits[0] and fits[0]["scatter"])]
        rows.append(cells + [_miss(fit) for fit in fits])
    return table(columns, rows)


def step_table(study: dict, measure: str) -> str:
    """Markdown: what the last step in galaxies brought, and what a larger model of the same family did."""
    rows = []
    for law in _of(study, measure):
        step = law["last_step"]
        if step is not None:
            kind = f"{step['from']:,} to {step['to']:,} galaxies"
            rows.append(
                [law["figure"], law["backbone"], kind, interval(step), percents(step["relative"]), step["loss"]]
            )
    for step in (each for each in study["parameters"] if each["measure"] == measure):
        kind = f"{step['from'] / 1e6:.2g} to {step['to'] / 1e6:.2g} million parameters"
        models = f"{step['small']} to {step['large']}"
        rows.append([step["figure"], models, kind, interval(step), percents(step["relative"]), step["loss"]])
    return table(["figure", "backbone", "from, to", "change of the loss", "relative", "loss is"], rows)


def claims(study: dict) -> list[dict]:
    """What the study says on each claim of the paper that it can say something on: `claim`, `found`, both in words.

    Measures are counted apart, as they look at the same runs.
    """
    measures = list(dict.fromkeys(law["measure"] for law in study["laws"]))
    found = [
        {
            "claim": "More labelled galaxies lower the error, by a power law, for every architecture and every question.",
            "found": " ".join(_on_galaxies(study, measure) for measure in measures),
        }
    ]
    for across, many in (("backbone", "architectures"), ("figure", "questions")):
        if told := [text for measure in measures if (text := _on_exponents(study, measure, across, many))]:
            found.append({"claim": f"The exponent is nearly the same for all {many}.", "found": " ".join(told)})
    if told := [text for measure in measures if (text := _on_parameters(study, measure))]:
        claim = "More parameters help only some questions, those that volunteers disagree on more."
        found.append({"claim": claim, "found": " ".join(told)})
    return found


def _on_galaxies(study, measure):
    fitted = [law for law in study["laws"] if law["law"] and law["measure"] == measure and _single(study, law)]
    falls = sum(map(_falls, fitted))
    foretold = []
    for fit, words in (("law", "with a floor"), ("plain", "without")):
        left = [law[fit]["leave_out"] for law in fitted if law[fit]["leave_out"]]
        foretold.append(
            f"{words} {sum(each['inside'] for each in left)} of {len(left)} (median miss {_median_miss(left)})"
        )
    return (
        f"{measure}: of {len(fitted)} laws of a backbone on a {_kind(study)}, {falls} fall with more galaxies at 90 %. Fitted without "
        f"the largest number of galaxies, the interval held what was measured there, of laws {' and '.join(foretold)}."
    )


def _on_exponents(study, measure, across, many):
    told = []
    for fit, words in (("plain", "plain power laws"), ("law", "laws with a floor")):
        of = [e for e in study["exponents"] if (e["across"], e["fit"], e["measure"]) == (across, fit, measure)]
        if of:
            told.append(f"{words}, {_comparison(of, many)}")
    return f"{measure}: {'; '.join(told)}." if told else None


def _on_parameters(study, measure):
    steps = [step for step in study["parameters"] if step["measure"] == measure and _single(study, step)]
    if not steps:
        return None
    counts = Counter(step["loss"] for step in steps)
    names = [step["figure"] for step in steps if step["loss"] == "less"] if _kind(study) == "question" else []
    which = f" ({', '.join(dict.fromkeys(names))})" if names else ""
    return (
        f"{measure}: with the most galaxies, of {len(steps)} pairs of a {_kind(study)} and a next larger model of the same family, the loss "
        f"is less in {counts['less']}{which} and more in {counts['more']} at 90 %, where chance alone would give about {len(steps) / 20:.2g} of "
        f"each; in {counts['not shown'] + counts['not known']} neither could be shown."
    )


def _comparison(groups, many):
    differing = sum(each["p"] < 0.05 for each in groups)
    means = [each["mean"] for each in groups]
    return (
        f"{differing} of {len(groups)} comparisons of {_span([each['count'] for each in groups])} {many} find exponents that "
        f"differ by more than their intervals allow (p below 0.05); weighted means lie between {number(min(means))} and "
        f"{number(max(means))}"
    )


def _seeds(study):
    counts = [count for sizes in study["data"]["cells"].values() for count in sizes.values()]
    return _span(counts)


def _of(study, measure):
    return sorted(
        (law for law in study["laws"] if law["measure"] == measure),
        key=lambda law: (law["figure"] != ALL, law["figure"]),
    )


def _single(study, about):
    """Whether it is about one question, where there are questions."""
    return about["figure"] != ALL or _kind(study) == "figure"


def _kind(study):
    return "question" if any(law["figure"] != ALL for law in study["laws"]) else "figure"


def _falls(law):
    return not any(doubt.startswith(FALLS) for doubt in law["law"]["doubts"])


def _median_miss(left_out):
    misses = sorted(abs(left["miss"]) for left in left_out)
    return percent(misses[len(misses) // 2] if misses else None)


def _span(counts):
    return f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"


def _exponent(fit):
    return interval(fit and fit["b"])


def _doubling(fit):
    return interval(fit and fit["per_doubling"])


def _miss(fit):
    left = fit and fit["leave_out"]
    return "-" if not left else f"{percent(left['miss'])}, {'inside' if left['inside'] else 'outside'}"
