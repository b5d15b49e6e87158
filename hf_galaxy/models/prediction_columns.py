"""The columns of a table of predictions: what each holds, and how it follows from the numbers that a model predicts.

Legend of shapes: M predictions for each galaxy, B galaxies, N numbers of a model (`prediction_columns`), A answers, Q questions, C classes, K values.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from hf_galaxy.errors import BadInput
from hf_galaxy.models.ensemble import combined, value_intervals
from hf_galaxy.models.familiarity import THRESHOLD, Familiarity
from hf_galaxy.models.model import (
    GalaxyForImageClassification,
    GalaxyForVotes,
    GalaxyPreTrainedModel,
)
from hf_galaxy.models.regression import GalaxyForRegression
from hf_galaxy.models.vote_intervals import credible_intervals, distributions_in

CLASS, SCORE, UNFAMILIAR = "class", "ood_score", "unfamiliar"


class Column(NamedTuple):
    """A column of a table, for the schema and for the data dictionary beside the tables."""

    name: str
    type: pa.DataType
    meaning: str
    unit: str = ""


NAMES = (
    Column("dataset", pa.string(), "dataset, table or folder of the galaxy, as it was named"),
    Column("split", pa.string(), "split of the dataset; empty for pictures in a folder"),
    Column("id_str", pa.string(), "name of the galaxy; of a picture in a folder, the path of its file in there"),
)


@dataclass(frozen=True)
class PredictionColumns:
    """The numbers of a model, and what is asked for beside them.

    Attributes:
        model: that predicts.
        credible: probability of the credible intervals of vote fractions or of values; None: without.
        answers: with the probability that each question is asked, and its most expected answer; or with the most probable class.
        familiarity: with the score of how far galaxies lie from those of the training; None: without.
        members: number of predictions of each galaxy, by several runs or of several views (`ensemble`).
        others: further runs whose predictions are combined with those of the model.

    Raises:
        BadInput: the model has no such columns, or two would have the same name.
    """

    model: GalaxyPreTrainedModel
    credible: float | None = None
    answers: bool = False
    familiarity: Familiarity | None = None
    members: int = 1
    others: Sequence[GalaxyPreTrainedModel] = ()

    def __post_init__(self) -> None:
        model = self.model
        if self.credible is not None:
            if not 0 < self.credible < 1:
                raise BadInput(f"--credible {self.credible:g}: must be a probability between 0 and 1, such as 0.9")
            if isinstance(model, GalaxyForRegression) and not model.has_spread:
                raise BadInput(
                    f"--credible {self.credible:g}: this run predicts values without standard deviations: leave it out, or let hf-galaxy calibrate "
                    "fit them"
                )
            if not (self._has_concentrations or isinstance(model, GalaxyForRegression)):
                kind = "fractions alone" if isinstance(model, GalaxyForVotes) else "neither"
                raise BadInput(
                    f"--credible {self.credible:g}: intervals are of vote fractions, from their Dirichlet distributions, and of values; this model "
                    f"predicts {kind}: leave it out"
                )
        if self.answers and not (isinstance(model, GalaxyForVotes) or self._has_classes):
            raise BadInput(
                "--answers: is for models of votes, and of classes of which a galaxy has one; this model predicts "
                f"{', '.join(model.prediction_columns[:5])}: leave it out"
            )
        counts = Counter([*(column.name for column in NAMES), *self.names])
        if twice := [name for name, count in counts.items() if count > 1]:
            raise BadInput(
                f"the predictions of this model would have two columns {twice[0]}; rename its question, class or value"
            )

    @property
    def _has_concentrations(self) -> bool:
        return isinstance(self.model, GalaxyForVotes) and self.model.config.likelihood == "dirichlet_multinomial"

    @property
    def _has_classes(self) -> bool:
        return isinstance(self.model, GalaxyForImageClassification) and not self.model.multi_label

    @property
    def names(self) -> list[str]:
        """Of the columns, in their order."""
        return [column.name for column in self.columns]

    @cached_property
    def columns(self) -> list[Column]:
        """In their order: the numbers of the model, then what is asked for beside them."""
        if isinstance(self.model, GalaxyForVotes):
            columns = self._of_votes(self.model)
        elif isinstance(self.model, GalaxyForRegression):
            columns = self._of_values(self.model)
        else:
            columns = self._of_classes(self.model)
        if self.familiarity is not None:
            score = (
                "distance from the training galaxies, by features and by pixels; at most 1 for "
                f"{self.familiarity.level:.4g} of galaxies like them"
            )
            columns += [
                Column(SCORE, pa.float32(), score),
                Column(UNFAMILIAR, pa.bool_(), f"{SCORE} is above {THRESHOLD:g}: the predictions may mean nothing"),
            ]
        return columns

    def _of_values(self, model: GalaxyForRegression) -> list[Column]:
        columns = {"": "predicted value, in the unit of the training set"}
        if model.has_spread:
            disagreement = f", with the disagreement of {self.members} predictions" if self.members > 1 else ""
            columns["_std"] = f"standard deviation of the true {{}} around the predicted one{disagreement}"
        elif self.members > 1:
            columns["_std"] = (
                f"standard deviation among the {self.members} predictions of {{}}; it is no error, which is larger"
            )
        if self.credible is not None:
            for end, side in (("_low", "lower"), ("_high", "upper")):
                columns[end] = (
                    f"{side} end of the equal-tailed interval that holds the true {{}} with probability {self.credible:.4g}"
                )
        return [
            Column(name + end, pa.float32(), meaning.format(name), unit_of(name))
            for end, meaning in columns.items()
            for name in model.columns
        ]

    def _of_classes(self, model: GalaxyPreTrainedModel) -> list[Column]:
        meaning = "probability of this class" if self._has_classes else "probability of this label"
        columns = [Column(name, pa.float32(), meaning) for name in model.prediction_columns]
        if self.answers:
            columns.append(Column(CLASS, pa.string(), "the most probable class"))
        return columns

    def _of_votes(self, model: GalaxyForVotes) -> list[Column]:
        def of_answers(kind: str, meaning: str) -> list[Column]:
            pairs = [(q.name, answer) for q in model.tree.questions for answer in q.answers]
            return [
                Column(f"{name}_{kind}", pa.float32(), meaning.format(question=question, answer=answer))
                for name, (question, answer) in zip(model.columns, pairs, strict=True)
            ]

        columns = of_answers("fraction", "expected fraction of the votes on {question} that are for {answer}")
        if model.config.is_mixed:
            for kind, which in (("concentration", "first"), ("concentration_2", "second")):
                columns += of_answers(
                    kind,
                    f"of {{answer}} in the {which} of the two Dirichlet distributions of the vote fractions of {{question}}",
                )
            weight = (
                "probability of the first of the two Dirichlet distributions of {}; of the second it is 1 less this"
            )
            columns += [Column(f"{q.name}_weight", pa.float32(), weight.format(q.name)) for q in model.tree.questions]
        elif self._has_concentrations:
            columns += of_answers(
                "concentration", "of {answer} in the Dirichlet distribution of the vote fractions of {question}"
            )
        if self.credible is not None:
            for kind, side in (("low", "lower"), ("high", "upper")):
                end = f"{side} end of the equal-tailed credible interval of {self.credible:.4g}"
                columns += of_answers(kind, end + " of the fraction of votes on {question} for {answer}")
        if self.answers:
            questions = [question.name for question in model.tree.questions]
            columns += [
                Column(f"{name}_asked", pa.float32(), f"probability that a volunteer is asked {name}")
                for name in questions
            ]
            meaning = "answer to {} with the largest expected fraction, however seldom it is asked"
            columns += [Column(f"{name}_answer", pa.string(), meaning.format(name)) for name in questions]
        return columns

    @property
    def facts(self) -> dict[str, Any]:
        """What the columns depend on, for the metadata of tables."""
        facts: dict[str, Any] = {} if self.credible is None else {"credible": self.credible}
        if self.familiarity is not None:
            ood = {"threshold": THRESHOLD, "level": self.familiarity.level, "sha256": self.familiarity.digest}
            facts["ood"] = ood
        return facts

    def arrays(self, numbers: np.ndarray, scores: np.ndarray | None = None) -> list[pa.Array]:
        """The columns of B galaxies.

        Args:
            numbers: (M, B, N) float32, as the models predict them.
            scores: (B,) of `familiarity`.
        """
        together = combined(numbers, self.model)
        if isinstance(self.model, GalaxyForRegression) and self.credible is not None:
            together = np.concatenate([together, self._value_intervals(self.model, numbers)], axis=1)
        columns = self._arrays(together)
        if scores is not None:
            unfamiliar = ~(scores <= THRESHOLD)  # NaN, too
            columns += [pa.array(scores.astype(np.float32)), pa.array(unfamiliar)]
        return columns

    def _value_intervals(self, model: GalaxyForRegression, numbers: np.ndarray) -> np.ndarray:
        """(B, 2 K) float32: the lower ends, then the upper ones."""
        runs = [model, *self.others]
        tails = np.repeat([each.tails for each in runs], self.members // len(runs), axis=0)  # type: ignore[attr-defined]
        values, stds = np.split(numbers.astype(np.float64), 2, axis=2)
        ends = value_intervals(values, stds, tails, self.credible or 0.0)
        within = np.concatenate(ends, axis=1)
        return (within.clip(0, 1) if model.config.unit_interval else within).astype(np.float32)

    def _arrays(self, numbers: np.ndarray) -> list[pa.Array]:
        arrays = [*numbers.T]
        if isinstance(self.model, GalaxyForVotes):
            tree = self.model.tree
            count = len(tree.columns)
            fractions = numbers[:, :count]
            if self.credible is not None:
                concentrations, weights = distributions_in(numbers[:, count:], tree)
                ends = credible_intervals(concentrations, tree, self.credible, weights).astype(np.float32)
                arrays += [*ends[..., 0].T, *ends[..., 1].T]
            columns = [pa.array(np.ascontiguousarray(each)) for each in arrays]
            if self.answers:
                asked = tree.asked_probability(fractions.astype(np.float64))
                columns += [pa.array(each.astype(np.float32)) for each in asked]
                columns += [
                    _largest(fractions[:, where], question.answers)
                    for where, question in zip(tree.slices, tree.questions, strict=True)
                ]
            return columns
        columns = [pa.array(np.ascontiguousarray(each)) for each in arrays]
        return [*columns, _largest(numbers, self.model.columns)] if self.answers else columns


def _largest(numbers: np.ndarray, names: "list[str] | tuple[str, ...]") -> pa.Array:
    """(B, C) -> (B,) the name of the largest; null where a number is NaN."""
    places = pa.array(numbers.argmax(axis=1), pa.int32(), mask=np.isnan(numbers).any(axis=1))
    return pa.DictionaryArray.from_arrays(places, pa.array(names, pa.string())).dictionary_decode()


def unit_of(name: str) -> str:
    """The unit in the name of a column, as published datasets have it."""
    if name.lower() in ("ra", "dec"):
        return "deg"
    end = name.lower().rpartition("_")[2]
    return end if end in ("arcsec", "arcmin", "deg", "mag") and end != name.lower() else ""
