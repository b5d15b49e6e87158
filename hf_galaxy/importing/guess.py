"""What the columns of somebody's table probably hold, by their names: the name of a galaxy, its picture, its position."""

from __future__ import annotations

import re
from collections.abc import Iterable

from hf_galaxy.errors import BadInput

# The usual names, the most telling first, as `plain` writes them.
ID_NAMES = (
    "idstr", "id", "galaxyid", "iauname", "objid", "objectid", "sourceid", "assetid", "dr7objid", "dr8objid", "subjectid", "galaxy",
    "objname", "sdssobjid", "sdssdr7objid", "specobjid", "name", "targetid", "target", "key",
)  # fmt: skip
IMAGE_NAMES = (
    "image", "img", "picture", "pixels", "filename", "imagefile", "imagepath", "filepath", "fileloc", "file", "path", "pngloc", "jpgloc",
    "cutout", "jpg", "jpeg", "png", "webp", "fits",
)  # fmt: skip
FLUX_NAMES = ("flux", "fluxes", "bands", "planes", "cube", "array", "arrays")
RA_NAMES = ("ra", "radeg", "raj2000", "alphaj2000", "rightascension", "targetra")
DEC_NAMES = ("dec", "decdeg", "dedeg", "decj2000", "dej2000", "deltaj2000", "declination", "targetdec")


def plain(name: str) -> str:
    """A name in small letters and digits only: "File_Name" and "filename" are the same."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def check_named(option: str, column: str | None, columns: Iterable[str], table: str) -> None:
    """Refuse a column that an option names and a table has not.

    Args:
        column: None: the option is not given.
        table: for the message.

    Raises:
        BadInput: there is no such column; it names the one that is meant, or the first ones.
    """
    columns = list(columns)
    if column is None or column in columns:
        return
    near = next((each for each in columns if plain(each) == plain(column)), None)
    hint = f"; did you mean {near}?" if near else f", only {', '.join(columns[:20])}"
    raise BadInput(f"{option} {column}: {table} has no such column{hint}")


def named_like(columns: Iterable[str], usual: Iterable[str]) -> str | None:
    """The column with the most telling of some usual names; None if no column has one."""
    return next(iter(columns_named_like(columns, usual)), None)


def columns_named_like(columns: Iterable[str], usual: Iterable[str]) -> list[str]:
    """The columns with usual names, the most telling first; of columns with the same plain name the first."""
    by_name = {plain(column): column for column in reversed(list(columns))}
    return [by_name[name] for name in usual if name in by_name]
