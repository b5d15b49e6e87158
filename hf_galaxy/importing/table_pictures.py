"""The column of somebody's table that names the picture files: as they are, by their base names, or with a suffix added."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

from hf_galaxy.data.picture_files import PictureFiles
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.guess import ID_NAMES, IMAGE_NAMES, columns_named_like

SUFFIXES = (
    ".jpg",
    ".png",
    ".jpeg",
    ".fits",
    ".webp",
    ".tif",
    ".tiff",
    ".fits.gz",
    ".fits.fz",
    ".JPG",
    ".PNG",
    ".JPEG",
    ".FITS",
)
SAMPLE, LARGE_SAMPLE = 20, 1000  # rows


class PictureColumn(NamedTuple):
    """Where a table names its pictures.

    Attributes:
        column: whose cells name them.
        pattern: as of `ColumnMap.image`: the column, or its cells with a suffix.
    """

    column: str
    pattern: str


def picture_column(cells: pd.DataFrame, pictures: PictureFiles, name: str, given: str | None = None) -> PictureColumn:
    """The column that names pictures, in a sample of the rows.

    Columns with usual names go first, then those whose cells are files, then names with a suffix added; of each of these the column
    that names most pictures.

    Args:
        cells: texts.
        name: of the table, for messages.
        given: the column, if it is known.

    Raises:
        BadInput: none of them names a picture, or the first line has no names of columns.
    """
    if header := next((column for column in cells.columns if column in pictures), None):
        raise BadInput(
            f"{name}: its first line should hold the names of the columns, but {header!r} is a picture; add a line such as: file"
        )
    usual = [given] if given else columns_named_like(cells.columns, IMAGE_NAMES)
    names = [] if given else columns_named_like(cells.columns, ID_NAMES)
    others = [] if given else [column for column in cells.columns if column not in usual]
    groups: list[tuple[Callable[[], list[PictureColumn]], int]] = [
        (lambda: [*_as_they_are(usual), *_with_suffixes(usual, cells)], SAMPLE),
        (lambda: _as_they_are(others), SAMPLE),
        (lambda: _with_suffixes(names, cells), SAMPLE),
        (lambda: _with_suffixes([column for column in others if column not in names], cells), SAMPLE),
        (lambda: [*_as_they_are(usual), *_with_suffixes([*usual, *names], cells)], LARGE_SAMPLE),
    ]
    for candidates, size in groups:
        sample = cells.iloc[np.unique(np.linspace(0, len(cells) - 1, size).round().astype(int))]
        found = [(_number_found(candidate, sample, pictures), candidate) for candidate in candidates()]
        number, best = max(found, key=lambda each: each[0], default=(0, None))  # of equal ones the first
        if number and best:
            return best
    _refuse_repeated([*usual, *names], cells, pictures, name)
    column = (usual or names or others)[0]
    text = next((text for text in cells[column] if text), "")
    raise BadInput(
        f"{name}: no picture of its rows is in {pictures}: neither {text!r}, of the column {column}, nor that with a suffix such as "
        f"{SUFFIXES[0]}; name the column with --image-column, and the folder or zip file of the pictures with --images"
    )


def _as_they_are(columns: list[str]) -> list[PictureColumn]:
    return [PictureColumn(column, column) for column in columns if "{" not in column]


def _with_suffixes(columns: list[str], cells: pd.DataFrame) -> list[PictureColumn]:
    # Classes from 0 to 9 are no pictures, even if there is a 0.jpg.
    possible = [c for c in columns if not set(c) & set("{}[]:!.") and not cells[c].duplicated().any()]
    return [PictureColumn(column, f"{{{column}}}{suffix}") for column in possible for suffix in SUFFIXES]


def _refuse_repeated(columns: list[str], cells: pd.DataFrame, pictures: PictureFiles, name: str) -> None:
    """Refuse names of galaxies that would be names of pictures, but for a row that is there twice."""
    for column in columns:
        repeated = cells[column].duplicated().to_numpy()
        sample = set(cells[column].head(LARGE_SAMPLE)) - {""}
        if repeated.any() and any(f"{text}{suffix}" in pictures for text in sample for suffix in SUFFIXES):
            row = int(np.flatnonzero(repeated)[0])
            more = f" (and {repeated.sum() - 1} more such rows)" if repeated.sum() > 1 else ""
            raise BadInput(
                f"{name}, row {row + 1}, column {column}: {cells[column].iloc[row]!r} is in an earlier row too{more}; cells that with a suffix "
                "name pictures should differ: keep one row of each galaxy, or add a column of the picture files"
            )


def _number_found(candidate: PictureColumn, sample: pd.DataFrame, pictures: PictureFiles) -> int:
    if candidate.pattern == candidate.column:
        files = [text.replace("\\", "/") for text in sample[candidate.column] if text]
        return sum(file in pictures or file.rpartition("/")[2] in pictures for file in files)
    suffix = candidate.pattern.rpartition("}")[2]
    return sum(f"{text}{suffix}" in pictures for text in sample[candidate.column] if text)
