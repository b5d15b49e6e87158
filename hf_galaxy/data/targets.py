"""What a target is to the rows of a dataset: the columns that hold it, and the tensors that it becomes.

Legend of shapes: N rows of a table, A answers, K values or labels.
"""

from collections.abc import Collection, Iterator
from typing import ClassVar, Protocol, TypeAlias

import datasets
import numpy as np
import pyarrow as pa
import torch

from hf_galaxy.data.copied import CopiedRows
from hf_galaxy.data.schema import InvalidVotes
from hf_galaxy.data.streaming import StreamedRows
from hf_galaxy.errors import BadInput

Rows: TypeAlias = CopiedRows | StreamedRows | datasets.Dataset
LABEL_NAMES = ("votes", "labels")  # names of `Target.tensors`: the arguments from which a model computes its loss
MANY = 16  # columns of votes, of which it is faster to make one


class Target(Protocol):
    """What a model learns to predict, such as votes or a class.

    Attributes:
        as_matrix: its columns are votes, which `vote_matrix` can give as one column.
    """

    as_matrix: ClassVar[bool]

    def columns_of(self, rows: Rows) -> list[str]:
        """The columns of these rows that hold the target.

        Raises:
            BadInput: they do not hold it.
        """

    def tensors(self, table: pa.Table, features: datasets.Features) -> dict[str, torch.Tensor]:
        """The target of some rows, by the names of the model's arguments: `votes` (N, A) int32, or `labels`: (N,) int64 classes, or
        (N, K) float32 values or labels, NaN where missing.

        Args:
            features: the schema of the rows.

        Raises:
            InvalidVotes: a number is no number of votes.
        """

    def strata(self, table: pa.Table, features: datasets.Features) -> np.ndarray:
        """(N,) int64: the stratum of each row, from which a subset takes its share."""


def column_of(rows: Rows, column: str) -> pa.ChunkedArray:
    """One column of all rows."""
    return rows.select_columns([column]).with_format("arrow")[:][column]


def tables_of(
    rows: Rows, columns: Collection[str], target: Target | None = None, size: int = 5_000
) -> Iterator[pa.Table]:
    """Some columns of all rows in their order, `size` rows at a time, so that many are never in memory together.

    Args:
        target: also the columns that hold it; its methods read them from these tables.

    Raises:
        BadInput: the rows do not hold the target, or a number is no number of votes; names the galaxy.
    """
    chosen = with_target(rows, columns, target)
    for first in range(0, len(rows), size):
        table = chosen[first : first + size]
        if target is not None and target.as_matrix:
            try:
                target.tensors(table, rows.features)
            except InvalidVotes as error:
                raise BadInput(f"{galaxy_of(rows, first + error.row)}, {error.reason}") from error
        yield table


def galaxy_of(rows: Rows, index: int) -> str:
    """The name of a galaxy in messages: the dataset, if the rows have its name, and `name_in`."""
    dataset, name = getattr(rows, "name", ""), name_in(rows, index)
    return f"--dataset {dataset}, {name}" if dataset else name


def name_in(rows: Rows, index: int) -> str:
    """The name of a galaxy in a message that names its dataset already: its `id_str`.

    The number of the row would mislead, as rows may have been chosen from those of a file.
    """
    if "id_str" not in rows.column_names:
        return f"row {index}"
    return f"id_str {rows.select_columns(['id_str']).with_format('arrow')[[index]]['id_str'][0].as_py()}"


def with_target(rows: Rows, columns: Collection[str], target: Target | None) -> Rows:
    """The rows with some columns and those of a target; many columns of votes as one, where the rows can give it."""
    held = [] if target is None else target.columns_of(rows)
    if target is not None and target.as_matrix and len(held) >= MANY and not isinstance(rows, datasets.Dataset):
        return rows.select_columns(list(columns), votes=held)
    return rows.select_columns([*columns, *held]).with_format("arrow")
