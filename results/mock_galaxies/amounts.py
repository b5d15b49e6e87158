"""How the loss falls with the number of mock galaxies to pretrain with: a power law for each task, and the labels that they save.

    python results/mock_galaxies/amounts.py

Writes amounts.md, and amounts.png with its table amounts.csv, from the records of the benchmark and from results.json, which
`python scripts/benchmark_downstream.py ... --page` writes.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from hf_galaxy.downstream.cell_files import ABOUT, CELLS, read_about, read_cells
from hf_galaxy.downstream.comparison import Comparison, average_draws
from hf_galaxy.downstream.label_efficiency import FEWER, MORE
from hf_galaxy.downstream.results import kinds_of, points_of
from hf_galaxy.evaluation.bootstrap import LOSS_FLOOR, estimate_of
from hf_galaxy.files import whole_file
from hf_galaxy.reports.charts import (
    COLORS,
    COLUMNS,
    GREY,
    MARKERS,
    chart,
    csv_text,
    draw_points,
    handle,
    label_axes,
    limits,
    log_axis,
    png,
    style,
)  # fmt: skip
from hf_galaxy.reports.text import interval, number, percent, table

HERE = Path(__file__).parent
DATASET, MODE, ALL_LABELS = "data/mock", "linear", 1.0
Row = dict[str, Any]


def galaxies_of(about: Row) -> dict[str, int]:
    """The starts that were pretrained with mock galaxies only: start -> number of galaxies, in rising order."""
    pretraining = {name: start["pretraining"] for name, start in about["starts"].items()}
    galaxies = {
        name: runs[0]["galaxies"] for name, runs in pretraining.items() if [r["dataset"] for r in runs] == [DATASET]
    }
    return dict(sorted(galaxies.items(), key=lambda item: item[1]))


def exponents_of(about: Row, share: float = ALL_LABELS) -> tuple[dict[str, Row], Row]:
    """The exponent a of loss = c x galaxies^-a for each task, by least squares on logarithms, and their mean, with intervals.

    All starts are trained and tested downstream on the same galaxies, so an interval is that of the differences between them; it
    does not contain the variance of another pretraining with as many galaxies.
    """
    kinds = kinds_of(points_of(read_cells(HERE / CELLS, about), about))
    galaxies = galaxies_of(about)
    logs = np.log([*galaxies.values()])
    weights = (logs - logs.mean()) / np.square(logs - logs.mean()).sum()

    def exponent(losses: np.ndarray) -> Any:
        return -weights @ np.log(np.maximum(losses, LOSS_FLOOR))

    exponents, comparisons = {}, {}
    for name, task in about["tasks"].items():
        parts = [kinds[task["measure"], name, start, MODE, share] for start in galaxies]
        comparisons[name] = Comparison.of(parts)
        draws = comparisons[name].draws("amounts", [*galaxies][-1], name, MODE, share)
        exponents[name] = estimate_of(exponent(comparisons[name].means), exponent(draws))
    datasets = {name: task["dataset"] for name, task in about["tasks"].items()}
    draws = average_draws(comparisons, datasets, exponent, "amounts", [*galaxies][-1], MODE, share)
    return exponents, estimate_of(np.mean([each["value"] for each in exponents.values()]), draws)


def exponent_of_pretrainings(about: Row, means: dict[tuple[str, str], Row]) -> Row:
    """The mean exponent with an interval by the scatter of the pretrainings about the line (Student's t with two fewer degrees of freedom than pretrainings)."""
    from scipy.stats import linregress, t

    galaxies = galaxies_of(about)
    losses = [np.mean([np.log(means[task, start]["value"]) for task in about["tasks"]]) for start in galaxies]
    line = linregress(np.log([*galaxies.values()]), losses)
    half = t(len(galaxies) - 2).ppf(0.95) * line.stderr
    return {"value": -line.slope, "low": -line.slope - half, "high": -line.slope + half}


def rows_of(results: Row, name: str) -> dict[tuple[str, str], Row]:
    """The rows of a part of results.json with all labels, by task and start."""
    return {
        (row["task"], row["start"]): row
        for row in results[name]
        if row.get("main", True) and row["mode"] == MODE and row.get("share", ALL_LABELS) == ALL_LABELS
    }


def price(galaxies: int, saved: Row) -> str:
    """The mock galaxies that save one label, from the number of labels that they save."""

    def form(labels: float | str) -> str:
        return (
            number(galaxies / labels)
            if not isinstance(labels, str)
            else {FEWER: "saves none", MORE: "not known"}[labels]
        )

    value, few, many = form(saved["value"]), form(saved["high"]), form(saved["low"])
    return f"{value}, as the whole interval" if value == few == many else f"{value} [{few}, {many}]"


def figure_of(about: Row, exponents: dict[str, Row], means: dict[tuple[str, str], Row]) -> tuple[bytes, str]:
    """amounts.png and amounts.csv: the loss with all labels against the number of galaxies to pretrain with."""
    galaxies, rows = galaxies_of(about), []
    sizes = np.array([*galaxies.values()])
    with style():
        figure, panels = chart(len(exponents), height=2.75 * -(-len(exponents) // COLUMNS))
        for axes, (task, exponent) in zip(panels, exponents.items(), strict=True):
            points = [means[task, start] for start in galaxies]
            reference, values = means[task, about["reference"]]["value"], [point["value"] for point in points]
            low, high = limits([*values, reference])
            ends = [point[end] for point in points for end in ("low", "high")]
            log_axis(axes.xaxis, *limits(sizes))
            log_axis(axes.yaxis, *limits([low, high, *np.clip(ends, low / 1.2, high * 1.2)], 0.03))
            # A line by least squares goes through the mean of the logarithms.
            logs = np.log(sizes)
            law = np.exp(np.log(values).mean() - exponent["value"] * (logs - logs.mean()))
            axes.plot(sizes, law, color=COLORS[0], lw=1.2, zorder=2)
            axes.axhline(reference, color=GREY, lw=0.9, ls="-.", zorder=1)
            for start, point in zip(galaxies, points, strict=True):
                draw_points(axes, [galaxies[start]], [{**point, "runs": []}], COLORS[0], MARKERS[0], "full", 4.5)
                row = {"task": task, "start": start, "galaxies": galaxies[start]}
                rows.append(row | {key: point[key] for key in ("measure", "seeds", "value", "low", "high")})
        titles = [f"{about['tasks'][task]['title']} ({about['tasks'][task]['measure']})" for task in exponents]
        label_axes(figure, panels, titles, "mock galaxies to pretrain with", "loss on test galaxies")
        handles = [
            handle("mean of seeds, 90 %", COLORS[0], marker=MARKERS[0]),
            handle("power law", COLORS[0], ls="-", lw=1.2),
            handle(about["starts"][about["reference"]]["title"], GREY, ls="-.", lw=0.9),
        ]
        return png(figure, "Linear probes of backbones pretrained with mock galaxies", handles), csv_text(rows)


def page_of(about: Row, results: Row, exponents: dict[str, Row], mean: Row) -> str:
    """amounts.md"""
    losses, reductions, labels = (rows_of(results, name) for name in ("means", "reductions", "labels"))
    reference = about["starts"][about["reference"]]["title"]
    lines = [
        [
            task, f"{galaxies:,}", interval(losses[task, start]), interval(reductions[task, start], percent),
            price(galaxies, labels[task, start]["saved"]),
        ]
        for task in exponents for start, galaxies in galaxies_of(about).items()
    ]  # fmt: skip
    return "\n\n".join([
        "# More mock galaxies to pretrain with",
        "A part of [the study of mock galaxies](README.md), written by `python results/mock_galaxies/amounts.py`. Linear probes "
        "with all labels; brackets hold intervals of 90 %, over seeds and test galaxies of the tasks, not over other pretrainings.",
        "The loss falls as the number of mock galaxies to the power of minus:",
        table(["average", *exponents], [[interval(mean), *map(interval, exponents.values())]]),
        f"Each number of galaxies is one pretraining, and the largest was trained for fewer epochs (6) than the others (24). By the scatter of the {len(galaxies_of(about))} pretrainings "
        f"about the line, the average exponent is {interval(exponent_of_pretrainings(about, losses))}.",
        f"![Loss against mock galaxies to pretrain with, both logarithmic, and a power law: a panel for each of {len(exponents)} tasks.](amounts.png)",
        "Numbers: [amounts.csv](amounts.csv).",
        f"Labels are saved where fewer of them are enough for the error that {reference} has with all.",
        table(["task", "mock galaxies", "loss", f"reduction of the error of {reference}", "mock galaxies for each label saved"], lines),
    ]) + "\n"  # fmt: skip


def main() -> None:
    about, results = read_about(HERE / ABOUT), json.loads((HERE / "results.json").read_text())
    exponents, mean = exponents_of(about)
    picture, numbers = figure_of(about, exponents, rows_of(results, "means"))
    page = page_of(about, results, exponents, mean)
    for name, content in (("amounts.png", picture), ("amounts.csv", numbers.encode()), ("amounts.md", page.encode())):
        with whole_file(HERE / name) as partial:
            partial.write_bytes(content)


if __name__ == "__main__":
    main()
