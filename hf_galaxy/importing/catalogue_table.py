"""A catalogue file as a table of texts. Whatever is wrong with it is refused with its file, row and column."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from hf_galaxy.data.picture_files import stem_of
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.column_map import Classes, ColumnMap, Join, Metadata
from hf_galaxy.importing.table_file import column_names, read_pieces, read_texts, text_columns

logger = logging.getLogger(__name__)
FILE_NAME = "name of the picture's file"  # column of names; tables of people have none that is called so
BOOLS = {"true": True, "false": False}


@dataclass(frozen=True, eq=False)
class CatalogueTable:
    """The columns of a catalogue that are needed, as texts: no digit is lost, and an empty cell is "".

    Attributes:
        path: of the catalogue.
        cells: the table.
        rows: (N,) number of each row in the catalogue, from 1, for messages.
    """

    path: Path
    cells: pd.DataFrame
    rows: np.ndarray

    @classmethod
    def read(cls, path: Path, needed: Collection[str], join: Join | None = None) -> CatalogueTable:
        """Read a table (`table_file`), with the columns of a second one if there is one.

        Raises:
            BadInput: a file cannot be read or has no rows, a column is missing, or the second file has a key twice.
        """
        pieces = [piece.cells for piece in cls.pieces(path, needed, join)]
        cells = pd.concat(pieces, ignore_index=True)
        return cls(path, cells, np.arange(1, len(cells) + 1))

    @classmethod
    def pieces(cls, path: Path, needed: Collection[str], join: Join | None = None) -> Iterator[CatalogueTable]:
        """The same rows, some at a time (`table_file.read_pieces`); raises as `read`."""
        other = _Joined.read(path, join, needed) if join else None
        first = 1
        with readable(path, "--catalogue"):
            for cells in read_pieces(path, needed):
                if other:
                    cells = other.beside(cells)
                for column in sorted(needed):
                    if column not in cells:
                        begins = ", ".join(column_names(path)[:8])
                        raise BadInput(
                            f"{path}: has no column {column!r} (it begins {begins}, ...); name it in --columns"
                        )
                if not len(cells):
                    raise BadInput(f"--catalogue {path}: has no rows")
                yield cls(path, cells.reset_index(drop=True), np.arange(first, first + len(cells)))
                first += len(cells)

    @classmethod
    def read_all(cls, path: Path, option: str) -> CatalogueTable:
        """Read all columns of a table that hold texts or numbers; the log names the others.

        Args:
            option: that names the table, for messages.

        Raises:
            BadInput: it cannot be read or has no rows, or a column is there twice.
        """
        with readable(path, option):
            names, others = text_columns(path)
        cells = _read_text(path, option, names)
        if not len(cells):
            raise BadInput(f"{option} {path}: has no rows")
        if others:
            logger.info("%s: columns that hold neither texts nor numbers are left out: %s", path, ", ".join(others))
        return cls(path, cells, np.arange(1, len(cells) + 1))

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, column: str) -> pd.Series:
        return self.cells[column]

    def select(self, kept: np.ndarray) -> CatalogueTable:
        """The rows where `kept`, (N,) bool, is true."""
        return CatalogueTable(self.path, self.cells[kept].reset_index(drop=True), self.rows[kept])

    def refuse(
        self,
        wrong: np.ndarray | pd.Series,
        column: str,
        problem: str,
        values: pd.Series | None = None,
        remedy: str = "",
    ) -> None:
        """Refuse the table if `wrong`, (N,) bool, is true in any row.

        Args:
            problem: such as "is empty".
            values: what the message quotes; None: the cells of the column.
            remedy: what to do.

        Raises:
            BadInput: names the first such row, and the number of the others.
        """
        cells = (self[column] if values is None else values).to_numpy()
        refuse_rows(self.path, self.rows, np.asarray(wrong), column, problem, cells, remedy)

    def image_files(self, columns: ColumnMap) -> pd.Series:
        """(N,) the picture file of each row.

        Raises:
            BadInput: the pattern of the column map does not fit the columns.
        """
        if "{" not in columns.image:
            return self[columns.image]
        rows = self.cells[columns.image_columns].to_dict("records")
        try:
            return pd.Series([columns.image.format(**row) for row in rows], dtype=str)
        except (KeyError, IndexError, ValueError) as error:
            raise BadInput(f"--columns: image pattern {columns.image!r} does not give a file name ({error})") from error

    def named_by_files(self, columns: ColumnMap) -> CatalogueTable:
        """The table with a further column `FILE_NAME`, the names of the picture files without suffix; raises as `image_files`."""
        return self.with_column(FILE_NAME, self.image_files(columns).map(stem_of))

    def with_column(self, column: str, cells: pd.Series) -> CatalogueTable:
        """The table with a further column."""
        return CatalogueTable(self.path, self.cells.assign(**{column: cells.to_numpy()}), self.rows)

    def numbers(self, column: str, problem: str, empty: float = np.nan, whole: bool = False) -> np.ndarray:
        """(N,) float64 from 0 to 2**31.

        Args:
            problem: for the message.
            empty: value of an empty cell; NaN refuses it.
            whole: refuse fractions.

        Raises:
            BadInput: a cell holds something else.
        """
        text = self[column]
        numbers = pd.to_numeric(text.where(text != "", str(empty)), errors="coerce").to_numpy(np.float64)
        good = (numbers >= 0) & (numbers < 2**31) & ((numbers == np.floor(numbers)) | (not whole))
        self.refuse(~good, column, problem)
        return numbers

    def classes(self, entry: Classes) -> pa.Array:
        """(N,) int64 indices of the classes of the rows.

        Raises:
            BadInput: a cell is not one of the values.
        """
        values = self[entry.column]
        self.refuse(~values.isin(entry.names.keys()), entry.column, f"is not one of {', '.join(entry.names)}")
        places = {name: i for i, name in enumerate(dict.fromkeys(entry.names.values()))}
        return pa.array([places[entry.names[value]] for value in values], pa.int64())

    def metadata(self, entry: Metadata) -> pa.Array:
        """(N,) the values of a column in their type; null for an empty cell, unless they are texts.

        Raises:
            BadInput: a cell is not of the type, or too large for it.
        """
        texts = self[entry.column]
        if entry.dtype == "string":
            return pa.array(texts, pa.string())
        if entry.dtype == "bool":
            bools = [BOOLS.get(text.lower()) for text in texts]
            wrong = np.array([b is None and bool(t) for b, t in zip(bools, texts, strict=True)])
            self.refuse(wrong, entry.column, "is neither true nor false")
            return pa.array(bools, pa.bool_())
        with contextlib.suppress(pa.ArrowInvalid):  # what is faster than below, and stricter
            return _numbers(texts, entry.dtype)
        parse = _whole_number if entry.dtype.startswith("int") else float
        limit = 2 ** (int(entry.dtype[3:]) - 1) if entry.dtype.startswith("int") else np.inf
        numbers: list[float | None] = []
        wrong = np.zeros(len(texts), bool)
        for i, text in enumerate(texts):
            try:
                number = parse(text) if text else None
                wrong[i] = number is not None and limit < np.inf and abs(number) >= limit
            except ValueError:
                number, wrong[i] = None, True
            numbers.append(number)
        self.refuse(wrong, entry.column, f"is not a number of type {entry.dtype}")
        return pa.array(numbers, _arrow_type(entry.dtype))


def refuse_rows(
    path: Path,
    rows: np.ndarray,
    wrong: np.ndarray,
    column: str,
    problem: str,
    values: Sequence[str] | np.ndarray,
    remedy: str = "",
) -> None:
    """Refuse a table if `wrong`, (N,) bool, is true in any row.

    Args:
        rows: (N,) number of each row in the table, from 1.
        problem, remedy: as of `CatalogueTable.refuse`.
        values: what the message quotes.

    Raises:
        BadInput: names the first such row, and the number of the others.
    """
    found = np.flatnonzero(wrong)
    if len(found):
        more = f" (and {len(found) - 1} more such rows)" if len(found) > 1 else ""
        raise BadInput(
            f"{path}, row {rows[found[0]]}, column {column}: {values[found[0]]!r} {problem}{more}{remedy and '; '}{remedy}"
        )


def _arrow_type(dtype: str) -> pa.DataType:
    return datasets.Value(dtype).pa_type


def _numbers(texts: pd.Series, dtype: str) -> pa.Array:
    """(N,) numbers of a type, in the notation of Arrow.

    Raises:
        pa.ArrowInvalid: a text is no such number.
    """
    cells = pa.array(texts, pa.string())
    if dtype.startswith("int"):
        cells = pc.replace_substring_regex(cells, r"\.0$", "")
    cells = pc.if_else(pc.equal(cells, ""), pa.scalar(None, pa.string()), cells)
    return cells.cast(pa.float64() if dtype.startswith("float") else dtype).cast(_arrow_type(dtype))


def _whole_number(text: str) -> int:
    """Never through float: an SDSS objid has 18 digits. pandas writes whole numbers beside gaps with ".0"."""
    return int(text.removesuffix(".0"))


@dataclass(frozen=True, eq=False)
class _Joined:
    """A second file, whose columns stand beside those of a catalogue."""

    catalogue: Path
    join: Join
    cells: pd.DataFrame

    @classmethod
    def read(cls, path: Path, join: Join, needed: Collection[str]) -> _Joined:
        """Read the file.

        Args:
            path: of the catalogue.

        Raises:
            BadInput: it cannot be read, lacks a key, or has one twice.
        """
        keys, other_path = list(join.on.values()), path.parent / join.file
        other = _read_text(other_path, "join", {*needed, *keys})
        _check_keys(other, other_path, keys)
        if (twice := other.duplicated(keys)).any():
            row = other.loc[twice, keys].iloc[0].to_dict()
            raise BadInput(f"{other_path}: {row} is there more than once; name a further column in join.on")
        return cls(path, join, other.set_index(keys))

    def beside(self, cells: pd.DataFrame) -> pd.DataFrame:
        """The rows of the catalogue with the columns of the file; "" in rows that it does not have."""
        _check_keys(cells, self.catalogue, self.join.on)
        return cells.join(self.cells[self.cells.columns.difference(cells.columns)], on=list(self.join.on)).fillna("")


def _check_keys(cells: pd.DataFrame, path: Path, columns: Collection[str]) -> None:
    for column in columns:
        if column not in cells:
            raise BadInput(f"{path}: has no column {column!r}, which join.on names")


def _read_text(path: Path, name: str, wanted: Collection[str]) -> pd.DataFrame:
    """The wanted columns of a file; `name` is for the message."""
    with readable(path, name):
        return read_texts(path, wanted)


@contextlib.contextmanager
def readable(path: Path, name: str) -> Iterator[None]:
    """Turn the errors of reading a table into a BadInput about it."""
    try:
        yield
    except FileNotFoundError as error:
        raise BadInput(f"{name} {path}: no such file") from error
    except BadInput:
        raise
    except UnicodeDecodeError as error:
        raise BadInput(f"{name} {path}: cannot be read as a table: its text is not UTF-8; save it as UTF-8") from error
    except (OSError, ValueError) as error:  # the errors of pandas', Arrow's and astropy's parsers are ValueErrors
        reason = " ".join(str(error).split())
        raise BadInput(f"{name} {path}: cannot be read as a table ({reason})") from error
