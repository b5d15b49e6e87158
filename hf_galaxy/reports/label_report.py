"""How several yes/no labels and their figures are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from hf_galaxy.reports.target_report import TargetReport

if TYPE_CHECKING:
    from hf_galaxy.reports.run_record import RunRecord


class LabelReport(TargetReport):
    """Figures of each label."""

    pipeline = pipeline_tag = "image-classification"
    parts = "labels"
    counts = ("galaxies", "positive")
    figures: ClassVar = {"error": "error", "average_precision": "average precision"}
    studied = ("error",)
    compared = ("error", "loss", "average_precision")

    def summary(self, record: RunRecord) -> str:
        return (
            "Predicts several labels of a picture of a galaxy at once (multi-label classification), each yes or no: "
            f"{self.names(record)}."
        )

    def usage(self) -> str:
        return "dict(zip(model.columns, answer.logits.sigmoid()[0].tolist()))"

    def legend(self, record: RunRecord) -> str:
        return (
            "the frequencies of the labels in the training split, the same for every galaxy. The loss is the binary cross-entropy "
            "in nats, mean of the labels that a galaxy has. Each other figure is of the galaxies that have the label. The error is "
            "the share of wrong predictions at a probability of 0.5. Average precision is the mean precision over all recalls; by "
            "chance it is the frequency of the label, and 1 is perfect."
        )
