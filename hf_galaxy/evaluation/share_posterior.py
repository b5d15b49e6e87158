"""The share of a class in a survey, given all predictions and a few labels: quantiles of its posterior.

The labels recalibrate the predictions. A galaxy of score z (the normal score of its prediction's rank, with mean 0 and standard deviation 1
in the survey, so that overconfident predictions do no harm) has the class with the probability

    p(z) = 1 / (1 + exp(-a - b z))

and the share in the survey is the mean of p over all its galaxies. Any (a, b) counts as much as it agrees with the labels and the prior

    b ~ Normal(0, 4^2),    a | b ~ sqrt(sum of p (1 - p) over the labelled galaxies)

With b = 0 (no predictions) the latter is Jeffreys' prior of a share, whose interval holds on average for rare classes, too (Brown, Cai
and DasGupta 2001, "Interval Estimation for a Binomial Proportion"). The former keeps b finite where the score separates the few labels
perfectly; of 2.5, 4 and 6, simulations of good, bad, useless and overconfident predictions held best with 4.

Scores are binned, so that neither the number of galaxies nor that of labels matters. Legend: R samples of labels, B bins of scores; U by
V: grid of b by a.
"""

from __future__ import annotations

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.special import expit, logit

SLOPE = 4.0  # standard deviation of the prior of b
STEPS_OF_SLOPE, STEPS = 25, 41  # of the grid: of b, and of a beside it
STEPS_ALONE = 201  # of a without a slope
BETWEEN = 5  # parts of each step of a, by splines
# The grid of a reaches +- sinh(REACH STRETCH) / STRETCH = 15 standard deviations, and is densest in the middle.
REACH, STRETCH = 3.0, 1.2
REACH_OF_SLOPE = 2.2  # to +- 6: the prior of b has no long tails
SHARES = 400  # at which the cumulative distribution is computed
NEWTON_STEPS, LONGEST_STEP = 60, 4.0


def recalibrate(
    scores: np.ndarray, weights: np.ndarray, positives: np.ndarray, slope: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The most probable curves, for the labels and half a galaxy of either answer more, with the scores of the labelled ones.

    Args:
        scores: (B,) of the bins.
        weights, positives: (R, B) the labelled galaxies in them, and those of the class among these; with weights, any numbers from 0.
        slope: False: b = 0.

    Returns:
        (R,) a, (R,) b, and the (R,) standard deviation of b.
    """
    weights, positives = _with_half_of_each(weights, positives)
    a = logit(positives.sum(1) / weights.sum(1))
    mode = np.stack([a, np.zeros_like(a)])  # (2, R)
    step, scale = np.zeros_like(mode), np.ones_like(a)
    best, deviation = np.full_like(a, -np.inf), np.ones_like(a)
    for _ in range(NEWTON_STEPS):
        a, b = mode + scale * step
        values = a[:, None] + b[:, None] * scores
        posterior = (positives * values - weights * np.logaddexp(0, values)).sum(1) - b**2 / 2 * SLOPE**-2
        better = posterior >= best  # where it is not, half of the step
        scale = np.where(better, 1.0, scale / 2)
        p = expit(values)
        v, residuals = weights * p * (1 - p), positives - weights * p
        s0, s1, s2 = v.sum(1), v @ scores * slope, v @ scores**2 + SLOPE**-2
        g0, g1 = residuals.sum(1), (residuals @ scores - b * SLOPE**-2) * slope
        determinant = s0 * s2 - s1**2
        new = np.stack([s2 * g0 - s1 * g1, s0 * g1 - s1 * g0]) / determinant
        new *= np.minimum(1, LONGEST_STEP / np.maximum(np.abs(new).max(0), 1e-12))
        mode, step = np.where(better, [a, b], mode), np.where(better, new, step)
        best = np.where(better, posterior, best)
        deviation = np.where(better, np.sqrt(s0 / determinant), deviation)
        if np.abs(scale * step).max() < 1e-7:
            break
    return *mode, deviation


def quantiles_of_share(
    scores: np.ndarray,
    survey: np.ndarray,
    weights: np.ndarray,
    positives: np.ndarray,
    at: np.ndarray,
    slope: bool = True,
) -> np.ndarray:
    """(R, Q) quantiles of the posterior of the share in the survey.

    Args:
        scores: (B,) of the bins.
        survey: (B,) the shares of the survey's galaxies in them.
        weights, positives: (R, B) as of `recalibrate`.
        at: (Q,) probabilities.
        slope: False: without predictions, b = 0.
    """
    mode_a, mode_b, deviation = recalibrate(scores, weights, positives, slope)
    steps = np.linspace(-REACH, REACH, STEPS if slope else STEPS_ALONE)
    b, log_cell = np.zeros((len(mode_a), 1)), np.zeros(1)
    if slope:
        other = np.linspace(-REACH_OF_SLOPE, REACH_OF_SLOPE, STEPS_OF_SLOPE)
        b = mode_b[:, None] + deviation[:, None] * np.sinh(STRETCH * other) / STRETCH
        log_cell = np.log(np.cosh(STRETCH * other)) - b**2 / 2 * SLOPE**-2
    middle, width = _middles(scores, *_with_half_of_each(weights, positives), mode_a, b)
    shares = np.empty((*b.shape, len(steps)))
    log_posterior = np.empty_like(shares)
    counted, total, product = weights[..., None], positives.sum(1)[:, None], (positives @ scores)[:, None]
    for j, step in enumerate(steps):
        a = middle + width * np.sinh(STRETCH * step) / STRETCH
        values = a[..., None] + b[..., None] * scores  # (R, U, B)
        small = np.exp(-np.abs(values))
        p = np.where(values > 0, 1, small) / (1 + small)
        shares[..., j] = p @ survey
        information = ((p * (1 - p)) @ counted)[..., 0]
        likelihood = a * total + b * product - ((np.maximum(values, 0) + np.log1p(small)) @ counted)[..., 0]
        prior = 0.5 * np.log(np.maximum(information, 1e-300))
        log_posterior[..., j] = likelihood + prior + log_cell + np.log(width * np.cosh(STRETCH * step))
    between = np.linspace(-REACH, REACH, BETWEEN * (len(steps) - 1) + 1)
    shares, log_posterior = (CubicSpline(steps, values, axis=-1)(between) for values in (shares, log_posterior))
    return np.stack([_quantiles(*each, np.asarray(at, float)) for each in zip(shares, log_posterior, strict=True)])


def _with_half_of_each(weights: np.ndarray, positives: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    each = weights / weights.sum(1, keepdims=True)
    return weights + each, positives + each / 2


def _middles(
    scores: np.ndarray, weights: np.ndarray, positives: np.ndarray, a: np.ndarray, b: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(R, U) the most probable a beside each b, and its standard deviation.

    Args:
        a: (R,) where the search begins.
        b: (R, U)
    """
    found, count = np.repeat(a[:, None], b.shape[1], axis=1), weights.sum(1)[:, None]
    wanted = logit(positives.sum(1)[:, None] / count)
    for _ in range(NEWTON_STEPS):
        p = expit(found[..., None] + b[..., None] * scores)
        information = np.maximum(((p * (1 - p)) @ weights[..., None])[..., 0], 1e-12)
        mean = np.clip((p @ weights[..., None])[..., 0] / count, 1e-12, 1 - 1e-12)
        # Newton's steps of the logit of the mean, which is nearly linear in a.
        step = (wanted - logit(mean)) * mean * (1 - mean) * count / information
        step = np.clip(step, -LONGEST_STEP, LONGEST_STEP)
        found = found + step
        if np.abs(step).max() < 1e-4:
            break
    return found, information**-0.5


def _quantiles(shares: np.ndarray, log_posterior: np.ndarray, at: np.ndarray) -> np.ndarray:
    """(Q,) quantiles of a mixture of U distributions.

    Args:
        shares, log_posterior: (U, V) for each b, by increasing a, and so by increasing shares.
    """
    weights = np.exp(log_posterior - log_posterior.max())
    weights /= weights.sum()
    cumulative = np.cumsum(weights, axis=1) - weights / 2
    order = np.argsort(shares, axis=None)
    rough = np.cumsum(weights.ravel()[order])
    grid = np.interp(np.linspace(0, 1, SHARES), rough, shares.ravel()[order])
    below = np.zeros(SHARES)
    for own, own_cumulative, total in zip(shares, cumulative, weights.sum(1), strict=True):
        below += np.interp(grid, own, own_cumulative, 0, total)
    return np.interp(at, below, grid)
