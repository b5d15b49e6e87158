"""Columns of many rows on the disk, of which any rows are read, so that a catalogue of millions needs no memory."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa


class ColumnFile:
    """A table in a temporary file, which is removed with this object. Can be pickled: the copies read the same file.

    Args:
        pieces: tables with the same schema, at least one.
    """

    def __init__(self, pieces: Iterable[pa.Table]) -> None:
        handle, name = tempfile.mkstemp(prefix="hf_galaxy-", suffix=".arrow")
        self.path = Path(name)
        weakref.finalize(self, _remove, self.path)
        writer = None
        with open(handle, "wb") as file:
            for piece in pieces:
                if writer is None:
                    writer = pa.ipc.new_file(file, piece.schema)
                writer.write_table(piece.combine_chunks())
            assert writer is not None, "a table has at least one piece"
            writer.close()

    def __getstate__(self) -> dict:
        return {"path": self.path}

    @cached_property
    def table(self) -> pa.Table:
        """All rows. What is not looked at stays on the disk."""
        with pa.memory_map(str(self.path)) as file:
            return pa.ipc.open_file(file).read_all()

    def rows(self, rows: Sequence[int]) -> pa.Table:
        """Some rows, in the given order."""
        return self.table.take(np.asarray(rows, np.int64)) if self.table.num_columns else self.table


def _remove(path: Path) -> None:
    with suppress(OSError):  # Windows keeps a file that is mapped
        os.unlink(path)
