"""Simulated studies like those in results/, whose laws are known: runs of three seeds on doubling numbers of galaxies."""

from dataclasses import dataclass

import numpy as np

SEEDS = 3


@dataclass(frozen=True)
class Regime:
    """A law and its noise.

    Attributes:
        smallest, sizes: the smallest number of galaxies, and how many numbers, each twice the one before.
        falls, b, c: the part of the loss that falls, with the fewest galaxies; the exponent; the floor.
        noise: relative standard deviation of runs with the fewest and with the most galaxies; it is a power of the number.
        of_seeds: share of the variance of the noise that runs of a seed have in common.
        test_galaxies: relative standard deviation of what all losses have in common by the choice of test galaxies.
        tails: degrees of freedom of Student's t, which the noise is drawn from; None for normal noise.
        plateau: no loss is above it.
        baseline: the loss of the best constant prediction.
    """

    smallest: float
    sizes: int
    falls: float
    b: float
    c: float
    noise: tuple[float, float]
    of_seeds: float = 0.1
    test_galaxies: float = 0.0
    tails: float | None = None
    plateau: float = np.inf
    baseline: float = np.inf

    def law(self, galaxies):
        return self.c + self.falls * (np.asarray(galaxies) / self.smallest) ** -self.b

    @property
    def galaxies(self):
        """(n,) of the runs."""
        return np.repeat(self.smallest * 2.0 ** np.arange(self.sizes), SEEDS)

    @property
    def seeds(self):
        return np.tile(np.arange(SEEDS), self.sizes)

    def draw(self, rng, replicates=50):
        """(n,) losses, (n, replicates) those in a bootstrap over test galaxies, and the loss of the best constant."""
        first, last = self.noise
        scatter = first * (self.galaxies / self.smallest) ** (
            np.log(last / first) / np.log(self.galaxies.max() / self.smallest)
        )
        own = rng.standard_normal(len(scatter))
        if self.tails is not None:
            own = rng.standard_t(self.tails, len(scatter)) * (1 - 2 / self.tails) ** 0.5
        shared = rng.standard_normal(SEEDS)[self.seeds]
        noise = (1 - self.of_seeds) ** 0.5 * own + self.of_seeds**0.5 * shared
        law = np.minimum(self.law(self.galaxies), self.plateau)
        luck, again = self.test_galaxies * rng.standard_normal(), self.test_galaxies * rng.standard_normal(replicates)
        losses = law * np.exp(scatter * noise) * (1 + luck)
        return losses, losses[:, None] * (1 + again), self.baseline * (1 + luck)


CLASSES = {"smallest": 312, "sizes": 7, "noise": (0.09, 0.012), "of_seeds": 0.05, "test_galaxies": 0.027}
CEERS = {"smallest": 91, "sizes": 6, "noise": (0.009, 0.006), "test_galaxies": 0.011}
FLOOR = {"falls": 0.48, "b": 0.7, "c": 0.19}

# Laws, noise and what runs share are those of the records in results/.
REGIMES = {
    "gz2_classes, floor": Regime(**CLASSES, **FLOOR),
    "gz2_classes, floor, heavy tails": Regime(**CLASSES, **FLOOR, tails=3),
    "gz2_classes, no floor": Regime(**CLASSES, falls=0.68, b=0.29, c=0),
    "ceers, floor of 93 %": Regime(**CEERS, falls=4.15, b=0.358, c=17.08),
    "ceers, floor of 60 %": Regime(**CEERS, falls=10.2, b=0.15, c=10.98),
    "ceers, no floor": Regime(**CEERS, falls=21.2, b=0.043, c=0),
    "ceers, plateau": Regime(**CEERS, falls=4.4, b=0.358, c=17.08, plateau=20.6, baseline=20.2),
    "gz2_votes": Regime(150, 6, 5.0, 0.28, 5.3, (0.04, 0.015), test_galaxies=0.0105),
}
