"""The key findings of a downstream benchmark in sentences: one function for each claim of the paper that results can speak to."""

from typing import Any

from hf_galaxy.downstream.label_efficiency import FEWER
from hf_galaxy.downstream.results import FULL, LINEAR, with_most_labels
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
        *best,
        paper_value() if any(best) else None,
        *(comparisons(results, about, mode) for mode in modes),
        *(losing_starts(results, about, mode) for mode in modes),
        linear_probes(results, about),
        *(labels_needed(results, about, mode) for mode in modes),
    ]
    return [claim for claim in claims if claim]


def best_start(results: dict[str, Any], about: dict[str, Any], mode: str) -> str | None:
    """The galaxy start with the largest average reduction at all labels, among those measured on the most tasks."""
    rows = [row for row in _averages(results, about, mode) if about["starts"][row["start"]]["galaxies"]]
    most = max((len(row["tasks"]) for row in rows), default=0)
    rows = [row for row in rows if len(row["tasks"]) == most > 1]
    if not rows:
        return None
    best = max(rows, key=lambda row: row["value"])
    verb, comma = ("cuts", "") if best["value"] > 0 else ("does NOT cut", ",")
    return (
        f"**With all labels and {MODE_NAMES[mode]}, the best galaxy start, {about['starts'][best['start']]['title']}, {verb} the error of "
        f"{_reference(about)}{comma} by {interval(best, percent)} on average over {task_count(best)}** ({EVIDENCE[best['error']]}). "
        "The best start was chosen by these same losses, which favours it a little."
    )


def paper_value() -> str:
    """The reduction in the paper, for comparison."""
    return (
        f"The paper reports {PAPER} on average over its five tasks (Is-LSB, Which-LSB, JWST, GZ Rings, Galaxy10 DECaLS), "
        "with far more galaxies and larger backbones."
    )


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
    return [row for row in results["averages"] if row["mode"] == mode and row["share"] == max(about["shares"])]


def _reference(about: dict[str, Any]) -> str:
    return about["starts"][about["reference"]]["title"]


def _is_below(galaxies: int | str, most: int) -> bool:
    return galaxies == FEWER if isinstance(galaxies, str) else galaxies < most
