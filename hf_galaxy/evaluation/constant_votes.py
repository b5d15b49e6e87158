"""The best constant prediction of votes. Legend: N galaxies, A answers, Q questions."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import digamma, gammaln

from hf_galaxy.decision_tree import DecisionTree

PIECE = 500  # galaxies whose votes are counted at once: it takes ten times the memory of their votes
Occurrences = tuple[np.ndarray, np.ndarray]  # different counts, and how often each occurs


@dataclass
class ConstantVotes:
    """The constant prediction for every galaxy, from the votes of the training split.

    Attributes:
        fractions: (A,) mean vote fractions of the galaxies with enough votes for the question.
        concentrations: (A,) the constant Dirichlet distribution of maximum likelihood.
        shares: (A,) fractions of all training votes for the question: the constant multinomial of maximum likelihood.
    """

    fractions: torch.Tensor
    concentrations: torch.Tensor
    shares: torch.Tensor

    @classmethod
    def of(cls, batches: Iterable[np.ndarray], tree: DecisionTree, min_votes: int) -> Self:
        """From all training votes, (n, A) at a time, in memory that does not grow with the number of galaxies.

        A question without votes gets equal fractions and concentrations of 1.
        """
        questions = np.array(tree.question_of_answer)
        starts = [where.start for where in tree.slices]
        sums: dict[str, np.ndarray] = {name: np.zeros(len(starts), np.int64) for name in ("asked", "enough")}
        sums |= {name: np.zeros(len(questions)) for name in ("votes", "fractions of asked", "fractions of enough")}
        occurrences = _Occurrences()
        for votes in (batch[first : first + PIECE] for batch in batches for first in range(0, len(batch), PIECE)):
            totals = np.add.reduceat(votes, starts, axis=1, dtype=np.int64)
            sums["asked"] += (totals > 0).sum(axis=0)
            sums["enough"] += (totals >= max(min_votes, 1)).sum(axis=0)
            galaxy, answer = np.nonzero(votes)
            k, total = votes[galaxy, answer], totals[galaxy, questions[answer]]
            in_enough = total >= min_votes
            sums["votes"] += np.bincount(answer, k, len(questions))
            sums["fractions of asked"] += np.bincount(answer, k / total, len(questions))
            sums["fractions of enough"] += np.bincount(answer, k / total * in_enough, len(questions))
            galaxy, question = np.nonzero(totals)
            occurrences.add(answer, k)
            occurrences.add(len(questions) + question, totals[galaxy, question])

        parts = {"fractions": [], "concentrations": [], "shares": []}
        for q, where in enumerate(tree.slices):
            answers = where.stop - where.start
            if not sums["asked"][q]:
                for name, value in (("fractions", 1 / answers), ("concentrations", 1), ("shares", 1 / answers)):
                    parts[name].append(np.full(answers, value))
                continue
            counted = "enough" if sums["enough"][q] else "asked"
            shares = sums["votes"][where] / sums["votes"][where].sum()
            counts = [occurrences.of(answer) for answer in range(where.start, where.stop)]
            parts["fractions"].append(sums[f"fractions of {counted}"][where] / sums[counted][q])
            parts["shares"].append(shares)
            parts["concentrations"].append(
                _likeliest_concentrations(counts, occurrences.of(len(questions) + q), shares)
            )
        return cls(**{name: torch.tensor(np.concatenate(each), dtype=torch.float32) for name, each in parts.items()})

    def to(self, device: torch.device | str) -> Self:
        """The same on a device."""
        return type(self)(**{name: values.to(device) for name, values in vars(self).items()})

    def to_dict(self) -> dict:
        """Plain lists, for a run record."""
        return {name: values.tolist() for name, values in vars(self).items()}

    @classmethod
    def from_dict(cls, data: dict) -> Self:
        """What `to_dict` wrote."""
        return cls(**{name: torch.tensor(values) for name, values in data.items()})


class _Occurrences:
    """How often each count occurs in each column; zeros are left out, as they add nothing to a likelihood."""

    def __init__(self) -> None:
        self.pairs, self.times = np.empty(0, np.int64), np.empty(0, np.int64)  # column * 2^40 + count, in order

    def add(self, column: np.ndarray, count: np.ndarray) -> None:
        """Add counts, and the column of each."""
        pairs, times = np.unique((column << 40) + count, return_counts=True)
        self.pairs, places = np.unique(np.concatenate([self.pairs, pairs]), return_inverse=True)
        self.times = np.bincount(places, np.concatenate([self.times, times])).astype(np.int64)

    def of(self, column: int) -> Occurrences:
        """The counts of a column and how often each occurs."""
        own = slice(*np.searchsorted(self.pairs, [column << 40, (column + 1) << 40]))
        return self.pairs[own] - (column << 40), self.times[own]


def _likeliest_concentrations(counts: list[Occurrences], totals: Occurrences, shares: np.ndarray) -> np.ndarray:
    """(answers,) maximum-likelihood concentrations of one question, by L-BFGS on their logarithm.

    The likelihood needs only how often each count of each answer occurs, and each total.
    """
    galaxies = totals[1].sum()

    def nll_and_gradient(log_concentrations: np.ndarray) -> tuple[float, np.ndarray]:
        a = np.exp(log_concentrations)
        a0 = a.sum()
        value = (totals[1] * (gammaln(totals[0] + a0) - gammaln(a0))).sum()
        slope0 = (totals[1] * (digamma(totals[0] + a0) - digamma(a0))).sum()
        slopes = np.empty_like(a)
        for i, (k, times) in enumerate(counts):
            value -= (times * (gammaln(k + a[i]) - gammaln(a[i]))).sum()
            slopes[i] = slope0 - (times * (digamma(k + a[i]) - digamma(a[i]))).sum()
        return value / galaxies, a * slopes / galaxies

    start = np.log(shares * len(shares) + 0.01)
    # Votes that vary no more than by counting would send the concentrations to infinity; e^10 is as good.
    return np.exp(minimize(nll_and_gradient, start, jac=True, method="L-BFGS-B", bounds=[(-7, 10)] * len(start)).x)
