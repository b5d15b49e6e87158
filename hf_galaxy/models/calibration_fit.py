"""Fits the numbers of a calibration (`calibration`) to votes or labels of galaxies that a model was not trained on; to values, see `spread_fit`.

They maximise the likelihood of the votes together with a prior: the logarithms of scales and temperature, and the shifts, are normal
around 0 with a standard deviation of PRIOR_STDS. So the calibration of a question with few galaxies stays near none. Which prior is better, for
a survey like that of the training or for a very different one, and whether a calibration helps at all, cross-validation tells.

Legend: N galaxies, A answers, Q questions, C classes.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import digamma, gammaln, log_softmax, logsumexp, softmax

from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.models.calibration import LARGEST
from hf_galaxy.randomness import GOLDEN, split_mix

PRIOR_STDS = (0.35, 1.5)
FOLDS = 5
LIMIT = 4.0  # of the logarithm of a scale, and of a shift
DIGITS = 6  # of the numbers that are kept, so that they do not depend on the order of sums


@dataclass(frozen=True)
class FittedCalibration:
    """A calibration, and what it brings to galaxies that it was not fitted to.

    Attributes:
        numbers: as `config.calibration` holds them.
        galaxies: that it was fitted to.
        gain: (N,) by cross-validation, how much lower the negative log-likelihood of each galaxy is with a calibration, in nats.
        predictions: x' in the shape of x, or (N, C) logits, or as of `spread_fit.fit_values`, of each galaxy with the calibration of the other folds.
        prior_std: that of PRIOR_STDS with the larger gain.
        needed: without it the model does not say how certain it is, or says what nobody has tried on such galaxies.
    """

    numbers: dict[str, Any]
    galaxies: int
    gain: np.ndarray
    predictions: np.ndarray
    prior_std: float
    needed: bool = False

    @property
    def helps(self) -> bool:
        """Whether it is needed, or the galaxies that it was not fitted to are more likely with it. By however little: the prior keeps it from doing much harm."""
        return self.needed or bool(self.gain.mean() > 0)


class VoteLikelihood:
    """The negative log-likelihood of votes as a function of the x of their answers, with its gradient.

    Args:
        votes: (N, A) counts.
        multinomial: x are logarithms of fractions, not of concentrations.
    """

    def __init__(self, votes: np.ndarray, tree: DecisionTree, multinomial: bool = False) -> None:
        self.tree, self.multinomial = tree, multinomial
        self.starts = [where.start for where in tree.slices]
        self.group = np.array(tree.question_of_answer)
        self.votes = votes.astype(np.float64)
        self.totals = np.add.reduceat(self.votes, self.starts, axis=1)
        # Most counts of a survey of several campaigns are 0, and add nothing.
        self.given, self.asked = self.votes.nonzero(), self.totals.nonzero()

    def __getitem__(self, kept: np.ndarray) -> "VoteLikelihood":
        """That of some galaxies."""
        return VoteLikelihood(self.votes[kept], self.tree, self.multinomial)

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, Q) nats, up to what does not depend on x; and (N, A), or (N, 2, A), its derivatives by x.

        Args:
            x: (N, A); of mixtures of two distributions (N, 2, A + Q), first x and then their weights.
        """
        if x.ndim == 2:
            return self._of_one(x)
        x, weights = np.split(x, [self.votes.shape[1]], axis=2)
        nll, by_x = (np.stack(each, axis=1) for each in zip(*map(self._of_one, np.moveaxis(x, 1, 0)), strict=True))
        logs = np.log(weights) - nll
        of_questions = -logsumexp(logs, axis=1)
        responsible = np.exp(logs + of_questions[:, None])  # the probability of each distribution, given the votes
        return of_questions, responsible[..., self.group] * by_x

    def _of_one(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.multinomial:
            logs = x - np.repeat(self._log_sums(x), np.diff([*self.starts, x.shape[1]]), axis=1)
            of_questions = -np.add.reduceat(self.votes * logs, self.starts, axis=1)
            return of_questions, self.totals[:, self.group] * np.exp(logs) - self.votes
        a = np.exp(x.clip(-LARGEST, LARGEST))
        a0 = np.add.reduceat(a, self.starts, axis=1)
        given, asked = self.given, self.asked
        k, n, a_given, a0_asked = self.votes[given], self.totals[asked], a[given], a0[asked]
        rises, all_rises = np.zeros_like(a), np.zeros_like(a0)
        rises[given] = gammaln(k + a_given) - gammaln(a_given)
        all_rises[asked] = gammaln(n + a0_asked) - gammaln(a0_asked)
        of_questions = all_rises - np.add.reduceat(rises, self.starts, axis=1)
        slopes, all_slopes = np.zeros_like(a), np.zeros_like(a0)
        slopes[given] = digamma(k + a_given) - digamma(a_given)
        all_slopes[asked] = digamma(n + a0_asked) - digamma(a0_asked)
        return of_questions, a * (all_slopes[:, self.group] - slopes) * (np.abs(x) < LARGEST)

    def _log_sums(self, x: np.ndarray) -> np.ndarray:
        return np.stack([logsumexp(x[:, where], axis=1) for where in self.tree.slices], axis=1)


def fit_votes(x: np.ndarray, likelihood: VoteLikelihood, keys: np.ndarray) -> FittedCalibration:
    """The calibration of a votes model.

    Args:
        x: that it predicts, as of `VoteLikelihood`; both distributions of a mixture have the same scales and shifts, and keep their weights.
        keys: (N,) of the galaxies (`randomness.key_of`), by which they are divided into folds.
    """
    questions, answers = len(likelihood.starts), len(likelihood.group)

    def apply(numbers: np.ndarray, x: np.ndarray) -> np.ndarray:
        logs, weights = np.split(x, [answers], axis=-1)
        logs = np.exp(numbers[:questions])[likelihood.group] * logs + numbers[questions:]
        return np.concatenate([logs, weights], axis=-1)

    def fit(kept: np.ndarray, prior_std: float) -> np.ndarray:
        own, some = x[kept], likelihood[kept]

        def loss(numbers: np.ndarray) -> tuple[float, np.ndarray]:
            nll, by_x = some(apply(numbers, own))
            scales = np.exp(numbers[:questions])
            by_scale = scales * np.add.reduceat(
                (by_x * own[..., :answers]).reshape(-1, answers).sum(0), likelihood.starts
            )
            return nll.sum(), np.concatenate([by_scale, by_x.reshape(-1, answers).sum(0)])

        return most_likely(loss, prior_std, [(-LIMIT, LIMIT)] * (questions + answers))

    def nll(x: np.ndarray) -> np.ndarray:
        return likelihood(x)[0].sum(1)

    best = best_fit(fit, apply, nll, x, keys)
    scales, shifts = np.exp(best.numbers[:questions]), best.numbers[questions:]
    numbers = {"scales": rounded(scales), "shifts": rounded(shifts)}
    return FittedCalibration(numbers, len(x), best.gain, best.predictions, best.prior_std)


def fit_classes(logits: np.ndarray, labels: np.ndarray, keys: np.ndarray) -> FittedCalibration:
    """The calibration of a model of classes.

    Args:
        logits: (N, C) that it predicts.
        labels: (N,) indices of the classes.
        keys: as of `fit_votes`.
    """
    logits = logits.astype(np.float64)

    def apply(numbers: np.ndarray, logits: np.ndarray) -> np.ndarray:
        return logits * np.exp(-numbers[0])

    def nll(logits: np.ndarray, labels: np.ndarray = labels) -> np.ndarray:
        return -np.take_along_axis(log_softmax(logits, axis=1), labels[:, None], 1)[:, 0]

    def fit(kept: np.ndarray, prior_std: float) -> np.ndarray:
        own, right = logits[kept], labels[kept]

        def loss(numbers: np.ndarray) -> tuple[float, np.ndarray]:
            cooled = apply(numbers, own)
            excess = (softmax(cooled, axis=1) * cooled).sum(1) - np.take_along_axis(cooled, right[:, None], 1)[:, 0]
            return nll(cooled, right).sum(), np.array([-excess.sum()])

        return most_likely(loss, prior_std, [(-LIMIT, LIMIT)])

    best = best_fit(fit, apply, nll, logits, keys)
    [temperature] = rounded(np.exp(best.numbers))
    numbers = {"temperature": temperature, "classes": logits.shape[1]}
    return FittedCalibration(numbers, len(labels), best.gain, best.predictions, best.prior_std)


class BestFit(NamedTuple):
    """Numbers fitted to all galaxies, and as in `FittedCalibration`."""

    numbers: np.ndarray
    gain: np.ndarray
    predictions: np.ndarray
    prior_std: float


def best_fit(
    fit: Callable[[np.ndarray, float], np.ndarray], apply: Callable, nll: Callable[[np.ndarray], np.ndarray], x: np.ndarray,
    keys: np.ndarray,
) -> BestFit:  # fmt: skip
    """The fit with the better prior, by what galaxies gain that are left out of it."""
    with np.errstate(over="ignore"):  # arithmetic is modulo 2**64
        folds = split_mix(keys.astype(np.uint64) + GOLDEN) % np.uint64(FOLDS)
    before, tried = nll(x), []
    for prior_std in PRIOR_STDS:
        predictions = np.array(x)
        for fold in np.unique(folds):
            held_out = folds == fold
            predictions[held_out] = apply(fit(~held_out, prior_std), x[held_out])
        tried.append((before - nll(predictions), predictions, prior_std))
    gain, predictions, prior_std = max(tried, key=lambda each: each[0].sum())
    return BestFit(fit(np.ones(len(x), bool), prior_std), gain, predictions, prior_std)


def most_likely(
    loss: Callable[[np.ndarray], tuple[float, np.ndarray]], prior_std: float, bounds: Sequence[tuple[float, float]]
) -> np.ndarray:
    """The numbers with the largest posterior probability within bounds, from their negative log-likelihood and its gradient."""

    def with_prior(numbers: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = loss(numbers)
        return value + (numbers**2).sum() / (2 * prior_std**2), gradient + numbers / prior_std**2

    return minimize(with_prior, np.zeros(len(bounds)), jac=True, method="L-BFGS-B", bounds=bounds).x


def composed(first: Mapping[str, Any] | None, second: Mapping[str, Any], tree: DecisionTree | None) -> dict[str, Any]:
    """The calibration that does what the first one does, and then the second.

    Args:
        tree: of a votes model.
    """
    if first is None:
        return dict(second)
    if tree is None and "temperature" in first:
        return dict(second) | {"temperature": rounded([first["temperature"] * second["temperature"]])[0]}
    scales, shifts = (np.array(second[name]) for name in ("scales", "shifts"))
    of_shifts = scales if tree is None else scales[tree.question_of_answer]
    shifts = of_shifts * first["shifts"] + shifts
    return dict(second) | {"scales": rounded(scales * first["scales"]), "shifts": rounded(shifts)}


def rounded(values: Iterable[float]) -> list[float]:
    return [float(f"{value:.{DIGITS}g}") for value in values]
