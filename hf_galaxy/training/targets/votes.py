"""The target votes: how volunteers answer the questions of a decision tree. Legend of shapes: n rows, A answers."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self

import datasets
import numpy as np
import pyarrow as pa
import torch

from hf_galaxy.data.schema import vote_columns, votes_in
from hf_galaxy.data.splits import strata_of
from hf_galaxy.data.targets import Rows, tables_of
from hf_galaxy.decision_tree import DecisionTree, load_tree, tree_of_columns
from hf_galaxy.errors import BadInput
from hf_galaxy.evaluation.constant_votes import ConstantVotes
from hf_galaxy.evaluation.oracle import oracle_loss
from hf_galaxy.evaluation.vote_metrics import VoteMetrics
from hf_galaxy.losses import dirichlet_multinomial_nll, expected_fractions, multinomial_nll, question_log_softmax
from hf_galaxy.models.calibration import LARGEST, uncalibrated_logs
from hf_galaxy.models.calibration_fit import FittedCalibration, VoteLikelihood, fit_votes
from hf_galaxy.models.model import GalaxyConfig, GalaxyForVotes, GalaxyVotesOutput
from hf_galaxy.training.targets.class_column import class_columns
from hf_galaxy.training.targets.target import Before, TrainingTarget
from hf_galaxy.training.targets.values import Values

if TYPE_CHECKING:
    from hf_galaxy.reports.run_record import RunRecord
    from hf_galaxy.training.settings import Settings


@dataclass(frozen=True)
class Votes(TrainingTarget):
    """The votes for all questions of a tree; no votes for questions whose columns a dataset lacks.

    Attributes:
        stratified: the strata of training galaxies are needed; to compute them reads all votes.
        balanced: training galaxies without votes are left out.
        absent: questions of the tree's campaigns that the datasets have no votes for.
    """

    tree: DecisionTree
    stratified: bool = False
    balanced: bool = False
    absent: tuple[str, ...] = ()

    as_matrix: ClassVar = True
    is_calibrated: ClassVar = True
    options: ClassVar = ("tree",)
    name: ClassVar = "votes"
    labels_name: ClassVar = "votes"

    @classmethod
    def of(cls, settings: Settings, splits: dict[str, list[Rows]]) -> Self:
        features = {name: feature for rows in splits["train"] for name, feature in rows.features.items()}
        columns = list(features)
        tree = load_tree(list(settings.tree)) if settings.tree else _tree_of(features, " ".join(settings.dataset))
        check_tree_columns(columns, tree, " ".join(settings.dataset))
        whole = tree.questions if settings.tree else load_tree(list(tree.campaigns)).questions
        held = {question.name for question in tree.questions}
        absent = tuple(question.name for question in whole if question.name not in held)
        return cls(tree, settings.subset < 1 or bool(settings.balance), bool(settings.balance), absent)

    @classmethod
    def from_record(cls, record: RunRecord, config: GalaxyConfig) -> Self:
        return cls(config.decision_tree)

    def notice(self) -> str:
        without = f"; there are no votes for {', '.join(self.absent)}" if self.absent else ""
        return f"learning {len(self.tree.questions)} questions of {self.tree.name}{without}"

    def columns_of(self, rows: Rows) -> list[str]:
        return vote_columns(rows.column_names, self.tree)

    def tensors(self, table: pa.Table, features: datasets.Features) -> dict[str, torch.Tensor]:
        return {"votes": torch.from_numpy(votes_in(table, self.tree))}

    def strata(self, table: pa.Table, features: datasets.Features) -> np.ndarray:
        """The campaigns in which the galaxy has any votes: bit c is set for campaign c of `tree.campaigns`."""
        voted = votes_in(table, self.tree) > 0
        group = np.array(self.tree.question_of_answer)
        campaigns = self.tree.campaigns.values()
        bits = [
            voted[:, np.isin(group, questions)].any(axis=1).astype(np.int64) << c
            for c, questions in enumerate(campaigns)
        ]
        return np.sum(bits, axis=0)

    def labelled(self, rows: Rows, where: str, training: bool = False) -> tuple[Rows, np.ndarray | None]:
        if not (training and self.stratified):
            return rows, None
        strata = strata_of(rows, self)
        if not self.balanced:
            return rows, strata
        voted = np.flatnonzero(strata)  # to be in no campaign is no campaign
        return rows.select(voted), strata[voted]

    def measurable(self, splits: list[Rows], datasets: list[str], split: str, partly: bool = False) -> list[Rows]:
        columns = {column for rows in splits for column in rows.column_names}
        if partly and any(columns >= set(self.tree.columns[where]) for where in self.tree.slices):
            return splits
        check_tree_columns(columns, self.tree, " ".join(datasets))
        return splits

    def baseline(self, settings: Settings, train: list[Rows], strata: list[np.ndarray] | None) -> dict:
        votes = itertools.chain.from_iterable(vote_batches(rows, self.tree) for rows in train)
        return ConstantVotes.of(votes, self.tree, settings.min_votes).to_dict()

    def least_loss(self, rows: list[Rows]) -> float:
        """That of an oracle that knows the true fractions of every galaxy."""
        return oracle_loss(itertools.chain.from_iterable(vote_batches(each, self.tree) for each in rows), self.tree)

    def model(
        self, settings: Settings, fields: dict, baseline: dict, strata: list[np.ndarray] | None
    ) -> GalaxyForVotes:
        head = dict(likelihood=settings.likelihood, head_activation=settings.head_activation)
        model = GalaxyForVotes(GalaxyConfig(tree=self.tree, **head, **fields))
        constant = ConstantVotes.from_dict(baseline)
        model.start_from_constant(constant.concentrations, constant.fractions)
        return model

    def metrics(self, record: RunRecord, config: GalaxyConfig, before: Before | None = None) -> VoteMetrics:
        constant = ConstantVotes.from_dict(record.baseline)
        uncalibrated = before and self._without_weights(before)
        if before is None and config.calibration is not None:
            uncalibrated = partial(uncalibrated_logs, calibration=config.calibration, tree=self.tree)
        return VoteMetrics(self.tree, constant, record.settings["min_votes"], config.likelihood, uncalibrated)

    def _without_weights(self, before: Before) -> Before:
        """What is calibrated of a mixture has its weights after the logarithms (`to_calibrate`)."""
        return lambda logs: before(logs)[..., : len(self.tree.columns)]

    def predicted(self, target: torch.Tensor, predictions: torch.Tensor, config: GalaxyConfig) -> GalaxyVotesOutput:
        if config.likelihood == "multinomial":
            nll = multinomial_nll(target, predictions, self.tree)
            return GalaxyVotesOutput(fractions=question_log_softmax(predictions, self.tree).exp(), nll=nll)
        logs, weights = predictions.tensor_split([len(self.tree.columns)], dim=-1)
        weights = weights if config.is_mixed else None
        concentrations = logs.clamp(-LARGEST, LARGEST).exp()
        fractions = expected_fractions(concentrations, self.tree, weights)
        nll = dirichlet_multinomial_nll(target, concentrations, self.tree, weights)
        return GalaxyVotesOutput(concentrations=concentrations, fractions=fractions, nll=nll, weights=weights)

    def to_calibrate(
        self, batch: dict[str, torch.Tensor], outputs: Any, config: GalaxyConfig
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, A) votes, and logarithms of concentrations or of fractions; of a mixture (B, 2, A + Q), followed by its weights."""
        has_none = config.likelihood == "multinomial"
        predicted = outputs.fractions if has_none else outputs.concentrations
        logs = predicted.clamp_min(torch.finfo(predicted.dtype).tiny).log()
        return batch["votes"], logs if outputs.weights is None else torch.cat([logs, outputs.weights], dim=-1)

    def is_known(self, target: torch.Tensor) -> torch.Tensor:
        """Those with a vote."""
        return (target > 0).any(1)

    def fit_calibration(
        self, target: np.ndarray, predictions: np.ndarray, keys: np.ndarray, config: GalaxyConfig
    ) -> FittedCalibration:
        return fit_votes(predictions, VoteLikelihood(target, self.tree, config.likelihood == "multinomial"), keys)

    def description(self) -> dict:
        return {"tree": self.tree.name, "questions": [question.name for question in self.tree.questions]}


def _tree_of(features: Mapping[str, Any], name: str) -> DecisionTree:
    """The tree whose votes a dataset with columns of these types has; `name` is for the message."""
    try:
        return tree_of_columns(list(features))
    except BadInput as error:
        classes, values = (
            class_columns(features),
            [column for column in features if Values.is_possible(features[column])],
        )
        values.sort(key=lambda column: not features[column].dtype.startswith("float"))
        choices = [
            f"{option} with {'one of ' if len(columns) > 1 else ''}{', '.join(columns[:20])}{', ...' if len(columns) > 20 else ''}"
            for option, columns in (("--label", classes), ("--values", values))
            if columns
        ]
        hint = (
            f"for another target give {' or '.join(choices)}" if choices else "nor has it a column for another target"
        )
        raise BadInput(f"--dataset {name}: {error}; {hint}") from error


def check_tree_columns(columns: Collection[str], tree: DecisionTree, name: str) -> None:
    """Refuse a dataset with these columns if it lacks votes for a question of the tree; `name` is for the message."""
    if missing := [column for column in tree.columns if column not in set(columns)]:
        raise BadInput(
            f"--dataset {name}: lacks {len(missing)} of the {len(tree.columns)} vote columns of tree {tree.name}: "
            f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}"
        )


def vote_batches(rows: Rows, tree: DecisionTree) -> Iterator[np.ndarray]:
    """The votes of a whole split in its order, (n, A) int32 at a time."""
    for table in tables_of(rows, [], Votes(tree)):
        yield votes_in(table, tree)
