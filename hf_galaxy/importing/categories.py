"""A few different texts of many rows, such as their splits: a byte or two for each row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np


class Categories(Sequence[str]):
    """The text of each row.

    Args:
        codes: (N,) index in `names` of each row.
        names: the different texts.
    """

    def __init__(self, codes: np.ndarray, names: Sequence[str]) -> None:
        self.codes, self.names = codes, list(names)

    @classmethod
    def of(cls, texts: Iterable[str]) -> Self:
        """Those of any texts; they may be such already."""
        if isinstance(texts, cls):
            return texts
        numbers: dict[str, int] = {}
        codes = np.fromiter((numbers.setdefault(text, len(numbers)) for text in texts), np.int32)
        return cls(codes, list(numbers))

    @classmethod
    def of_codes(cls, codes: np.ndarray, names: Sequence[str]) -> Self:
        """As `of` the texts would be: with the names that some rows have, in the order of the first of these."""
        used, firsts = np.unique(codes, return_index=True)
        used = used[np.argsort(firsts)]
        numbers = np.zeros(len(names), np.int32)
        numbers[used] = np.arange(len(used))
        return cls(numbers[codes], [names[code] for code in used])

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, chosen: Any) -> Any:
        found = self.codes[chosen]
        return [self.names[code] for code in found] if isinstance(chosen, slice) else self.names[found]
