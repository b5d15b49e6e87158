"""How many of some intervals hold the truth, if each does with the probability that it says."""

from scipy.stats import binom


def band(intervals: int, level: float = 0.9, chance: float = 1e-3) -> tuple[int, int]:
    """The fewest and the most, beyond which the number lies by `chance`, either way."""
    low, high = binom.ppf([chance / 2, 1 - chance / 2], intervals, level)
    return int(low), int(high)
