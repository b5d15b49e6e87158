"""What a study says on each claim of the paper that it can test: shown, contradicted or not decided, why, and what would decide it.

The rules, for each measure of the laws:

- "lower the error": shown if the loss falls in every law, at 90 %; contradicted if the last step of galaxies raises it in more of them than chance explains.
- "a power law": contradicted if a law with a floor is rejected (lack of fit, adjusted for the number of laws), contradicted without a floor if only plain
  ones are. That a law is not rejected does not show it.
- "the same exponent": contradicted if a common one is rejected, adjusted for all comparisons; shown if it is not and every interval, of the laws that
  are not rejected, lies within a factor `NEARLY` of the common exponent.
- "only some questions": shown if the loss is less with a larger model for some questions, and for others the whole interval is within `LITTLE` of no change.

Trainings that have not converged decide nothing on galaxies: their losses are those of a length of training, too.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hf_galaxy.evaluation.bootstrap import LEVEL
from hf_galaxy.reports.measures import ALL, NAMES
from hf_galaxy.reports.text import interval, number, percent
from hf_galaxy.scaling.convergence import is_converged
from hf_galaxy.scaling.laws import FALLS, SIGNIFICANT
from hf_galaxy.scaling.study import adjusted

TAIL = (1 - LEVEL) / 2  # probability that an interval lies wholly above, or below, a value that it should contain
NEARLY = 1.5
LITTLE = 0.02

Study = dict[str, Any]  # as `study.study_of` returns it
Law = dict[str, Any]
Verdict = Literal["shown", "contradicted", "contradicted without a floor", "not decided"]


@dataclass(frozen=True)
class Answer:
    """The answer of one measure to a claim.

    Attributes:
        why: in words, with the numbers.
        decide: what would decide it; None if it is decided.
    """

    verdict: Verdict
    why: str
    decide: str | None = None


@dataclass(frozen=True)
class Claim:
    """A claim, and the answer of each measure."""

    claim: str
    answers: dict[str, Answer]

    @property
    def verdict(self) -> str:
        """Of all measures: one word if they agree."""
        verdicts = {measure: answer.verdict for measure, answer in self.answers.items()}
        if len(set(verdicts.values())) == 1:
            return next(iter(verdicts.values()))
        return ", ".join(f"{verdict} by {NAMES.get(measure, measure)}" for measure, verdict in verdicts.items())

    @property
    def decide(self) -> str | None:
        """What would decide it, where a measure does not."""
        return next((answer.decide for answer in self.answers.values() if answer.decide), None)


def claims(study: Study) -> list[Claim]:
    """The claims that a study says something on; measures are counted separately, as they are of the same runs."""
    measures = list(dict.fromkeys(law["measure"] for law in study["laws"]))
    tests: dict[str, Callable[[Study, str], Answer | None]] = {
        "More labelled galaxies lower the error, for every architecture and every question": _on_galaxies,
        "More parameters help only some questions": _on_parameters,
    }
    if is_converged(study):
        tests |= {
            "The error falls by a power law": _on_form,
            "The exponent is nearly the same for all architectures": _on_architectures,
            "The exponent is nearly the same for all questions": _on_questions,
        }
    found = []
    for claim, test in tests.items():
        answers = {measure: answer for measure in measures if (answer := test(study, measure))}
        if answers:
            found.append(Claim(claim, answers))
    return found


def _decided(study: Study, verdict: Verdict, why: str, decide: str) -> Answer:
    """An answer, which trainings that have not converged cannot give."""
    if not is_converged(study):
        return Answer("not decided", why, "trainings until they converge (--until-converged)")
    return Answer(verdict, why, decide if verdict == "not decided" else None)


def _fitted(study: Study, measure: str) -> list[Law]:
    return [law for law in study["laws"] if law["law"] and law["measure"] == measure and _is_single(study, law)]


def _on_galaxies(study: Study, measure: str) -> Answer | None:
    laws = [law for law in study["laws"] if law["measure"] == measure and _is_single(study, law)]
    fitted = _fitted(study, measure)
    if not fitted:
        return None
    falls = sum(_falls(law) for law in fitted)
    words = f"of {len(fitted)} laws of a backbone on a {_kind(study)}, {falls} fall with more galaxies at 90 %, where chance alone would give {by_chance(fitted)}."
    if more := len(laws) - len(fitted):
        words += f" For {more} more, too few numbers of galaxies are better than a constant prediction."
    whole = [law for law in study["laws"] if law["figure"] == ALL and law["measure"] == measure and law["last_step"]]
    words = " ".join([words, *(_last_step(law) for law in whole)])
    rises = sum(law["last_step"]["loss"] == "more" for law in laws if law["last_step"])
    if rises > _most_by_chance(len(laws), TAIL):
        words += f" In {rises} it is more with the most galaxies than with the next smaller number."
        verdict: Verdict = "contradicted"
    else:
        verdict = "shown" if falls == len(laws) else "not decided"
    return _decided(study, verdict, words, "more numbers of galaxies, and more test galaxies for rare questions")


def _last_step(law: Law) -> str:
    step = law["last_step"]
    change = f", {interval(step['relative'], percent)}" if step["relative"] else ""
    return (
        f"{law['backbone']}, all: {interval(law['points'][-1])} with {step['to']:,} galaxies (a constant: {number(law['baseline'])}), after "
        f"{number(law['points'][-2]['value'])} with {step['from']:,}{change}."
    )


def _on_form(study: Study, measure: str) -> Answer | None:
    fitted = [law for law in _fitted(study, measure) if law["law"]["lack_of_fit"] is not None and law["plain"]]
    if not fitted:
        return None
    words, rejected = [], {}
    for fit, name in (("plain", "a power law"), ("law", "one with a floor")):
        ps = [law[fit]["lack_of_fit"] for law in fitted]
        rejected[fit] = [law["figure"] for law, p in zip(fitted, adjusted(ps), strict=True) if p < SIGNIFICANT]
        which = f": {', '.join(rejected[fit])}" if rejected[fit] and len(fitted) > 1 else ""
        words.append(
            f"{name} is rejected for {sum(p < SIGNIFICANT for p in ps)} of {len(ps)} ({len(rejected[fit])} if adjusted for their number{which})"
        )
    text = f"{', '.join(words)}: lack of fit, p below 0.05, by chance {by_chance(fitted, SIGNIFICANT)}. {_forecasts(fitted)}".strip()
    verdict: Verdict = "not decided"
    if rejected["plain"]:
        verdict = "contradicted without a floor"
    if rejected["law"]:
        verdict = "contradicted"
    return _decided(
        study, verdict, text, "a wider range of galaxies, and more seeds: that a law is not rejected does not show it"
    )


def _forecasts(fitted: Sequence[Law]) -> str:
    """How well laws predict the loss with the most galaxies, beside the forecast that it stays what it was."""
    counts, before = [], []
    for fit, words in (("law", "with a floor"), ("plain", "without")):
        held_out = [law[fit]["leave_out"] for law in fitted if law[fit] and law[fit]["leave_out"]]
        if held_out:
            inside = sum(each["inside"] for each in held_out)
            counts.append(f"{words} {inside} of {len(held_out)} (median miss {_median(held_out, 'miss')})")
            before = before or held_out
    if not counts:
        return ""
    return (
        f"Fitted without the largest number of galaxies, the interval of 90 % contains the loss measured there for laws {' and '.join(counts)}; the "
        f"forecast that the loss stays what it was misses by {_median(before, 'miss_of_before')}."
    )


def _on_architectures(study: Study, measure: str) -> Answer | None:
    return _on_exponents(study, measure, "backbone", "architectures")


def _on_questions(study: Study, measure: str) -> Answer | None:
    return _on_exponents(study, measure, "figure", "questions")


def _on_exponents(study: Study, measure: str, across: str, many: str) -> Answer | None:
    groups = [each for each in study["exponents"] if (each["across"], each["measure"]) == (across, measure)]
    if not groups:
        return None
    differing, single = (sum(each[p] < SIGNIFICANT for each in groups) for p in ("p_adjusted", "p"))
    shared = [each["b"] for each in groups]
    ends = number(min(b["value"] for b in shared)), number(max(b["value"] for b in shared))
    common = (
        f"common exponents lie between {ends[0]} and {ends[1]}"
        if len(groups) > 1
        else f"the common exponent is {interval(shared[0])}"
    )
    words = (
        f"a common exponent, with floors of their own, is rejected in {differing} of {len(groups)} comparison{'s' if len(groups) > 1 else ''} of "
        f"{span(each['count'] for each in groups)} {many} (likelihood ratio; p below 0.05, adjusted for the number of comparisons; without that in {single}, "
        f"by chance {by_chance(groups, SIGNIFICANT)}); {common}."
    )
    near = all(
        b["value"] / NEARLY < law["law"]["b"]["low"] and law["law"]["b"]["high"] < b["value"] * NEARLY
        for each, b in zip(groups, shared, strict=True)
        for law in _laws_in(study, each, across)
    )
    verdict: Verdict = "contradicted" if differing else "shown" if near else "not decided"
    return _decided(
        study, verdict, words, f"exponents known to a factor {NEARLY:g}: more numbers of galaxies, and more seeds"
    )


def _laws_in(study: Study, group: Law, across: str) -> list[Law]:
    """The laws that a comparison of exponents is of."""
    alike = [key for key in ("dataset", "start", "measure", "backbone", "figure") if key in group]
    laws = [
        law
        for law in study["laws"]
        if law["law"] and not _rejected(law["law"]) and all(law[key] == group[key] for key in alike)
    ]
    return [law for law in laws if not (across == "figure" and law["figure"] == ALL)]


def _on_parameters(study: Study, measure: str) -> Answer | None:
    steps = [step for step in study["parameters"] if step["measure"] == measure and _is_single(study, step)]
    if not steps:
        return None
    counts = Counter(step["loss"] for step in steps)
    names = [step["figure"] for step in steps if step["loss"] == "less"] if _kind(study) == "question" else []
    which = f" ({', '.join(dict.fromkeys(names))})" if names else ""
    little = sum(
        bool(step["relative"]) and -LITTLE < step["relative"]["low"] < step["relative"]["high"] < LITTLE
        for step in steps
    )
    words = (
        f"with the most galaxies, of {len(steps)} pairs of a {_kind(study)} and a next larger model of the same family, the loss is less in "
        f"{counts['less']}{which} and more in {counts['more']} at 90 %, where chance alone would give {by_chance(steps)} of each; in {little} any change is "
        f"below {100 * LITTLE:g} %."
    )
    verdict: Verdict = "shown" if counts["less"] > _most_by_chance(len(steps), TAIL) and little else "not decided"
    return _decided(
        study,
        verdict,
        words,
        "more seeds and more sizes of one family, so that no effect can be told from an unknown one",
    )


def _rejected(fit: Law) -> bool:
    return fit["lack_of_fit"] is not None and fit["lack_of_fit"] < SIGNIFICANT


def _falls(law: Law) -> bool:
    return not any(doubt.startswith(FALLS) for doubt in law["law"]["doubts"])


def _most_by_chance(tests: int, probability: float = SIGNIFICANT) -> int:
    """The largest number of rejections that chance explains: more would have a probability below 0.05, were all independent."""
    from scipy.stats import binom

    return int(binom.ppf(1 - SIGNIFICANT, tests, probability))


def by_chance(comparisons: Sequence[Law], probability: float = TAIL) -> str:
    """The expected number of significant ones among comparisons without any effect."""
    return f"about {probability * len(comparisons):.2g}"


def _is_single(study: Study, about: Law) -> bool:
    """Whether it is of one question, if the study has questions."""
    return about["figure"] != ALL or _kind(study) == "figure"


def _kind(study: Study) -> str:
    return "question" if any(law["figure"] != ALL for law in study["laws"]) else "figure"


def _median(held_out: Sequence[Law], miss: str) -> str:
    misses = sorted(abs(each[miss]) for each in held_out)
    return percent(misses[len(misses) // 2])


def span(counts: Iterable[int]) -> str:
    """One number, or the least and the most."""
    low, high = min(counts := list(counts)), max(counts)
    return f"{low}" if low == high else f"{low} to {high}"
