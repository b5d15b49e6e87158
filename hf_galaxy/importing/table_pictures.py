"""The column of somebody's table that names the picture files: as they are, by their base names, or with a suffix added."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd

from hf_galaxy.data.band_names import names_band
from hf_galaxy.data.picture_files import FILES, FLUX_SUFFIXES, PictureFiles
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.column_map import BAND
from hf_galaxy.importing.guess import ID_NAMES, IMAGE_NAMES, columns_named_like

SUFFIXES = (
    ".jpg", ".png", ".jpeg", ".fits", ".webp", ".tif", ".tiff", ".fits.gz", ".fits.fz", ".JPG", ".PNG", ".JPEG", ".FITS",
)  # fmt: skip
FORMS = ("{0}_{1}", "{0}-{1}", "{0}.{1}", "{1}/{0}", "{1}_{0}", "{1}-{0}")  # a name, and a band
UNNAMED = set("{}[]:!.")  # what the names of columns in patterns cannot have
SAMPLE, LARGE_SAMPLE, FEW = 20, 1000, 3  # rows
USUAL_BANDS = tuple("ugrizyYJHK")  # are looked for to explain why there are no pictures


class PictureColumn(NamedTuple):
    """Where a table names its pictures.

    Attributes:
        column: whose cells name them.
        pattern: as of `ColumnMap.image`: the column, or its cells with a suffix.
    """

    column: str
    pattern: str


def picture_column(
    cells: pd.DataFrame,
    pictures: PictureFiles,
    name: str,
    given: str | None = None,
    bands: Sequence[str] | None = None,
) -> PictureColumn:
    """The column that names pictures, in a sample of the rows.

    Columns with usual names go first, then those whose cells are files, then names with a suffix added; of each of these the column
    that names most pictures. With bands, columns of a file for each of them go before all, and names with a band added come last.

    Args:
        cells: texts.
        name: of the table, for messages.
        given: the column, if it is known.
        bands: of the fluxes that are read; None: pictures are.

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
    if bands and not given and (each := _columns_of_bands(cells, pictures, bands)):
        return each
    suffixes = (*SUFFIXES, *FLUX_SUFFIXES) if bands else SUFFIXES
    groups: list[tuple[Callable[[], list[PictureColumn]], int]] = [
        (lambda: [*_as_they_are(usual), *_with_suffixes(usual, cells, suffixes)], SAMPLE),
        (lambda: _as_they_are(others), SAMPLE),
        (lambda: _with_suffixes(names, cells, suffixes), SAMPLE),
        (lambda: _with_suffixes([column for column in others if column not in names], cells, suffixes), SAMPLE),
        (lambda: [*_as_they_are(usual), *_with_suffixes([*usual, *names], cells, suffixes)], LARGE_SAMPLE),
    ]
    if bands:
        groups.append((lambda: _with_bands([*usual, *names], cells), SAMPLE))
        groups.append((lambda: _with_bands([column for column in others if column not in names], cells), SAMPLE))
    for candidates, size in groups:
        sample = cells.iloc[np.unique(np.linspace(0, len(cells) - 1, size).round().astype(int))]
        found = [(_number_found(candidate, sample, pictures, bands or ()), candidate) for candidate in candidates()]
        number, best = max(found, key=lambda each: each[0], default=(0, None))  # of equal ones the first
        if number and best:
            return best
    _refuse_repeated([*usual, *names], cells, pictures, name)
    _refuse_other_bands([*usual, *names], cells, pictures, name, bands)
    column = (usual or names or others)[0]
    text = next((text for text in cells[column] if text), "")
    of_bands = f", or with a band and a suffix, such as _{bands[0]}{SUFFIXES[3]}" if bands else ""
    raise BadInput(
        f"{name}: no picture of its rows is in {pictures}: neither {text!r}, of the column {column}, nor that with a suffix such as "
        f"{SUFFIXES[0]}{of_bands}; name the column with --image-column, and the folder or zip file of the pictures with --images"
    )


def _as_they_are(columns: list[str]) -> list[PictureColumn]:
    return [PictureColumn(column, column) for column in columns if "{" not in column]


def _with_suffixes(columns: list[str], cells: pd.DataFrame, suffixes: Iterable[str]) -> list[PictureColumn]:
    possible = _may_be_in_patterns(columns, cells)
    return [PictureColumn(column, f"{{{column}}}{suffix}") for column in possible for suffix in suffixes]


def _may_be_in_patterns(columns: list[str], cells: pd.DataFrame) -> list[str]:
    # Classes from 0 to 9 are no pictures, even if there is a 0.jpg.
    return [c for c in columns if not set(c) & UNNAMED and not cells[c].duplicated().any()]


def _with_bands(columns: list[str], cells: pd.DataFrame) -> list[PictureColumn]:
    """Names with a band added, as people name the files of several bands."""
    suffixes = ("", *SUFFIXES, *FLUX_SUFFIXES)
    return [
        PictureColumn(column, form.format(f"{{{column}}}", BAND) + suffix)
        for column in _may_be_in_patterns(columns, cells)
        for form, suffix in product(FORMS, suffixes)
    ]


def _columns_of_bands(cells: pd.DataFrame, pictures: PictureFiles, bands: Sequence[str]) -> PictureColumn | None:
    """Columns such as image_g, image_r, that name a file for each band; None: there are none."""
    sample = cells.head(SAMPLE)
    chosen = []
    for band in bands:
        named = [column for column in cells.columns if not set(column) & UNNAMED and names_band(column, band)]
        of_files = [column for column in named if _number_found(PictureColumn(column, column), sample, pictures, ())]
        if len(of_files) != 1:
            return None
        chosen += of_files
    if len(bands) == 1 or len(set(chosen)) < len(bands):
        return None
    return PictureColumn(chosen[0], FILES.join(f"{{{column}}}" for column in chosen))


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


def _refuse_other_bands(
    columns: list[str], cells: pd.DataFrame, pictures: PictureFiles, name: str, bands: Sequence[str] | None
) -> None:
    """Refuse files of one band each, if not all of the bands have them, or if bands were not asked for."""
    sample = cells.head(FEW)
    candidates = _with_bands(columns, cells)
    found = [[b for b in bands or USUAL_BANDS if _number_found(each, sample, pictures, [b])] for each in candidates]
    number, best = max(((len(there), i) for i, there in enumerate(found)), key=lambda each: each[0], default=(0, 0))
    if not number:
        return
    there, (column, pattern) = found[best], candidates[best]
    files = pattern.replace(f"{{{column}}}", next((text for text in sample[column] if text), ""))
    has = f"{name}: {pictures} holds files of one band each, such as {files.replace(BAND, there[0])}"
    if not bands:
        raise BadInput(f"{has}; --bands with the names of the bands, such as --bands {' '.join(there)}, reads fluxes")
    missing = [band for band in bands if band not in there]
    raise BadInput(
        f"{has}, for {', '.join(there)}, but none for {', '.join(missing)}, such as {files.replace(BAND, missing[0])}; "
        "name in --bands those that there are, as the files do"
    )


def _number_found(candidate: PictureColumn, sample: pd.DataFrame, pictures: PictureFiles, bands: Sequence[str]) -> int:
    if candidate.pattern == candidate.column:
        files = [text.replace("\\", "/") for text in sample[candidate.column] if text]
        return sum(file in pictures or file.rpartition("/")[2] in pictures for file in files)
    patterns = (
        [candidate.pattern.replace(BAND, band) for band in bands] if BAND in candidate.pattern else [candidate.pattern]
    )
    texts = [text for text in sample[candidate.column] if text]
    return sum(all(p.replace(f"{{{candidate.column}}}", text) in pictures for p in patterns) for text in texts)
