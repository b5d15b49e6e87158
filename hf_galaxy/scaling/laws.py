"""Scaling laws: how a loss falls with the number of galaxies learnt from and with the size of the model.

    L(D) = c + a D^-b                       `fit_power_law`, with c = 0 as the plain power law
    L(N, D) = E + A N^-alpha + B D^-beta    `fit_joint_law` (Hoffmann et al. 2022, huggingface.co/papers/2203.15556)

How they are fitted, without a starting point, stands in `law_fitting`. Legend: n runs, R replicates.

Every interval is a bootstrap. In each replicate the runs deviate from the law as they did, in another order: what all runs
of a seed, or of a model, have in common is dealt out anew among seeds, or models, the rest among runs; all is enlarged for
the parameters that were fitted and for how few they are. Where it is known how the losses change if other test galaxies are
measured, all change together as they do on average; what each run changes besides is in its deviation already.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hf_galaxy.errors import BadInput
from hf_galaxy.evaluation.bootstrap import LEVEL, REPLICATES, spread
from hf_galaxy.scaling.fitting import EXPONENTS, bootstrapped

FEWEST = 3  # different numbers of galaxies
FALLS = "whether the loss falls with more"  # doubts begin so, or so:
EXPONENT, LEFT = "the exponent", "whether anything is left"
MODELS = 5  # of different size: fewer say too little of a law of parameters


@dataclass(frozen=True, eq=False)
class PowerLaw:
    """L(D) = c + a D^-b.

    Attributes:
        a: the part of the loss that falls, at D = 1, which is outside of any data; see `interval`.
        b: the exponent; each doubling of galaxies leaves 2^-b of what lies above c.
        c: what is left with any number of galaxies.
        sizes, losses: (n,) what it was fitted to.
        floor: whether c was fitted, or is 0.
        draws: (R, 3) a, b, c of the replicates.
        scatter: standard deviation of the runs from the law, as a share of it.
    """

    a: float
    b: float
    c: float
    sizes: np.ndarray
    losses: np.ndarray
    floor: bool
    draws: np.ndarray
    scatter: float

    @property
    def range(self) -> tuple[float, float]:
        """The numbers of galaxies that it was fitted to."""
        return float(self.sizes.min()), float(self.sizes.max())

    @property
    def r2(self) -> float | None:
        """Share of the variance of the logarithms of the losses that the law explains; None if they do not vary."""
        logs = np.log(self.losses)
        return (
            None if np.ptp(logs) < 1e-9 else float(1 - np.var(logs - np.log(self.predict(self.sizes))) / np.var(logs))
        )

    def interval(self, name: str, level: float = LEVEL) -> tuple[float, float]:
        """Of a, b or c, or of `per_doubling`: what a doubling leaves of the loss above c, 2^-b."""
        if name == "per_doubling":
            return _quantiles(2.0 ** -self.draws[:, 1], level)
        return _quantiles(self.draws[:, "abc".index(name)], level)

    def predict(self, galaxies):
        """The loss with so many galaxies: a number or an array, as given."""
        return _power(np.array([self.a, self.b, self.c]), galaxies)

    def draws_at(self, galaxies) -> np.ndarray:
        """(R, m) the losses with (m,) numbers of galaxies, by the law of each replicate."""
        return _power(self.draws[:, None], np.atleast_1d(galaxies))

    def band(self, galaxies, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
        """The interval of the law itself, without the scatter of single runs, at (m,) numbers of galaxies: two (m,)."""
        return _quantiles(self.draws_at(galaxies), level)

    def galaxies_for(self, loss: float) -> float:
        """With how many galaxies it falls to `loss`; infinity if never."""
        return float(_inverse(np.array([self.a, self.b, self.c]), loss))

    def galaxies_interval(self, loss: float, level: float = LEVEL) -> tuple[float, float]:
        """Of `galaxies_for`; its upper end is infinity where the data allow that it never falls so low."""
        return _quantiles(_inverse(self.draws, loss), level)

    @property
    def doubts(self) -> list[str]:
        """What the data do not tell, in words; empty if they pin all of it down."""
        doubts = []
        low, high = self.interval("b")
        if np.mean(self.draws[:, 0] <= 0) > (1 - LEVEL) / 2:
            doubts.append(f"{FALLS} galaxies at all")
        if low <= 1.01 * EXPONENTS[0] or high >= 0.99 * EXPONENTS[1] or high > 3 * low:
            doubts.append(f"{EXPONENT}, anywhere from {low:.2g} to {high:.2g}")
        if self.floor and self.interval("c")[0] <= 1e-6 * self.losses.min():
            doubts.append(f"{LEFT} with ever more galaxies (c is at most {self.interval('c')[1]:.3g})")
        return doubts


@dataclass(frozen=True, eq=False)
class JointLaw:
    """L(N, D) = E + A N^-alpha + B D^-beta, over N parameters and D galaxies.

    Attributes:
        values: E, A, alpha, B, beta by name.
        draws: (R, 5) the same of the replicates.
        parameters, sizes, losses: (n,) what it was fitted to.
        scatter: as in `PowerLaw`.
    """

    NAMES = ("E", "A", "alpha", "B", "beta")

    values: dict[str, float]
    parameters: np.ndarray
    sizes: np.ndarray
    losses: np.ndarray
    draws: np.ndarray
    scatter: float

    def interval(self, name: str, level: float = LEVEL) -> tuple[float, float]:
        """Of one of `NAMES`, or of `share`: alpha / (alpha + beta), the exponent with which galaxies grow on the frontier."""
        if name == "share":
            return _quantiles(self.draws[:, 2] / (self.draws[:, 2] + self.draws[:, 4]), level)
        return _quantiles(self.draws[:, self.NAMES.index(name)], level)

    def predict(self, parameters, galaxies):
        """The loss: a number or an array, as given."""
        e, a, alpha, b, beta = self.values.values()
        return e + a * np.asarray(parameters, float) ** -alpha + b * np.asarray(galaxies, float) ** -beta

    def frontier(self, products: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(m,) parameters and (m,) galaxies at which the loss is least, of all with the same product N D.

        The compute of a training is proportional to that product if each galaxy is seen equally often and the operations
        for a picture are proportional to the parameters. From dL/dN = dL/dD (D / N): alpha A N^-alpha = beta B D^-beta
        (Hoffmann et al. 2022, equation 4).
        """
        _, a, alpha, b, beta = self.values.values()
        parameters = (alpha * a / (beta * b)) ** (1 / (alpha + beta)) * products ** (beta / (alpha + beta))
        return parameters, products / parameters

    @property
    def doubts(self) -> list[str]:
        """What the data do not tell, in words."""
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
            doubts.append(f"{LEFT} at the end (E is at most {self.interval('E')[1]:.3g})")
        return doubts


def fit_power_law(
    sizes: Sequence[float], losses: Sequence[float], seeds: Sequence[int] | None = None, *,
    galaxies: np.ndarray | None = None, floor: bool = True, replicates: int = REPLICATES,
) -> PowerLaw:  # fmt: skip
    """The law that the losses of runs on different numbers of galaxies follow.

    Args:
        sizes: (n,) galaxies learnt from.
        losses: (n,) of the test split; any error that is positive.
        seeds: (n,) of the runs, where runs of the same seed have something in common.
        galaxies: (n, R) the same losses in the replicates of a bootstrap over test galaxies (`bootstrap.counts`).
        floor: fit c, or take it to be 0.
        replicates: of the bootstrap, where `galaxies` does not say.

    Raises:
        BadInput: no law can be fitted to these.
    """
    (sizes,), losses, seeds, galaxies = _checked(["galaxies"], [sizes], losses, seeds, galaxies, 2 + floor)
    middle = np.exp(np.log(sizes).mean())  # near which all numbers are of the size of 1

    def columns(exponents):
        falling = (sizes / middle) ** -exponents
        return np.stack([falling, np.ones_like(falling)] if floor else [falling], axis=-1)

    fitted, draws, scatter = bootstrapped(columns, 1, losses, [(seeds, 1)], galaxies, replicates)
    rows = np.vstack([fitted, draws])
    a, b = rows[:, 0] * middle ** rows[:, -1], rows[:, -1]
    rows = np.stack([a, b, rows[:, 1] if floor else np.zeros_like(a)], axis=1)
    return PowerLaw(*map(float, rows[0]), sizes, losses, floor, rows[1:], scatter)


def fit_joint_law(
    parameters: Sequence[float], sizes: Sequence[float], losses: Sequence[float], seeds: Sequence[int] | None = None, *,
    galaxies: np.ndarray | None = None, replicates: int = REPLICATES,
) -> JointLaw:  # fmt: skip
    """The law that the losses of models of different size on different numbers of galaxies follow.

    Args:
        parameters: (n,) of the models.
        sizes, losses, seeds, galaxies, replicates: as in `fit_power_law`.

    Raises:
        BadInput: no law can be fitted to these.
    """
    named = ["parameters", "galaxies"]
    (parameters, sizes), losses, seeds, galaxies = _checked(named, [parameters, sizes], losses, seeds, galaxies, 5)
    middles = [np.exp(np.log(values).mean()) for values in (parameters, sizes)]

    def columns(exponents):
        by_model = (parameters / middles[0]) ** -exponents[..., :1]
        by_data = (sizes / middles[1]) ** -exponents[..., 1:]
        return np.stack([np.ones_like(by_model), by_model, by_data], axis=-1)

    # Of what models have in common, A and alpha took a part.
    shared = [(parameters, 2), (seeds, 1)]
    fitted, draws, scatter = bootstrapped(columns, 2, losses, shared, galaxies, replicates)
    e, a, b, alpha, beta = np.vstack([fitted, draws]).T
    rows = np.stack([e, a * middles[0] ** alpha, alpha, b * middles[1] ** beta, beta], axis=1)
    values = dict(zip(JointLaw.NAMES, map(float, rows[0]), strict=True))
    return JointLaw(values, parameters, sizes, losses, rows[1:], scatter)


@dataclass(frozen=True)
class LeaveOut:
    """How well a law fitted to fewer galaxies foretold the loss with the most.

    Attributes:
        galaxies: the most.
        predicted, interval: what the law says of a run like those measured.
        measured: their mean.
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
        """Whether what was measured lies in the interval."""
        return self.interval[0] <= self.measured <= self.interval[1]


def leave_out(
    sizes: Sequence[float], losses: Sequence[float], seeds: Sequence[int] | None = None, *,
    galaxies: np.ndarray | None = None, floor: bool = True, level: float = LEVEL,
) -> LeaveOut:  # fmt: skip
    """Fit a law without the largest number of galaxies, and predict what was measured there.

    The interval holds the scatter of a run to come, too; of one, not of the mean of several, since runs on all galaxies have
    these in common whatever their seed. Both sides are measured on the same test galaxies, so their choice matters only as far
    as it moves the two apart.

    Args:
        sizes, losses, seeds, galaxies, floor: as in `fit_power_law`.

    Raises:
        BadInput: as `fit_power_law`, of what is left.
    """
    from scipy.stats import t

    (sizes,), losses, seeds, galaxies = _checked(["galaxies"], [sizes], losses, seeds, galaxies, 2 + floor)
    most = sizes.max()
    last = sizes == most
    rest = None if galaxies is None else galaxies[~last]
    law = fit_power_law(sizes[~last], losses[~last], seeds[~last], galaxies=rest, floor=floor)
    measured = float(losses[last].mean())
    predicted = law.predict(most)
    replicates = len(law.draws)
    rng = np.random.default_rng(len(losses))
    luck = spread(t(len(law.losses) - 2 - floor), replicates, rng)
    foretold = law.draws_at(most)[:, 0] + predicted * law.scatter * luck
    if galaxies is not None:
        foretold = foretold - (galaxies[last].mean(axis=0) - measured)
    return LeaveOut(float(most), float(predicted), _quantiles(foretold, level), measured)


def _power(law, galaxies):
    return law[..., 2] + law[..., 0] * np.asarray(galaxies, float) ** -law[..., 1]


def _inverse(law, loss):
    a, b, c = np.moveaxis(law, -1, 0)
    with np.errstate(divide="ignore", over="ignore"):
        return np.where(loss > c, (a / np.maximum(loss - c, 1e-300)) ** (1 / b), np.inf)


def _quantiles(values, level):
    # Of orders, not between them: infinity less infinity is no number.
    edges = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0, method="nearest")
    return tuple(map(float, edges)) if edges.ndim == 1 else tuple(edges)


def _checked(names, axes, losses, seeds, galaxies, parameters):
    axes = [np.asarray(values, float) for values in axes]
    losses = np.asarray(losses, float)
    seeds = np.arange(len(losses)) if seeds is None else np.asarray(seeds)
    galaxies = None if galaxies is None else np.asarray(galaxies, float)
    for values, name in ((losses, "losses"), *zip(axes, names, strict=True)):
        if values.shape != losses.shape or losses.ndim != 1:
            raise BadInput(f"{losses.shape} losses and {values.shape} {name}: give one of each for every run")
        if not (np.isfinite(values).all() and (values > 0).all()):
            raise BadInput(f"a law is fitted to positive numbers; the {name} are {values.tolist()}")
    for values, name in zip(axes, names, strict=True):
        if len(set(values)) < FEWEST:
            raise BadInput(f"runs with {len(set(values))} different numbers of {name}: a law needs {FEWEST} at least")
    if len(losses) <= parameters:
        raise BadInput(
            f"{len(losses)} runs leave nothing to judge a law of {parameters} parameters by; give more"
            f"{', or take floor=False' if parameters == 3 else ''}"
        )
    if len(seeds) != len(losses) or (galaxies is not None and (galaxies.ndim != 2 or len(galaxies) != len(losses))):
        raise BadInput(f"{len(losses)} losses: give a seed, and a row of replicates, for each")
    if galaxies is not None and not np.isfinite(galaxies).all():
        raise BadInput("in some replicates no galaxy was measured; there are too few of them for this figure")
    return axes, losses, seeds, galaxies
