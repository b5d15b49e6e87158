"""What rows of a dataset have in common, whether they are copied to a cache or streamed. Legend: N rows."""

from collections.abc import Sequence
from typing import Self

import datasets
import numpy as np
import pyarrow as pa


class BlockRows:
    """Rows that lie in blocks, each of which can be read alone; the part of `datasets.Dataset` in Arrow format that we need.

    Attributes:
        name: of the dataset, for messages.
        features: the schema of the selected columns and votes.
        column_names: the selected columns.
        votes: further columns, which are read as one (`vote_matrix`).
        blocks: where each block is: its file first, then whatever finds it in there.
        starts: the first row of each block, and behind the last one the number of rows.
        chosen: (N,) for each of our rows its row in the blocks.
    """

    def __init__(self, blocks: list[tuple], sizes: Sequence[int], features: datasets.Features, name: str) -> None:
        self.name, self.features, self.column_names = name, features, list(features)
        self.votes: tuple[str, ...] = ()
        self.blocks = blocks
        self.starts = np.cumsum([0, *sizes])
        self.chosen = np.arange(self.starts[-1])

    @classmethod
    def concatenated(cls, parts: list[Self]) -> Self:
        """The rows of the first part, then those of the second, ...; all parts are of one dataset."""
        firsts = np.cumsum([0] + [part.starts[-1] for part in parts])[:-1]
        return parts[0]._with(
            blocks=[block for part in parts for block in part.blocks],
            starts=np.concatenate([[0], *(part.starts[1:] + first for part, first in zip(parts, firsts, strict=True))]),
            chosen=np.concatenate([part.chosen + first for part, first in zip(parts, firsts, strict=True)]),
        )

    def __len__(self) -> int:
        return len(self.chosen)

    def _with(self, **changes: object) -> Self:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__ | changes)
        return other

    def named(self, name: str) -> Self:
        """The same rows, with another name of their dataset in messages."""
        return self._with(name=name)

    def select(self, indices: np.ndarray) -> Self:
        """Only these rows; for streamed rows the indices must increase."""
        return self._with(chosen=self.chosen[indices])

    def select_columns(self, columns: list[str], votes: Sequence[str] = ()) -> Self:
        """Only these columns, and the columns `votes` as one (`vote_matrix`); nothing is read of the others."""
        features = datasets.Features({column: self.features[column] for column in (*columns, *votes)})
        return self._with(column_names=columns, features=features, votes=tuple(votes))

    def with_format(self, kind: str) -> Self:
        """Itself: rows are always Arrow tables."""
        assert kind == "arrow"
        return self

    def _blocks_of(self, rows: np.ndarray) -> np.ndarray:
        """(N,) the block in which each row of the blocks lies."""
        return np.searchsorted(self.starts, rows, side="right") - 1

    def _empty(self) -> pa.Table:
        return self.features.arrow_schema.empty_table()
