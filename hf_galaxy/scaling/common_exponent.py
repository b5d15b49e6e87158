"""Whether several laws have the same exponent, each with a coefficient and a floor of its own.

    hypothesis    L_i(D) = c_i + a_i D^-b
    against       L_i(D) = c_i + a_i D^-b_i

The likelihood ratio of the two is the sum over laws of f log(Q(b) / least Q), least over b, with the sum of squares Q that an
exponent leaves and its f degrees of freedom. How it is distributed under the hypothesis is found by a parametric bootstrap: losses
are drawn from the fitted hypothesis with normal noise. Laws of the same runs (of several questions, or of several backbones that
learn from the same galaxies) have residuals in common, so their noise is drawn with the correlation that the residuals have. The
power of the noise is fitted again to what is drawn.

Legend: I laws, n runs of all laws, R replicates, K exponents.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from hf_galaxy.evaluation.bootstrap import LEVEL
from hf_galaxy.scaling.profiles import EXPONENTS, GRID, Profile, Weighted, non_negative, squares_of

DRAWS = 499  # replicates


@dataclass(frozen=True)
class CommonExponent:
    """The exponent that several laws would have in common, and whether they do.

    Attributes:
        b: the common exponent.
        interval: of it, if there is one.
        p: probability of exponents that differ as much, or more, if there is one.
    """

    b: float
    interval: tuple[float, float]
    p: float


def common_exponent(
    profiles: Sequence[Profile], runs: Sequence[Sequence[Hashable]], level: float = LEVEL
) -> CommonExponent:
    """Test whether laws have the same exponent.

    Args:
        profiles: (I,) of the laws.
        runs: (I, runs of each) names of the runs; those of the same name, such as (galaxies, seed), may be alike in several laws.
        level: of the interval.
    """
    exponents = np.geomspace(*EXPONENTS, GRID)
    deviances = np.array(
        [_deviance(profile, profile.problem, profile.problem.target[None], exponents)[0] for profile in profiles]
    )
    k = int(deviances.sum(axis=0).argmin())
    noise = _correlated_noise(profiles, runs)
    drawn = np.stack([_drawn(*each, exponents, k) for each in zip(profiles, noise, strict=True)])
    ratio, least, shift = _ratio(deviances[:, None])
    ratios, drawn_least, _ = _ratio(drawn)
    p = (1 + int((ratios >= ratio).sum())) / (1 + len(ratios))
    most = float(np.quantile(drawn.sum(axis=0)[:, k] - drawn_least, level))
    b = float(exponents[k] * (exponents[1] / exponents[0]) ** shift[0])
    return CommonExponent(b, _where(np.log(exponents), deviances.sum(axis=0) - least[0], most), p)


def _deviance(profile: Profile, problem: Weighted, targets: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    """(R, K) f log Q of the exponents for (R, n) targets."""
    columns = problem.columns(exponents)
    k, n, c = columns.shape
    gram = np.swapaxes(columns, -1, -2) @ columns
    right = (targets @ np.swapaxes(columns, 0, 1).reshape(n, k * c)).reshape(len(targets), k, c)
    squares = squares_of(gram, right, non_negative(gram, right), (targets**2).sum(axis=1)[:, None])
    return profile.free * np.log(np.maximum(squares, 1e-300))


def _drawn(profile: Profile, noise: np.ndarray, exponents: np.ndarray, k: int) -> np.ndarray:
    """(R, K) deviances of losses that are drawn from the law with the exponent `k`, with (R, n) noise."""
    runs, problem, exponent = profile.runs, profile.problem, exponents[k : k + 1]
    coefficients, squares = problem.solve(exponent)
    law = coefficients[0, 0] * np.exp(-exponent * runs.logs) + (coefficients[0, 1] if runs.floor else 0)
    relative = law / runs.law + (squares[0] / profile.free) ** 0.5 * noise / problem.weights
    powers = np.full(len(noise), profile.noise_power)
    if profile.fits_noise:
        powers = runs.noise_power(relative, float(exponent[0]), coefficients[0])
    deviances = np.empty((len(noise), len(exponents)))
    for power in np.unique(powers):
        same = powers == power
        again = runs.weighted(relative[same], float(power))
        deviances[same] = _deviance(profile, again, again.target, exponents)
    return deviances


def _ratio(deviances: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of (I, R, K): (R,) likelihood ratios, the least deviances with a common exponent, and their places from the lowest of the grid."""
    least, shift = _minimum(deviances.sum(axis=0))
    return least - sum(_minimum(each)[0] for each in deviances), least, shift


def _minimum(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(R,) minima of (R, K) values by a parabola through the three lowest neighbours, and their places, from the lowest value."""
    k = np.clip(values.argmin(axis=1), 1, values.shape[1] - 2)
    before, at, after = (values[np.arange(len(values)), k + i] for i in (-1, 0, 1))
    curvature = before + after - 2 * at
    shift = np.where(curvature > 1e-12, (before - after) / np.maximum(2 * curvature, 1e-12), 0)
    inside = np.abs(shift) <= 1  # else the lowest is at an end
    least = np.where(inside, at - curvature * shift**2 / 2, values.min(axis=1))
    return least, np.where(inside, shift, 0) + k - values.argmin(axis=1)


def _where(logs: np.ndarray, values: np.ndarray, most: float) -> tuple[float, float]:
    """The ends of the exponents, of these logarithms, with values up to `most`; roots of values are nearly straight lines."""
    roots, limit, k = np.sqrt(np.maximum(values, 0)), max(most, 0) ** 0.5, int(values.argmin())
    ends = []
    for step in (-1, 1):
        side = slice(k, None, step)
        beyond = roots[side] > limit
        if not beyond[1:].any():
            ends.append(float(np.exp(logs[side][-1])))
            continue
        i = 1 + int(beyond[1:].argmax())
        inner, outer = roots[side][i - 1], roots[side][i]
        share = np.clip((limit - inner) / (outer - inner), 0, 1) if outer > inner else 0
        ends.append(float(np.exp(logs[side][i - 1] + share * (logs[side][i] - logs[side][i - 1]))))
    return ends[0], ends[1]


def _correlated_noise(profiles: Sequence[Profile], runs: Sequence[Sequence[Hashable]]) -> list[np.ndarray]:
    """(R, n of the law) normal deviates for each law, correlated between laws as residuals of the same runs are."""
    names = {name: i for i, name in enumerate(dict.fromkeys(name for own in runs for name in own))}
    places = [np.array([names[name] for name in own]) for own in runs]
    residuals = np.zeros((len(names), len(profiles)))
    for i, (profile, place) in enumerate(zip(profiles, places, strict=True)):
        residuals[place, i] = profile.residuals
    # The mean over runs of products of residuals is the covariance of such combinations of them.
    # One replicate at a time: the normal deviates of all of them would be 4 GB for 1,000 runs.
    rng, shape = np.random.default_rng(len(names)), (len(names), len(names))
    drawn = np.stack([rng.standard_normal(shape) @ residuals for _ in range(DRAWS)])
    drawn /= np.maximum((residuals**2).sum(axis=0), 1e-300) ** 0.5
    return [drawn[:, place, i] for i, place in enumerate(places)]
