"""Groups of rows that belong together, in arrays: of millions of rows each costs a few bytes. Legend: N rows, G groups, M rows in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

TEXTS_AT_ONCE = 20_000


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups of two and more rows each, in the order of their first rows.

    Attributes:
        rows: (M,) the rows of one group after another, increasing within each.
        starts: (G,) where each group begins in `rows`.
    """

    rows: np.ndarray
    starts: np.ndarray

    @classmethod
    def of_equal(cls, keys: np.ndarray) -> Self:
        """Rows with equal keys, (N,)."""
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        as_before, first = np.zeros((2, len(keys)), bool)
        as_before[1:] = ordered[1:] == ordered[:-1]
        first[:-1] = as_before[1:] & ~as_before[:-1]
        del ordered
        rows, starts = order[as_before | first], np.flatnonzero(first[as_before | first])
        sizes = np.diff(np.append(starts, len(rows)))
        by_first_row = np.argsort(rows[starts])
        sizes = sizes[by_first_row]
        ours = np.cumsum(sizes) - sizes
        return cls(rows[np.arange(len(rows)) + np.repeat(starts[by_first_row] - ours, sizes)], ours)

    @classmethod
    def of_pairs(cls, pairs: np.ndarray) -> Self:
        """Rows that pairs, (K, 2), connect, directly or through others."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        rows, numbers = np.unique(pairs, return_inverse=True)
        ones, ends = np.ones(len(pairs), bool), numbers.reshape(pairs.shape).T
        links = coo_array((ones, (ends[0], ends[1])), shape=(len(rows), len(rows)))
        groups = cls.of_equal(connected_components(links, directed=False)[1])
        return cls(rows[groups.rows], groups.starts)

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def sizes(self) -> np.ndarray:
        """(G,) the number of rows of each."""
        return np.diff(np.append(self.starts, len(self.rows)))

    @property
    def numbers(self) -> np.ndarray:
        """(M,) the number of the group of each of `rows`, from 0."""
        return np.repeat(np.arange(len(self)), self.sizes)

    def where(self, chosen: np.ndarray) -> Self:
        """Those for which `chosen`, (G,) bool, is true."""
        sizes = self.sizes[chosen]
        return type(self)(self.rows[np.repeat(chosen, self.sizes)], np.cumsum(sizes) - sizes)

    def first(self, groups: int, rows: int) -> list[list[int]]:
        """The first rows of the first groups."""
        return [
            self.rows[start : start + min(rows, size)].tolist()
            for start, size in zip(self.starts[:groups], self.sizes[:groups], strict=True)
        ]

    def pairs(self) -> np.ndarray:
        """(M - G, 2) the first row of each group with each of its others."""
        firsts = np.repeat(self.rows[self.starts], self.sizes)
        return np.stack([firsts, self.rows], axis=1)[firsts != self.rows]


def hashes_of(texts: Sequence[str]) -> np.ndarray:
    """(N,) uint64, equal for equal texts; of a million different ones two are equal with a probability of 3e-8."""
    import pandas as pd

    hashes = np.empty(len(texts), np.uint64)
    for first in range(0, len(texts), TEXTS_AT_ONCE):
        some = np.array(texts[first : first + TEXTS_AT_ONCE], object)
        hashes[first : first + len(some)] = pd.util.hash_array(some, categorize=False)
    return hashes
