"""Scaling laws: how a loss falls with the number of training galaxies.

    L(D) = c + a D^-b       `fit_power_law`, with c = 0 as the plain power law

Every interval is the range of a number over all laws that the runs do not exclude (`profiles`), enlarged by what all losses have
in common: the choice of test galaxies, and of seeds. Legend: n runs, R replicates, N laws, m numbers of galaxies.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from hf_galaxy.errors import BadInput
from hf_galaxy.evaluation.bootstrap import LEVEL
from hf_galaxy.scaling.profiles import EXPONENTS, Profile, fit_profile, lack_of_fit, student_t

Numbers = float | np.ndarray

FEWEST = 3  # different numbers of galaxies
SIGNIFICANT = 0.05  # p below which a law is said not to fit
# Each doubt begins with one of these.
FALLS, EXPONENT, LEFT = "whether the loss falls with more", "the exponent", "whether a loss remains"
FORM = "whether the loss follows a law of this form"


@dataclass(frozen=True, eq=False)
class PowerLaw:
    """L(D) = c + a D^-b.

    Attributes:
        a: the part of the loss that falls, at D = 1, which is outside of any data; see `interval`.
        b: the exponent; each doubling of galaxies leaves 2^-b of the loss above c.
        c: the loss that remains with any number of galaxies.
        sizes, losses: (n,) galaxies and losses of the fitted runs.
        floor: whether c was fitted; otherwise it is 0.
        scatter: standard deviation of the runs about the law, as a share of it: the root mean square over the runs.
        lack_of_fit: p of the test whether the mean losses differ from the law by more than runs on equally many galaxies differ
            from each other; None where no such runs were repeated, or the law has as many parameters as there are sizes.
        test_galaxies: (2, 2) covariance of what all losses have in common by the choice of test galaxies: a relative factor, and
            a power of the galaxies.
        profile: how well all other laws fit.
    """

    a: float
    b: float
    c: float
    sizes: np.ndarray
    losses: np.ndarray
    floor: bool
    scatter: float
    lack_of_fit: float | None
    test_galaxies: np.ndarray
    profile: Profile = field(repr=False)

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest number of galaxies that were fitted."""
        return float(self.sizes.min()), float(self.sizes.max())

    @property
    def r2(self) -> float | None:
        """Share of the variance of the logarithms of the losses that the law explains; None if they do not vary."""
        logs = np.log(self.losses)
        if np.ptp(logs) < 1e-9:
            return None
        return float(1 - np.var(logs - np.log(self.predict(self.sizes))) / np.var(logs))

    def region(self, level: float = LEVEL) -> np.ndarray:
        """(N, 3) laws a, b, c at the edge of all those that the runs do not exclude: see `profiles.Profile.region`."""
        if not 0 < level < 1:
            raise BadInput(f"level {level}: the level of an interval is between 0 and 1, such as 0.9")
        return self.profile.region(level, self.test_galaxies)

    def interval(self, name: str, level: float = LEVEL) -> tuple[float, float]:
        """Of a, b or c, or of `per_doubling`: 2^-b, the share of the loss above c that remains after a doubling."""
        region = self.region(level)
        return ends_of(2.0 ** -region[:, 1] if name == "per_doubling" else region[:, "abc".index(name)])

    def predict(self, galaxies: ArrayLike) -> Numbers:
        """The loss with this number of galaxies: a number or an array, as `galaxies` is."""
        return power(np.array([self.a, self.b, self.c]), galaxies)

    def band(self, galaxies: ArrayLike, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
        """The interval of the law itself, without the scatter of single runs, at (m,) numbers of galaxies: two (m,)."""
        losses = power(self.region(level)[:, None], np.atleast_1d(galaxies))
        return np.min(losses, axis=0), np.max(losses, axis=0)

    def galaxies_for(self, loss: float) -> float:
        """The number of galaxies at which the law falls to `loss`; infinity if it never does."""
        return float(_inverse(np.array([self.a, self.b, self.c]), loss))

    def galaxies_interval(self, loss: float, level: float = LEVEL) -> tuple[float, float]:
        """Of `galaxies_for`; the upper end is infinity where the data allow that the law never falls to `loss`."""
        return ends_of(_inverse(self.region(level), loss))

    @property
    def fits(self) -> bool:
        """Whether the runs do not contradict the form of the law."""
        return self.lack_of_fit is None or self.lack_of_fit >= SIGNIFICANT

    @property
    def doubts(self) -> list[str]:
        """What the data do not determine, in words; empty if they determine the whole law."""
        words = [] if self.fits else [f"{FORM}: the mean losses differ from it (p = {self.lack_of_fit:.2g})"]
        return words + doubts_about(self.region(), self.losses, self.floor)


def doubts_about(region: np.ndarray, losses: np.ndarray, floor: bool) -> list[str]:
    """What is not determined if all (N, 3) laws of a region are possible.

    Args:
        losses: of the runs.
        floor: whether c was fitted.
    """
    doubts = []
    low, high = ends_of(region[:, 1])
    if (region[:, 0] <= 0).any():
        doubts.append(f"{FALLS} galaxies at all")
    if low <= 1.01 * EXPONENTS[0] or high >= 0.99 * EXPONENTS[1] or high > 3 * low:
        doubts.append(f"{EXPONENT}, anywhere from {low:.2g} to {high:.2g}")
    if floor and region[:, 2].min() <= 1e-6 * losses.min():
        doubts.append(f"{LEFT} with any number of galaxies (c is at most {region[:, 2].max():.3g})")
    return doubts


def fit_power_law(
    sizes: Sequence[float], losses: Sequence[float], seeds: Sequence[int] | None = None, *,
    galaxies: np.ndarray | None = None, floor: bool = True,
) -> PowerLaw:  # fmt: skip
    """Fit the law that the losses of runs on different numbers of galaxies follow.

    Args:
        sizes: (n,) training galaxies.
        losses: (n,) of the test split; any positive error.
        seeds: (n,) of the runs, where runs of the same seed have something in common.
        galaxies: (n, R) the same losses in the replicates of a bootstrap over test galaxies (`bootstrap.counts`).
        floor: fit c; otherwise it is 0.

    Raises:
        BadInput: no law can be fitted to these runs.
    """
    (sizes,), losses, seeds, galaxies = checked(["galaxies"], [sizes], losses, seeds, galaxies, 2 + floor)
    profile = fit_profile(sizes, losses, seeds, floor)
    a, b, c = profile.law
    scatter = float(np.sqrt(np.mean(profile.noise_at(sizes) ** 2) + profile.seeds[0] ** 2 * (profile.seeds[1] + 1)))
    common = np.zeros((2, 2))
    if galaxies is not None:
        lines = np.stack([np.ones_like(sizes), profile.problem.logs], axis=1)
        common = np.cov(np.linalg.lstsq(lines, galaxies / losses[:, None], rcond=None)[0])
    misfit = lack_of_fit(profile, sizes)
    return PowerLaw(a * profile.middle**b, b, c, sizes, losses, floor, scatter, misfit, common, profile)


@dataclass(frozen=True)
class LeaveOut:
    """How well a law fitted to fewer galaxies predicts the loss with the most.

    Attributes:
        galaxies: the most.
        predicted: the loss by the law.
        interval: of the mean loss of the runs that were left out.
        measured: that mean loss.
        before: the mean loss with the next smaller number of galaxies, as the forecast without a law.
    """

    galaxies: float
    predicted: float
    interval: tuple[float, float]
    measured: float
    before: float

    @property
    def miss(self) -> float:
        """Predicted over measured, less 1."""
        return self.predicted / self.measured - 1

    @property
    def miss_of_before(self) -> float:
        """The same of the forecast that the loss remains as it was."""
        return self.before / self.measured - 1

    @property
    def inside(self) -> bool:
        """Whether the measured loss lies in the interval."""
        return self.interval[0] <= self.measured <= self.interval[1]


def leave_out(
    sizes: Sequence[float], losses: Sequence[float], seeds: Sequence[int] | None = None, *,
    galaxies: np.ndarray | None = None, floor: bool = True, level: float = LEVEL,
) -> LeaveOut:  # fmt: skip
    """Fit a law without the largest number of galaxies, and predict the loss that was measured there.

    Args:
        sizes, losses, seeds, galaxies, floor: as in `fit_power_law`.
        level: of the interval, see `held_out_interval`.

    Raises:
        BadInput: as `fit_power_law`, for the runs that remain.
    """
    (sizes,), losses, seeds, galaxies = checked(["galaxies"], [sizes], losses, seeds, galaxies, 2 + floor)
    most = float(sizes.max())
    last = sizes == most
    fitted, held_out = (None, None) if galaxies is None else (galaxies[~last], galaxies[last])
    law = fit_power_law(sizes[~last], losses[~last], seeds[~last], galaxies=fitted, floor=floor)
    interval = held_out_interval(law, most, losses[last], held_out, level)
    before = float(losses[sizes == law.range[1]].mean())
    return LeaveOut(most, float(law.predict(most)), interval, float(losses[last].mean()), before)


def held_out_interval(
    law: PowerLaw, galaxies: float, losses: np.ndarray, replicates: np.ndarray | None = None, level: float = LEVEL
) -> tuple[float, float]:
    """The interval in which a law predicts the mean loss of runs that it was not fitted to.

    It includes the noise of their mean, but not what they have in common as they learn from the same galaxies, which runs on smaller
    numbers do not show. Law and runs are measured on the same test galaxies, and with the same seeds, so only what these change
    besides counts.

    Args:
        galaxies: that the runs were trained on.
        losses: (k,) of these runs.
        replicates: (k, R) the same in the replicates of a bootstrap over test galaxies.
        level: of the interval.
    """
    predicted, laws = float(law.predict(galaxies)), np.asarray(power(law.profile.region(level), galaxies))
    noise = float(law.profile.noise_at(galaxies))
    if replicates is not None and len(losses) > 1:
        # With more galaxies the noise shrinks, but not below that part which the test galaxies make.
        noise = max(noise, float((replicates / losses[:, None]).var(axis=0, ddof=1).mean() ** 0.5))
    half = predicted * noise / len(losses) ** 0.5 * student_t(law.profile.free, level)
    low, high = ends_of(laws)
    return max(0.0, predicted - math.hypot(predicted - low, half)), predicted + math.hypot(high - predicted, half)


def power(law: np.ndarray, galaxies: ArrayLike) -> Numbers:
    """c + a D^-b of laws (..., 3)."""
    return law[..., 2] + law[..., 0] * np.asarray(galaxies, float) ** -law[..., 1]


def _inverse(law: np.ndarray, loss: float) -> np.ndarray:
    a, b, c = np.moveaxis(law, -1, 0)
    with np.errstate(divide="ignore", over="ignore"):
        return np.where(loss > c, (a / np.maximum(loss - c, 1e-300)) ** (1 / b), np.inf)


def ends_of(values: np.ndarray) -> tuple[float, float]:
    """The smallest and the largest."""
    return float(values.min()), float(values.max())


def checked(
    names: Sequence[str], axes: Iterable[ArrayLike], losses: ArrayLike, seeds: ArrayLike | None,
    galaxies: ArrayLike | None, parameters: int,
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray, np.ndarray | None]:  # fmt: skip
    """The arguments of a fit as arrays; BadInput where a law of this number of parameters cannot be fitted to them."""
    arrays: list[np.ndarray] = [np.asarray(values, float) for values in axes]
    losses = np.asarray(losses, float)
    seeds = np.arange(len(losses)) if seeds is None else np.asarray(seeds)
    galaxies = None if galaxies is None else np.asarray(galaxies, float)
    for values, name in ((losses, "losses"), *zip(arrays, names, strict=True)):
        if values.shape != losses.shape or losses.ndim != 1:
            raise BadInput(f"{losses.shape} losses and {values.shape} {name}: give one of each for every run")
        if not (np.isfinite(values).all() and (values > 0).all()):
            raise BadInput(f"a law is fitted to positive numbers; the {name} are {values.tolist()}")
    for values, name in zip(arrays, names, strict=True):
        if len(set(values)) < FEWEST:
            raise BadInput(f"runs with {len(set(values))} different numbers of {name}: a law needs at least {FEWEST}")
    if len(losses) <= parameters:
        raise BadInput(
            f"{len(losses)} runs leave no degree of freedom for a law of {parameters} parameters; give more"
            f"{', or use floor=False' if parameters == 3 else ''}"
        )
    if len(seeds) != len(losses) or (galaxies is not None and (galaxies.ndim != 2 or len(galaxies) != len(losses))):
        raise BadInput(f"{len(losses)} losses: give a seed, and a row of replicates, for each")
    if galaxies is not None and not np.isfinite(galaxies).all():
        raise BadInput("in some replicates no galaxy was measured: this figure has too few test galaxies")
    return arrays, losses, seeds, galaxies
