"""The distribution of vote fractions over galaxies, from their votes: a mixture of Dirichlet distributions of maximum likelihood.

Who is asked a question often depends on the galaxy: those with many votes for a question on spiral arms look more like spirals. So the
weight of a component depends on the number N of a galaxy's votes for the question,

    w_k = exp(b_k + c_k log N) / sum_j exp(b_j + c_j log N)

Legend: M different vote vectors, A answers of one question, K components, V different counts of all answers and of their total.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import digamma, gammaln, log_softmax, softmax

COMPONENTS, GALAXIES_OF_ONE = 4, 10  # at most so many, and galaxies for each
STEPS, STEPS_OF_START = 200, 5  # of L-BFGS, and those after which the best of several starts is chosen
TOLERANCE = 1e-7  # relative, of the likelihood
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
        """The mixture of maximum likelihood, with as many components as lower Akaike's information criterion.

        Args:
            votes: (M, A) different vote vectors, none without votes.
            times: (M,) how many galaxies have each.
        """
        likelihood = _Likelihood(votes, times)
        shares = times @ votes / (times @ votes).sum()
        best = likelihood.maximum(DirichletMixture((shares * len(shares) + 0.01)[None], np.zeros(1), np.zeros(1)))
        while len(best[1].offsets) < min(COMPONENTS, times.sum() // GALAXIES_OF_ONE):
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

    def derivatives(self, votes: np.ndarray, shares: np.ndarray) -> np.ndarray:
        """(M, P) derivatives of sum_c s_c log[w_c p_c(k)] for constant shares s, (M, K): of the logarithms of concentrations, of offsets, of slopes.

        With the posterior weights as shares they are those of the log-likelihood, the scores. With shares whose sum is 0, the normalisation of the weights drops out.
        """
        a, k = self.concentrations, votes[:, None]
        total, a0 = votes.sum(axis=1, keepdims=True), a.sum(axis=1)
        rises = digamma(a + k) - digamma(a) - (digamma(a0 + total) - digamma(a0))[:, :, None]
        of_weights = shares - shares.sum(axis=1, keepdims=True) * softmax(
            self.offsets + self.slopes * np.log(total), axis=1
        )
        of_concentrations = (shares[:, :, None] * a * rises).reshape(len(votes), -1)
        return np.concatenate([of_concentrations, of_weights, of_weights * np.log(total)], axis=1)

    def _divided(self, votes: np.ndarray, times: np.ndarray) -> list["DirichletMixture"]:
        """Starts of a fit with one component more: each component divided by precision, and along the direction in which its fractions vary most."""
        shares = self.posterior(votes)[0] * times[:, None]
        starts = []
        for k, own in enumerate(self.concentrations):
            fractions, weights = (votes + own) / (votes + own).sum(axis=1, keepdims=True), shares[:, k]
            deviations = fractions - weights @ fractions / max(weights.sum(), 1e-300)
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
        self.times, self.galaxies, self.log_totals = times, times.sum(), np.log(votes.sum(axis=1))
        columns = np.column_stack([votes, votes.sum(axis=1)]).T  # the answers, and the total
        different = [np.unique(column, return_inverse=True) for column in columns]
        sizes = [len(counts) for counts, _ in different]
        self.counts = np.concatenate([counts for counts, _ in different])  # (V,)
        self.starts = np.cumsum([0, *sizes[:-1]])
        self.column = np.repeat(np.arange(len(columns)), sizes)  # (V,)
        self.places = np.array([place for _, place in different]) + self.starts[:, None]  # (A + 1, M) among the counts
        self.sign = np.where(self.column < len(columns) - 1, 1, -1)

    def maximum(self, start: DirichletMixture, steps: int = STEPS) -> tuple[float, DirichletMixture]:
        """Akaike's information criterion and the mixture at the maximum of the likelihood that is reached from a start."""
        components, answers = start.concentrations.shape
        begin = np.concatenate([np.log(start.concentrations.ravel().clip(1e-9)), start.offsets, start.slopes])
        ends = np.repeat(
            [CONCENTRATION_ENDS, OFFSET_ENDS, SLOPE_ENDS], [components * answers, components, components], axis=0
        )
        fitted = minimize(
            self._nll_and_gradient, begin.clip(*ends.T), (components,), "L-BFGS-B", True, bounds=ends, options={"maxiter": steps, "ftol": TOLERANCE}
        )  # fmt: skip
        logs, offsets, slopes = np.split(fitted.x, [-2 * components, -components])
        criterion = 2 * (fitted.fun * self.galaxies + components * (answers + 2) - 2)
        return criterion, DirichletMixture(np.exp(logs).reshape(components, answers), offsets, slopes)

    def _nll_and_gradient(self, values: np.ndarray, components: int) -> tuple[float, np.ndarray]:
        logs, offsets, slopes = np.split(values, [-2 * components, -components])
        own = np.exp(logs).reshape(components, -1)
        a = np.column_stack([own, own.sum(axis=1)])
        of_counts = self.counts + a[:, self.column]  # (K, V)
        rises = self.sign * (gammaln(of_counts) - gammaln(a)[:, self.column])
        prior = offsets[:, None] + slopes[:, None] * self.log_totals  # (K, M)
        weights, norms = _softmax(prior)
        shares, sums = _softmax(prior + rises[:, self.places].sum(axis=1))
        shares *= self.times
        galaxies = [
            np.bincount(self.places.ravel(), np.tile(each, len(self.places)), len(self.counts)) for each in shares
        ]
        steps = self.sign * (digamma(of_counts) - digamma(a)[:, self.column]) * galaxies
        of_columns = np.add.reduceat(steps, self.starts, axis=1)
        of_concentrations = (of_columns[:, :-1] + of_columns[:, -1:]) * own
        of_weights = shares - self.times * weights
        gradient = np.concatenate([of_concentrations.ravel(), of_weights.sum(axis=1), of_weights @ self.log_totals])
        return (self.times @ (norms - sums)).item() / self.galaxies, -gradient / self.galaxies


def _softmax(logs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(K, M) -> shares with the sum 1 over K, and (M,) logarithms of the sums before; of scipy they take longer than all else in a fit."""
    largest = logs.max(axis=0)
    shares = np.exp(logs - largest)
    sums = shares.sum(axis=0)
    return shares / sums, largest + np.log(sums)
