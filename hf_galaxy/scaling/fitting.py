"""Sums of decreasing powers, c + a x^-b, fitted to losses by robust least squares, and refitted to bootstrap replicates.

For fixed exponents a law is linear in its coefficients, so each fit scans the exponents on a grid and solves for the coefficients
exactly: there is no starting point to depend on. Residuals are relative to the law, and outliers get less weight (Huber).
Legend: n runs, R replicates, K sets of exponents, C columns with a coefficient each, P parameters (coefficients and exponents).
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hf_galaxy.evaluation.bootstrap import spread

EXPONENTS = 0.01, 4.0  # scanned range; a law at either end is a straight line or a step
HUBER = (
    1.345  # in units of the scatter: larger residuals get less weight; costs 5 % efficiency if there are no outliers
)
HUBER_VARIANCE = 0.855  # variance of normal residuals that remains after weighting, divided by the weights
GRID, CLOSER, ROUNDS = 64, 7, 6  # exponents tried first; in each round around the best; rounds

# (..., exponents) -> (..., n, C): the terms of the sum, each of which gets a coefficient of at least 0.
Columns = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class _RobustFit:
    """A law fitted with less weight for outliers: (P,) parameters, (n,) law, residuals and weights."""

    parameters: np.ndarray
    law: np.ndarray
    residuals: np.ndarray
    weights: np.ndarray  # of the squared differences from the law
    huber_weights: np.ndarray
    mad_scale: float  # of the residuals, robust, as the median absolute deviation is
    free: int  # degrees of freedom

    @property
    def scatter(self) -> float:
        """Standard deviation of the relative residuals."""
        outliers = 1 if (self.huber_weights == 1).all() else HUBER_VARIANCE
        total = self.huber_weights @ self.residuals**2 / self.huber_weights.sum()
        return float(np.sqrt(total * len(self.residuals) / self.free / outliers))


def bootstrapped(
    columns: Columns, exponents: int, losses: np.ndarray, shared: Sequence[tuple[np.ndarray, int]],
    galaxies: np.ndarray | None, replicates: int,
) -> tuple[np.ndarray, np.ndarray, float]:  # fmt: skip
    """(P,) the fitted law, (R, P) its replicates, and the scatter.

    Args:
        exponents: how many.
        losses: (n,).
        shared: pairs of (n,) labels, where runs with the same label have something in common, and the number of parameters that
            describe it.
        galaxies: (n, R) the losses in the replicates of a bootstrap over test galaxies, or None.
        replicates: R, where `galaxies` is None.
    """
    fit = _robust_fit(columns, exponents, losses)
    replicates = replicates if galaxies is None else galaxies.shape[1]
    residuals = _replicated_residuals(fit, _leverage(columns, exponents, fit), shared, replicates)
    resampled = fit.law * (1 + residuals)
    if galaxies is not None:
        resampled = resampled + ((galaxies - losses[:, None]) / fit.law[:, None]).mean(axis=0)[:, None] * fit.law
    return fit.parameters, _least_squares_fit(columns, exponents, resampled, fit.weights), fit.scatter


def _robust_fit(columns: Columns, exponents: int, losses: np.ndarray) -> _RobustFit:
    weights = losses**-2.0
    parameters = _least_squares_fit(columns, exponents, losses[None], weights)[0]
    for _ in range(4):
        law = _law_values(columns, exponents, parameters)
        residuals = losses / law - 1
        free = max(1, len(losses) - int(np.count_nonzero(parameters)))
        mad_scale = 1.4826 * np.median(np.abs(residuals)) * (len(losses) / free) ** 0.5
        huber_weights = np.minimum(1, HUBER * mad_scale / np.maximum(np.abs(residuals), 1e-300))
        weights = huber_weights / law**2
        parameters = _least_squares_fit(columns, exponents, losses[None], weights)[0]
    law = _law_values(columns, exponents, parameters)
    return _RobustFit(parameters, law, losses / law - 1, weights, huber_weights, mad_scale, free)


def _replicated_residuals(
    fit: _RobustFit, leverage: np.ndarray, shared: Sequence[tuple[np.ndarray, int]], replicates: int
) -> np.ndarray:
    """(R, n) residuals redrawn: parts that runs have in common by the groups that share them, the rest by run.

    Residuals are first enlarged to what they would be had the law not been fitted to them.
    """
    residuals = fit.residuals / (1 - leverage)
    if fit.mad_scale:
        residuals = np.clip(residuals, -HUBER * 2 * fit.mad_scale, HUBER * 2 * fit.mad_scale)
    n = len(residuals)
    rng = np.random.default_rng(n)
    total = 0
    for labels, parameters in shared:
        _, group, sizes = np.unique(labels, return_inverse=True, return_counts=True)
        if 1 < len(sizes) < n:
            common = np.bincount(group, residuals) / sizes
            common -= common.mean()
            residuals = residuals - common[group]
            free = max(1, len(sizes) - parameters)
            drawn = rng.choice(common * (len(sizes) / free) ** 0.5, (replicates, len(sizes)))
            total = total + (drawn * _student_factors(free, replicates, rng))[:, group]
    drawn = rng.choice(residuals - residuals.mean(), (replicates, n))
    return total + drawn * _student_factors(fit.free, replicates, rng)


def _student_factors(free: int, replicates: int, rng: np.random.Generator) -> np.ndarray:
    """(R, 1) factors that turn normal deviates into deviates of Student's t."""
    from scipy.stats import chi2

    return (free / spread(chi2(free), replicates, rng)[:, None]) ** 0.5


def _law_values(columns: Columns, exponents: int, parameters: np.ndarray) -> np.ndarray:
    """(..., n) the law of (..., P) parameters."""
    coefficients, powers = np.split(parameters, [-exponents], axis=-1)
    return (columns(powers) @ coefficients[..., None])[..., 0]


def _leverage(columns: Columns, exponents: int, fit: _RobustFit) -> np.ndarray:
    """(n,) how far the law follows each single run: the diagonal of the projection on its derivatives."""
    coefficients, powers = np.split(fit.parameters, [-exponents])
    slopes = []
    for i in range(exponents):
        step = 1e-5 * np.eye(exponents)[i]
        slopes.append((columns(powers + step) - columns(powers - step)) @ coefficients)
    derivatives = np.column_stack([columns(powers)[:, coefficients > 0], *[slope for slope in slopes if slope.any()]])
    q, _ = np.linalg.qr(derivatives * np.sqrt(fit.weights)[:, None])
    return np.minimum((q**2).sum(axis=1), 0.9)


def _least_squares_fit(columns: Columns, exponents: int, losses: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(R, P) coefficients and exponents with the least squares, for (R, n) losses and (n,) weights."""
    low, high = np.log(EXPONENTS)
    axis = np.linspace(low, high, GRID if exponents == 1 else GRID // 3)
    tried = np.array(list(itertools.product(axis, repeat=exponents)))[None]  # (1, K, exponents), logarithms
    half = (high - low) / (len(axis) - 1)
    steps = np.array(list(itertools.product(np.linspace(-1, 1, CLOSER), repeat=exponents)))
    for _ in range(ROUNDS + 1):
        coefficients, squares = _solve_coefficients(columns(np.exp(tried)), losses[:, None], weights)
        best = squares.argmin(axis=1)
        rows = np.arange(len(losses))
        powers = np.broadcast_to(tried, (len(losses), *tried.shape[1:]))[rows, best]
        tried = np.clip(powers[:, None] + half * steps, low, high)
        half /= (CLOSER - 1) / 2
    return np.concatenate([coefficients[rows, best], np.exp(powers)], axis=1)


def _solve_coefficients(columns: np.ndarray, losses: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(R, K, C) coefficients, none below 0, and (R, K) sums of weighted squares that they leave.

    Args:
        columns: (1 or R, K, n, C).
        losses: (R, 1, n).
        weights: (n,).

    The best point of a convex region is the best of those at which some of the bounds hold, so all sets of columns are tried.
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
            # With a single number of galaxies all columns are alike; otherwise this small a share changes nothing.
            own = own + 1e-12 * np.trace(own, axis1=-2, axis2=-1)[..., None, None] * np.eye(size)
            solved = (np.linalg.inv(own) @ right[..., chosen, None])[..., 0]
            left = np.where((solved >= 0).all(-1), squares - (solved * right[..., chosen]).sum(-1), np.inf)
            better = left < best
            best = np.where(better, left, best)
            filled = np.zeros(right.shape)
            filled[..., chosen] = solved
            coefficients = np.where(better[..., None], filled, coefficients)
    return coefficients, best
