"""A pandas DataFrame of galaxies as rows of a dataset: its pictures are files, or stand in its cells."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from PIL import Image

from hf_galaxy.data.band_cells import encoded_cell
from hf_galaxy.data.picture_files import FilesOfBands, PictureFiles, Pictures
from hf_galaxy.data.pixels import encoded
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.catalogue_table import CatalogueTable
from hf_galaxy.importing.catalogues import Catalogue
from hf_galaxy.importing.guess import FLUX_NAMES, IMAGE_NAMES, check_named, columns_named_like
from hf_galaxy.importing.reading import Reading
from hf_galaxy.importing.table_file import texts_of
from hf_galaxy.importing.table_guess import guess
from hf_galaxy.importing.tables import catalogue_of

NAME = "DataFrame"

logger = logging.getLogger(__name__)


class CellPictures:
    """Pictures in the cells of a column, by the number of their row: encoded bytes, or what `pixels.pixels_of` reads.

    Args:
        cells: None where there is no picture.
        column: their name, for messages.
        fluxes: they are fluxes, as `band_cells.encoded_cell` reads them.
    """

    def __init__(self, cells: list[Any], column: str, fluxes: bool = False) -> None:
        self.column, self.fluxes = column, fluxes
        self.contents = [None if cell is None else self._encoded(cell, row) for row, cell in enumerate(cells, 1)]

    def _encoded(self, cell: Any, row: int) -> bytes:
        try:
            return encoded_cell(cell) if self.fluxes else encoded(cell)
        except BadInput as error:
            raise BadInput(f"{NAME}, row {row}, column {self.column}: {error}") from error

    def __str__(self) -> str:
        return "its cells"

    def __contains__(self, name: str) -> bool:
        return name.isdecimal() and int(name) < len(self.contents) and self.contents[int(name)] is not None

    def read(self, name: str) -> bytes:
        content = self.contents[int(name)]
        assert content is not None, "rows without a picture are not read"
        return content

    def place_of(self, name: str) -> str:
        return str(self)

    def stamps(self, names: Iterable[str]) -> Iterator[tuple[str, int, int]]:
        """Digests of their contents."""
        for content in map(self.read, names):
            yield hashlib.sha256(content).hexdigest(), len(content), 0


def open_frame(frame: pd.DataFrame, reading: Reading) -> Catalogue:
    """The galaxies of a DataFrame, each with its picture; what its columns hold is guessed, and said once.

    Args:
        frame: with a column of paths, or of pictures: bytes, PIL images, arrays. An index with a name is a column, too.
        reading: where the pictures are, and what is known of the columns.

    Raises:
        BadInput: as `tables.open_table`.
    """
    named = [name for name in frame.index.names if isinstance(name, str) and name not in frame.columns]
    frame = frame.reset_index(named).reset_index(drop=True)
    if not len(frame):
        raise BadInput(f"{NAME}: has no rows")
    if not all(isinstance(column, str) for column in frame.columns) or not frame.columns.is_unique:
        raise BadInput(f"{NAME}: its columns need names that are texts and differ, not {list(frame.columns)[:8]}")
    check_named("--image-column", reading.image_column, frame.columns, NAME)
    fluxes = reading.bands is not None
    column = None if reading.images else _column_of_pictures(frame, reading.image_column, fluxes)
    cells = {}
    for name in frame.columns:
        if name != column and (texts := _texts(frame[name])) is not None:
            cells[name] = texts
    others = [name for name in frame.columns if name not in cells and name != column]
    if others:
        logger.info("%s: columns that hold neither texts nor numbers are left out: %s", NAME, ", ".join(others))
    pictures: PictureFiles
    if column is None:
        # Paths are relative to where the program runs, or absolute.
        pictures = Pictures(list(reading.images or (Path(), Path(Path.cwd().anchor))))
        pictures = FilesOfBands(pictures) if fluxes else pictures
    else:
        pictures = CellPictures([None if _is_missing(cell) else cell for cell in frame[column]], column, fluxes)
        cells[column] = pd.Series(list(map(str, range(len(frame)))), dtype=str)
    table = CatalogueTable(Path(NAME), pd.DataFrame(cells, dtype=str), np.arange(1, len(frame) + 1))
    return catalogue_of(guess(table, pictures, reading, column), pictures, reading)


def _column_of_pictures(frame: pd.DataFrame, given: str | None, fluxes: bool) -> str | None:
    """The column that holds pictures; None if none does.

    Args:
        fluxes: they may be lists or dicts of arrays.
    """
    usual = columns_named_like(frame.columns, (*FLUX_NAMES, *IMAGE_NAMES) if fluxes else IMAGE_NAMES)
    kinds = (bytes, Image.Image, np.ndarray, *((list, dict) if fluxes else ()))
    for column in [given] if given else dict.fromkeys([*usual, *frame.columns]):
        cells = frame[column]
        first = next((cell for cell in cells if not _is_missing(cell)), None) if cells.dtype == object else None
        if isinstance(first, kinds) or (isinstance(first, dict) and "bytes" in first):
            return column
    return None


def _is_missing(cell: Any) -> bool:
    return cell is None or cell is pd.NA or (isinstance(cell, float) and np.isnan(cell))


def _texts(column: pd.Series) -> pd.Series | None:
    """The column as texts; None if its cells hold neither texts nor numbers."""
    if column.dtype == object and any(isinstance(cell, Path) for cell in column.head()):
        column = column.map(str, na_action="ignore")
    try:
        return texts_of(pa.array(column, from_pandas=True))
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        if column.map(lambda cell: isinstance(cell, str | int | float) or _is_missing(cell)).all():  # mixed
            return column.map(lambda cell: "" if _is_missing(cell) else str(cell)).astype(str)
        return None
