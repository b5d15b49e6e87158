"""Fits how far values lie from the predicted ones: Student's t distributions whose scale each galaxy has of its own.

Weights, from features to the logarithm x of the scale, are fitted to training galaxies, of which there are most; how far their values
are from the predicted ones says which galaxies are difficult, not how difficult new ones are. That a calibration says, fitted to validation galaxies
(`calibration`): a scale and a shift of x for each value, and the tails of the distributions, 1 / degrees of freedom. Errors are in the unit of
`config.value_std`. Legend: N galaxies, D features, K values.
"""

import numpy as np
from scipy.optimize import minimize
from scipy.special import digamma, gammaln

from hf_galaxy.models.calibration import LARGEST, MOST_TAIL, TAIL
from hf_galaxy.models.calibration_fit import LIMIT, FittedCalibration, best_fit, most_likely, rounded

LEAST = 20  # galaxies with a value, for its calibration
WIDTH = 0.05  # of the prior of a tail around TAIL, in that of a shift: some 50 galaxies say nothing of the tails
LIGHTEST = 1e-4  # tail of the calculation: beyond it a t distribution is the normal one
SMALLEST = 1e-6  # error in place of 0, in the unit of the value


def t_nll(errors: np.ndarray, logs: np.ndarray, tails: np.ndarray | float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Negative log-likelihood of errors under t distributions around 0, and its derivatives by `logs` and by `tails`; 0 where an error is NaN.

    Args:
        errors: of any shape.
        logs: logarithms of the scales.
        tails: 1 / degrees of freedom.
    """
    tails = np.maximum(tails, LIGHTEST)
    known, freedom = ~np.isnan(errors), 1 / tails
    squares = np.where(known, errors, 0) ** 2 * np.exp(-2 * logs)
    grown = np.log1p(squares * tails)
    constant = gammaln((freedom + 1) / 2) - gammaln(freedom / 2) + 0.5 * np.log(tails / np.pi)
    nll = logs + (freedom + 1) / 2 * grown - constant
    by_logs = 1 - (freedom + 1) * squares / (freedom + squares)
    by_freedom = 0.5 * grown - (freedom + 1) / 2 * squares * tails**2 / (1 + squares * tails)
    by_freedom -= 0.5 * (digamma((freedom + 1) / 2) - digamma(freedom / 2) - tails)
    return tuple(np.where(known, each, 0) for each in (nll, by_logs, -by_freedom * freedom**2))  # type: ignore[return-value]


def fit_log_scales(features: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights (K, D) and biases (K,) of x = weight @ features + bias, the most probable ones for a t distribution with the tail TAIL.

    A priori the weights of standardised features are normal around 0, so that x scatters by 1 if these are independent.

    Args:
        features: (N, D) of training galaxies.
        errors: (N, K), NaN where a galaxy has no value.
    """
    mean, std = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    unit = (std + 1e-6) * features.shape[1] ** 0.5
    standardised = (features - mean) / unit
    fits = [
        _fit_one(standardised[known], column[known])
        for column, known in zip(errors.T, ~np.isnan(errors.T), strict=True)
    ]
    weights, biases = (np.stack(each) for each in zip(*fits, strict=True))
    weights = weights / unit
    return weights, biases - weights @ mean


def _fit_one(features: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(D,) weights of standardised features, and the bias, of one value."""

    def loss(numbers: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = numbers[:-1], numbers[-1]
        nll, slopes, _ = t_nll(errors, features @ weights + bias, TAIL)
        gradient = np.append(features.T @ slopes + weights, slopes.sum())
        return nll.sum() + (weights**2).sum() / 2, gradient

    typical = np.log(max(np.median(np.abs(errors)), SMALLEST)) if len(errors) else 0.0
    first = np.append(np.zeros(features.shape[1]), typical)
    bounds = [(-LARGEST, LARGEST)] * len(first)
    found = minimize(loss, first.clip(-LARGEST, LARGEST), jac=True, method="L-BFGS-B", bounds=bounds).x
    return found[:-1], found[-1]


def fit_values(
    predictions: np.ndarray, errors: np.ndarray, keys: np.ndarray, needed: bool = False
) -> FittedCalibration:
    """The calibration of a model of values.

    Args:
        predictions: (N, 3, K) of each value itself, which no calibration changes; x; and the tail that it has.
        errors: (N, K) differences of the true values from the predicted ones, NaN where a galaxy has none.
        keys: (N,) of the galaxies (`randomness.key_of`), by which they are divided into folds.
        needed: there was none before: errors of training galaxies, from which x is, are too small.

    Returns:
        Its `predictions` are such ones, (N, 3, K).
    """
    count = errors.shape[1]

    def apply(numbers: np.ndarray, predictions: np.ndarray) -> np.ndarray:
        scales, shifts, tails = numbers.reshape(3, count)
        values, logs, _ = predictions.swapaxes(0, 1)
        return np.stack(
            [values, np.exp(scales) * logs + shifts, np.broadcast_to(TAIL + WIDTH * tails, logs.shape)], axis=1
        )

    def fit(kept: np.ndarray, prior_std: float) -> np.ndarray:
        own, some = predictions[kept], errors[kept]

        def loss(numbers: np.ndarray) -> tuple[float, np.ndarray]:
            _, logs, tails = apply(numbers, own).swapaxes(0, 1)
            nll, by_logs, by_tails = t_nll(some, logs, tails)
            by_scales = (by_logs * own[:, 1]).sum(axis=0) * np.exp(numbers[:count])
            return nll.sum(), np.concatenate([by_scales, by_logs.sum(axis=0), WIDTH * by_tails.sum(axis=0)])

        return most_likely(
            loss, prior_std, [(-LIMIT, LIMIT)] * (2 * count) + [(-TAIL / WIDTH, (MOST_TAIL - TAIL) / WIDTH)] * count
        )

    def nll(predictions: np.ndarray) -> np.ndarray:
        return t_nll(errors, predictions[:, 1], predictions[:, 2])[0].sum(axis=1)

    best = best_fit(fit, apply, nll, predictions, keys)
    scales, shifts, tails = best.numbers.reshape(3, count)
    numbers = {
        "scales": rounded(np.exp(scales)),
        "shifts": rounded(shifts),
        "tails": rounded((TAIL + WIDTH * tails).clip(0, MOST_TAIL)),
    }
    return FittedCalibration(numbers, len(keys), best.gain, best.predictions, best.prior_std, needed)
