"""What the columns of a dataset hold for a model to predict: votes, a class, or values.

Legend of shapes: N galaxies, A answers, K values.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import datasets
import numpy as np
import pyarrow as pa
import torch

from hf_galaxy.data.copied import CopiedRows
from hf_galaxy.data.schema import InvalidVotes, class_name, vote_columns, votes_in
from hf_galaxy.data.streaming import StreamedRows
from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.errors import BadInput

Rows = CopiedRows | StreamedRows | datasets.Dataset
MANY = 16  # columns of votes, of which it is faster to make one


def is_text(feature):
    return isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string")


def column_of(rows, column):
    return rows.select_columns([column]).with_format("arrow")[:][column]


def check_tree_columns(columns: Collection[str], tree: DecisionTree, name: str) -> None:
    """Refuse a dataset with these columns if it lacks votes for a question of the tree; `name` is for the message."""
    if missing := [column for column in tree.columns if column not in set(columns)]:
        raise BadInput(
            f"--dataset {name}: lacks {len(missing)} of the {len(tree.columns)} vote columns of tree {tree.name}: "
            f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}"
        )


@dataclass(frozen=True)
class Label:
    """A column of classes, and the names of the classes in the order of their indices.

    Attributes:
        one: the class of the column that is told from all others; None: all are told from each other.
    """

    column: str
    names: tuple[str, ...]
    one: str | None = None

    @classmethod
    def of(cls, said: str, names: Collection[str]) -> "Label":
        """What --label says: a column, or COLUMN=CLASS; `names` are those of the column's classes, or of a run's.

        One class is told from the rest by index 1, and the rest is called "not CLASS": so that two such heads have no name in
        common that means different things.
        """
        column, equals, one = said.partition("=")
        return cls(column, (f"not {one}", one), one) if equals else cls(column, tuple(names))

    def indices(self, table: pa.Table, feature) -> np.ndarray:
        """(N,) int64 class indices of some rows; -1 where a row has no label, or, of several to be told apart, another one.

        Args:
            feature: the type of the column in these rows.
        """
        values = table[self.column].to_pylist()
        if isinstance(feature, datasets.ClassLabel):
            values = [class_name(feature, v) for v in values]
        if self.one is not None:
            return np.array([int(v == self.one) if v else -1 for v in values], dtype=np.int64)
        places = {name: i for i, name in enumerate(self.names)}
        return np.array([places.get(v, -1) for v in values], dtype=np.int64)


def label_of(rows: Rows, said: str, name: str) -> Label:
    """The classes of a label column: those of a ClassLabel, or the different texts of a text column, sorted.

    Args:
        said: a column such as `summary` of mwalmsley/gz_evo, where an empty text is no label; or `summary=round`, to tell one
            class from the rest.
        name: of the dataset, for the message.

    Raises:
        BadInput: no such column, it holds no classes, fewer than two, or not the one that is named.
    """
    names = _classes_in(rows, Label.of(said, ()).column, name)
    label = Label.of(said, names)
    _check_one(label, names, f"--dataset {name}: ")
    return label


def _check_one(label, names, where=""):
    """Refuse a column with these classes if the label tells another one from the rest."""
    if label.one is not None and label.one not in names:
        raise BadInput(
            f"{where}{label.column!r} has no class {label.one!r} to be told from the rest, only {', '.join(names[:20])}"
            f"{', ...' if len(names) > 20 else ''}"
        )


def _classes_in(rows: Rows, column: str, name: str) -> list[str]:
    feature = rows.features.get(column)
    if isinstance(feature, datasets.ClassLabel):
        return feature.names
    if feature is not None and not is_text(feature):
        raise BadInput(
            f"--dataset {name}: column {column!r} holds {getattr(feature, 'dtype', feature)}, but classes are texts or a "
            f"ClassLabel; name them: dataset.cast_column({column!r}, datasets.ClassLabel(names=[...]))"
        )
    if feature is None:
        labels = ", ".join(label_columns(rows)) or "none"
        raise BadInput(f"--dataset {name}: has no class label {column!r}; its label columns: {labels}")
    names = sorted({value for value in column_of(rows, column).unique().to_pylist() if value})
    if not 1 < len(names) <= 1000:
        raise BadInput(
            f"--dataset {name}: column {column!r} holds {len(names)} different texts; classes are 2 to 1,000"
        )
    return names


def label_columns(rows: Rows) -> list[str]:
    """The columns that hold classes by their type; texts may do, too."""
    return [column for column, feature in rows.features.items() if isinstance(feature, datasets.ClassLabel)]


@dataclass(frozen=True)
class Values:
    """Columns of numbers, one or several; null or NaN is a missing one.

    Attributes:
        unit_interval: the numbers are in [0, 1], such as fractions.
    """

    columns: tuple[str, ...]
    unit_interval: bool = False

    def numbers(self, table) -> np.ndarray:
        """(N, K) float64 values of some rows, NaN where missing."""
        return np.stack([table[column].cast(pa.float64(), safe=False).to_numpy() for column in self.columns], axis=1)


def values_of(rows: Rows, columns: Collection[str], name: str, unit_interval: bool = False) -> Values:
    """The values in these columns.

    Args:
        columns: of integers or floats.
        name: of the dataset, for the message.

    Raises:
        BadInput: none are given, or there is no such column, or it holds something else.
    """
    wrong = [column for column in columns if not _is_number(rows.features.get(column))]
    if wrong or not columns:
        having = [column for column, feature in rows.features.items() if _is_number(feature)]
        having.sort(key=lambda column: not rows.features[column].dtype.startswith("float"))  # integers are often votes
        raise BadInput(
            f"--dataset {name}: has no column of numbers {', '.join(map(repr, wrong)) or 'to learn without --values'}; those that "
            f"it has: {', '.join(having[:20]) or 'none'}{', ...' if len(having) > 20 else ''}"
        )
    return Values(tuple(columns), unit_interval)


def _is_number(feature):
    return type(feature) is datasets.Value and feature.dtype.startswith(("int", "uint", "float"))


def with_values(rows: Rows, values: Values, where: str) -> tuple[Rows, np.ndarray]:
    """The rows that have at least one of the values, and their values (N, K) float64; `where` is for the message.

    Raises:
        BadInput: none has, or a value is none that can be learnt; names its galaxy.
    """
    numbers = values.numbers(rows.select_columns(list(values.columns)).with_format("arrow")[:])
    # What is calculated is calculated in float32. NaN is greater than nothing.
    _refuse(
        np.abs(numbers) > np.finfo(np.float32).max,
        numbers,
        rows,
        values,
        where,
        "is too large; use another unit, or its logarithm",
    )
    if values.unit_interval:
        outside = (numbers < 0) | (numbers > 1)
        _refuse(outside, numbers, rows, values, where, "is not in [0, 1], as --unit-interval has it")
    having = np.flatnonzero(~np.isnan(numbers).all(axis=1))
    if not len(having):
        raise BadInput(f"{where}: none of its {len(rows):,} galaxies has {' or '.join(values.columns)}")
    return (rows if len(having) == len(rows) else rows.select(having)), numbers[having]


def _refuse(wrong: np.ndarray, numbers: np.ndarray, rows: Rows, values: Values, where: str, what: str) -> None:
    """BadInput with the first of some wrong numbers; the row's number would be that among the chosen rows."""
    for row, k in np.argwhere(wrong)[:1].tolist():
        name = rows.select_columns(["id_str"]).with_format("arrow")[[row]]["id_str"][0].as_py()
        raise BadInput(f"{where}, id_str {name}, column {values.columns[k]}: {numbers[row, k]:g} {what}")


def columns_of(rows: Rows, target: DecisionTree | Label | Values) -> list[str]:
    """The columns that hold the target.

    Raises:
        BadInput: the rows have no votes for the tree, only some answers of a question, or other classes.
    """
    if isinstance(target, DecisionTree):
        return vote_columns(rows.column_names, target)
    if isinstance(target, Values):
        return list(target.columns)
    feature = rows.features[target.column]
    if isinstance(feature, datasets.ClassLabel) and target.one is not None:
        _check_one(target, feature.names)
    elif isinstance(feature, datasets.ClassLabel) and tuple(feature.names) != target.names:
        raise BadInput(f"{target.column!r} has the classes {', '.join(feature.names)}, not {', '.join(target.names)}")
    return [target.column]


def vote_batches(rows: Rows, tree: DecisionTree) -> Iterator[np.ndarray]:
    """The votes of a whole split in its order, (n, A) int32 at a time."""
    for table in tables_of(rows, [], tree):
        yield votes_in(table, tree)


def labelled(rows: Rows, label: Label, name: str) -> tuple[Rows, np.ndarray]:
    """The rows that have a label, and their class indices; `name` is for the message.

    Raises:
        BadInput: none has.
    """
    table = rows.select_columns([label.column]).with_format("arrow")[:]
    indices = label.indices(table, rows.features[label.column])
    having = np.flatnonzero(indices >= 0)
    if not len(having):
        raise BadInput(f"--dataset {name}: none of its {len(rows):,} galaxies has a {label.column!r}")
    return (rows if len(having) == len(rows) else rows.select(having)), indices[having]


def targets_in(
    table: pa.Table, target: DecisionTree | Label | Values, features: datasets.Features
) -> dict[str, torch.Tensor]:
    """What a model is to learn of some rows: `votes` (N, A) int32, or `labels`, (N,) int64 classes or (N, K) float32 values.

    Args:
        features: the schema of the rows.
    """
    if isinstance(target, Label):
        return {"labels": torch.from_numpy(target.indices(table, features[target.column]))}
    if isinstance(target, Values):
        return {"labels": torch.from_numpy(target.numbers(table)).float()}
    return {"votes": torch.from_numpy(votes_in(table, target))}


def tables_of(
    rows: Rows, columns: list[str], target: DecisionTree | Label | None = None, size: int = 5_000
) -> Iterator[pa.Table]:
    """Some columns of all rows in their order, `size` rows at a time, so that many are never in memory together.

    Args:
        target: also the columns that `targets_in` needs.

    Raises:
        BadInput: as `columns_of`, or a number is no number of votes.
    """
    chosen = with_target(rows, columns, target)
    for first in range(0, len(rows), size):
        table = chosen[first : first + size]
        if isinstance(target, DecisionTree):
            try:
                votes_in(table, target)
            except InvalidVotes as error:
                raise BadInput(f"{galaxy_of(rows, first + error.row)}, {error.reason}") from error
        yield table


def galaxy_of(rows: Rows, index: int) -> str:
    """What a message calls the galaxy in one of these rows: the dataset, if they know it, and `id_str`.

    The number of the row would mislead, as rows may have been chosen from those of a file.
    """
    name = f"row {index}"
    if "id_str" in rows.column_names:
        name = f"id_str {rows.select_columns(['id_str']).with_format('arrow')[[index]]['id_str'][0].as_py()}"
    dataset = getattr(rows, "name", "")
    return f"--dataset {dataset}, {name}" if dataset else name


def with_target(rows, columns, target):
    """The rows with some columns and those of a target; many of votes as one (`vote_matrix`), where the rows can give it."""
    held = [] if target is None else columns_of(rows, target)
    if isinstance(target, DecisionTree) and len(held) >= MANY and not isinstance(rows, datasets.Dataset):
        return rows.select_columns(columns, votes=held)
    return rows.select_columns([*columns, *held]).with_format("arrow")
