"""Loss curve and calibration plots of a run. Pure functions of its record, as the card is."""

from __future__ import annotations

from typing import Any

import numpy as np

from hf_galaxy.reports import charts
from hf_galaxy.reports.run_record import RunRecord
from hf_galaxy.reports.target_report import report_of
from hf_galaxy.reports.text import number

LOSS, CALIBRATION = "figures/loss.png", "figures/calibration.png"
SPLIT = "test"


def figures(record: RunRecord) -> dict[str, bytes]:
    """Path beside the card -> PNG."""
    drawn = {}
    if any(record.training.get("history", [])):
        drawn[LOSS] = _loss_curve(record)
    if (calibration := calibration_of(record)) is not None:
        drawn[CALIBRATION] = report_of(record).calibration_chart(calibration, measured_on(record))
    return drawn


def calibration_of(record: RunRecord) -> dict[str, Any] | None:
    """The calibration on the test split, or of a run calibrated for another survey on that; None if it was not measured."""
    return record.results.get(_measured_split(record), {}).get("calibration")


def measured_on(record: RunRecord) -> str:
    """On which galaxies its calibration was measured, in words."""
    split = _measured_split(record)
    return "the test split" if split == SPLIT else split


def _measured_split(record: RunRecord) -> str:
    if SPLIT in record.results:
        return SPLIT
    return record.training.get("calibration", {}).get("measured_on", SPLIT)


def _loss_curve(record: RunRecord) -> bytes:
    """Training and validation loss against epochs."""
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
        charts.label_axes(figure, [axes], [None], "epochs", f"loss, {report_of(record).loss_unit}")
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
