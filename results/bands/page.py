"""What fluxes in bands bring against 8-bit pictures of the same galaxies: a page, and a figure with its numbers.

    python results/bands/page.py

Writes README.md (with the words of page.md.jinja), reductions.png and reductions.csv from records.parquet.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hf_galaxy.evaluation.bootstrap import estimate_of, mean_and_draws
from hf_galaxy.files import whole_file
from hf_galaxy.reports.charts import COLORS, chart, csv_text, forest_axes, handle, margin_text, png, style
from hf_galaxy.reports.records_file import FILE, read_records
from hf_galaxy.reports.text import interval, number, percent, render, table

HERE = Path(__file__).parent
EPOCHS = 16
Row = dict[str, Any]
# Name of the pictures -> what they are.
WAYS = {
    "asinh": "8-bit g r i, asinh between percentiles of each file (default)",
    "lupton": "8-bit g r i, lupton between percentiles of each file",
    "fixed": "8-bit g r i, one stretch for all galaxies",
    "r": "floats r",
    "gri": "floats g r i",
    "griz": "floats g r i z",
}
MEASURES = {
    "redshift": "redshift (RMSE)",
    "bulge_fraction": "bulge fraction (RMSE)",
    "kind": "kind (share in a wrong class)",
}
# Pictures before and after -> what differs.
STEPS = {
    ("asinh", "griz"): "all: floats g r i z instead of default pictures",
    ("asinh", "lupton"): "8 bits: lupton instead of asinh",
    ("asinh", "fixed"): "8 bits: one stretch instead of one for each file",
    ("fixed", "gri"): "floats instead of 8 bits, one stretch both",
    ("gri", "griz"): "floats: a fourth band",
    ("r", "gri"): "floats: three bands instead of one",
}


@dataclass(frozen=True)
class Point:
    """The loss of one run on its test galaxies, and in the (R,) replicates of a bootstrap over them."""

    loss: float
    replicates: np.ndarray


def way_of(record: Row) -> str:
    """The pictures that a run was trained with."""
    bands = record["settings"]["bands"]
    return "".join(bands) if bands else Path(record["settings"]["dataset"][0]).stem


def points_of(records: dict[str, Row]) -> dict[tuple[str, str], dict[int, Point]]:
    """(measure, way) -> seed -> its run."""
    points: dict[tuple[str, str], dict[int, Point]] = {}
    for record in records.values():
        way, seed, test = way_of(record), record["settings"]["seed"], record["results"]["test"]
        replicates = test["bootstrap"]
        if "values" in test:
            for name, value in test["values"].items():
                of_replicates = np.array(replicates["values"][name]["rmse"]["model"], float)
                points.setdefault((name, way), {})[seed] = Point(value["rmse"]["model"], of_replicates)
        else:
            of_replicates = 1 - np.array(replicates["accuracy"]["model"], float)
            points.setdefault(("kind", way), {})[seed] = Point(1 - test["accuracy"]["model"], of_replicates)
    return points


def epochs_of(records: dict[str, Row], epochs: float) -> dict[str, Row]:
    """The runs of this length."""
    return {name: record for name, record in records.items() if record["settings"]["epochs"] == epochs}


def twice_as_long(records: dict[str, Row]) -> str:
    """What all of it brings in runs of twice the length."""
    points = points_of(epochs_of(records, 2 * EPOCHS))
    parts = []
    for measure in ("redshift", "bulge_fraction"):
        (old, new), draws, _ = mean_and_draws([points[measure, "asinh"], points[measure, "griz"]], "long", measure)
        reduction = estimate_of(1 - new / old, 1 - draws[1] / draws[0])
        parts.append(f"{MEASURES[measure]} {number(old)} and {number(new)}, {bold(reduction)}")
    return "; ".join(parts)


def results_of(points: dict[tuple[str, str], dict[int, Point]]) -> tuple[dict, dict]:
    """Losses by (measure, way), and reductions of the loss by (measure, before, after), with intervals over seeds and galaxies."""
    losses, reductions = {}, {}
    for (measure, way), part in points.items():
        (value,), (draws,), _ = mean_and_draws([part], "loss", measure, way)
        losses[measure, way] = estimate_of(value, draws)
    for measure in MEASURES:
        for before, after in STEPS:
            parts = [points[measure, way] for way in (before, after)]
            (old, new), draws, _ = mean_and_draws(parts, "reduction", measure, before, after)
            reductions[measure, before, after] = estimate_of(1 - new / old, 1 - draws[1] / draws[0])
    return losses, reductions


def recalls_of(records: dict[str, Row]) -> dict[str, Row]:
    """Way -> class -> share of its test galaxies of all seeds that are classified right."""
    counted: dict[str, np.ndarray] = {}
    names: list[str] = []
    for record in records.values():
        if "confusion" in (test := record["results"]["test"]):
            names = record["dataset"]["classes"]
            counted[way_of(record)] = counted.get(way_of(record), 0) + np.array(test["confusion"])
    return {way: dict(zip(names, np.diag(c) / c.sum(axis=1), strict=True)) for way, c in counted.items()}


def bold(estimate: Row) -> str:
    """A reduction; in bold if the whole interval is on one side of 0."""
    text = interval(estimate, percent)
    return f"**{text}**" if estimate["low"] is not None and estimate["low"] * estimate["high"] > 0 else text


def figure_of(reductions: dict) -> tuple[bytes, str]:
    """reductions.png and reductions.csv."""
    rows = []
    with style():
        figure, panels = chart(1, height=3.6)
        axes = panels[0]
        forest_axes(axes, len(STEPS), "relative reduction of the error, %")
        axes.axvline(0, color="black", lw=0.8)
        for line, ((before, after), title) in enumerate(STEPS.items()):
            margin_text(axes, line, title, left=True)
            for k, measure in enumerate(MEASURES):
                each, y = reductions[measure, before, after], line + 0.22 * (k - 1)
                rows.append({"measure": measure, "before": before, "after": after, **each})
                axes.hlines(y, 100 * each["low"], 100 * each["high"], color=COLORS[k], lw=1.4, zorder=3)
                axes.plot(100 * each["value"], y, "os^"[k], color=COLORS[k], ms=5, zorder=4)
        handles = [handle(f"{title}, 90 %", COLORS[k], marker="os^"[k]) for k, title in enumerate(MEASURES.values())]
        return png(figure, "What floats bring, step by step", handles), csv_text(rows)


def page_of(records: dict[str, Row]) -> str:
    """README.md"""
    records, long = epochs_of(records, EPOCHS), twice_as_long(records)
    losses, reductions = results_of(points_of(records))
    recalls = recalls_of(records)
    words = " ".join(
        f"{title}: {', '.join(f'{m} {interval(reductions[m, *step], percent)}' for m in MEASURES)}."
        for step, title in STEPS.items()
    )
    all_of_it = [f"{bold(reductions[m, 'asinh', 'griz'])} of the error in {MEASURES[m]}" for m in MEASURES]
    kinds = list(next(iter(recalls.values())))
    return render(
        HERE / "page.md.jinja",
        long=long,
        summary=f"{', '.join(all_of_it[:-1])} and {all_of_it[-1]}",
        figure=f"![Relative reductions of the error. {words}](reductions.png)",
        reductions=table(
            ["step", *MEASURES.values()],
            [[title, *(bold(reductions[m, *step]) for m in MEASURES)] for step, title in STEPS.items()],
        ),
        losses=table(
            ["pictures", *MEASURES.values()],
            [[title, *(interval(losses[m, way]) for m in MEASURES)] for way, title in WAYS.items()],
        ),
        recalls=table(
            ["pictures", *kinds],
            [[title, *(percent(recalls[way][kind]) for kind in kinds)] for way, title in WAYS.items()],
        ),
    )


def main() -> None:
    records = read_records(HERE / FILE)
    picture, numbers = figure_of(results_of(points_of(epochs_of(records, EPOCHS)))[1])
    for name, content in (
        ("reductions.png", picture),
        ("reductions.csv", numbers.encode()),
        ("README.md", page_of(records).encode()),
    ):
        with whole_file(HERE / name) as partial:
            partial.write_bytes(content)


if __name__ == "__main__":
    main()
