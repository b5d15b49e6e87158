"""Hundreds of columns of votes as one column of a table: in each row a list of its votes.

What Arrow does with each column of each row takes longer than decoding the row's picture.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from hf_galaxy.errors import BadInput

INVALID = np.iinfo(np.int32).min  # stands for a number that is not whole, not finite, or beyond int32
MATRIX = "vote matrix"  # the name of that column; which columns it stands for is in the metadata of its field


def with_matrix(table: pa.Table, columns: Sequence[str], votes: np.ndarray) -> pa.Table:
    """The table, which may have no columns, with a further one that stands for `columns`, whose (N, K) int32 votes these are."""
    lists = pa.FixedSizeListArray.from_arrays(pa.array(votes.ravel()), len(columns))
    field = pa.field(MATRIX, lists.type, metadata={"columns": "\n".join(columns)})
    return table.append_column(field, lists) if table.num_columns else pa.table([lists], pa.schema([field]))


def columns_in(table: pa.Table) -> list[str]:
    """The columns of a table, those that `with_matrix` took together among them."""
    return [name for name in table.column_names if name != MATRIX] + _together(table)


def _together(table):
    if MATRIX not in table.schema.names:
        return []
    return table.field(MATRIX).metadata[b"columns"].decode().split("\n")


def matrix_of(table: pa.Table | pa.RecordBatch, columns: Sequence[str]) -> np.ndarray:
    """(N, K) int32: the votes in some columns, 0 where they are null or NaN, INVALID where a number is no int32.

    Nothing is refused here, as a table may hold rows that nobody asked for: `schema.votes_in` does.

    Args:
        columns: K of them; all taken together in this table, or none.

    Raises:
        BadInput: a column holds something else than numbers.
    """
    if together := _together(table):
        lists = table[MATRIX].combine_chunks()
        votes = lists.flatten().to_numpy().reshape(-1, len(together))
        places = {column: i for i, column in enumerate(together)}
        return votes if list(columns) == together else votes[:, [places[column] for column in columns]]
    held = table.select(columns)
    if not all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in held.schema.types):
        held = _cast(held)  # such as a column of nulls alone
    batches = held.combine_chunks().to_batches() if isinstance(held, pa.Table) else [held]
    if not batches:
        return np.empty((0, len(columns)), np.int32)
    missing = any(values.null_count for values in batches[0].columns)
    votes = batches[0].to_tensor(null_to_nan=missing).to_numpy()  # which makes integers to floats
    if np.can_cast(votes.dtype, np.int32):
        return votes.astype(np.int32, copy=False)
    votes = np.where(np.isnan(votes), 0, votes)
    whole = (votes == np.rint(votes)) & (np.abs(votes) < 2.0**31)
    return np.where(whole, votes, INVALID).astype(np.int32)


def _cast(held: pa.Table | pa.RecordBatch) -> pa.Table | pa.RecordBatch:
    """Columns of any type as float64."""
    arrays = []
    for column, values in zip(held.schema.names, held.columns, strict=True):
        try:
            arrays.append(values.cast(pa.float64()))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise BadInput(f"column {column} holds {values.type}, but votes are whole numbers ({error})") from error
    return type(held).from_arrays(arrays, names=held.schema.names)
