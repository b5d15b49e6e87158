"""Columns that galaxies have already, such as positions and redshifts, to stand beside what is predicted for them. Legend: N galaxies."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import pyarrow as pa

from hf_galaxy.data.picture_files import Pictures
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.folders import Contents
from hf_galaxy.importing.guess import check_named
from hf_galaxy.importing.picture_metadata import FILE, read_metadata
from hf_galaxy.importing.row_columns import described, holds_pictures, is_plain

if TYPE_CHECKING:
    from hf_galaxy.data.targets import Rows

WHOLE = "all"


def kept_of_splits(
    opened: Mapping[str, Rows], keep: Sequence[str], name: str, taken: Collection[str]
) -> dict[str, pa.Table]:
    """(N rows) some columns of each split, in their types; of classes the names.

    Args:
        keep: names of the columns.
        name: of the dataset, for messages.
        taken: names of columns that these will stand beside.

    Raises:
        BadInput: there is no such column, its name is taken, or it holds pictures or lists.
    """
    kept = {}
    for split, rows in opened.items():
        features = rows.features
        _check(keep, {column: features[column] for column in rows.column_names}, name, taken)
        table = rows.select_columns(list(keep)).with_format("arrow")[:]
        kept[split] = _in_plain_types(table.select(list(keep)), features)
    return kept


def kept_of_pictures(
    contents: Contents, ids: Sequence[str], keep: Sequence[str], name: str, taken: Collection[str]
) -> pa.Table:
    """(N rows) some columns of the tables beside the pictures of a folder, metadata.csv and the like; null where none names a picture.

    Args:
        ids: the paths of the pictures in the folder.

    Raises:
        BadInput: as `kept_of_splits`, or of `read_metadata`; there is no such table, or it names a picture twice.
    """
    if not contents.metadata:
        raise BadInput(
            f"--keep {' '.join(keep)}: {name} is a folder of pictures without a table metadata.csv; predict a table of its galaxies "
            "(--dataset survey.csv --images FOLDER), or bring the columns with --join"
        )
    splits, _, _ = read_metadata(name, contents, Pictures([contents.path]), {"": WHOLE}, skip_missing=True)
    rows = splits[WHOLE]
    _check(keep, rows.features, name, taken)
    table = rows.with_format("arrow")[:]
    places: dict[str, int] = {}
    for i, file in enumerate(table[FILE].to_pylist()):
        if file in places:
            raise BadInput(
                f"--keep {keep[0]}: {Path(name) / contents.metadata[0]} names {file} twice; remove one of the rows"
            )
        places[file] = i
    chosen = pa.array([places.get(each) for each in ids], pa.int64())
    return _in_plain_types(table.select(list(keep)), rows.features).take(chosen)


def _check(keep: Sequence[str], features: Mapping[str, Any], name: str, taken: Collection[str]) -> None:
    for column in keep:
        if column == "id_str":
            raise BadInput("--keep id_str: it stands beside every prediction already; leave it out")
        check_named("--keep", column, features, name)
        if not is_plain(features[column]):
            held = "pictures" if holds_pictures(features[column]) else described(features[column])
            raise BadInput(
                f"--keep {column}: holds {held} in {name}; columns of numbers, texts, classes and dates can be kept"
            )
        if column in taken:
            raise BadInput(
                f"--keep {column}: the predictions have a column {column}, too; leave it out, and bring it as {column}_joined with "
                "--join TABLE --on id_str"
            )


def _in_plain_types(table: pa.Table, features: Mapping[str, Any]) -> pa.Table:
    """The names of classes instead of their numbers, and texts of one type."""
    for i, name in enumerate(table.column_names):
        feature, column = features[name], table[i]
        if isinstance(feature, datasets.ClassLabel):
            names = pa.array([*feature.names], pa.string())
            column = names.take(pa.array([_place(each, len(names)) for each in column.to_pylist()], pa.int64()))
        elif pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
            column = column.cast(pa.string())
        table = table.set_column(i, name, column)
    return table.replace_schema_metadata()


def _place(number: int | None, names: int) -> int | None:
    """The number of a class; None: it has none, which datasets write as -1."""
    return number if number is not None and 0 <= number < names else None
