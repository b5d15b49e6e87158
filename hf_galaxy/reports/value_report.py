"""How values and their figures are shown."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from hf_galaxy.reports.target_report import Loss, Results, TargetReport

if TYPE_CHECKING:
    from hf_galaxy.reports.run_record import RunRecord


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
