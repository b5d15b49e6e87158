"""Sums of falling powers, c + a x^-b, fitted to losses: by least squares, robustly, and again in the replicates of a bootstrap.

For given exponents a law is linear in what is left, so each fit looks through all exponents and solves for the rest exactly:
there is no starting point to depend on. Deviations count relative to the law, and outliers less (Huber). Legend: n runs,
R replicates, K sets of exponents, P parameters.
"""

import itertools

import numpy as np

from hf_galaxy.evaluation.bootstrap import spread

EXPONENTS = 0.01, 4.0  # looked through; a law at either end is a straight line or a step
HUBER = 1.345  # of the scatter: beyond, a deviation counts less than by its square; costs 5 % if there are no outliers
HUBER_VARIANCE = 0.855  # what is left of the variance of normal deviations, weighted so and divided by the weights
GRID, CLOSER, ROUNDS = 64, 7, 6  # exponents tried first; in each round around the best; rounds


def bootstrapped(columns, exponents, losses, kinds, galaxies, replicates):
    """(P,) the fitted law, (R, P) its replicates, and the scatter.

    Args:
        columns: (..., exponents) exponents -> (..., n, columns) what is added up, each with a coefficient of at least 0.
        kinds: pairs of (n,) labels, runs with the same having something in common, and how many parameters took part of it.
    """
    # 1. The law, with less weight for outliers.
    weights = losses**-2.0
    fitted = _fit(columns, exponents, losses[None], weights)[0]
    for _ in range(4):
        law = _values(columns, exponents, fitted)
        deviations = losses / law - 1
        free = max(1, len(losses) - np.count_nonzero(fitted))
        usual = 1.4826 * np.median(np.abs(deviations)) * (len(losses) / free) ** 0.5  # robust, as the median is
        trust = np.minimum(1, HUBER * usual / np.maximum(np.abs(deviations), 1e-300))
        weights = trust / law**2
        fitted = _fit(columns, exponents, losses[None], weights)[0]
    law = _values(columns, exponents, fitted)
    deviations = losses / law - 1
    outliers = 1 if (trust == 1).all() else HUBER_VARIANCE
    scatter = float(np.sqrt(trust @ deviations**2 / trust.sum() * len(losses) / free / outliers))

    # 2. Deviations as large as they would be, had the law not been fitted to them; and replicates of them.
    deviations = deviations / (1 - _leverage(columns, exponents, fitted, weights))
    deviations = np.clip(deviations, -HUBER * 2 * usual, HUBER * 2 * usual) if usual else deviations
    replicates = replicates if galaxies is None else galaxies.shape[1]
    rng = np.random.default_rng(len(losses))
    again = 0
    for labels, taken in kinds:
        _, which, sizes = np.unique(labels, return_inverse=True, return_counts=True)
        if 1 < len(sizes) < len(losses):
            common = np.bincount(which, deviations) / sizes
            common -= common.mean()
            deviations = deviations - common[which]
            left = max(1, len(sizes) - taken)
            drawn = rng.choice(common * (len(sizes) / left) ** 0.5, (replicates, len(sizes)))
            again = again + (drawn * _wider(left, replicates, rng))[:, which]
    alone = rng.choice(deviations - deviations.mean(), (replicates, len(losses)))
    again = again + alone * _wider(free, replicates, rng)

    # 3. Replicates of the losses.
    others = law * (1 + again)
    if galaxies is not None:
        others = others + ((galaxies - losses[:, None]) / law[:, None]).mean(axis=0)[:, None] * law
    return fitted, _fit(columns, exponents, others, weights), scatter


def _wider(free, replicates, rng):
    """(R, 1) factors that make of normal deviates such of Student's t."""
    from scipy.stats import chi2

    return (free / spread(chi2(free), replicates, rng)[:, None]) ** 0.5


def _values(columns, exponents, fitted):
    """(..., n) the law of (..., P) coefficients and exponents."""
    coefficients, powers = np.split(fitted, [-exponents], axis=-1)
    return (columns(powers) @ coefficients[..., None])[..., 0]


def _leverage(columns, exponents, fitted, weights):
    """(n,) how far the law follows each single run: the diagonal of the projection on its derivatives."""
    coefficients, powers = np.split(fitted, [-exponents])
    slopes = []
    for i in range(exponents):
        step = 1e-5 * np.eye(exponents)[i]
        slopes.append((columns(powers + step) - columns(powers - step)) @ coefficients)
    derivatives = np.column_stack([columns(powers)[:, coefficients > 0], *[slope for slope in slopes if slope.any()]])
    q, _ = np.linalg.qr(derivatives * np.sqrt(weights)[:, None])
    return np.minimum((q**2).sum(axis=1), 0.9)


def _fit(columns, exponents, losses, weights):
    """(R, P) coefficients and exponents with the least squares, for (R, n) losses and (n,) weights."""
    low, high = np.log(EXPONENTS)
    axis = np.linspace(low, high, GRID if exponents == 1 else GRID // 3)
    tried = np.array(list(itertools.product(axis, repeat=exponents)))[None]  # (1, K, exponents), logarithms
    half = (high - low) / (len(axis) - 1)
    steps = np.array(list(itertools.product(np.linspace(-1, 1, CLOSER), repeat=exponents)))
    for _ in range(ROUNDS + 1):
        coefficients, misfits = _least_squares(columns(np.exp(tried)), losses[:, None], weights)
        best = misfits.argmin(axis=1)
        rows = np.arange(len(losses))
        powers = np.broadcast_to(tried, (len(losses), *tried.shape[1:]))[rows, best]
        tried = np.clip(powers[:, None] + half * steps, low, high)
        half /= (CLOSER - 1) / 2
    return np.concatenate([coefficients[rows, best], np.exp(powers)], axis=1)


def _least_squares(columns, losses, weights):
    """(R, K, C) coefficients, none below 0, and (R, K) sums of weighted squares that they leave.

    Args:
        columns: (1 or R, K, n, C).
        losses: (R, 1, n).
        weights: (n,).

    The best point of a convex region is the best of those that some of the bounds hold at, so all sets of columns are tried.
    """
    weighted = columns * weights[:, None]
    gram = np.swapaxes(weighted, -1, -2) @ columns
    right = (losses[..., None, :] @ weighted)[..., 0, :]
    squares = (losses**2) @ weights
    width = columns.shape[-1]
    best = np.broadcast_to(squares, right.shape[:-1])  # with all of them 0
    coefficients = np.zeros(right.shape)
    for size in range(1, width + 1):
        for chosen in itertools.combinations(range(width), size):
            part = np.ix_(chosen, chosen)
            own = gram[(..., *part)]
            # For one number of galaxies all columns are alike; so small a share changes nothing otherwise.
            own = own + 1e-12 * np.trace(own, axis1=-2, axis2=-1)[..., None, None] * np.eye(size)
            solved = (np.linalg.inv(own) @ right[..., chosen, None])[..., 0]
            left = np.where((solved >= 0).all(-1), squares - (solved * right[..., chosen]).sum(-1), np.inf)
            better = left < best
            best = np.where(better, left, best)
            filled = np.zeros(right.shape)
            filled[..., chosen] = solved
            coefficients = np.where(better[..., None], filled, coefficients)
    return coefficients, best
