"""The law of both the size of a model and the number of galaxies, L(N, D) = E + A N^-alpha + B D^-beta (Hoffmann et al. 2022,
huggingface.co/papers/2203.15556).

`fitting` fits it, without a starting point. Every interval is a bootstrap. Each replicate redraws the residuals of the runs: what
all runs of a seed, or of a model, have in common is redrawn among seeds, or models, and the rest among runs; all are enlarged for
the parameters that were fitted and for how few runs there are. Where it is measured how the losses change with other test
galaxies, all losses change together as they do on average; what each run changes besides is in its residual already.

Legend: n runs, R replicates, m numbers of galaxies.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from hf_galaxy.evaluation.bootstrap import LEVEL, REPLICATES
from hf_galaxy.scaling.fitting import EXPONENTS, bootstrapped
from hf_galaxy.scaling.laws import EXPONENT, FALLS, LEFT, Numbers, checked

MODELS = 5  # different sizes of models: fewer constrain a law of parameters too little


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
    (parameters, sizes), losses, seeds, galaxies = checked(named, [parameters, sizes], losses, seeds, galaxies, 5)
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


def _quantiles(values: np.ndarray, level: float) -> tuple:
    """The ends of the interval that holds `level` of the values along the first axis: two numbers or arrays."""
    # Order statistics without interpolation: infinity less infinity is not a number.
    edges = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0, method="nearest")
    return tuple(map(float, edges)) if edges.ndim == 1 else tuple(edges)
