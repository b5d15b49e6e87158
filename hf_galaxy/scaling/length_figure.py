"""The figure of how the loss falls with the length of training, a line for each number of galaxies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hf_galaxy.reports import charts
from hf_galaxy.reports.charts import Figure
from hf_galaxy.scaling.figure_data import Row

LOSS = "validation loss"
PICTURES = "pictures trained on (galaxies times epochs)"


def length_figures(study: Row) -> list[Figure]:
    """One for each backbone and start of which runs were trained for several lengths (`convergence.lengths_of`)."""
    kinds = dict.fromkeys((each["backbone"], each["start"]) for each in study["lengths"])
    with charts.style():
        return [
            _figure(kind, [each for each in study["lengths"] if (each["backbone"], each["start"]) == kind])
            for kind in kinds
        ]


def _figure(kind: tuple[str, str], runs: Sequence[Row]) -> Figure:
    backbone, start = kind
    name = backbone if start == "random" else f"{backbone} from {start}"
    canvas, (axes,) = charts.chart(1)
    sizes = sorted({run["galaxies"] for run in runs})
    handles = []
    for i, size in enumerate(sizes):
        color, marker = charts.COLORS[i % len(charts.COLORS)], charts.MARKERS[i % len(charts.MARKERS)]
        for run in runs:
            if run["galaxies"] == size:
                axes.plot(run["pictures"], run["above"], marker=marker, color=color, ms=4, lw=1.0)
                if not run["converged"]:
                    axes.plot(run["pictures"][-1], run["above"][-1], marker=marker, color=color, ms=8, mfc="white")
        handles.append(charts.handle(f"{size:,} galaxies", color, marker=marker, ls="-", ms=4))
    if not all(run["converged"] for run in runs):
        handles.append(charts.handle("not converged", charts.GREY, marker="o", ms=8, mfc="white"))
    pictures, losses = (np.concatenate([run[key] for run in runs]) for key in ("pictures", "above"))
    charts.log_axis(axes.xaxis, pictures.min() / 1.25, pictures.max() * 1.25)
    charts.log_axis(axes.yaxis, *charts.limits(losses[losses > 0].tolist()))
    above = f"{LOSS} above that of an oracle" if any(run["least"] for run in runs) else LOSS
    charts.label_axes(canvas, [axes], [None], PICTURES, above)
    picture = charts.png(canvas, f"Loss against the length of training, {name}", handles)
    rows = [
        {key: run[key] for key in ("backbone", "start", "galaxies", "seed")}
        | {"epochs": epochs, "pictures": seen, "above": loss}
        for run in runs
        for epochs, seen, loss in zip(run["epochs"], run["pictures"], run["above"], strict=True)
    ]
    return Figure(f"lengths-{backbone}-{start}", picture, charts.csv_text(rows), _in_words(name, runs))


def _in_words(name: str, runs: Sequence[Row]) -> str:
    gains = [1 - run["above"][-2] / run["above"][0] for run in runs if len(run["above"]) > 2]
    fall = f", by up to {100 * max(gains):.0f} % before its last doubling" if gains and max(gains) > 0 else ""
    return f"Validation loss of {name} against the pictures trained on, a line for each of {len(runs)} runs: it falls with the length of training{fall}."
