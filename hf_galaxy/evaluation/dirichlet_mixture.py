"""The distribution of vote fractions over galaxies, from their votes: a mixture of Dirichlet distributions of maximum likelihood.

Who is asked a question often depends on the galaxy: those with many votes for a question on spiral arms look more like spirals. So the
weight of a component depends on the number N of a galaxy's votes for the question,

    w_k = exp(b_k + c_k log N) / sum_j exp(b_j + c_j log N)

Legend: M different vote vectors, A answers of one question, K components.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import digamma, gammaln, log_softmax

COMPONENTS = 4  # at most
STEPS, STEPS_OF_START = 200, 5  # of L-BFGS, and those after which the best of several starts is chosen
# Votes that vary no more than by counting would send concentrations to infinity; unanimous ones, to 0. The ends of their logarithms, of b and c.
CONCENTRATION_ENDS, OFFSET_ENDS, SLOPE_ENDS = (-7, 10), (-20, 20), (-5, 5)


@dataclass(frozen=True)
class DirichletMixture:
    """A mixture for one question.

    Attributes:
        concentrations: (K, A).
        offsets, slopes: (K,) the b and c of the weights.
    """

    concentrations: np.ndarray
    offsets: np.ndarray
    slopes: np.ndarray

    @staticmethod
    def fit(votes: np.ndarray, times: np.ndarray) -> "DirichletMixture":
        """The mixture of maximum likelihood, with as many components as lower the Bayesian information criterion.

        Args:
            votes: (M, A) different vote vectors, none without votes.
            times: (M,) how many galaxies have each.
        """
        likelihood = _Likelihood(votes, times)
        shares = times @ votes / (times @ votes).sum()
        best = likelihood.maximum(DirichletMixture((shares * len(shares) + 0.01)[None], np.zeros(1), np.zeros(1)))
        while len(best[1].offsets) < COMPONENTS:
            tried = [likelihood.maximum(start, STEPS_OF_START) for start in best[1]._divided(votes, times)]
            more = likelihood.maximum(min(tried, key=lambda each: each[0])[1])
            if more[0] >= best[0]:
                break
            best = more
        return best[1]

    def posterior(self, votes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The distribution of the fractions of galaxies with the votes (M, A): weights (M, K), concentrations (M, K, A)."""
        a, k = self.concentrations, votes[:, None]
        total, a0 = votes.sum(axis=1, keepdims=True), a.sum(axis=1)
        rises = (gammaln(a + k) - gammaln(a)).sum(axis=2) - gammaln(a0 + total) + gammaln(a0)
        return np.exp(log_softmax(self.offsets + self.slopes * np.log(total) + rises, axis=1)), a + k

    def _divided(self, votes: np.ndarray, times: np.ndarray) -> list["DirichletMixture"]:
        """Starts of a fit with one component more: each component divided by precision, and along the direction in which its fractions vary most."""
        shares = self.posterior(votes)[0] * times[:, None]
        starts = []
        for k, own in enumerate(self.concentrations):
            fractions, weights = (votes + own) / (votes + own).sum(axis=1, keepdims=True), shares[:, k]
            deviations = fractions - weights @ fractions / weights.sum()
            along = np.linalg.eigh((deviations.T * weights) @ deviations)[1][:, -1]
            sides = [weights * (deviations @ along > 0), weights * (deviations @ along <= 0)]
            halves = [2 * own.sum() * (each @ fractions) / max(each.sum(), 1e-9) for each in sides]
            kept = [np.delete(values, k, axis=0) for values in (self.concentrations, self.offsets, self.slopes)]
            new = [np.full(2, self.offsets[k] - np.log(2)), np.full(2, self.slopes[k])]
            for two in (np.array(halves), np.stack([own / 3, own * 3])):
                starts.append(DirichletMixture(*(np.concatenate(pair) for pair in zip(kept, [two, *new], strict=True))))
        return starts


class _Likelihood:
    """The likelihood of the votes for one question and its gradient; special functions are computed once for each different count."""

    def __init__(self, votes: np.ndarray, times: np.ndarray) -> None:
        self.times, self.galaxies = times, times.sum()
        self.log_totals = np.log(votes.sum(axis=1))
        # For each answer, and the total: its different counts, and which of them each vote vector has.
        self.counts = [np.unique(column, return_inverse=True) for column in [*votes.T, votes.sum(axis=1)]]

    def maximum(self, start: DirichletMixture, steps: int = STEPS) -> tuple[float, DirichletMixture]:
        """The Bayesian information criterion and the mixture at the maximum of the likelihood that is reached from a start."""
        components, answers = start.concentrations.shape
        begin = np.concatenate([np.log(start.concentrations.ravel().clip(1e-9)), start.offsets, start.slopes])
        ends = np.repeat(
            [CONCENTRATION_ENDS, OFFSET_ENDS, SLOPE_ENDS], [components * answers, components, components], axis=0
        )
        fitted = minimize(
            self._nll_and_gradient, begin.clip(*ends.T), (components,), "L-BFGS-B", True, bounds=ends, options={"maxiter": steps}
        )  # fmt: skip
        logs, offsets, slopes = np.split(fitted.x, [-2 * components, -components])
        free = components * (answers + 2) - 2
        criterion = 2 * fitted.fun * self.galaxies + free * np.log(self.galaxies)
        return criterion, DirichletMixture(np.exp(logs).reshape(components, answers), offsets, slopes)

    def _nll_and_gradient(self, values: np.ndarray, components: int) -> tuple[float, np.ndarray]:
        logs, offsets, slopes = np.split(values, [-2 * components, -components])
        a = np.exp(logs).reshape(components, -1)
        columns = [*((own[:, None], 1) for own in a.T), (a.sum(axis=1, keepdims=True), -1)]
        joint = offsets[:, None] + slopes[:, None] * self.log_totals  # (K, M)
        weights, norms = _softmax(joint)
        for (counts, place), (own, sign) in zip(self.counts, columns, strict=True):
            joint += sign * (gammaln(counts + own) - gammaln(own))[:, place]
        shares, sums = _softmax(joint)
        shares *= self.times
        gradients = []
        for (counts, place), (own, sign) in zip(self.counts, columns, strict=True):
            of_counts = np.array([np.bincount(place, share, len(counts)) for share in shares])
            gradients.append(sign * (of_counts * (digamma(counts + own) - digamma(own))).sum(axis=1))
        of_concentrations = (np.stack(gradients[:-1], axis=1) + gradients[-1][:, None]) * a
        of_weights = shares - self.times * weights
        gradient = np.concatenate([of_concentrations.ravel(), of_weights.sum(axis=1), of_weights @ self.log_totals])
        return (self.times @ (norms - sums)).item() / self.galaxies, -gradient / self.galaxies


def _softmax(logs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(K, M) -> shares with the sum 1 over K, and (M,) logarithms of the sums before; of scipy they take longer than all else in a fit."""
    largest = logs.max(axis=0)
    shares = np.exp(logs - largest)
    sums = shares.sum(axis=0)
    return shares / sums, largest + np.log(sums)
