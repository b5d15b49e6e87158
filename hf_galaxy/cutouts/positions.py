"""A catalogue of positions -> the galaxies to cut out: names, places, fields, and a file for each. All of it is checked before work begins."""

from __future__ import annotations

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hf_galaxy.cutouts.coordinates import NotCoordinates, declination, right_ascension
from hf_galaxy.cutouts.services import Field, Format
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.catalogue_table import CatalogueTable
from hf_galaxy.importing.guess import DEC_NAMES, ID_NAMES, RA_NAMES, named_like

logger = logging.getLogger(__name__)
OWN = ("id_str", "image", "ra", "dec", "fov_arcsec", "missing")  # columns of cutouts.csv
LONGEST_NAME = 80  # characters of a file's name, without its suffix
# Names that Windows keeps for devices, whatever their suffix.
DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


@dataclass(frozen=True)
class Galaxy:
    """A galaxy to cut out.

    Attributes:
        id_str: its name.
        image: name of its file.
        field: what is cut out.
    """

    id_str: str
    image: str
    field: Field


@dataclass(frozen=True)
class FieldSize:
    """The side of the field of each galaxy, in arcseconds: one for all, or a multiple of a column, between two limits.

    Attributes:
        arcsec: for all; None: from the column.
        column: such as a radius in arcseconds.
        factor: times the column.
        least, most: limits, which narrow or wide fields are set to.
    """

    arcsec: float | None = None
    column: str | None = None
    factor: float = 8.5
    least: float = 10
    most: float = 600

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            BadInput: a value is out of range, or one too many or too few is there.
        """
        if (self.arcsec is None) == (self.column is None):
            raise BadInput("give the side of the field, --fov-arcsec, or the column of a radius, --fov-column")
        if self.arcsec is not None and not 0 < self.arcsec <= 36000:
            raise BadInput("--fov-arcsec must be above 0, and at most 10 degrees")
        if not 0 < self.factor < np.inf or not 0 < self.least <= self.most <= 36000:
            raise BadInput("--fov-factor must be above 0, --fov-min above 0 and at most --fov-max")

    def of(self, table: CatalogueTable) -> np.ndarray:
        """(N,) the sides.

        Raises:
            BadInput: a cell of the column is not a number above 0.
        """
        if self.column is None:
            return np.full(len(table), self.arcsec, np.float64)
        sizes = pd.to_numeric(table[self.column], errors="coerce").to_numpy(np.float64)
        table.refuse(~((sizes > 0) & (sizes < np.inf)), self.column, "is not a radius in arcseconds, a number above 0")
        sides = sizes * self.factor
        limited = np.clip(sides, self.least, self.most)
        if changed := int((limited != sides).sum()):
            logger.info(
                "%s of %s fields would be smaller than %g or larger than %g arcsec, and have that side",
                f"{changed:,}", f"{len(sides):,}", self.least, self.most,
            )  # fmt: skip
        return limited


@dataclass(frozen=True, eq=False)
class Positions:
    """The galaxies of a catalogue.

    Attributes:
        galaxies: in its order.
        cells: its other columns, as texts, which go along into cutouts.csv.
    """

    galaxies: list[Galaxy]
    cells: pd.DataFrame


def read_positions(
    path: Path,
    size: FieldSize,
    pixels: int,
    format: Format,
    columns: tuple[str | None, str | None, str | None] = (None, None, None),
) -> Positions:
    """Read a catalogue.

    Args:
        path: a table of any format of `table_file`.
        pixels: side of the pictures.
        columns: of the names, the right ascensions and the declinations; None: guessed by the usual names.

    Raises:
        BadInput: it cannot be read, lacks a column, or a row has no position, no size, or a name that another has.
    """
    table = CatalogueTable.read_all(path, "catalogue")
    cells = table.cells
    id_column, ra_column, dec_column = _columns(path, list(cells), columns)
    if size.column is not None and size.column not in cells:
        raise BadInput(f"{path}: has no column {size.column!r}, which --fov-column names; {_first(list(cells))}")
    ra = _degrees(table, ra_column, right_ascension, (0, 360)) % 360
    dec = _degrees(table, dec_column, declination, (-90, 90))
    sides = size.of(table)
    if id_column:
        ids = table[id_column].str.strip()
        table.refuse(ids == "", id_column, "is empty; every galaxy needs a name")
        table.refuse(ids.duplicated(), id_column, "is a name that an earlier row has; name another column, --id-column")
    else:
        ids = pd.Series([f"{right:.5f}{up:+.5f}" for right, up in zip(ra, dec, strict=True)], dtype=str)
        table.refuse(ids.duplicated(), ra_column, "is the same place as of an earlier row; give names, --id-column")
    fields = (Field(*place, pixels) for place in zip(ra.tolist(), dec.tolist(), sides.tolist(), strict=True))
    names = file_names(ids.tolist(), format)
    galaxies = [Galaxy(*each) for each in zip(ids.tolist(), names, fields, strict=True)]
    used = {id_column, ra_column, dec_column}
    if replaced := [column for column in cells if column in OWN and column not in used]:
        logger.info("%s: its column %s is left out, since cutouts.csv has one of that name", path, ", ".join(replaced))
    return Positions(galaxies, cells[[column for column in cells if column not in OWN]])


def file_names(ids: list[str], format: Format) -> list[str]:
    """A name of a file for each galaxy: its own name, where that is one on every system; otherwise with a digest of it.

    Args:
        ids: all different.
    """
    alike = Counter(each.lower() for each in ids)
    return [f"{_safe(each, alike[each.lower()] > 1)}.{format}" for each in ids]


def _safe(id_str: str, is_shared: bool) -> str:
    plain = re.sub(r"[^A-Za-z0-9._+-]+", "_", id_str).lstrip(".-")[:LONGEST_NAME].rstrip(".")
    if DEVICES.fullmatch(plain):
        plain = f"_{plain}"
    if plain == id_str and plain and not is_shared:
        return plain
    return f"{plain or 'galaxy'}-{hashlib.sha256(id_str.encode()).hexdigest()[:12]}"


def _columns(
    path: Path, names: list[str], given: tuple[str | None, str | None, str | None]
) -> tuple[str | None, str, str]:
    """The columns of names, right ascensions and declinations; what was guessed is said."""
    found, guessed = [], []
    for option, column, usual in zip(("id", "ra", "dec"), given, (ID_NAMES, RA_NAMES, DEC_NAMES), strict=True):
        if column is not None and column not in names:
            raise BadInput(f"{path}: has no column {column!r}, which --{option}-column names; {_first(names)}")
        column = column if column is not None else named_like(names, usual)
        if column is None and option != "id":
            raise BadInput(
                f"{path}: has no column with a usual name for {option}; name it, --{option}-column ({_first(names)})"
            )
        found.append(column)
        guessed.append(f"{option} from {column}" if column else "names from the positions")
    if None in given:
        logger.info("%s: %s", path, ", ".join(guessed))
    return found[0], str(found[1]), str(found[2])


def _first(names: list[str]) -> str:
    return f"it has {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"


def _degrees(
    table: CatalogueTable, column: str, parse: Callable[[str], float], limits: tuple[float, float]
) -> np.ndarray:
    """(N,) degrees, of numbers or of other ways of writing."""
    degrees = pd.to_numeric(table[column], errors="coerce").to_numpy(np.float64, copy=True)
    problems = np.full(len(table), "", dtype=object)
    for row in np.flatnonzero(~((degrees >= limits[0]) & (degrees <= limits[1]))):
        try:
            degrees[row] = parse(table[column].iloc[row])
        except NotCoordinates as error:
            problems[row] = str(error)
    if len(rows := np.flatnonzero(problems != "")):
        table.refuse(problems != "", column, problems[rows[0]])
    return degrees
