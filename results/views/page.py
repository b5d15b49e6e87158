"""Whether more random views help: a page of the differences that each of them makes, on drawn galaxies.

    python results/views/page.py

Writes README.md (with the words of page.md.jinja) from records.parquet.
"""

from pathlib import Path
from typing import Any

import numpy as np

from hf_galaxy.evaluation.bootstrap import estimate_of, mean_and_draws
from hf_galaxy.files import whole_file
from hf_galaxy.reports.records_file import FILE, read_records
from hf_galaxy.reports.text import interval, percent, render, table

HERE = Path(__file__).parent
CHANGES = ("shear", "erase", "blur", "noise", "mixup", "cutmix")
MEASURES = {
    "redshift": "redshift (RMSE)",
    "bulge_fraction": "bulge fraction (RMSE)",
    "kind": "kind (share in a wrong class)",
}
Part = dict[int, Any]  # seed -> the loss of its run, and in the replicates of a bootstrap


class Point:
    """The loss of one run on its test galaxies, and in the (R,) replicates of a bootstrap over them."""

    def __init__(self, loss: float, replicates: list) -> None:
        self.loss, self.replicates = loss, np.array(replicates, float)


def points_of(records: dict[str, dict]) -> dict[tuple[str, str], Part]:
    """(measure, change) -> seed -> its run; without a change it is "none"."""
    points: dict[tuple[str, str], Part] = {}
    for record in records.values():
        settings, test = record["settings"], record["results"]["test"]
        change = next((name for name in CHANGES if settings[name]), "none")
        drawn, seed = test["bootstrap"], settings["seed"]
        if "values" in test:
            for name, value in test["values"].items():
                replicates = drawn["values"][name]["rmse"]["model"]
                points.setdefault((name, change), {})[seed] = Point(value["rmse"]["model"], replicates)
        else:
            wrong = 1 - np.array(drawn["accuracy"]["model"], float)
            points.setdefault(("kind", change), {})[seed] = Point(1 - test["accuracy"]["model"], wrong)
    return points


def reduction_of(points: dict[tuple[str, str], Part], measure: str, change: str) -> str:
    """How much of the error a change takes away, over seeds and galaxies; in bold if the interval is on one side of 0."""
    if (measure, change) not in points:
        return "-"
    parts = [points[measure, each] for each in ("none", change)]
    (old, new), draws, _ = mean_and_draws(parts, "reduction", measure, change)
    estimate = estimate_of(1 - new / old, 1 - draws[1] / draws[0])
    text = interval(estimate, percent)
    return f"**{text}**" if estimate["low"] is not None and estimate["low"] * estimate["high"] > 0 else text


def page_of(records: dict[str, dict]) -> str:
    """README.md"""
    points = points_of(records)
    losses = {}
    for measure in MEASURES:
        (value,), (draws,), _ = mean_and_draws([points[measure, "none"]], "loss", measure)
        losses[measure] = interval(estimate_of(value, draws))
    rows = [["none of them: the error", *losses.values()]]
    for change in CHANGES:
        value = next(r["settings"][change] for r in records.values() if r["settings"][change])
        rows.append([f"`--{change} {value:g}`", *(reduction_of(points, measure, change) for measure in MEASURES)])
    first = next(iter(records.values()))["settings"]
    galaxies = next(iter(records.values()))["dataset"]["splits"]["train"]
    return render(
        HERE / "page.md.jinja", table=table(["views", *MEASURES.values()], rows), runs=len(records), epochs=f"{first['epochs']:g}",
        size=first["image_size"], galaxies=f"{galaxies:,}", backbone=first["backbone"],
    )  # fmt: skip


def main() -> None:
    with whole_file(HERE / "README.md") as partial:
        partial.write_bytes(page_of(read_records(HERE / FILE)).encode())


if __name__ == "__main__":
    main()
