"""scaling.json -> the page of a study: what was measured, what it shows, and what it does not. No number is typed here.

The page is the README.md of a folder that `datasets.load_dataset` reads: its table is what was measured (`study.points_of`).
"""

from collections import Counter

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hf_galaxy.cards import TEMPLATES, interval, number, percent, table
from hf_galaxy.scaling import FALLS
from hf_galaxy.study import ALL, MEASURES


def study_page(study: dict, title: str, figures: dict[str, str], command: str) -> str:
    """README.md of a study.

    Args:
        study: what `study.study_of` returned.
        figures: file name -> what it shows, in the order of the page.
        command: with which the page was made.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": number, "interval": interval, "percent": percent}
    measures = list(dict.fromkeys(law["measure"] for law in study["laws"]))
    return environment.get_template("study.md.jinja").render(
        study=study, title=title, figures=figures, command=command, measures={m: MEASURES[m] for m in measures},
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
    """Markdown: what the last doubling of galaxies brought, and what a larger model of the same family did."""
    rows = []
    for law in _of(study, measure):
        step = law["last_step"]
        if step is not None:
            kind = f"{step['from']:,} to {step['to']:,} galaxies"
            rows.append([law["figure"], law["backbone"], kind, interval(step), percent(step["relative"]), step["loss"]])
    for step in (each for each in study["parameters"] if each["measure"] == measure):
        kind = f"{step['from'] / 1e6:.2g} to {step['to'] / 1e6:.2g} million parameters"
        models = f"{step['small']} to {step['large']}"
        rows.append([step["figure"], models, kind, interval(step), percent(step["relative"]), step["loss"]])
    return table(["figure", "backbone", "from, to", "change of the loss", "relative", "loss is"], rows)


def claims(study: dict) -> list[dict]:
    """What the study says on each claim of the paper that it can say something on: `claim`, `found`, both in words."""
    found = []
    fitted = [law for law in study["laws"] if law["law"] and not (law["figure"] == ALL and _has_questions(study, law))]
    falls = sum(map(_falls, fitted))
    judged = [law["law"]["leave_out"] for law in fitted if law["law"]["leave_out"]]
    plain = [law["plain"]["leave_out"] for law in fitted if law["plain"]["leave_out"]]
    series = f"{len(fitted)} pairs of a backbone and a figure"
    found.append(
        {
            "claim": "More labelled galaxies lower the error, by a power law, for every architecture and every question.",
            "found": f"Of {series}, the loss falls with more galaxies beyond doubt (90 %) in {falls}. "
            f"Fitted without the largest number of galaxies, the law with a floor foretold the loss there inside its interval "
            f"in {sum(left['inside'] for left in judged)} of {len(judged)} (median miss {_median_miss(judged)}), the plain "
            f"power law in {sum(left['inside'] for left in plain)} of {len(plain)} (median miss {_median_miss(plain)}).",
        }
    )
    for across, many in (("backbone", "architectures"), ("figure", "questions")):
        groups = {
            words: [each for each in study["exponents"] if (each["across"], each["fit"]) == (across, fit)]
            for fit, words in (("plain", "plain power laws"), ("law", "laws with a floor"))
        }
        told = [f"For {words}, {_comparison(of, many)}." for words, of in groups.items() if of]
        if told:
            found.append({"claim": f"The exponent is nearly the same for all {many}.", "found": " ".join(told)})
    larger = [step for step in study["parameters"] if not (step["figure"] == ALL and _has_questions(study, step))]
    if larger:
        counts = Counter(step["loss"] for step in larger)
        found.append(
            {
                "claim": "More parameters help only some questions, those that volunteers disagree on more.",
                "found": f"With the most galaxies, of {len(larger)} pairs of a figure and a next larger model of the same family, "
                f"the loss is certainly less in {counts['less']}, certainly more in {counts['more']}, and neither could be "
                f"shown in {counts['not shown'] + counts['not known']}.",
            }
        )
    return found


def _comparison(groups, many):
    differing = sum(each["p"] < 0.05 for each in groups)
    means = [each["mean"] for each in groups]
    return (
        f"{differing} of {len(groups)} comparisons of {_span([each['count'] for each in groups])} {many} find exponents that "
        f"differ by more than their intervals allow (p < 0.05); weighted means lie between {number(min(means))} and "
        f"{number(max(means))}"
    )


def _of(study, measure):
    return sorted(
        (law for law in study["laws"] if law["measure"] == measure),
        key=lambda law: (law["figure"] != ALL, law["figure"]),
    )


def _has_questions(study, about):
    return any(law["figure"] != ALL for law in study["laws"] if law["dataset"] == about["dataset"])


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
