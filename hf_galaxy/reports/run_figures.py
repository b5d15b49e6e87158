"""Figures of a run beside its card: how its loss fell, and whether its predictions can be taken at their word.

Pure functions of the record, as the card is; what it does not hold is not drawn.
"""

import numpy as np

from hf_galaxy.reports import charts
from hf_galaxy.reports.run_record import RunRecord

LOSS, CALIBRATION = "figures/loss.png", "figures/calibration.png"
SPLIT = "test"


def figures(record: RunRecord) -> dict[str, bytes]:
    """Path beside the card -> PNG."""
    drawn = {}
    if any(record.training.get("history", [])):
        drawn[LOSS] = _loss(record)
    if (calibration := calibration_of(record)) is not None:
        drawn[CALIBRATION] = _of_votes(calibration) if "campaigns" in calibration else _of_classes(calibration)
    return drawn


def calibration_of(record: RunRecord) -> dict | None:
    """That of the test split; None if it was not measured."""
    return record.results.get(SPLIT, {}).get("calibration")


def _loss(record):
    """Training and validation loss over the passes through the galaxies."""
    unit = "squared standard deviations" if record.settings["task"] == "values" else "nats per galaxy"
    in_training, in_validation = _terms(record)
    with charts.style():
        figure, (axes,) = charts.chart(1, height=3.4)
        galaxies = record.dataset["splits"]["train"]
        seen, steps = np.array(record.training["losses"]).T
        axes.plot(seen / galaxies, steps, color=charts.PALE, lw=0.8, alpha=0.6, zorder=1)
        history = record.training["history"]
        epochs = [entry["galaxies"] / galaxies for entry in history]
        train, validation = ([entry[f"{which}_loss"] for entry in history] for which in ("training", "validation"))
        blue, orange = charts.COLORS[:2]
        axes.plot(epochs, train, "s-", color=blue, ms=4, lw=1.3, mfc="white", zorder=3)
        axes.plot(epochs, validation, "o-", color=orange, ms=4.5, lw=1.3, zorder=4)
        best = int(np.argmin(validation))
        axes.plot(epochs[best], validation[best], "*", color="black", ms=11, zorder=5)
        charts.label(figure, [axes], [None], "passes through the training galaxies", f"loss, {unit}")
        # The first steps may be far above all others: what is to be seen is what came after.
        shown = [*train, *validation, *np.quantile(steps, (0.02, 0.9))]
        margin = 0.06 * (max(shown) - min(shown)) or 0.1
        axes.set_ylim(min(shown) - margin, max(shown) + margin)
        axes.set_xlim(0, epochs[-1] * 1.02)
        return charts.png(
            figure,
            "Loss while it learnt",
            [
                charts.handle(in_training, blue, marker="s", ls="-", mfc="white", ms=4),
                charts.handle(in_validation, orange, marker="o", ls="-", ms=4.5),
                charts.handle(f"best validation: the weights kept, {validation[best]:.4g}", "black", marker="*", ms=9),
                charts.handle("training, means of some steps", charts.PALE, ls="-"),
            ],
        )


def _terms(record):
    """How training and validation loss differ: what the first is with, for the legend."""
    views = [] if "features" in record.training else ["random views"]  # features are of the centre
    names = {"label_smoothing": "label smoothing", "class_weights": "class weights"}
    other = [words for name, words in names.items() if record.settings.get(name)]
    *most, last = [*views, "dropout", *other]
    training = f"training, with {' and '.join([', '.join(most), last] if most else [last])}"
    return training, "validation, the plain cross-entropy" if other else "validation"


def _of_votes(calibration):
    """Predicted fractions against those of the votes, and how often votes lie in what was predicted of them."""
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
        charts.label(figure, [panels[0]], ["Vote fractions"], "predicted fraction", "fraction of the votes given")
        if covered:
            title = "Intervals of predicted votes"
            charts.label(figure, [panels[1]], [title], "central interval should hold", "and holds")
        _diagonals(panels)
        return charts.png(figure, "Calibration on the test split", [
            charts.handle("calibrated", charts.QUIET, ls="--", lw=0.9),
            *(
                charts.handle(name, charts.COLORS[i % len(charts.COLORS)], marker=charts.MARKERS[i % len(charts.MARKERS)], ls="-", ms=5)
                for i, name in enumerate(campaigns)
            ),
        ])  # fmt: skip


def _coverage(places):
    """Sizes of central intervals, and the shares in them."""
    half = len(places) // 2
    sizes = [2 * n / len(places) for n in range(half + 1)]
    return sizes, [sum(places[half - n : half + n]) for n in range(half + 1)]


def _of_classes(calibration):
    """How often the likeliest class is right against how likely it was said to be, and of how many galaxies."""
    from scipy.stats import beta

    galaxies, bins = calibration["galaxies"], len(calibration["galaxies"])
    blue = charts.COLORS[0]
    with charts.style():
        figure, panels = charts.chart(2, height=3.7)
        there = [i for i, n in enumerate(galaxies) if n]
        said, right = (np.array([calibration[name][i] for i in there]) for name in ("probability", "accuracy"))
        counts = np.array([galaxies[i] for i in there])
        # Jeffreys' interval: of a bin with few galaxies it is wide.
        low, high = beta.ppf([[0.05], [0.95]], counts * right + 0.5, counts * (1 - right) + 0.5)
        panels[0].plot(said, right, "o-", color=blue, lw=1.2, ms=5)
        panels[0].vlines(said, low, high, color=blue, lw=1.1)
        middles = [(i + 0.5) / bins for i in range(bins)]
        panels[1].bar(middles, [n / sum(galaxies) for n in galaxies], 0.9 / bins, color=blue)
        probability = "probability of the likeliest class"
        charts.label(figure, [panels[0]], ["Reliability"], probability, "share in which it is right")
        charts.label(figure, [panels[1]], ["How sure it is"], probability, "share of galaxies")
        _diagonals(panels[:1])
        panels[1].set_xlim(0, 1)
        return charts.png(figure, "Calibration on the test split", [
            charts.handle("calibrated", charts.QUIET, ls="--", lw=0.9),
            charts.handle(f"this model, with 90 % intervals; mean distance {calibration['error']:.3f}", blue, marker="o", ls="-", ms=5),
        ])  # fmt: skip


def _diagonals(panels):
    for axes in panels:
        axes.plot([0, 1], [0, 1], "--", color=charts.QUIET, lw=0.9, zorder=1)
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
