"""Columns of many rows on the disk, of which any rows are read, so that a catalogue of millions needs no memory.

Columns of one type lie row by row, as one column of lists: some rows of hundreds of columns are read from some places of the file, not
from hundreds of places each.
"""

from __future__ import annotations

import os
import tempfile
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa

from hf_galaxy.errors import BadInput
from hf_galaxy.locks import lock_file, remove_lock

PREFIX, SUFFIX = "hf_galaxy-columns-", ".arrow"
JUST_MADE = 60  # seconds, in which a file may have no lock yet


class ColumnFile:
    """A table in a temporary file, which is removed with this object. Can be pickled: the copies read the same file.

    Args:
        pieces: tables with the same schema, at least one. Their columns hold texts, numbers or bools, or null.

    Attributes:
        schema: of the pieces.
    """

    def __init__(self, pieces: Iterable[pa.Table]) -> None:
        _remove_abandoned()
        handle, name = tempfile.mkstemp(prefix=PREFIX, suffix=SUFFIX)
        self.path = Path(name)
        lock = None
        with suppress(BadInput):
            lock = lock_file(self.path, required=True)  # until this process ends, however that is
        weakref.finalize(self, _remove, self.path, lock)
        writer = None
        with open(handle, "wb") as file:
            for piece in pieces:
                packed = _packed(piece)
                if writer is None:
                    self.schema, writer = piece.schema, pa.ipc.new_file(file, packed.schema)
                writer.write(packed)
            assert writer is not None, "a table has at least one piece"
            writer.close()

    def __getstate__(self) -> dict:
        return {"path": self.path, "schema": self.schema}

    @cached_property
    def _batches(self) -> list[pa.RecordBatch]:
        """What is not looked at stays on the disk."""
        with pa.memory_map(str(self.path)) as file:
            return pa.ipc.open_file(file).read_all().to_batches()

    @cached_property
    def _starts(self) -> np.ndarray:
        """The first row of each batch, and behind the last one the number of rows."""
        return np.cumsum([0, *(batch.num_rows for batch in self._batches)])

    def pieces(self) -> Iterator[pa.Table]:
        """All rows in their order, some at a time."""
        for batch in self._batches:
            yield _unpacked(pa.Table.from_batches([batch]), self.schema)

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Some columns of all rows."""
        return pa.concat_tables(piece.select(list(names)) for piece in self.pieces())

    def texts(self, name: str) -> pa.ChunkedArray:
        """A column of texts, none of which is in memory."""
        return pa.chunked_array([batch[name] for batch in self._batches], pa.string())

    def rows(self, rows: Sequence[int]) -> pa.Table:
        """Some rows, in the given order."""
        if not self.schema.names:
            return self.schema.empty_table()
        wanted = np.asarray(rows, np.int64)
        order = np.argsort(wanted, kind="stable")
        increasing = wanted[order]
        owners = np.searchsorted(self._starts, increasing, side="right") - 1
        parts = (
            [  # of one batch each: to take rows of several at once, Arrow would copy all of them
                self._batches[owner].take(pa.array(increasing[owners == owner] - self._starts[owner]))
                for owner in np.unique(owners)
            ]
            or [self._batches[0][:0]]
        )
        found = pa.Table.from_batches(parts).combine_chunks().take(pa.array(np.argsort(order)))
        return _unpacked(found, self.schema)


class Texts(Sequence[str]):
    """The texts of one column of a file, which stay on the disk. Can be pickled.

    Args:
        column: the name of the column.
    """

    def __init__(self, file: ColumnFile, column: str) -> None:
        self.file, self.column = file, column

    def __getstate__(self) -> dict:
        return {"file": self.file, "column": self.column}

    @cached_property
    def _array(self) -> pa.ChunkedArray:
        return self.file.texts(self.column)

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, chosen: Any) -> Any:
        return self._array[chosen].to_pylist() if isinstance(chosen, slice) else self._array[int(chosen)].as_py()

    def __iter__(self) -> Iterator[str]:
        for piece in self.pieces():
            yield from piece

    def pieces(self) -> Iterator[list[str]]:
        """All texts in their order, some at a time."""
        for array in self._array.chunks:
            yield array.to_pylist()


def _packed(table: pa.Table) -> pa.RecordBatch:
    """Texts as they are; the columns of each other type as one column of lists, which has the name of the type."""
    packed = {name: table[name].combine_chunks() for name in table.column_names if _is_text(table.schema.field(name))}
    for kind, names in _by_type(table.schema).items():
        columns = [table[name].combine_chunks() for name in names]
        missing = np.stack([column.is_null().to_numpy(zero_copy_only=False) for column in columns], axis=1)
        filled = (column.fill_null(pa.scalar(0).cast(kind)).to_numpy(zero_copy_only=False) for column in columns)
        values = pa.array(np.stack(list(filled), axis=1).ravel(), kind, mask=missing.ravel())
        packed[str(kind)] = pa.FixedSizeListArray.from_arrays(values, len(names))
    return pa.RecordBatch.from_pydict(packed)


def _unpacked(table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = {name: table[name] for name in schema.names if _is_text(schema.field(name))}
    for kind, names in _by_type(schema).items():
        lists = table[str(kind)].combine_chunks().flatten()
        shape = (table.num_rows, len(names))
        missing = lists.is_null().to_numpy(zero_copy_only=False).reshape(shape)
        filled = lists.fill_null(pa.scalar(0).cast(kind)).to_numpy(zero_copy_only=False).reshape(shape)
        columns |= {name: pa.array(filled[:, k], kind, mask=missing[:, k]) for k, name in enumerate(names)}
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def _by_type(schema: pa.Schema) -> dict[pa.DataType, list[str]]:
    """The columns that are no texts."""
    found: dict[pa.DataType, list[str]] = {}
    for field in schema:
        if not _is_text(field):
            found.setdefault(field.type, []).append(field.name)
    return found


def _is_text(field: pa.Field) -> bool:
    return pa.types.is_string(field.type)


def _remove_abandoned() -> None:
    """Remove the files of processes that were killed, which nobody has locked."""
    for file in Path(tempfile.gettempdir()).glob(f"{PREFIX}*{SUFFIX}"):
        with suppress(OSError, BadInput):  # those of other users, or on a file system without locks
            just_made = time.time() - file.stat().st_mtime < JUST_MADE
            if not just_made and (lock := lock_file(file, required=True)):
                remove_lock(lock)


def _remove(path: Path, lock: IO[bytes] | None) -> None:
    with suppress(OSError):  # Windows keeps a file that is mapped
        os.unlink(path)
    if lock:
        lock.close()
