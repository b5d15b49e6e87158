"""A label budget in words: the answer in sentences, and the page README.md."""

import math
from typing import Any

from hf_galaxy.reports.measures import ALL, MEASURES
from hf_galaxy.reports.text import interval, number, table
from hf_galaxy.scaling.label_budget import REACH, LabelBudget, case_of


def page_of(budget: LabelBudget, picture: str, alt: str, command: str) -> str:
    """README.md of a budget: the answer in sentences and tables, and the check on what was held back.

    Args:
        picture: file name of the figure.
        alt: the figure in words.
        command: the command that made the page.
    """
    held = budget.held_back
    ahead = [[f"{row['galaxies']:,}", interval(row)] for row in budget.ahead]
    parts = [
        f"# How many galaxies to label: {budget.dataset}",
        f"{budget.backbone} from {budget.start}; {MEASURES[budget.measure]}, fitted to {len(budget.points)} numbers of "
        f"galaxies from {budget.points[0]['galaxies']:,} to {budget.now:,}. Brackets hold intervals of 90 %.",
        *sentences_of(budget),
        table(["galaxies", f"{budget.measure}, predicted"], ahead),
    ]
    if held:
        inside = sum(row["inside"] for row in held)
        rows = [
            [f"{row['galaxies']:,}", _predicted(row), number(row["measured"]), ", ".join(map(number, row["runs"])),
             "inside" if row["inside"] else "outside"] for row in held
        ]  # fmt: skip
        parts += [
            "## Held-out runs",
            f"Larger numbers of galaxies that were not fitted: {len(held)}. The measured mean is inside the predicted interval "
            f"for {inside}, and outside for {len(held) - inside}.",
            table(["galaxies", "predicted", "measured, mean", "runs", "measured is"], rows),
        ]
    parts += [f"![{alt}]({picture})", f"Made with `{command}`; `budget.json` holds all numbers."]
    return "\n\n".join(parts) + "\n"


def _predicted(held: dict[str, Any]) -> str:
    return interval(held | {"value": held["predicted"]})


def sentences_of(budget: LabelBudget) -> list[str]:
    """The answer: the loss now, the galaxies that the target needs, doubts, and the check on what was held back."""
    of = "" if budget.figure == ALL else f" of {budget.figure}"
    sentences = [
        f"With {budget.now:,} training galaxies, the measured {MEASURES[budget.measure]}{of} is "
        f"{number(budget.points[-1]['value'])}; the law fitted to all runs gives {interval(budget.ahead[0])}."
    ]
    if budget.target is not None and budget.galaxies_for is not None:
        sentences.append(_answer(budget.now, budget.target, budget.galaxies_for))
    sentences += [f"The pilot does not determine {doubt}." for doubt in budget.doubts]
    for held in budget.held_back:
        sentences.append(
            f"Held back: with {held['galaxies']:,} galaxies the law predicts {_predicted(held)}; measured was "
            f"{number(held['measured'])}, {'inside' if held['inside'] else 'OUTSIDE'} the interval."
        )
    return sentences


def _answer(now: int, loss: float, galaxies_for: dict[str, Any]) -> str:
    """The number of galaxies that the target needs, in words; no number without its interval."""
    target = f"The target of {number(loss)}"
    value, low, high = (galaxies_for[name] for name in ("value", "low", "high"))
    never = f"the loss never falls to it, or only with more than {REACH} times as many galaxies"
    case = case_of(now, galaxies_for)
    if case == "out of reach":
        return f"{target} is out of reach: {never}."
    if case == "reached":
        return f"{target} is already reached."
    if case == "may be reached":
        most = high and f"it needs up to {two_digits(high)} galaxies, {two_digits(high - now)} more than now"
        return f"{target} may already be reached, but the data do not exclude that {most or never}."
    if case == "needs at least":
        least = f"{target} needs at least {two_digits(low)} galaxies, {two_digits(low - now)} more than now"
        return f"{least}; the data do not exclude that {never}."
    return (
        f"{target} needs about {two_digits(value)} galaxies [{two_digits(low)}, {two_digits(high)}]: "
        f"{two_digits(value - now)} more than now [{two_digits(low - now)}, {two_digits(high - now)}]."
    )


def two_digits(galaxies: float) -> str:
    """A number of galaxies, rounded to two digits: a prediction has no more."""
    return f"{round(galaxies, 1 - int(math.log10(max(galaxies, 1)))):,}"
