"""How many more galaxies to label: from a pilot on a few subsets of those that are labelled, the error with more of them.

    python scripts/sweep.py --out runs/pilot --vary subset=1/8,1/4,1/2,1 --vary seed=1,2,3 \
        -- scripts/finetune.py --start runs/survey --dataset data/rings --task classes --label ring
    python scripts/label_budget.py --runs runs/pilot --target 0.1

All numbers are of galaxies to learn from; those that validate and test come on top.
"""

import hashlib
import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table

from hf_galaxy.command_line import run
from hf_galaxy.files import check_new, new_folder, whole_file, write_json
from hf_galaxy.scaling.label_budget import budget_of, page_of, series_of
from hf_galaxy.scaling.points import ALL, MEASURES, points_of, records_in


@dataclass(frozen=True, kw_only=True)
class LabelBudget:
    """Predict the error with more labelled galaxies from a pilot, with intervals, and how many a target needs."""

    runs: Path
    """Folder of the pilot's sweep; at least 3 subsets, better 4 and more, and 2 or 3 seeds."""
    target: float | None = None
    """The loss to be reached, of the same measure."""
    measure: Literal["error", "nll", "excess", "rmse", "mse", "unexplained"] | None = None
    """Of classes: error, the share of galaxies put into a wrong class, or nll, the cross-entropy. Of votes: excess, the likelihood loss above the least that is possible, or rmse of fractions. Of values: mse of all together, or of each the share of its variance that is unexplained. By default error, where there is one."""
    question: str = ALL
    """Of votes or values: the question or value, or all together."""
    dataset: str | None = None
    """Where the runs have several, one of them."""
    start: str | None = None
    """Likewise: what the runs started from."""
    backbone: str | None = None
    """Likewise."""
    hold_back: int = 0
    """Do not fit so many of the largest subsets; predict them, and compare with what was measured."""
    out: Path | None = None
    """New folder for a page, budget.json, the figure and its table."""


def table(budget: dict) -> Table:
    """The prediction with as many galaxies as now, and with more."""
    rows = Table("galaxies", budget["measure"], "90 % interval", box=box.SIMPLE)
    for row in budget["ahead"]:
        times = round(row["galaxies"] / budget["now"])
        name = f"{row['galaxies']:,} ({'now' if times == 1 else f'{times} x'})"
        rows.add_row(name, f"{row['value']:.3g}", f"{row['low']:.3g} to {row['high']:.3g}")
    return rows


def main(settings: LabelBudget) -> None:
    if settings.out:
        check_new(settings.out)
    points = points_of(records_in(settings.runs))
    series = series_of(
        points, dataset=settings.dataset, start=settings.start, backbone=settings.backbone,
        question=settings.question, measure=settings.measure,
    )  # fmt: skip
    budget = budget_of(series, settings.target, settings.hold_back)

    print(f"{budget['backbone']} from {budget['start']} on {budget['dataset']}: {MEASURES[budget['measure']]}")
    Console().print(table(budget))
    print("\n".join(budget["sentences"]))
    if settings.out:
        from hf_galaxy.scaling.label_budget_figure import label_budget_figure

        figure = label_budget_figure(budget)
        command = f"python {shlex.join(sys.argv)}"
        fingerprint = hashlib.sha256(json.dumps(budget).encode()).hexdigest()
        with new_folder(settings.out, fingerprint) as folder:
            write_json(folder / "budget.json", budget)
            with whole_file(folder / f"{figure.name}.png") as file:
                file.write_bytes(figure.png)
            with whole_file(folder / f"{figure.name}.csv") as file:
                file.write_text(figure.csv)
            with whole_file(folder / "README.md") as file:
                file.write_text(page_of(budget, f"{figure.name}.png", figure.alt, command))
        print(f"written to {settings.out}")


def command() -> None:
    """Read the options from the command line, and run."""
    run(LabelBudget, main)
