"""How classes, and their predictions, are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hf_galaxy.reports import charts
from hf_galaxy.reports.target_report import Results, TargetReport
from hf_galaxy.reports.text import number, table

if TYPE_CHECKING:
    from hf_galaxy.reports.run_record import RunRecord


class ClassReport(TargetReport):
    """One of several classes: figures of all galaxies, the confusion of the classes, and the calibration."""

    pipeline = pipeline_tag = "image-classification"
    studied = ("accuracy",)
    compared = ("accuracy", "balanced_accuracy", "loss", "auc", "average_precision")
    calibrated = True

    def names(self, record: RunRecord) -> str:
        return record.settings["label"]

    def phrase(self, record: RunRecord) -> str:
        return "the classes of galaxies"

    def summary(self, record: RunRecord) -> str:
        return f"Classifies a picture of a galaxy, by the column {self.names(record)}: {', '.join(record.dataset['classes'])}."

    def usage(self) -> str:
        return "model.config.id2label[answer.logits.argmax().item()]"

    def legend(self, record: RunRecord) -> str:
        changed = any(record.settings.get(option) for option in ("label_smoothing", "class_weights"))
        plain = ", without the label smoothing and class weights of the training" if changed else ""
        classes, precision = record.dataset["classes"], ""
        if "average_precision" in record.results.get("test", {}):
            precision = (
                f" Average precision is the mean precision over all recalls"
                f"{f' of {classes[1]}' if len(classes) == 2 else ', averaged over the classes'}; by chance it is the frequency of "
                "the class, and 1 is perfect."
            )
        absent = ""
        if "auc" in (test := record.results.get("test", {})) and test["auc"]["model"] is None:
            absent = f" {'Both are' if precision else 'It is'} not measured, as a class has no test galaxy."
        return (
            "the class frequencies of the training split, the same for every galaxy. The loss is the cross-entropy in "
            f"nats{plain}. An AUC of 0.5 is chance, 1 is perfect.{precision}{absent}"
        )

    def sections(self, record: RunRecord) -> list[tuple[str, str]]:
        test = record.results.get("test", {})
        if "confusion" not in test:
            return []
        return [("Each class, on the test split", _classes_table(test["confusion"], record.dataset["classes"]))]

    def limits(self, record: RunRecord) -> list[str]:
        return [
            f"It assigns one of {len(record.dataset['classes'])} classes to every picture, also to one without a galaxy, or with a "
            "galaxy of another class."
        ]

    def calibration_text(self, calibration: Results) -> str:
        before = calibration.get("uncalibrated")
        corrected = (
            f" The logits are divided by a temperature that was fitted to galaxies that the model was not trained on; before that the distance was "
            f"{number(before['error'])}, and the loss {number(before['loss'])} nats."
            if before else ""
        )  # fmt: skip
        return (
            "The probability of the predicted class, in ten bins, against the share of galaxies for which the prediction is correct. "
            f"The mean distance of the two (expected calibration error) is {number(calibration['error'])}.{corrected}"
        )

    def calibration_chart(self, calibration: Results, where: str) -> bytes:
        """Reliability diagram of the predicted class, and the histogram of its probability."""
        from scipy.stats import beta

        galaxies, bins = calibration["galaxies"], len(calibration["galaxies"])
        blue = charts.COLORS[0]
        with charts.style():
            figure, panels = charts.chart(2, height=3.8)
            filled = [i for i, n in enumerate(galaxies) if n]
            predicted, accuracy = (
                np.array([calibration[name][i] for i in filled]) for name in ("probability", "accuracy")
            )
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
            charts.diagonals(panels[:1])
            panels[1].set_xlim(0, 1)
            return charts.png(figure, f"Calibration on {where}", [
                charts.handle("calibrated", charts.GREY, ls="--", lw=0.9),
                charts.handle(f"this model, with 90 % intervals; mean distance {number(calibration['error'])}", blue, marker="o", ls="-", ms=5),
            ])  # fmt: skip


def _classes_table(confusion: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    """Recall and precision of each class, and the class that it is most often confused with."""
    confusion = np.array(confusion)
    correct, actual, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    wrong = confusion - np.diag(correct)
    rows = [
        [
            name, actual[i], number(correct[i] / actual[i] if actual[i] else None),
            number(correct[i] / predicted[i] if predicted[i] else None), names[wrong[i].argmax()] if wrong[i].any() else "-",
        ]
        for i, name in enumerate(names)
    ]  # fmt: skip
    return table(["class", "test galaxies", "recall", "precision", "most often confused with"], rows)
