"""Scaling laws: how a loss falls with the number of training galaxies and with the size of the model.

    L(D) = c + a D^-b                       `fit_power_law`, with c = 0 as the plain power law
    L(N, D) = E + A N^-alpha + B D^-beta    `fit_joint_law` (Hoffmann et al. 2022, huggingface.co/papers/2203.15556)

`fitting` fits them, without a starting point. Legend: n runs, R replicates, m numbers of galaxies.

Every interval is a bootstrap. Each replicate redraws the residuals of the runs: what all runs of a seed, or of a model, have in
common is redrawn among seeds, or models, and the rest among runs; all are enlarged for the parameters that were fitted and for
how few runs there are. Where it is measured how the losses change with other test galaxies, all losses change together as they
do on average; what each run changes besides is in its residual already.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from hf_galaxy.errors import BadInput
from hf_galaxy.evaluation.bootstrap import LEVEL, REPLICATES, spread
from hf_galaxy.scaling.fitting import EXPONENTS, bootstrapped

Numbers = float | np.ndarray

FEWEST = 3  # different numbers of galaxies
# Each doubt begins with one of these.
FALLS, EXPONENT, LEFT = "whether the loss falls with more", "the exponent", "whether a loss remains"
MODELS = 5  # different sizes of models: fewer constrain a law of parameters too little


@dataclass(frozen=True, eq=False)
class PowerLaw:
    """L(D) = c + a D^-b.

    Attributes:
        a: the part of the loss that falls, at D = 1, which is outside of any data; see `interval`.
        b: the exponent; each doubling of galaxies leaves 2^-b of the loss above c.
        c: the loss that remains with any number of galaxies.
        sizes, losses: (n,) galaxies and losses of the fitted runs.
        floor: whether c was fitted; otherwise it is 0.
        draws: (R, 3) a, b, c of the replicates.
        scatter: standard deviation of the runs about the law, as a share of it.
    """

    a: float
    b: float
    c: float
    sizes: np.ndarray
    losses: np.ndarray
    floor: bool
    draws: np.ndarray = field(repr=False)
    scatter: float

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

    def interval(self, name: str, level: float = LEVEL) -> tuple[float, float]:
        """Of a, b or c, or of `per_doubling`: 2^-b, the share of the loss above c that remains after a doubling."""
        if name == "per_doubling":
            return _quantiles(2.0 ** -self.draws[:, 1], level)
        return _quantiles(self.draws[:, "abc".index(name)], level)

    def predict(self, galaxies: ArrayLike) -> Numbers:
        """The loss with this number of galaxies: a number or an array, as `galaxies` is."""
        return _power(np.array([self.a, self.b, self.c]), galaxies)

    def draws_at(self, galaxies: ArrayLike) -> np.ndarray:
        """(R, m) the losses with (m,) numbers of galaxies, by the law of each replicate."""
        return np.asarray(_power(self.draws[:, None], np.atleast_1d(galaxies)))

    def band(self, galaxies: ArrayLike, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
        """The interval of the law itself, without the scatter of single runs, at (m,) numbers of galaxies: two (m,)."""
        return _quantiles(self.draws_at(galaxies), level)

    def galaxies_for(self, loss: float) -> float:
        """The number of galaxies at which the law falls to `loss`; infinity if it never does."""
        return float(_inverse(np.array([self.a, self.b, self.c]), loss))

    def galaxies_interval(self, loss: float, level: float = LEVEL) -> tuple[float, float]:
        """Of `galaxies_for`; the upper end is infinity where the data allow that the law never falls to `loss`."""
        return _quantiles(_inverse(self.draws, loss), level)

    @property
    def doubts(self) -> list[str]:
        """What the data do not determine, in words; empty if they determine the whole law."""
        doubts = []
        low, high = self.interval("b")
        if np.mean(self.draws[:, 0] <= 0) > (1 - LEVEL) / 2:
            doubts.append(f"{FALLS} galaxies at all")
        if low <= 1.01 * EXPONENTS[0] or high >= 0.99 * EXPONENTS[1] or high > 3 * low:
            doubts.append(f"{EXPONENT}, anywhere from {low:.2g} to {high:.2g}")
        if self.floor and self.interval("c")[0] <= 1e-6 * self.losses.min():
            doubts.append(f"{LEFT} with any number of galaxies (c is at most {self.interval('c')[1]:.3g})")
        return doubts


@dataclass(frozen=True, eq=False)
class JointLaw:
    """L(N, D) = E + A N^-alpha + B D^-beta, over N parameters and D galaxies.

    Attributes:
        values: E, A, alpha, B, beta by name.
        draws: (R, 5) the same of the replicates.
        parameters, sizes, losses: (n,) of the fitted runs.
        scatter: as in `PowerLaw`.
    """

    NAMES = ("E", "A", "alpha", "B", "beta")

    values: dict[str, float]
    parameters: np.ndarray
    sizes: np.ndarray
    losses: np.ndarray
    draws: np.ndarray = field(repr=False)
    scatter: float

    def interval(self, name: str, level: float = LEVEL) -> tuple[float, float]:
        """Of one of `NAMES`, or of `share`: alpha / (alpha + beta), the exponent with which galaxies grow on the frontier."""
        if name == "share":
            return _quantiles(self.draws[:, 2] / (self.draws[:, 2] + self.draws[:, 4]), level)
        return _quantiles(self.draws[:, self.NAMES.index(name)], level)

    def predict(self, parameters: ArrayLike, galaxies: ArrayLike) -> Numbers:
        """The loss: a number or an array, as the arguments are."""
        e, a, alpha, b, beta = self.values.values()
        return e + a * np.asarray(parameters, float) ** -alpha + b * np.asarray(galaxies, float) ** -beta

    def frontier(self, products: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(m,) parameters and (m,) galaxies with the least loss among all with the same product N D.

        The compute of a training is proportional to that product if each galaxy is seen equally often and the operations
        for a picture are proportional to the parameters. From dL/dN = dL/dD (D / N): alpha A N^-alpha = beta B D^-beta
        (Hoffmann et al. 2022, equation 4).
        """
        _, a, alpha, b, beta = self.values.values()
        parameters = (alpha * a / (beta * b)) ** (1 / (alpha + beta)) * products ** (beta / (alpha + beta))
        return parameters, products / parameters

    @property
    def doubts(self) -> list[str]:
        """What the data do not determine, in words."""
        doubts = []
        models = len(set(self.parameters))
        for name, scale, of in (("alpha", "A", "parameters"), ("beta", "B", "galaxies")):
            low, high = self.interval(name)
            if of == "parameters" and models < MODELS:
                doubts.append(f"{FALLS} parameters at all: {models} sizes of models are too few")
            elif np.mean(self.draws[:, self.NAMES.index(scale)] <= 0) > (1 - LEVEL) / 2:
                doubts.append(f"{FALLS} {of} at all")
            elif low <= 1.01 * EXPONENTS[0] or high >= 0.99 * EXPONENTS[1] or high > 3 * low:
                doubts.append(f"{EXPONENT} of {of}, anywhere from {low:.2g} to {high:.2g}")
        if self.interval("E")[0] <= 1e-6 * self.losses.min():
            doubts.append(
                f"{LEFT} with any number of galaxies and parameters (E is at most {self.interval('E')[1]:.3g})"
            )
        return doubts


def fit_power_law(
    sizes: Sequence[float], losses: Sequence[float], seeds: Sequence[int] | None = None, *,
    galaxies: np.ndarray | None = None, floor: bool = True, replicates: int = REPLICATES,
) -> PowerLaw:  # fmt: skip
    """Fit the law that the losses of runs on different numbers of galaxies follow.

    Args:
        sizes: (n,) training galaxies.
        losses: (n,) of the test split; any positive error.
        seeds: (n,) of the runs, where runs of the same seed have something in common.
        galaxies: (n, R) the same losses in the replicates of a bootstrap over test galaxies (`bootstrap.counts`).
        floor: fit c; otherwise it is 0.
        replicates: of the bootstrap, where `galaxies` is None.

    Raises:
        BadInput: no law can be fitted to these runs.
    """
    (sizes,), losses, seeds, galaxies = _checked(["galaxies"], [sizes], losses, seeds, galaxies, 2 + floor)
    middle = np.exp(np.log(sizes).mean())  # in units of which all numbers are near 1

    def columns(exponents: np.ndarray) -> np.ndarray:
        falling = (sizes / middle) ** -exponents
        return np.stack([falling, np.ones_like(falling)] if floor else [falling], axis=-1)

    fitted, draws, scatter = bootstrapped(columns, 1, losses, [(seeds, 1)], galaxies, replicates)
    rows = np.vstack([fitted, draws])
    a, b = rows[:, 0] * middle ** rows[:, -1], rows[:, -1]
    rows = np.stack([a, b, rows[:, 1] if floor else np.zeros_like(a)], axis=1)
    a, b, c = map(float, rows[0])
    return PowerLaw(a, b, c, sizes, losses, floor, rows[1:], scatter)


def fit_joint_law(
    parameters: Sequence[float], sizes: Sequence[float], losses: Sequence[float], seeds: Sequence[int] | None = None, *,
    galaxies: np.ndarray | None = None, replicates: int = REPLICATES,
) -> JointLaw:  # fmt: skip
    """Fit the law that the losses of models of different size on different numbers of galaxies follow.

    Args:
        parameters: (n,) of the models.
        sizes, losses, seeds, galaxies, replicates: as in `fit_power_law`.

    Raises:
        BadInput: no law can be fitted to these runs.
    """
    named = ["parameters", "galaxies"]
    (parameters, sizes), losses, seeds, galaxies = _checked(named, [parameters, sizes], losses, seeds, galaxies, 5)
    middles = [np.exp(np.log(values).mean()) for values in (parameters, sizes)]

    def columns(exponents: np.ndarray) -> np.ndarray:
        by_model = (parameters / middles[0]) ** -exponents[..., :1]
        by_data = (sizes / middles[1]) ** -exponents[..., 1:]
        return np.stack([np.ones_like(by_model), by_model, by_data], axis=-1)

    # A and alpha describe a part of what models have in common.
    shared = [(parameters, 2), (seeds, 1)]
    fitted, draws, scatter = bootstrapped(columns, 2, losses, shared, galaxies, replicates)
    e, a, b, alpha, beta = np.vstack([fitted, draws]).T
    rows = np.stack([e, a * middles[0] ** alpha, alpha, b * middles[1] ** beta, beta], axis=1)
    values = dict(zip(JointLaw.NAMES, map(float, rows[0]), strict=True))
    return JointLaw(values, parameters, sizes, losses, rows[1:], scatter)


@dataclass(frozen=True)
class LeaveOut:
    """How well a law fitted to fewer galaxies predicts the loss with the most.

    Attributes:
        galaxies: the most.
        predicted: the loss by the law.
        interval: of the loss of one more run.
        measured: the mean loss of the runs that were left out.
    """

    galaxies: float
    predicted: float
    interval: tuple[float, float]
    measured: float

    @property
    def miss(self) -> float:
        """Predicted over measured, less 1."""
        return self.predicted / self.measured - 1

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
    (sizes,), losses, seeds, galaxies = _checked(["galaxies"], [sizes], losses, seeds, galaxies, 2 + floor)
    most = float(sizes.max())
    last = sizes == most
    fitted, held_out = (None, None) if galaxies is None else (galaxies[~last], galaxies[last])
    law = fit_power_law(sizes[~last], losses[~last], seeds[~last], galaxies=fitted, floor=floor)
    interval = held_out_interval(law, most, losses[last], held_out, level)
    return LeaveOut(most, float(law.predict(most)), interval, float(losses[last].mean()))


def held_out_interval(
    law: PowerLaw, galaxies: float, losses: np.ndarray, replicates: np.ndarray | None = None, level: float = LEVEL
) -> tuple[float, float]:
    """The interval in which a law predicts the mean loss of runs that it was not fitted to.

    It includes the scatter of one run, by Student's t, since the scatter was estimated from few runs. Of one, not of the mean of
    several: runs on all galaxies have these in common, whatever their seed. Law and runs were measured on the same test
    galaxies, so the choice of these matters only as far as it moves the two apart.

    Args:
        galaxies: that the runs were trained on.
        losses: (k,) of these runs.
        replicates: (k, R) the same in the replicates of a bootstrap over test galaxies, those of `law.draws`.
    """
    from scipy.stats import t

    free = len(law.losses) - 2 - law.floor
    rng = np.random.default_rng(len(law.losses) + len(losses))
    scatter = law.predict(galaxies) * law.scatter * spread(t(free), len(law.draws), rng)
    draws = law.draws_at(galaxies)[:, 0] + scatter
    if replicates is not None:
        draws = draws - (replicates.mean(axis=0) - losses.mean())
    return _quantiles(draws, level)


def _power(law: np.ndarray, galaxies: ArrayLike) -> Numbers:
    return law[..., 2] + law[..., 0] * np.asarray(galaxies, float) ** -law[..., 1]


def _inverse(law: np.ndarray, loss: float) -> np.ndarray:
    a, b, c = np.moveaxis(law, -1, 0)
    with np.errstate(divide="ignore", over="ignore"):
        return np.where(loss > c, (a / np.maximum(loss - c, 1e-300)) ** (1 / b), np.inf)


def _quantiles(values: np.ndarray, level: float) -> tuple:
    """The ends of the interval that holds `level` of the values along the first axis: two numbers or arrays."""
    # Order statistics without interpolation: infinity less infinity is not a number.
    edges = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0, method="nearest")
    return tuple(map(float, edges)) if edges.ndim == 1 else tuple(edges)


def _checked(
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
