"""A table of predictions as FITS, part by part, so that memory does not grow with its rows. Legend: N rows of a part."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_galaxy.errors import BadInput
from hf_galaxy.models.prediction_columns import Column
from hf_galaxy.safe_text import visible

MAX_COLUMNS = 999  # of the standard
BLOCK = 2880  # bytes
NAME = "PREDICTIONS"
# Types of Arrow: letter of FITS, type of numpy. Whole numbers without a sign, and short ones, go into the next wider type.
NUMBERS = {
    pa.float16(): ("E", ">f4"), pa.float32(): ("E", ">f4"), pa.float64(): ("D", ">f8"),
    pa.int8(): ("I", ">i2"), pa.uint8(): ("I", ">i2"), pa.int16(): ("I", ">i2"), pa.uint16(): ("J", ">i4"),
    pa.int32(): ("J", ">i4"), pa.uint32(): ("K", ">i8"), pa.int64(): ("K", ">i8"),
}  # fmt: skip


def check_fits(columns: Sequence[Column]) -> None:
    """Refuse what no table of FITS can hold, before anything is predicted.

    Raises:
        BadInput: there are too many columns, or names that are equal but for their case and characters that become underscores.
    """
    if len(columns) > MAX_COLUMNS:
        raise BadInput(
            f"--format fits: a table of FITS has {MAX_COLUMNS} columns at most, and this one would have {len(columns):,}; leave out "
            "--credible or --answers, or take votable"
        )
    names: dict[str, str] = {}
    for column in columns:
        if (other := names.setdefault(fits_name(column.name).lower(), column.name)) != column.name:
            raise BadInput(
                f"--format fits: does not tell the columns {other} and {column.name} apart; leave one out, or take votable"
            )


def fits_name(name: str) -> str:
    """The name of a column in FITS: letters, digits and underscores, as the standard recommends and readers expect; - would be a minus in TOPCAT."""
    return re.sub("[^A-Za-z0-9_]", "_", name)


@dataclass
class _Written:
    """How a column is written.

    Attributes:
        letter: of FITS.
        kind: of numpy.
        width: of texts, in bytes.
        least, most: of whole numbers, as far as parts have been read.
        nulls: whether some are missing.
    """

    column: Column
    letter: str
    kind: str
    width: int = 1
    least: int | None = None
    most: int | None = None
    nulls: bool = False

    @classmethod
    def of(cls, column: Column) -> "_Written":
        if pa.types.is_boolean(column.type):
            return cls(column, "L", "S1")
        return cls(column, *NUMBERS.get(column.type, ("A", "S")))

    @property
    def is_whole(self) -> bool:
        return self.kind[1] == "i"

    @property
    def dtype(self) -> str:
        return f"S{self.width}" if self.letter == "A" else self.kind

    @property
    def null(self) -> int | None:
        """The number that stands for a missing one; None: none is missing."""
        if not (self.nulls and self.is_whole):
            return None
        limits = np.iinfo(self.kind)
        if self.least is None or self.least > limits.min:
            return int(limits.min)
        if self.most is not None and self.most < limits.max:
            return int(limits.max)
        raise BadInput(
            f"--format fits: column {self.column.name} holds the smallest and the largest number of its type, so none can stand for missing "
            "ones; take votable"
        )

    def see(self, values: pa.ChunkedArray) -> None:
        """Learn what is needed before the first row is written."""
        if self.letter == "A":
            self.width = max(self.width, *map(len, self.texts(values)), 1)
        elif self.is_whole and len(values):
            self.nulls |= bool(values.null_count)
            ends = pc.min_max(values).as_py()
            if ends["min"] is not None:
                self.least = ends["min"] if self.least is None else min(self.least, ends["min"])
                self.most = ends["max"] if self.most is None else max(self.most, ends["max"])

    def texts(self, values: pa.ChunkedArray) -> list[bytes]:
        """(N,) ASCII, as FITS has no other: other characters are written with their numbers, control characters shown; none where missing."""
        words = values.cast(pa.string()).to_pylist()
        return [b"" if word is None else _ascii(word).encode() for word in words]

    def numbers(self, values: pa.ChunkedArray) -> Any:
        """(N,) what is written."""
        if self.letter == "A":
            return np.array(self.texts(values), self.dtype)
        if self.letter == "L":
            words = {True: b"T", False: b"F", None: b"\0"}  # zero is neither
            return np.array([words[value] for value in values.to_pylist()], "S1")
        if self.is_whole:
            null = self.null
            return (values if null is None else values.cast(pa.int64()).fill_null(null)).to_numpy()
        return values.cast(pa.float32() if self.kind == ">f4" else pa.float64()).to_numpy()  # NaN where missing


def write_fits(
    out: Path,
    columns: Sequence[Column],
    parts: Callable[[list[str]], Iterable[pa.Table]],
    rows: int,
    facts: Mapping[str, str],
) -> None:
    """Write a FITS file with one table.

    Texts have the width of the longest, for which they are read twice. A missing number is NaN, or TNULL; a missing text is empty.

    Args:
        columns: of the table.
        parts: the parts of the table, with these columns.
        rows: number of all rows.
        facts: for the header, as comments.
    """
    written = [_Written.of(column) for column in columns]
    read_twice = [each for each in written if each.letter == "A" or each.is_whole]
    for part in parts([each.column.name for each in read_twice]):
        for each in read_twice:
            each.see(part[each.column.name])
    layout = np.dtype([(f"c{i}", each.dtype) for i, each in enumerate(written)])
    with open(out, "wb") as file:
        file.write(_headers(written, layout.itemsize, rows, facts))
        size = 0
        for part in parts([column.name for column in columns]):
            block = np.zeros(len(part), layout)
            for i, each in enumerate(written):
                block[f"c{i}"] = each.numbers(part[each.column.name])
            size += file.write(block.tobytes())
        file.write(bytes(-size % BLOCK))


def _headers(written: Sequence[_Written], width: int, rows: int, facts: Mapping[str, str]) -> bytes:
    """Of the empty primary array, and of the table."""
    from astropy.io import fits

    header = fits.Header()
    cards: list[tuple[str, Any]] = [
        ("XTENSION", "BINTABLE"), ("BITPIX", 8), ("NAXIS", 2), ("NAXIS1", width), ("NAXIS2", rows), ("PCOUNT", 0), ("GCOUNT", 1),
        ("TFIELDS", len(written)), ("EXTNAME", NAME),
    ]  # fmt: skip
    for i, each in enumerate(written, 1):
        cards.append((f"TTYPE{i}", fits_name(each.column.name)))
        cards.append((f"TFORM{i}", f"{each.width}A" if each.letter == "A" else each.letter))
        cards += [(f"TUNIT{i}", each.column.unit)] if each.column.unit else []
        cards += [(f"TNULL{i}", each.null)] if each.null is not None else []
        cards.append((f"TCOMM{i}", _ascii(each.column.meaning)))
    for name, value in cards:
        header[name] = value
    for name, value in facts.items():
        header.add_comment(_ascii(f"{name}: {value}"))
    return bytes(fits.PrimaryHDU().header.tostring() + header.tostring(), "ascii")


def _ascii(text: str) -> str:
    return visible(text).encode("ascii", "backslashreplace").decode()
