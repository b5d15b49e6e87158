"""scaling.json -> the page of a study: what was measured, and what the data show and do not show. No number is typed here.

The page is the README.md of a folder that `datasets.load_dataset` reads: its table holds the points (`points.points_of`).
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_galaxy.reports.measures import ALL, MEASURES, NAMES
from hf_galaxy.reports.text import interval, number, percent, render, table
from hf_galaxy.scaling.claims import Law, Study, by_chance, claims, span
from hf_galaxy.scaling.convergence import in_words, is_converged
from hf_galaxy.scaling.study import doubt_of_baseline

MADE = "<!-- Made by hf-galaxy fit, which replaces it: write elsewhere. -->"


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
        seeds=span(count for sizes in study["data"]["cells"].values() for count in sizes.values()),
        tables={measure: law_table(study, measure) for measure in measures},
        doubts={measure: _doubts(study, measure) for measure in measures},
        steps={measure: step_table(study, measure) for measure in measures},
        comparisons={measure: _comparisons(study, measure) for measure in measures},
        joints={(joint["start"], joint["measure"]): joint for joint in study["joint"] if joint["figure"] == ALL and is_converged(study)},
        claims=claims(study), names={m: NAMES.get(m, m) for m in measures}, convergence=in_words(study), converged=is_converged(study), families={about["family"] for about in study["data"]["backbones"].values()},
    )  # fmt: skip


def law_table(study: Study, measure: str) -> str:
    """Markdown: for each figure and backbone the law, and its prediction for the largest number of galaxies."""
    starts = len(study["data"]["starts"]) > 1
    columns = ["figure", "backbone", *(["start"] if starts else []), "with the most galaxies", "constant"]
    exponents = is_converged(study)
    columns += ["b", "left by a doubling", "c", "plain law's b"] if exponents else []
    columns += ["scatter", "lack of fit, p", "plain law's p", "held out, miss", "plain law's miss", "miss of no change"]
    rows = []
    for law in _laws_of(study, measure):
        fit, plain = law["law"], law["plain"]
        cells = [law["figure"], law["backbone"], *([law["start"]] if starts else [])]
        cells += [interval(law["points"][-1]), number(law["baseline"])]
        if exponents:
            cells += [interval(fit and fit[name]) for name in ("b", "per_doubling", "c")]
            cells.append(interval(plain and plain["b"]))
        cells += [percent(fit["scatter"]) if fit else "-"]
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
        f"changed, {by_chance(known)} of each would be expected by chance."
    )


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


def _p_of(fit: Mapping[str, Any] | None) -> str:
    return "-" if fit is None or fit["lack_of_fit"] is None else f"{fit['lack_of_fit']:.2g}"


def _miss(fit: Mapping[str, Any] | None) -> str:
    held_out = fit and fit["leave_out"]
    return f"{percent(held_out['miss'])}, {'inside' if held_out['inside'] else 'outside'}" if held_out else "-"
