"""The key findings of a downstream benchmark in sentences: one function for each claim of the paper that results can speak to."""

from typing import Any

from hf_galaxy.downstream.families import FAMILIES, HEADLINE
from hf_galaxy.downstream.label_efficiency import FEWER
from hf_galaxy.downstream.results import FULL, LINEAR, headline_averages, with_most_labels
from hf_galaxy.reports.text import interval, percent

PAPER = "31 %"  # huggingface.co/papers/2404.02973, abstract: the mean of five other tasks
MODE_NAMES = {LINEAR: "a linear probe", FULL: "full finetuning"}
EVIDENCE = {
    "less": "less error at 90 %",
    "more": "more error at 90 %",
    "not shown": "which may be none: the interval contains 0",
    "not known": "no interval: one seed, or too few galaxies",
}


def key_findings(results: dict[str, Any], about: dict[str, Any]) -> list[str]:
    """The findings, a sentence or two each.

    Args:
        results: from `results.results_of`.
        about: from `results.read_about`.
    """
    modes = about["modes"]
    best = [best_start(results, about, mode) for mode in modes]
    claims = [
        scope(results, about),
        *best,
        *(other_measures(results, about, mode) for mode in modes),
        paper_value() if any(best) else None,
        *(no_better_than_constant(results, about, mode) for mode in modes),
        *(comparisons(results, about, mode) for mode in modes),
        *(losing_starts(results, about, mode) for mode in modes),
        linear_probes(results, about),
        *(labels_needed(results, about, mode) for mode in modes),
    ]
    return [claim for claim in claims if claim]


def scope(results: dict[str, Any], about: dict[str, Any]) -> str | None:
    """Whether the intervals contain the variance of pretraining."""
    numbers = {
        about["starts"][name]["title"]: number
        for name, number in results["data"]["pretrainings"].items()
        if about["starts"][name]["weights"] is not None
    }
    once = [title for title, number in numbers.items() if number == 1]
    several = [f"{title} ({number})" for title, number in numbers.items() if number > 1]
    if not numbers:
        return None
    if not several:
        return (
            "**Each start is one set of weights, from one pretraining. The intervals are of these weights: they do not say how another "
            "pretraining by the same recipe would do.**"
        )
    text = f"**The intervals contain the variance of pretraining for the starts with several pretrainings: {', '.join(several)}.**"
    return f"{text} Those of one set of weights hold for these weights alone: {', '.join(once)}." if once else text


def _best(results: dict[str, Any], about: dict[str, Any], mode: str) -> dict[str, Any] | None:
    """The average of the galaxy start with the largest at all labels, among those measured on the most tasks."""
    rows = [row for row in _averages(results, about, mode) if about["starts"][row["start"]]["galaxies"]]
    most = max((len(row["tasks"]) for row in rows), default=0)
    return max((row for row in rows if len(row["tasks"]) == most > 1), key=lambda row: row["value"], default=None)


def best_start(results: dict[str, Any], about: dict[str, Any], mode: str) -> str | None:
    """The best galaxy start."""
    best = _best(results, about, mode)
    if best is None:
        return None
    verb, comma = ("cuts", "") if best["value"] > 0 else ("does NOT cut", ",")
    return (
        f"**With all labels and {MODE_NAMES[mode]}, the best galaxy start, {about['starts'][best['start']]['title']}, {verb} the error of "
        f"{_reference(about)}{comma} by {interval(best, percent)} on average over {task_count(best)}** ({EVIDENCE[best['error']]}). "
        "The best start was chosen by these same losses, which favours it a little."
    )


def other_measures(results: dict[str, Any], about: dict[str, Any], mode: str) -> str | None:
    """How the reduction of the best start depends on the measure."""
    best = _best(results, about, mode)
    if best is None:
        return None
    own = {"start": best["start"], "mode": mode, "share": best["share"]}
    others = [
        f"{FAMILIES[row['family']][0]} {interval(row, percent)}"
        for row in results["averages"]
        if own.items() <= row.items() and row["family"] != HEADLINE and row["measures"] != best["measures"]
    ]
    if not others:
        return None
    return f"The number depends on the measure. By others, {about['starts'][best['start']]['title']} with {MODE_NAMES[mode]}: {'; '.join(others)}."


def paper_value() -> str:
    """The reduction in the paper, for comparison."""
    return (
        f"The paper reports {PAPER} on average over its five tasks (Is-LSB, Which-LSB, JWST, GZ Rings, Galaxy10 DECaLS), "
        "with far more galaxies and larger backbones. The two numbers are of other tasks and measures, and cannot be compared closely."
    )


def no_better_than_constant(results: dict[str, Any], about: dict[str, Any], mode: str) -> str | None:
    """The starts whose losses with all labels are not shown to be less than that of the best constant prediction."""
    shares = {"mode": mode, "share": max(about["shares"]), "main": True}
    rows = [row for row in results["means"] if shares.items() <= row.items()]
    words = {"more": "worse than", "not shown": "not shown to be better than"}
    told = []
    for verdict, comparison in words.items():
        own = [row for row in rows if row["constant"]["error"] == verdict]
        starts = {
            task: ", ".join(about["starts"][row["start"]]["title"] for row in own if row["task"] == task)
            for task in dict.fromkeys(row["task"] for row in own)
        }
        if own:
            told.append(
                f"{comparison} a constant prediction {'; '.join(f'on {task}: {each}' for task, each in starts.items())}"
            )
    return f"With all labels and {MODE_NAMES[mode]}, {'. And '.join(told)}." if told else None


def comparisons(results: dict[str, Any], about: dict[str, Any], mode: str) -> str | None:
    """How many comparisons with the reference go which way."""
    rows = [row for row in results["reductions"] if row["main"] and row["mode"] == mode and row["value"] is not None]
    rows = [row for row in rows if about["starts"][row["start"]]["galaxies"]]
    if not rows:
        return None
    counts = {error: sum(row["error"] == error for row in rows) for error in EVIDENCE}
    unknown = f", and {counts['not known']} have no interval" if counts["not known"] else ""
    return (
        f"Of the {len(rows)} comparisons of a galaxy start with {_reference(about)} by {MODE_NAMES[mode]} (tasks x starts x shares "
        f"of the labels), {counts['less']} have less error at 90 %, {counts['more']} more, {counts['not shown']} neither{unknown}."
    )


def losing_starts(results: dict[str, Any], about: dict[str, Any], mode: str) -> str | None:
    """Starts that are worse than the reference on average at all labels."""
    losing = [
        f"{about['starts'][row['start']]['title']} {interval(row, percent)} over {task_count(row)}"
        for row in _averages(results, about, mode)
        if row["error"] == "more"
    ]
    if not losing:
        return None
    return (
        f"With all labels and {MODE_NAMES[mode]}, more error than {_reference(about)} on average, at 90 %: "
        f"{'; '.join(losing)}."
    )


def linear_probes(results: dict[str, Any], about: dict[str, Any]) -> str | None:
    """The error of linear probes over that of full finetuning."""
    rows = with_most_labels(results["linear_averages"])
    if not rows:
        return None
    ratios = [f"{about['starts'][row['start']]['title']} {interval(row)} ({task_count(row)})" for row in rows]
    return (
        "The error of a linear probe over that of full finetuning (1: equal; above 1: worse), with the most labels that both "
        f"were measured with, on average: {'; '.join(ratios)}."
    )


def labels_needed(results: dict[str, Any], about: dict[str, Any], mode: str) -> str | None:
    """In how many cases a start needs fewer labels than all for the reference's error."""
    rows = [row for row in results["labels"] if row["mode"] == mode and about["starts"][row["start"]]["galaxies"]]
    if not rows:
        return None
    fewer = sum(_is_below(row["galaxies"]["value"], row["most"]) for row in rows)
    certain = sum(
        row["galaxies"]["high"] is not None and _is_below(row["galaxies"]["high"], row["most"]) for row in rows
    )
    return (
        f"By {MODE_NAMES[mode]}, in {fewer} of {len(rows)} cases (tasks x galaxy starts) fewer labels than all are enough for the error "
        f"of {_reference(about)} with all of them; in {certain} the whole interval of 90 % is below."
    )


def task_count(row: dict[str, Any]) -> str:
    """Such as "3 tasks", of an average."""
    return "1 task" if len(row["tasks"]) == 1 else f"{len(row['tasks'])} tasks"


def _averages(results: dict[str, Any], about: dict[str, Any], mode: str) -> list[dict[str, Any]]:
    """The average reductions of a mode with all labels."""
    rows = headline_averages(results)
    return [row for row in rows if row["mode"] == mode and row["share"] == max(about["shares"])]


def _reference(about: dict[str, Any]) -> str:
    return about["starts"][about["reference"]]["title"]


def _is_below(galaxies: int | str, most: int) -> bool:
    return galaxies == FEWER if isinstance(galaxies, str) else galaxies < most
