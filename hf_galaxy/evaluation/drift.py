"""How predictions drift when the pictures of the same galaxies become worse.

Each galaxy is compared with itself, so that only the pictures differ. A question that is asked after others counts for a galaxy as much as it
is asked of the original picture, at every step: the drift is that of the answers, not of who is asked; how often it is asked is measured beside
it. Intervals are of the Poisson bootstrap over galaxies (`bootstrap`). Galaxies come some at a time, of which only sums are kept.

Legend: B galaxies, A answers, Q questions, R replicates; column 0 of R + 1 counts each galaxy once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.evaluation.bootstrap import REPLICATES, counts, estimate_of, ratios

ASKED = 0.5  # probability above which a question is asked


@dataclass(frozen=True)
class Answers:
    """The answers that a model predicts.

    Attributes:
        columns: (A,) names of the predictions.
        questions: (Q,) name of each question, and the places of its answers; a label that is yes or no is a question with one.
        tree: that says when a question is asked; None: always.
    """

    columns: tuple[str, ...]
    questions: tuple[tuple[str, slice], ...]
    tree: DecisionTree | None = None

    @classmethod
    def of_tree(cls, tree: DecisionTree) -> "Answers":
        """Vote fractions, by the columns of predictions."""
        names = tuple(f"{column}_fraction" for column in tree.columns)
        return cls(names, tuple((q.name, where) for q, where in zip(tree.questions, tree.slices, strict=True)), tree)

    @classmethod
    def of_classes(cls, columns: Sequence[str], exclusive: bool) -> "Answers":
        """Probabilities of classes of which a galaxy has one, or of labels, each of which is yes or no."""
        if exclusive:
            return cls(tuple(columns), (("class", slice(0, len(columns))),))
        return cls(tuple(columns), tuple((name, slice(i, i + 1)) for i, name in enumerate(columns)))

    @cached_property
    def question_of(self) -> np.ndarray:
        """(A,) the question of each answer."""
        return np.concatenate([np.full(where.stop - where.start, q) for q, (_, where) in enumerate(self.questions)])

    def asked(self, fractions: np.ndarray) -> np.ndarray:
        """(B, Q) the probability that each question is asked.

        Args:
            fractions: (B, A)
        """
        if self.tree is None:
            return np.ones((len(fractions), len(self.questions)))
        return np.stack(self.tree.asked_probability(fractions), axis=1)

    def best(self, fractions: np.ndarray) -> np.ndarray:
        """(B, Q) the place of the largest answer to each question; of a label, whether it is above one half."""
        return np.stack([
            fractions[:, where].argmax(1) if where.stop - where.start > 1 else fractions[:, where.start] > 0.5 for _, where in self.questions
        ], axis=1)  # fmt: skip


class DriftSums:
    """What is kept of the galaxies at one step."""

    def __init__(self, answers: Answers, replicates: int = REPLICATES) -> None:
        self.answers, self.replicates = answers, replicates
        a, q, r = len(answers.columns), len(answers.questions), replicates + 1
        self.galaxies = 0
        self.weight, self.before, self.after = np.zeros((q, r)), np.zeros((a, r)), np.zeros((a, r))
        self.asked_after, self.changed = np.zeros((q, r)), np.zeros((q, r))
        self.was_asked, self.no_longer = np.zeros((q, r)), np.zeros((q, r))
        self.number = np.zeros(r)

    def add(self, keys: np.ndarray, before: np.ndarray, after: np.ndarray) -> None:
        """Some galaxies.

        Args:
            keys: (B,) int64 of their names (`randomness.key_of`).
            before, after: (B, A) fractions, of the original and of the degraded pictures.
        """
        often = weights_of(keys, self.replicates)
        asked, later = self.answers.asked(before), self.answers.asked(after)
        other = self.answers.best(before) != self.answers.best(after)
        of_answers = asked[:, self.answers.question_of]
        self.galaxies += len(keys)
        for total, values in (
            (self.weight, asked), (self.before, of_answers * before), (self.after, of_answers * after), (self.asked_after, later),
            (self.changed, asked * other), (self.was_asked, asked >= ASKED), (self.no_longer, (asked >= ASKED) & (later < ASKED)),
        ):  # fmt: skip
            total += values.T.astype(np.float64) @ often
        self.number += often.sum(axis=0)

    def of_answers(self) -> list[dict[str, Any]]:
        """For each answer its mean before and after, and the drift with its interval."""
        weight = self.weight[self.answers.question_of]
        before, after = ratios(self.before, weight), ratios(self.after, weight)
        return [
            {"question": self.answers.questions[q][0], "answer": name, "galaxies": self.galaxies, "mean_original": float(b[0]), "mean": float(a[0])}
            | _ends("drift", a - b)
            for name, q, b, a in zip(self.answers.columns, self.answers.question_of, before, after, strict=True)
        ]  # fmt: skip

    def of_questions(self) -> list[dict[str, Any]]:
        """For each question how often it is asked before and after, in how many galaxies another answer is the largest, and of how many of
        those of whom it was asked it no longer is."""
        asked, later = ratios(self.weight, self.number), ratios(self.asked_after, self.number)
        changed, gone = ratios(self.changed, self.weight), ratios(self.no_longer, self.was_asked)
        return [
            {
                "question": name, "galaxies": self.galaxies, "asked_original": float(asked[q, 0]), "asked": float(later[q, 0]),
                "was_asked": int(self.was_asked[q, 0]),
            }
            | _ends("asked_drift", later[q] - asked[q]) | _ends("changed", changed[q]) | _ends("no_longer_asked", gone[q])
            for q, (name, _) in enumerate(self.answers.questions)
        ]  # fmt: skip


def weights_of(keys: np.ndarray, replicates: int) -> np.ndarray:
    """(B, R + 1) how often each galaxy counts; once in the first column."""
    return np.concatenate([np.ones((len(keys), 1)), counts(keys, replicates)], axis=1)


def _ends(name: str, values: np.ndarray) -> dict[str, float | None]:
    """A value and its interval, from (R + 1,)."""
    estimate = estimate_of(values[0], values[1:])
    return {name: estimate["value"], f"{name}_low": estimate["low"], f"{name}_high": estimate["high"]}
