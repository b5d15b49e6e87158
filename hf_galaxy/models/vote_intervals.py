"""Intervals of vote fractions and of numbers of votes, from Dirichlet distributions over the fractions or from mixtures of them.

Concentrations are (..., A), and without weights; or of a mixture (..., K, A), with the weights (..., K, Q) of its distributions.

Legend: A answers, Q questions, K distributions in a mixture, N volunteers.
"""

import numpy as np
from scipy.special import betainc, betaincinv, betaln, gammaln, xlog1py, xlogy

from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.errors import BadInput

PRECISION = 1e-6  # of the probability, or of the fraction, with which the quantiles of a mixture are found


def distributions_in(numbers: np.ndarray, tree: DecisionTree) -> tuple[np.ndarray, np.ndarray | None]:
    """The concentrations and weights that a table of predictions has after the fractions, in their order.

    Args:
        numbers: (..., A), or (..., 2 A + Q) of mixtures of two: first and second concentrations, and the weight of the first distribution.
    """
    answers = len(tree.columns)
    if numbers.shape[-1] == answers:
        return numbers, None
    first = numbers[..., 2 * answers :]
    concentrations = numbers[..., : 2 * answers].reshape(*numbers.shape[:-1], 2, answers)
    return concentrations, np.stack([first, 1 - first], axis=-2)


def credible_intervals(
    concentrations: np.ndarray, tree: DecisionTree, credible: float = 0.9, weights: np.ndarray | None = None
) -> np.ndarray:
    """(..., A, 2) equal-tailed intervals of each answer's vote fraction.

    They are of Beta(a_i, a_0 - a_i), the marginal of a Dirichlet, or of a mixture of such distributions.
    """
    a, others, shares = _marginals(concentrations, tree, weights)
    if weights is None:
        return np.stack([betaincinv(a, others, tail)[..., 0, :] for tail in _tails(credible)], axis=-1)
    tail = (1 - credible) / 2
    low, high = _quantiles(a, others, shares, tail), 1 - _quantiles(others, a, shares, tail)
    return np.stack([np.minimum(low, high), high], axis=-1)  # in order, also where they differ by less than PRECISION


def vote_intervals(
    concentrations: np.ndarray, tree: DecisionTree, volunteers: int, credible: float = 0.9, weights: np.ndarray | None = None
) -> np.ndarray:  # fmt: skip
    """(A, 2) equal-tailed intervals of the number of votes for each answer, if N volunteers classify the galaxy.

    If n volunteers are asked a question, the number k of them who give an answer, or one of several, is beta-binomial,

        P(k | n) = C(n, k) B(k + a, n - k + b) / B(a, b),    a of these answers and b of the others,

    or of a mixture of such distributions, and k volunteers are asked the next question: so the exact distribution of n follows from that of its parents.

    Returns:
        The smallest numbers whose cumulative probability reaches each tail, as `scipy.stats.betabinom.ppf`.

    Raises:
        BadInput: a question is asked after answers of different questions.
    """
    a, others, shares = _marginals(concentrations, tree, weights)
    total = a + others
    asked = [np.arange(volunteers + 1.0) == volunteers] * len(tree.questions)  # P(n are asked), n from 0 to N
    intervals = np.empty((a.shape[1], 2), int)

    def after(n: np.ndarray, a: np.ndarray, b: np.ndarray, shares: np.ndarray) -> np.ndarray:
        """P(k), from P(n)."""
        return sum(share * (n @ _beta_binomial(volunteers, *ab)) for share, *ab in zip(shares, a, b, strict=True))

    for q in tree.order:
        if parents := tree.parents[q]:
            previous = {tree.question_of_answer[parent] for parent in parents}
            if len(previous) > 1:
                names = ", ".join(tree.questions[p].name for p in sorted(previous))
                raise BadInput(f"volunteers: {tree.questions[q].name} is asked after several questions, {names}")
            [parent] = previous
            asked[q] = asked[parent]
            if len(parents) < len(tree.questions[parent].answers):
                summed, first = a[:, parents].sum(axis=1), parents[0]
                asked[q] = after(asked[parent], summed, total[:, first] - summed, shares[:, first])
        for answer in range(tree.slices[q].start, tree.slices[q].stop):
            votes = after(asked[q], a[:, answer], others[:, answer], shares[:, answer])
            intervals[answer] = np.searchsorted(votes.cumsum(), _tails(credible))
    return intervals


def _tails(credible: float) -> tuple[float, float]:
    return (1 - credible) / 2, (1 + credible) / 2


def _marginals(
    concentrations: np.ndarray, tree: DecisionTree, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(..., K, A) concentrations, the sums of those of all other answers to the same question, and the weights, in float64."""
    a = np.asarray(concentrations, np.float64)
    if weights is None:
        a, weights = a[..., None, :], np.ones((*a.shape[:-1], 1, len(tree.questions)))
    totals = np.add.reduceat(a, [where.start for where in tree.slices], axis=-1)
    return a, totals[..., tree.question_of_answer] - a, np.asarray(weights, np.float64)[..., tree.question_of_answer]


def _quantiles(a: np.ndarray, b: np.ndarray, shares: np.ndarray, probability: float) -> np.ndarray:
    """(..., A) lower quantiles of mixtures of Beta distributions; all arguments (..., K, A).

    By Newton's method with the logarithms of probability and fraction, near 0 a straight line, in three to five steps; or where that would leave the
    interval in which the quantile is known to lie, and in every fifth step, so that it ends, by halving it.
    """
    ends = betaincinv(a, b, probability)
    low, high = ends.min(axis=-2), ends.max(axis=-2)  # between those of the distributions lies that of the mixture
    quantiles = np.sqrt(low * high)
    left = np.nonzero(high - low > PRECISION)
    a, b, shares = (np.stack([of_one[left] for of_one in np.moveaxis(each, -2, 0)]) for each in (a, b, shares))
    low, high, x, scale, step = low[left], high[left], quantiles[left], betaln(a, b), 0
    while len(x):
        below = (shares * betainc(a, b, x)).sum(axis=0)
        quantiles[left] = x
        low, high = np.where(below < probability, x, low), np.where(below < probability, high, x)
        with np.errstate(all="ignore"):  # a density of 0 or infinity leads out of the interval
            density = (shares * np.exp(xlogy(a - 1, x) + xlog1py(b - 1, -x) - scale)).sum(axis=0)
            x, step = x * (probability / below) ** (below / (density * x)), step + 1
        x = np.where((low < x) & (x < high) & (step % 5 > 0), x, (low + high) / 2)
        on = (abs(below - probability) > PRECISION) & (high - low > PRECISION)
        left, low, high, x = tuple(each[on] for each in left), low[on], high[on], x[on]
        a, b, shares, scale = (each[:, on] for each in (a, b, shares, scale))
    return quantiles


def _beta_binomial(volunteers: int, a: float, b: float) -> np.ndarray:
    """(N + 1, N + 1): P(k | n), with n from 0 to N in rows."""
    numbers = np.arange(volunteers + 1)
    n, k = numbers[:, None], numbers[None]
    factorials, ways = gammaln(numbers + 1), gammaln(a + numbers) - gammaln(a)
    other_ways, all_ways = gammaln(b + numbers) - gammaln(b), gammaln(a + b + numbers) - gammaln(a + b)
    rest = np.maximum(n - k, 0)
    log = (factorials - all_ways)[n] + (ways - factorials)[k] + (other_ways - factorials)[rest]
    return np.where(k <= n, np.exp(log), 0)
