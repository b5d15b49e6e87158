"""How the target of a run and its figures are shown: in cards, charts, scaling laws and benchmarks.

`targets.TARGETS` names the report of each target. The one here shows any target whose metrics have the usual form: `galaxies`,
a `loss`, and either figures of all galaxies, or figures of each part (a value, a label) under one key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from hf_galaxy.reports.measures import ALL, COMPLEMENTS
from hf_galaxy.reports.text import interval, number, table
from hf_galaxy.targets import report_class

if TYPE_CHECKING:
    from hf_galaxy.reports.run_record import RunRecord

Results = Mapping[str, Any]  # of one split, as `RunRecord.results` holds them, or a part of these
PAIR = ("model", "baseline")


def report_of(record: RunRecord) -> TargetReport:
    """How the target of a run is shown."""
    return report_class(record.task)()


@dataclass(frozen=True)
class Loss:
    """A figure of a split as a loss, so that less is better.

    Attributes:
        measure: its name in `measures.MEASURES`.
        model, baseline: None where it is not defined.
        replicates: (R,) that of the model in the replicates of a bootstrap over galaxies; NaN where it is not defined.
        galaxies: that it was measured on.
        part: the question, value or label that it is of.
        subtracted: the loss of a reference, such as the oracle of votes, that was subtracted from it.
    """

    measure: str
    model: float | None
    baseline: float | None
    replicates: np.ndarray
    galaxies: int
    part: str = ALL
    subtracted: float = 0.0


class TargetReport:
    """How a target and its figures are shown.

    Attributes:
        pipeline: the pipeline of transformers that answers for a picture; None if there is none.
        pipeline_tag: the task of such models on the Hub.
        loss, loss_unit: the measure that the loss of the metrics is, and its unit.
        header_loss: its name in the machine-readable header of a card, if it is another one.
        parts: the key of the results that holds figures of each value or label; None: the figures are of all galaxies.
        counts, figures: the columns of a table of parts: numbers of galaxies; figures, and their titles.
        studied: figures that scaling laws are fitted to, beside the loss.
        compared: figures by which benchmark tasks may be compared, the default first.
        calibrated: the metrics of every such run have a `calibration`.
    """

    pipeline: ClassVar[str | None] = None
    pipeline_tag: ClassVar[str] = "image-feature-extraction"
    loss: ClassVar[str] = "nll"
    loss_unit: ClassVar[str] = "nats per galaxy"
    header_loss: ClassVar[str | None] = None
    parts: ClassVar[str | None] = None
    counts: ClassVar[tuple[str, ...]] = ("galaxies",)
    figures: ClassVar[Mapping[str, str]] = {}
    studied: ClassVar[tuple[str, ...]] = ()
    compared: ClassVar[tuple[str, ...]] = ("loss",)
    calibrated: ClassVar[bool] = False

    # Words of the card

    def names(self, record: RunRecord) -> str:
        """The names of what is predicted."""
        return ", ".join(record.dataset.get(self.parts or record.task, []))

    def phrase(self, record: RunRecord) -> str:
        """What the model was trained to predict, within a sentence."""
        return self.names(record)

    def summary(self, record: RunRecord) -> str:
        """The first sentence of a card."""
        return f"Predicts from a picture of a galaxy: {self.names(record)}."

    def usage(self) -> str:
        """A line of Python that makes the prediction of the `answer` of the `model` for one picture."""
        return "dict(zip(model.columns, answer[0][0].tolist()))"

    def legend(self, record: RunRecord) -> str:
        """What the baseline and the figures are: the end of a sentence that begins with the baseline, and more sentences."""
        return "the constant prediction of the training split, the same for every galaxy."

    def sections(self, record: RunRecord) -> list[tuple[str, str]]:
        """Further sections about the test split: titles and texts."""
        return []

    def limits(self, record: RunRecord) -> list[str]:
        """Sentences about what such a model cannot do."""
        return []

    def weak_parts(self, results: Results) -> list[str]:
        """Sentences about parts of the target that this model predicts badly, or that few galaxies measure."""
        return []

    def calibration_text(self, calibration: Results) -> str:
        """The calibration in words."""
        raise NotImplementedError

    def calibration_table(self, calibration: Results) -> str:
        """Its figures as a table in Markdown; nothing if the words have all of them."""
        return ""

    def calibration_chart(self, calibration: Results, where: str) -> bytes:
        """The calibration as a picture, PNG.

        Args:
            where: on which galaxies, for the title.
        """
        raise NotImplementedError

    # Figures

    def table(self, results: Results) -> str:
        """Markdown of one split's figures, each with its interval and beside its baseline."""
        replicates = results.get("bootstrap", {})
        if self.parts is None:
            rows = [
                [name, *cells(results, replicates, name)]
                for name, pair in results.items()
                if isinstance(pair, dict) and "baseline" in pair
            ]
            return table([f"{results['galaxies']} galaxies", *PAIR], rows)
        rows = []
        for part, own in results[self.parts].items():
            drawn = replicates.get(self.parts, {}).get(part, {})
            pairs = [cell for figure in self.figures for cell in cells(own, drawn, figure)]
            rows.append([part, *(own[count] for count in self.counts), *pairs])
        titles = [cell for title in self.figures.values() for cell in (title, "baseline")]
        header = [self.parts.removesuffix("s"), *self.counts, *titles]
        return f"{loss_sentence(results)}\n\n{table(header, rows)}"

    def header(self, results: Results) -> dict[str | None, Results]:
        """Figures for the header of a card: of each part, and of all galaxies (None)."""
        loss = self.header_loss or self.loss
        if self.parts is None:
            return {None: {loss if name == "loss" else name: pair for name, pair in results.items()}}
        return {None: {loss: results["loss"]}} | results[self.parts]

    def figure_title(self, name: str, figure: str, part: str | None) -> str:
        """The name of a figure in that header.

        Args:
            name: of the figure alone.
        """
        return name if part is None else f"{name} of {part}"

    def dataset_config(self, results: Results, part: str | None) -> str | None:
        """The configuration of the dataset that has the galaxies of a part alone; None: all have them."""
        return None

    @property
    def measures(self) -> tuple[str, ...]:
        """The names of `benchmark_losses`."""
        return tuple(map(self._measure, self.compared))

    def study_losses(self, results: Results) -> list[Loss]:
        """The losses that scaling laws are fitted to, of results with a bootstrap."""
        losses = [self._loss("loss", [results], [results["bootstrap"]], results["galaxies"])]
        for part, own, drawn in self._groups(results):
            for figure in self.studied:
                if own[figure]["model"] is not None:
                    losses.append(self._loss(figure, [own], [drawn], own["galaxies"], part))
        return losses

    def benchmark_losses(self, results: Results) -> dict[str, Loss]:
        """The losses by which models are compared, by measure: of all galaxies, or means over the parts."""
        losses = {}
        for figure in self.compared:
            of_all = figure == "loss" or self.parts is None
            groups = [(ALL, results, results["bootstrap"])] if of_all else list(self._groups(results))
            if all(figure in drawn for _, _, drawn in groups):  # older records lack some
                _, own, drawn = zip(*groups, strict=True)
                losses[self._measure(figure)] = self._loss(figure, own, drawn, results["galaxies"])
        return losses

    def _groups(self, results: Results) -> Iterator[tuple[str, Results, Results]]:
        """Each part with its figures and their replicates."""
        if self.parts is None:
            yield ALL, results, results["bootstrap"]
        else:
            for part, own in results[self.parts].items():
                yield part, own, results["bootstrap"][self.parts][part]

    def _measure(self, figure: str) -> str:
        return self.loss if figure == "loss" else COMPLEMENTS.get(figure, figure)

    def _loss(
        self, figure: str, own: Sequence[Results], drawn: Sequence[Results], galaxies: int, part: str = ALL
    ) -> Loss:
        """The mean of a figure over some parts as a loss."""
        model, baseline = (mean([each[figure][who] for each in own]) for who in PAIR)
        replicates = mean([numbers(each[figure]["model"]) for each in drawn])
        if figure in COMPLEMENTS:
            model, baseline = (None if value is None else 1 - value for value in (model, baseline))
            replicates = 1 - replicates
        return Loss(self._measure(figure), model, baseline, replicates, galaxies, part)


def mean(values: Sequence[Any]) -> Any:
    """The mean of numbers or of arrays; None if one of them is None."""
    return None if any(value is None for value in values) else sum(values) / len(values)


def numbers(replicates: Sequence[float | None]) -> np.ndarray:
    """(R,) with NaN for None, where no galaxy was counted."""
    return np.array(replicates, float)


def loss_sentence(results: Results) -> str:
    """The loss of all galaxies beside that of the baseline."""
    model, baseline = cells(results, results.get("bootstrap", {}), "loss")
    return f"All {results['galaxies']} galaxies: loss {model}, baseline {baseline}."


def cells(figures: Results, replicates: Results, name: str) -> tuple[str, str]:
    """The figure of the model with its interval, where it was measured in replicates; and that of the baseline.

    The interval holds 90 % of the replicates.
    """
    value, drawn = figures[name]["model"], replicates.get(name, {}).get("model")
    return with_interval(value, drawn), number(figures[name]["baseline"])


def with_interval(value: float | None, replicates: Sequence[float | None] | None) -> str:
    """A figure with the interval that holds 90 % of its replicates, if it has any."""
    drawn = [each for each in replicates or [] if each is not None]
    if value is None or not drawn:
        return number(value)
    low, high = np.quantile(drawn, (0.05, 0.95))
    if low == high:  # as with a single galaxy, which tells nothing of others
        return number(value)
    return interval({"value": value, "low": low, "high": high}).replace(" ", "\xa0")  # not to be broken into lines
