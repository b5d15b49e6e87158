"""What rows of a dataset have in common, whether they are copied to a cache or streamed. Legend: N rows."""

from collections.abc import Sequence
from typing import Self

import datasets
import numpy as np
import pyarrow as pa

from hf_galaxy.data.vote_matrix import MATRIX


class BlockRows:
    """Rows that lie in blocks, each of which can be read alone; the part of `datasets.Dataset` in Arrow format that we need.

    Attributes:
        name: of the dataset, for messages.
        place: the folder or Hub id with its files and its card.
        features: the schema of the selected columns and votes.
        column_names: the selected columns.
        votes: further columns, which are read as one (`vote_matrix`).
        joined: columns beside the blocks, in memory, with a row for each row of the blocks; None: there are none (`joined_with`).
        blocks: where each block is: its file first, then whatever finds it in there.
        starts: the first row of each block, and behind the last one the number of rows.
        chosen: (N,) for each of our rows its row in the blocks.
        moved: columns that are those of other rows (`with_columns_of`).
        elsewhere: for each row in the blocks the one whose moved columns it has.
    """

    def __init__(self, blocks: list[tuple], sizes: Sequence[int], features: datasets.Features, name: str) -> None:
        self.name, self.place, self.features, self.column_names = name, name, features, list(features)
        self.votes: tuple[str, ...] = ()
        self.joined: pa.Table | None = None
        self.blocks = blocks
        self.starts = np.cumsum([0, *sizes])
        self.chosen = np.arange(self.starts[-1])
        self.moved: frozenset[str] = frozenset()
        self.elsewhere = self.chosen

    @classmethod
    def concatenated(cls, parts: list[Self]) -> Self:
        """The rows of the first part, then those of the second, ...; all parts are of one dataset."""
        firsts = np.cumsum([0] + [part.starts[-1] for part in parts])[:-1]
        joined = [part.joined for part in parts if part.joined is not None]
        return parts[0]._with(
            joined=pa.concat_tables(joined).combine_chunks() if joined else None,
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
        """Only these columns, and the columns `votes` as one (`vote_matrix`); nothing is read of the others.

        Joined votes stay columns.
        """
        features = datasets.Features({column: self.features[column] for column in (*columns, *votes)})
        if not set(votes).isdisjoint(self._joined_names):
            columns, votes = [*columns, *votes], ()
        names = [column for column in columns if column in self._joined_names]
        joined = self.joined.select(names) if self.joined is not None and names else None
        return self._with(column_names=columns, features=features, votes=tuple(votes), joined=joined)

    def joined_with(self, columns: pa.Table) -> Self:
        """The same rows with further columns, which are kept in memory.

        Args:
            columns: (N rows) with other names than ours.
        """
        assert self.joined is None
        assert set(columns.column_names).isdisjoint(self.features), "a column is there already"
        places = np.full(self.starts[-1], -1)
        places[self.chosen] = np.arange(len(self))
        of_blocks = columns.combine_chunks().take(pa.array(places, mask=places < 0))
        return self._with(
            joined=of_blocks,
            features=datasets.Features(self.features | datasets.Features.from_arrow_schema(columns.schema)),
            column_names=[*self.column_names, *columns.column_names],
        )

    def with_columns_of(self, columns: Sequence[str], others: np.ndarray) -> Self:
        """The same rows, but with these columns of other rows of ours.

        Args:
            others: (N,) for each row the one that they are of.
        """
        assert not self.moved
        elsewhere = np.arange(self.starts[-1])
        elsewhere[self.chosen] = self.chosen[others]
        return self._with(moved=frozenset(columns), elsewhere=elsewhere)

    def _parts(self) -> list[Self]:
        """The rows without the moved columns, and the other rows with these alone; each only if it has columns."""
        plain = self._with(moved=frozenset())
        there = plain._with(chosen=self.elsewhere[self.chosen])
        halves = [
            (rows, [name for name in self.column_names if (name in self.moved) == moved],
             [name for name in self.votes if (name in self.moved) == moved])
            for rows, moved in ((plain, False), (there, True))
        ]  # fmt: skip
        return [rows.select_columns(columns, votes) for rows, columns, votes in halves if columns or votes]

    @property
    def _joined_names(self) -> set[str]:
        return set() if self.joined is None else set(self.joined.column_names)

    @property
    def stored_names(self) -> list[str]:
        """The selected columns that lie in the blocks."""
        return [column for column in self.column_names if column not in self._joined_names]

    def __getitem__(self, indices: list[int] | slice) -> pa.Table:
        """Some rows: the selected columns, and the votes behind them."""
        if self.moved:
            rows, *others = [part[indices] for part in self._parts()]
            for part in others:
                for name in part.column_names:
                    rows = rows.append_column(part.schema.field(name), part[name])
            return rows.select([*self.column_names, *([MATRIX] if self.votes else [])])
        if self.joined is None:
            return self._stored(indices)
        joined = self.joined.take(pa.array(self.chosen[indices]))
        if not self.stored_names and not self.votes:
            return joined.select(self.column_names)
        rows = self._stored(indices)
        for name in joined.column_names:
            rows = rows.append_column(joined.schema.field(name), joined[name])
        return rows.select([*self.column_names, *([MATRIX] if self.votes else [])])

    def _stored(self, indices: list[int] | slice) -> pa.Table:
        """What the blocks hold of some rows: `stored_names`, and the votes."""
        raise NotImplementedError

    def with_format(self, kind: str) -> Self:
        """Itself: rows are always Arrow tables."""
        assert kind == "arrow"
        return self

    def _blocks_of(self, rows: np.ndarray) -> np.ndarray:
        """(N,) the block in which each row of the blocks lies."""
        return np.searchsorted(self.starts, rows, side="right") - 1

    def _empty(self) -> pa.Table:
        """No rows: `stored_names` and votes."""
        return self._stored_features.arrow_schema.empty_table()

    @property
    def _stored_features(self) -> datasets.Features:
        if self.joined is None:
            return self.features
        return datasets.Features({column: self.features[column] for column in (*self.stored_names, *self.votes)})
