"""How values and their figures are shown."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from hf_galaxy.reports import charts
from hf_galaxy.reports.target_report import Loss, Results, TargetReport
from hf_galaxy.reports.text import interval, number, table

if TYPE_CHECKING:
    from hf_galaxy.reports.run_record import RunRecord

MAIN = "90"  # the level, in per cent, whose coverage is compared with that before the calibration
TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
FEW = 5  # galaxies in a bin of predicted standard deviations, below which it is not drawn


class ValueReport(TargetReport):
    """Figures of each value, and the loss in standard deviations."""

    loss, loss_unit, header_loss = "mse", "squared standard deviations", "standardised_mse"
    parts = "values"
    figures: ClassVar = {"rmse": "RMSE", "mae": "MAE", "r2": "R²"}
    studied = ("r2",)
    measures = ("rmse",)

    def summary(self, record: RunRecord) -> str:
        return f"Predicts numbers from a galaxy's picture, in the units of the dataset: {self.names(record)}."

    def usage(self) -> str:
        return "dict(zip(model.config.values, answer.values[0].tolist()))"

    def legend(self, record: RunRecord) -> str:
        return (
            "the best constant prediction: for RMSE, R² and the loss the mean of the training split, for MAE (mean absolute error) "
            "its median. RMSE and MAE are in the units of the values. Each figure is of the galaxies that have the value. R² is 1 "
            "for a perfect prediction, and 0 for the mean of the measured galaxies. The loss is the squared error in standard "
            "deviations of the training split."
        )

    def benchmark_losses(self, results: Results) -> dict[str, Loss]:
        """The root of the loss: of all values together, in standard deviations."""
        mse = super().benchmark_losses(results)["mse"]
        model, baseline = (None if value is None else value**0.5 for value in (mse.model, mse.baseline))
        roots = dict(measure="rmse", model=model, baseline=baseline, replicates=np.sqrt(mse.replicates))
        return {"rmse": dataclasses.replace(mse, **roots)}

    def calibration_text(self, calibration: Results) -> str:
        before = calibration.get("uncalibrated")
        corrected = (
            " Scale, shift and tails of these distributions were fitted to galaxies that the model was not trained on; before that the likelihood loss "
            f"was {number(before['loss']['model'])} nats, and it is {number(calibration['loss']['model'])}."
            if before else ""
        )  # fmt: skip
        return (
            f"The true value is expected to follow Student's t distribution around the predicted one.{corrected} Left: predicted standard deviations, in bins, against "
            f"the root mean square error of the galaxies in each (with at least {FEW}). Right, and in the table: the share of galaxies whose true value lies in the central interval of its "
            "distribution. A larger share than the level means that the standard deviations are too large, a smaller one that they are too small. Brackets hold intervals over "
            "galaxies. The likelihood loss (nll, nats per galaxy) is beside that of the constant normal distribution of the training split; of two calibrated "
            "models the one with the smaller standard deviation says more."
        )

    def calibration_table(self, calibration: Results) -> str:
        """Likelihood, standard deviation and coverage of each value; beside it the coverage without the model's calibration."""
        values, before = calibration["values"], calibration.get("uncalibrated", {}).get("values", {})
        levels = list(next(iter(values.values()))["coverage"]) if values else []
        header = ["value", "galaxies", "nll", "baseline", "mean standard deviation", "baseline"]
        header += [*(f"in the {level} % interval" for level in levels)]
        header += [f"before: in the {MAIN} % interval"] if before else []
        rows = []
        for name, each in values.items():
            nll = _with_ends(each["nll"]["model"], each["nll_interval"])
            row = [name, each["galaxies"], nll, number(each["nll"]["baseline"])]
            row += [number(each["std"]["model"]), number(each["std"]["baseline"])]
            row += [_with_ends(each["coverage"][level], each["coverage_interval"][level]) for level in levels]
            row += [number(before[name]["coverage"][MAIN])] if before else []
            rows.append(row)
        return table(header, rows)

    def calibration_chart(self, calibration: Results, where: str) -> bytes:
        """Predicted standard deviations against errors, and the coverage of the intervals."""
        from matplotlib.ticker import NullLocator

        values, before = calibration["values"], calibration.get("uncalibrated", {}).get("values", {})
        with charts.style():
            figure, panels = charts.chart(2, height=3.8)
            for i, each in enumerate(values.values()):
                look = {
                    "color": charts.COLORS[i % len(charts.COLORS)],
                    "marker": charts.MARKERS[i % len(charts.MARKERS)],
                }
                bins, unit = each["bins"], each["std"]["baseline"]
                filled = [b for b, count in enumerate(bins["galaxies"]) if count >= FEW]
                points = [[bins[name][b] / unit for b in filled] for name in ("predicted", "error")]
                panels[0].loglog(*points, ls="-", lw=1.2, ms=5, **look)
                panels[1].plot(*charts.coverage(each["places"]), ls="-", lw=1.2, ms=3, **look)
            for each in before.values():
                panels[1].plot(*charts.coverage(each["places"]), ls=":", lw=1.4, color=charts.GREY)
            ends = [f(*panels[0].get_xlim(), *panels[0].get_ylim()) for f in (min, max)]
            panels[0].plot(ends, ends, ls="--", lw=0.9, color=charts.GREY, zorder=0)
            ticks = [tick for tick in TICKS if ends[0] / 1.1 <= tick <= ends[1] * 1.1]
            for axis in (panels[0].xaxis, panels[0].yaxis):
                axis.set_minor_locator(NullLocator())
                axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
            panels[0].set(xlim=ends, ylim=ends, aspect="equal")
            unit = "in standard deviations of the training split"
            charts.label_axes(
                figure, [panels[0]], ["Standard deviations"], f"predicted, {unit}", "root mean square error, likewise"
            )
            charts.label_axes(
                figure, [panels[1]], ["Intervals"], "level of the central interval", "share of true values in it"
            )
            charts.diagonals(panels[1:])
            return charts.png(figure, f"Calibration on {where}", [
                charts.handle("calibrated", charts.GREY, ls="--", lw=0.9),
                *([charts.handle("before its calibration", charts.GREY, ls=":", lw=1.4)] if before else []),
                *(
                    charts.handle(name, charts.COLORS[i % len(charts.COLORS)], marker=charts.MARKERS[i % len(charts.MARKERS)], ls="-", ms=5)
                    for i, name in enumerate(values)
                ),
            ])  # fmt: skip


def _with_ends(value: float, ends: list[float] | None) -> str:
    """A figure with its interval, if there is one."""
    return number(value) if ends is None else interval({"value": value, "low": ends[0], "high": ends[1]})
