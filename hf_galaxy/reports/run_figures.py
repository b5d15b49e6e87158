"""Loss curve and calibration plots of a run. Pure functions of its record, as the card is.

Legend: `campaigns` of a calibration hold the `predicted` and observed (`given`) mean fractions of bins, and the PIT histogram
(`places`): the shares of votes in equal steps of the predicted cumulative distribution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_galaxy.reports import charts
from hf_galaxy.reports.run_record import RunRecord
from hf_galaxy.reports.text import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOSS, CALIBRATION = "figures/loss.png", "figures/calibration.png"
SPLIT = "test"


def figures(record: RunRecord) -> dict[str, bytes]:
    """Path beside the card -> PNG."""
    drawn = {}
    if any(record.training.get("history", [])):
        drawn[LOSS] = _loss_curve(record)
    if (calibration := calibration_of(record)) is not None:
        drawn[CALIBRATION] = (
            _vote_calibration(calibration) if "campaigns" in calibration else _class_calibration(calibration)
        )
    return drawn


def calibration_of(record: RunRecord) -> dict[str, Any] | None:
    """The calibration on the test split; None if it was not measured."""
    return record.results.get(SPLIT, {}).get("calibration")


def _loss_curve(record: RunRecord) -> bytes:
    """Training and validation loss against epochs."""
    unit = "squared standard deviations" if record.task == "values" else "nats per galaxy"
    training_label, validation_label = _loss_labels(record)
    with charts.style():
        figure, (axes,) = charts.chart(1, height=3.4)
        galaxies = record.dataset["splits"]["train"]
        pictures, steps = np.array(record.training["losses"]).T
        axes.plot(pictures / galaxies, steps, color=charts.LIGHT_GREY, lw=0.8, alpha=0.6, zorder=1)
        history = record.training["history"]
        epochs = [entry["galaxies"] / galaxies for entry in history]
        train, validation = ([entry[f"{which}_loss"] for entry in history] for which in ("training", "validation"))
        blue, orange = charts.COLORS[:2]
        axes.plot(epochs, train, "s-", color=blue, ms=4, lw=1.3, mfc="white", zorder=3)
        axes.plot(epochs, validation, "o-", color=orange, ms=4.5, lw=1.3, zorder=4)
        best = int(np.argmin(validation))
        axes.plot(epochs[best], validation[best], "*", color="black", ms=11, zorder=5)
        charts.label_axes(figure, [axes], [None], "epochs", f"loss, {unit}")
        # The first steps may be far above all others, and are left outside.
        shown = [*train, *validation, *np.quantile(steps, (0.02, 0.9))]
        margin = 0.06 * (max(shown) - min(shown)) or 0.1
        axes.set_ylim(min(shown) - margin, max(shown) + margin)
        axes.set_xlim(0, epochs[-1] * 1.02)
        return charts.png(
            figure,
            "Training and validation loss",
            [
                charts.handle(training_label, blue, marker="s", ls="-", mfc="white", ms=4),
                charts.handle(validation_label, orange, marker="o", ls="-", ms=4.5),
                charts.handle(
                    f"best validation, the saved weights: {number(validation[best])}", "black", marker="*", ms=9
                ),
                charts.handle("training, means of some steps", charts.LIGHT_GREY, ls="-"),
            ],
        )


def _loss_labels(record: RunRecord) -> tuple[str, str]:
    """Labels of training and validation loss, which name the differences of the two."""
    views = [] if "features" in record.training else ["random views"]  # features are of the view without augmentation
    names = {"label_smoothing": "label smoothing", "class_weights": "class weights"}
    other = [words for name, words in names.items() if record.settings.get(name)]
    terms = [*views, "dropout", *other]
    training = f"training, with {' and '.join(filter(None, [', '.join(terms[:-1]), terms[-1]]))}"
    return training, "validation, the plain cross-entropy" if other else "validation"


def _vote_calibration(calibration: Mapping[str, Any]) -> bytes:
    """Predicted against observed vote fractions, and the coverage of the intervals of predicted votes."""
    campaigns = calibration["campaigns"]
    covered = any("places" in each for each in campaigns.values())
    with charts.style():
        figure, panels = charts.chart(1 + covered, height=3.7)
        for i, each in enumerate(campaigns.values()):
            look = {"color": charts.COLORS[i % len(charts.COLORS)], "marker": charts.MARKERS[i % len(charts.MARKERS)]}
            points = [p for p in zip(each["predicted"], each["given"], strict=True) if None not in p]
            if points:
                panels[0].plot(*zip(*points, strict=True), ls="-", lw=1.2, ms=5, **look)
            if covered and each["places"][0] is not None:
                panels[1].plot(*_coverage(each["places"]), ls="-", lw=1.2, ms=5, **look)
        charts.label_axes(figure, [panels[0]], ["Vote fractions"], "predicted fraction", "observed fraction")
        if covered:
            title = "Intervals of predicted votes"
            charts.label_axes(figure, [panels[1]], [title], "level of the central interval", "share of votes in it")
        _diagonals(panels)
        return charts.png(figure, "Calibration on the test split", [
            charts.handle("calibrated", charts.GREY, ls="--", lw=0.9),
            *(
                charts.handle(name, charts.COLORS[i % len(charts.COLORS)], marker=charts.MARKERS[i % len(charts.MARKERS)], ls="-", ms=5)
                for i, name in enumerate(campaigns)
            ),
        ])  # fmt: skip


def _coverage(histogram: Sequence[float]) -> tuple[list[float], list[float]]:
    """Levels of central intervals, and the shares of votes in them, from a PIT histogram."""
    half = len(histogram) // 2
    levels = [2 * n / len(histogram) for n in range(half + 1)]
    return levels, [sum(histogram[half - n : half + n]) for n in range(half + 1)]


def _class_calibration(calibration: Mapping[str, Any]) -> bytes:
    """Reliability diagram of the predicted class, and the histogram of its probability."""
    from scipy.stats import beta

    galaxies, bins = calibration["galaxies"], len(calibration["galaxies"])
    blue = charts.COLORS[0]
    with charts.style():
        figure, panels = charts.chart(2, height=3.7)
        filled = [i for i, n in enumerate(galaxies) if n]
        predicted, accuracy = (np.array([calibration[name][i] for i in filled]) for name in ("probability", "accuracy"))
        counts = np.array([galaxies[i] for i in filled])
        # Jeffreys' interval, which is wide for a bin with few galaxies.
        low, high = beta.ppf([[0.05], [0.95]], counts * accuracy + 0.5, counts * (1 - accuracy) + 0.5)
        panels[0].plot(predicted, accuracy, "o-", color=blue, lw=1.2, ms=5)
        panels[0].vlines(predicted, low, high, color=blue, lw=1.1)
        middles = [(i + 0.5) / bins for i in range(bins)]
        panels[1].bar(middles, [n / sum(galaxies) for n in galaxies], 0.9 / bins, color=blue)
        probability = "probability of the predicted class"
        charts.label_axes(figure, [panels[0]], ["Reliability"], probability, "accuracy")
        charts.label_axes(figure, [panels[1]], ["Confidence"], probability, "share of galaxies")
        _diagonals(panels[:1])
        panels[1].set_xlim(0, 1)
        return charts.png(figure, "Calibration on the test split", [
            charts.handle("calibrated", charts.GREY, ls="--", lw=0.9),
            charts.handle(f"this model, with 90 % intervals; mean distance {number(calibration['error'])}", blue, marker="o", ls="-", ms=5),
        ])  # fmt: skip


def _diagonals(panels: Sequence[Axes]) -> None:
    for axes in panels:
        axes.plot([0, 1], [0, 1], "--", color=charts.GREY, lw=0.9, zorder=1)
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
