"""The galaxies of a survey in bins of one of their numbers, such as the redshift. Legend: N galaxies."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np


class Bins(NamedTuple):
    """Bins, and which galaxies are in them.

    Attributes:
        names: of the bins, in their order.
        middles: of bins of numbers, the medians of their galaxies; else None.
        codes: (N,) the bin of each galaxy, -1 for none.
    """

    names: list[str]
    middles: list[float] | None
    codes: np.ndarray


def bins_of_numbers(values: np.ndarray, count: int, edges: tuple[float, ...] | None = None) -> Bins:
    """Bins with equally many galaxies, or with given edges; the last one holds its upper edge.

    Args:
        values: (N,) NaN where there is none.
        count: how many bins, if there are as many different values.
        edges: increasing, instead.

    Raises:
        ValueError: there is no number.
    """
    there = np.isfinite(values)
    if not there.any():
        raise ValueError("there is no number")
    known = values[there]
    ends = np.unique(np.quantile(known, np.linspace(0, 1, count + 1))) if edges is None else np.asarray(edges, float)
    if len(ends) == 1:
        ends = np.repeat(ends, 2)
    codes = np.searchsorted(ends[1:-1], values, side="right").astype(np.int32)
    codes[~there | (values < ends[0]) | (values > ends[-1])] = -1
    names = [f"{_short(low)} to {_short(high)}" for low, high in itertools.pairwise(ends)]
    middles = [float(np.median(values[codes == k])) if (codes == k).any() else float("nan") for k in range(len(names))]
    return Bins(names, middles, codes)


def _short(edge: float) -> str:
    """Three digits, but all of a whole number."""
    return f"{edge:.0f}" if edge == round(edge) and abs(edge) < 1e9 else f"{edge:.3g}"
