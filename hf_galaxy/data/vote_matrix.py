"""Hundreds of vote columns as one column of a table, with a list of votes in each row.

Arrow's work for each column of each row takes longer than decoding the row's picture. Legend: N rows, K columns.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from hf_galaxy.errors import BadInput

INVALID = np.iinfo(np.int32).min  # replaces a number that is not whole, not finite, or beyond int32
MATRIX = "vote matrix"  # the name of that column; the metadata of its field list the columns that it replaces


def with_matrix(table: pa.Table, columns: Sequence[str], votes: np.ndarray) -> pa.Table:
    """The table with a further column, which replaces `columns`; the table may have no other columns.

    Args:
        votes: (N, K) int32, of these columns.
    """
    lists = pa.FixedSizeListArray.from_arrays(pa.array(votes.ravel()), len(columns))
    field = pa.field(MATRIX, lists.type, metadata={"columns": "\n".join(columns)})
    return table.append_column(field, lists) if table.num_columns else pa.table([lists], pa.schema([field]))


def columns_in(table: pa.Table) -> list[str]:
    """The columns of a table, including those that `with_matrix` replaced."""
    return [name for name in table.column_names if name != MATRIX] + _replaced(table)


def _replaced(table: pa.Table | pa.RecordBatch) -> list[str]:
    """The columns that `with_matrix` replaced."""
    if MATRIX not in table.schema.names:
        return []
    return table.field(MATRIX).metadata[b"columns"].decode().split("\n")


def matrix_of(table: pa.Table | pa.RecordBatch, columns: Sequence[str]) -> np.ndarray:
    """(N, K) int32: the votes in some columns, 0 where they are null or NaN, INVALID where a number does not fit an int32.

    Invalid numbers raise no error here, since a table may hold rows that are not used: `schema.votes_in` raises it.

    Args:
        columns: K of them; this table has either replaced all of them, or none.

    Raises:
        BadInput: a column does not hold numbers.
    """
    if replaced := _replaced(table):
        lists = table[MATRIX].combine_chunks()
        votes = lists.flatten().to_numpy().reshape(-1, len(replaced))
        places = {column: i for i, column in enumerate(replaced)}
        return votes if list(columns) == replaced else votes[:, [places[column] for column in columns]]
    selected = table.select(columns)
    if not all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in selected.schema.types):
        selected = _cast(selected)  # such as a column that has only nulls
    batches = selected.combine_chunks().to_batches() if isinstance(selected, pa.Table) else [selected]
    if not batches:
        return np.empty((0, len(columns)), np.int32)
    missing = any(values.null_count for values in batches[0].columns)
    votes = batches[0].to_tensor(null_to_nan=missing).to_numpy()  # converts integers to floats
    if np.can_cast(votes.dtype, np.int32):
        return votes.astype(np.int32, copy=False)
    votes = np.where(np.isnan(votes), 0, votes)
    whole = (votes == np.rint(votes)) & (np.abs(votes) < 2.0**31)
    return np.where(whole, votes, INVALID).astype(np.int32)


def _cast(table: pa.Table | pa.RecordBatch) -> pa.Table | pa.RecordBatch:
    """Columns of any type as float64."""
    arrays = []
    for column, values in zip(table.schema.names, table.columns, strict=True):
        try:
            arrays.append(values.cast(pa.float64()))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise BadInput(f"column {column} holds {values.type}, but votes are whole numbers ({error})") from error
    return type(table).from_arrays(arrays, names=table.schema.names)
