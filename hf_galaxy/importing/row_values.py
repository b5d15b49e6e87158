"""Columns of the datasets library, some rows at a time, so that no column of pictures is in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc

ROWS_PER_TABLE = 1000  # of pictures that are looked through


def arrays_of(rows: datasets.Dataset, column: str, *within: str) -> Iterator[pa.Array]:
    """One column, some rows at a time.

    Args:
        within: the part of a column of structures.
    """
    chosen = rows.select_columns([column]).with_format("arrow")
    for first in range(0, len(rows), ROWS_PER_TABLE):
        for array in chosen[first : first + ROWS_PER_TABLE][
            column
        ].chunks:  # of pictures together they may be too large for one
            array = array.storage if isinstance(array, pa.ExtensionArray) else array
            yield pc.struct_field(array, within) if within else array


def values_of(rows: datasets.Dataset, column: str, *within: str) -> Iterator[Any]:
    """The values of one column, as of `arrays_of`."""
    for array in arrays_of(rows, column, *within):
        yield from (value.as_py() for value in array)


def files_in(array: pa.Array) -> list[str | None]:
    """The file of each picture that stands by its path alone, else None."""
    if pa.types.is_struct(array.type):
        if "path" not in {field.name for field in array.type}:
            return [None] * len(array)
        alone = array.field("bytes").is_null().to_pylist()
        return [path if by_path else None for path, by_path in zip(array.field("path").to_pylist(), alone, strict=True)]
    return (
        array.to_pylist()
        if pa.types.is_string(array.type) or pa.types.is_large_string(array.type)
        else [None] * len(array)
    )
