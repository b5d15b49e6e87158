"""How many more galaxies to label: from a pilot on a few subsets of the labelled galaxies, the error with more of them.

    hf-galaxy sweep --out runs/pilot --vary subset=1/8,1/4,1/2,1 --vary seed=1,2,3 \
        -- finetune --start runs/survey --dataset data/rings --label ring
    hf-galaxy budget --runs runs/pilot --target 0.1

All numbers are of training galaxies; the validation and test galaxies come on top.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hf_galaxy.command_line import Command, typed
from hf_galaxy.files import check_new, new_folder, write_json
from hf_galaxy.reports.measures import ALL, MEASURES
from hf_galaxy.reports.text import number

if TYPE_CHECKING:
    from rich.table import Table

    from hf_galaxy.scaling.label_budget import LabelBudget


@dataclass(frozen=True, kw_only=True)
class LabelBudgetSettings:
    """Predict the error with more labelled galaxies from a pilot, with intervals, and the number of galaxies that a target needs."""

    runs: Path
    """Folder of the pilot's sweep: at least 3 subsets, better 4 or more, and 2 or 3 seeds."""
    target: float | None = None
    """The loss to be reached, in the units of the measure."""
    measure: Literal["error", "nll", "above_oracle", "true_rmse", "excess", "rmse", "mse", "unexplained"] | None = None
    """Of classes: error, the share of galaxies in a wrong class, or nll, the cross-entropy. Of votes: above_oracle, the likelihood loss above that of the true vote fractions, or true_rmse, the error against these; of runs from before these were measured, excess, that above the least possible, or rmse. Of values: mse of all together, or for each value unexplained, the share of its variance that is not explained. By default error, where there is one."""
    question: str = ALL
    """A question (of votes) or a value, or all together."""
    dataset: str | None = None
    """Name of the dataset, if the runs have several."""
    start: str | None = None
    """Name of the start, if the runs have several."""
    backbone: str | None = None
    """Name of the backbone, if the runs have several."""
    hold_back: int = 0
    """As a check, predict this many of the largest subsets instead of fitting them, and compare with the measured losses."""
    out: Path | None = None
    """New folder for a page, budget.json, the figure and its table."""


def prediction_table(budget: LabelBudget) -> Table:
    """The predicted loss with the galaxies so far, and with more."""
    from rich import box
    from rich.table import Table

    rows = Table("galaxies", budget.measure, "90 % interval", box=box.SIMPLE)
    for row in budget.ahead:
        times = round(row["galaxies"] / budget.now)
        name = f"{row['galaxies']:,} ({'now' if times == 1 else f'{times} x'})"
        rows.add_row(name, number(row["value"]), f"{number(row['low'])} to {number(row['high'])}")
    return rows


def main(settings: LabelBudgetSettings) -> None:
    from rich.console import Console

    from hf_galaxy.scaling.label_budget import budget_of, series_of
    from hf_galaxy.scaling.label_budget_page import sentences_of
    from hf_galaxy.scaling.points import points_of, records_in

    if settings.out:
        check_new(settings.out)
    points = points_of(records_in(settings.runs))
    series = series_of(
        points, dataset=settings.dataset, start=settings.start, backbone=settings.backbone,
        question=settings.question, measure=settings.measure,
    )  # fmt: skip
    budget = budget_of(series, settings.target, settings.hold_back)

    print(f"{budget.backbone} from {budget.start} on {budget.dataset}: {MEASURES[budget.measure]}")
    Console().print(prediction_table(budget))
    print("\n".join(sentences_of(budget)))
    if settings.out:
        write_budget(budget, settings.out, typed())
        print(f"written to {settings.out}")


def write_budget(budget: LabelBudget, out: Path, command: str) -> None:
    """Write budget.json, the figure with its table, and the page, into a new folder."""
    from hf_galaxy.reports.page import write_page
    from hf_galaxy.scaling.label_budget_figure import label_budget_figure
    from hf_galaxy.scaling.label_budget_page import page_of, sentences_of

    figure = label_budget_figure(budget)
    numbers = budget.as_dict() | {"sentences": sentences_of(budget)}
    fingerprint = hashlib.sha256(json.dumps(numbers).encode()).hexdigest()
    with new_folder(out, fingerprint) as folder:
        write_json(folder / "budget.json", numbers)
        write_page(folder, page_of(budget, f"{figure.name}.png", figure.alt, command), [figure])


command = Command(LabelBudgetSettings, main)

if __name__ == "__main__":
    command()
