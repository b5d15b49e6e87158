"""What tells that a row of a joined table is a galaxy of ours: the same name, or nearly the same position.

Legend: N galaxies, M rows of the table.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from hf_galaxy.errors import BadInput
from hf_galaxy.importing.column_types import ROUNDED, without_missing
from hf_galaxy.importing.guess import DEC_NAMES, RA_NAMES, named_like

if TYPE_CHECKING:
    from hf_galaxy.importing.catalogue_table import CatalogueTable

ARCSEC = {"arcsec": 1.0, '"': 1.0, "arcmin": 60.0, "'": 60.0, "deg": 3600.0}


class Keys(NamedTuple):
    """The columns that must be equal.

    Attributes:
        ours: of the galaxies.
        theirs: of the table.
    """

    ours: str
    theirs: str

    @classmethod
    def parse(cls, text: str) -> Keys:
        """Read --on: one name for both, or OURS=THEIRS.

        Raises:
            BadInput: a name is empty.
        """
        ours, equals, theirs = text.partition("=")
        if not ours or (equals and not theirs):
            raise BadInput(f"--on {text}: give a column, such as id_str, or OURS=THEIRS, such as id_str=objid")
        return cls(ours, theirs or ours)


def arcsec_in(text: str) -> float:
    """Read --on-sky: a number and its unit.

    Raises:
        BadInput: it is no positive angle.
    """
    parts = re.fullmatch(r"\s*([0-9.]+(?:e-?[0-9]+)?)\s*(.*?)s?\s*", text, re.IGNORECASE)
    try:
        number = float(parts[1]) if parts else 0.0
    except ValueError:
        number = 0.0
    if not parts or not 0 < number < np.inf:
        raise BadInput(f"--on-sky {text}: is no radius; write 1arcsec, 0.5arcmin or 0.001deg")
    unit = parts[2].lower()
    if not unit:
        raise BadInput(
            f"--on-sky {text}: has no unit; write {text.strip()}arcsec, {text.strip()}arcmin or {text.strip()}deg"
        )
    if unit not in ARCSEC:
        raise BadInput(
            f"--on-sky {text}: {parts[2]} is no unit; write {parts[1]}arcsec, {parts[1]}arcmin or {parts[1]}deg"
        )
    return number * ARCSEC[unit]


def _plain(names: pd.Series) -> pd.Series:
    """Names as they are compared: without spaces around them, and 123.0, as programs write 123 beside empty cells, is 123."""
    return names.str.strip().str.replace(r"^(\d+)\.0$", r"\1", regex=True)


def names_in(table: CatalogueTable, keys: Keys) -> pd.Series:
    """(M,) the names of the rows.

    Raises:
        BadInput: there is no such column, or a name is there twice, or has lost digits.
    """
    if keys.theirs not in table.cells:
        hint = "; name its column with --on OURS=THEIRS" if keys.ours == keys.theirs else ""
        raise BadInput(
            f"--on {keys.theirs}: {table.path} has no such column, only {', '.join(table.cells.columns[:20])}{hint}"
        )
    names = _plain(without_missing(table[keys.theirs]))
    table.refuse(
        names.str.contains(ROUNDED),
        keys.theirs,
        "is a rounded number",
        remedy="write the names as texts or whole numbers",
    )
    again = names.duplicated() & (names != "")
    if again.any():
        row = table.rows[int((names == names[again].iloc[0]).to_numpy().argmax())]
        table.refuse(again, keys.theirs, f"is in row {row}, too", remedy="keep one row of each")
    return names


def positions_in(table: CatalogueTable) -> np.ndarray:
    """(M, 2) degrees.

    Raises:
        BadInput: there are no such columns, or a cell holds no degrees.
    """
    columns = []
    for names in (RA_NAMES, DEC_NAMES):
        column = named_like(table.cells.columns, names)
        if column is None:
            raise BadInput(
                f"--on-sky: {table.path} has no column {names[0]} in degrees, only {', '.join(table.cells.columns[:20])}; rename its columns "
                "to ra and dec, or join by name with --on"
            )
        cells = without_missing(table[column])
        numbers = pd.to_numeric(cells.where(cells != "", "nan"), errors="coerce").to_numpy(np.float64)
        low, high = (-90, 90) if names is DEC_NAMES else (-360, 360)
        with np.errstate(invalid="ignore"):
            wrong = ((cells != "") & np.isnan(numbers)) | (numbers < low) | (numbers > high)
        table.refuse(wrong, column, f"is no number of degrees from {low} to {high}")
        columns.append(numbers)
    return np.stack(columns, axis=1)


def names_of(values: pa.ChunkedArray, column: str, name: str) -> pd.Series:
    """(N,) the names of galaxies.

    Raises:
        BadInput: they are neither texts nor whole numbers.
    """
    try:
        texts = _plain(values.cast(pa.string()).fill_null("").to_pandas())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise BadInput(f"--on {column}: the column of {name} holds {values.type}, not names") from error
    if (lost := texts[texts.str.contains(ROUNDED)]).size:
        raise BadInput(
            f"--on {column}: the column of {name} holds rounded numbers, such as {lost.iloc[0]}; compare another one"
        )
    return texts


def degrees_of(values: pa.ChunkedArray, column: str, name: str) -> np.ndarray:
    """(N,) the right ascension or the declination of galaxies, NaN where it is missing.

    Raises:
        BadInput: they are no numbers.
    """
    try:
        return values.cast(pa.float64()).to_pandas().to_numpy(np.float64)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise BadInput(f"--on-sky: column {column} of {name} holds {values.type}, not degrees") from error
