"""Table files as columns of texts: CSV in its dialects, Parquet, and the formats of astronomy. What a file is, its first bytes tell."""

from __future__ import annotations

import csv
import gzip
import io
import re
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hf_galaxy.data.packed_fits import check_counts
from hf_galaxy.errors import BadInput

Kind = Literal["parquet", "fits", "votable", "ascii.ecsv", "ascii", "csv"]
# The first bytes of files that are not CSV; a VOTable may have an XML declaration and comments before its first element.
SIGNATURES: dict[bytes, Kind] = {b"PAR1": "parquet", b"SIMPLE  =": "fits", b"# %ECSV": "ascii.ecsv"}
SEPARATORS = ",;\t|"
UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # the marks at the beginning of such files, of Excel's "Unicode text"
BEGINNING = 2**16  # bytes
BEHIND = "cells behind the last column"
ROWS_PER_PIECE = 5_000  # in memory as texts
DECIMAL_COMMA = r"[+-]?\d*,?\d+(?:[eE][+-]?\d+)?"


def column_names(path: Path) -> list[str]:
    """The columns of a table.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    with _parsing():
        kind, beginning = _kind(path)
        if kind == "parquet":
            return pq.read_schema(path).names
        if kind != "csv":
            return list(_astropy_table(path, kind).colnames)
        return _header(path, _dialect(path, beginning))


@contextmanager
def _parsing() -> Iterator[None]:
    """Turn the errors that parsers and unzippers have beside OSError and ValueError, of which there are many, into a ValueError."""
    try:
        yield
    except (OSError, ValueError, MemoryError):
        raise
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _header(path: Path, dialect: dict[str, Any]) -> list[str]:
    """The columns of a CSV file, without the blanks around them."""
    return [column.strip() for column in pd.read_csv(path, nrows=0, index_col=False, **dialect).columns]


def text_columns(path: Path) -> tuple[list[str], list[str]]:
    """The columns of a table that `read_texts` reads, and the others: arrays, coordinates, pictures.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    with _parsing():
        kind, _ = _kind(path)
        if kind == "csv":
            return column_names(path), []
        if kind == "parquet":
            held = {field.name: not _is_nested(field.type) for field in pq.read_schema(path)}
        else:
            table = _astropy_table(path, kind)
            held = {name: _holds_cells(table[name]) for name in table.colnames}
    return [name for name in held if held[name]], [name for name in held if not held[name]]


def holds_pictures(path: Path) -> bool:
    """Whether a column of a Parquet file holds bytes, or bytes and a path, as the datasets library writes pictures."""
    try:
        types = pq.read_schema(path).types
    except (OSError, ValueError):  # pa.ArrowInvalid is one, and so is a name that is no UTF-8
        return False
    structs = (each for each in types if pa.types.is_struct(each))
    return any(map(_is_binary, types)) or any(each.get_field_index("bytes") >= 0 for each in structs)


def _is_binary(dtype: pa.DataType) -> bool:
    return pa.types.is_binary(dtype) or pa.types.is_large_binary(dtype)


def _is_nested(dtype: pa.DataType) -> bool:
    return pa.types.is_nested(dtype) or _is_binary(dtype)


def _holds_cells(column: Any) -> bool:
    """Whether a column of astropy holds a text or a number in each row."""
    from astropy.table import Column

    return isinstance(column, Column) and column.ndim == 1


def read_texts(path: Path, wanted: Collection[str]) -> pd.DataFrame:
    """All rows of `read_pieces`; raises as that."""
    return pd.concat(list(read_pieces(path, wanted)), ignore_index=True)


def read_pieces(path: Path, wanted: Collection[str], rows: int = ROWS_PER_PIECE) -> Iterator[pd.DataFrame]:
    """The wanted columns of a table, as far as it has them, as texts: no digit is lost, and an empty cell is "".

    Args:
        rows: in a piece; a table has at least one piece, which may be empty. Formats of astronomy are read as a whole, and so are
            files with semicolons, whose columns tell whether they have decimal commas.

    Raises:
        BadInput: one of them is there twice, or holds something else than texts and numbers.
        OSError, ValueError: it cannot be read.
    """
    with _parsing():
        yield from _pieces(path, wanted, rows)


def _pieces(path: Path, wanted: Collection[str], rows: int) -> Iterator[pd.DataFrame]:
    """As `read_pieces`; raises what parsers raise."""
    kind, beginning = _kind(path)
    if kind == "parquet":
        yield from _of_parquet(path, wanted, rows)
        return
    if kind != "csv":
        yield _of_astropy(path, kind, wanted)
        return
    dialect = _dialect(path, beginning)
    header = pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False, index_col=False, **dialect)
    _check_once(path, header.iloc[0].str.strip().tolist(), wanted)
    names = _header(path, dialect)
    behind = [f"{BEHIND}, {place}" for place in range(len(names), _first_width(beginning, dialect))]
    names += behind
    # index_col: a comma too many at the end of the rows would shift all columns by one
    how = dict(dtype=str, keep_default_na=False, header=0, names=names, index_col=False, **dialect)
    if not set(names) <= {*wanted, *behind}:  # else pandas would accept further rows with too many cells
        how["usecols"] = lambda column: column in wanted or column in behind
    if dialect["sep"] == ";":
        yield _without_behind(path, pd.read_csv(path, **how), behind).apply(_with_decimal_points)
        return
    with pd.read_csv(path, chunksize=rows, **how) as pieces:
        yield from (_without_behind(path, piece, behind) for piece in pieces)


def _first_width(beginning: bytes, dialect: dict[str, Any]) -> int:
    """The number of cells in the first row of a CSV file below its header; 0 if there is none."""
    lines = _lines(beginning.decode(dialect["encoding"], errors="replace"))[dialect["skiprows"] :]
    rows = filter(None, csv.reader(lines, delimiter=dialect["sep"], skipinitialspace=True))
    next(rows, None)
    return len(next(rows, []))


def _lines(text: str) -> list[str]:
    """The lines of a text, with their ends. `splitlines` also ends one at separators of Unicode, which may stand in a cell."""
    return io.StringIO(text, newline="").readlines()


def _without_behind(path: Path, piece: pd.DataFrame, behind: Collection[str]) -> pd.DataFrame:
    """Rows without the columns `behind` the last, which are for commas too many; "" where they end too early.

    Raises:
        BadInput: a row has a cell there.
    """
    for column in behind:
        cells = piece.pop(column).fillna("")
        if (wrong := cells != "").any():
            row = wrong.idxmax()
            raise BadInput(
                f"{path}, row {row + 1}: has more cells than the header has columns, such as {cells[row]!r}; texts with a separator in "
                "them need quotes"
            )
    return piece.fillna("")


def _kind(path: Path) -> tuple[Kind, bytes]:
    """The format of a file, and its beginning."""
    with gzip.open(path) if _is_gzipped(path) else open(path, "rb") as file:
        beginning = file.read(BEGINNING)
    for signature, kind in SIGNATURES.items():
        if beginning.startswith(signature):
            return kind, beginning
    if b"<VOTABLE" in beginning:
        return "votable", beginning
    return ("ascii" if _has_blanks_between(beginning) else "csv"), beginning


def _has_blanks_between(beginning: bytes) -> bool:
    """Whether the columns of a text are apart by blanks alone, as in tables of astronomers; their names may stand behind a #."""
    if beginning.startswith(UTF_16):
        return False
    text = beginning.decode("utf-8-sig", errors="replace")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")][:2]
    if lines and "\t" in lines[0] and all(map(str.strip, lines[0].split("\t"))):
        return False  # one tab between two columns is their separator: cells may be empty
    rows = [re.findall(r'"[^"]*"|\S+', line) for line in lines]
    widths = {len(words) for words in rows}
    return len(widths) == 1 and widths != {1} and not any(set(SEPARATORS) & set("".join(words)) for words in rows)


def _is_gzipped(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _dialect(path: Path, beginning: bytes) -> dict[str, Any]:
    """How pandas reads a CSV file: encoding, separator, and the lines before its header.

    Such lines begin with # and have no separator, like the first one of a table of SDSS SkyServer; the header is the next.
    """
    encoding = "utf-16" if beginning.startswith(UTF_16) else "utf-8"
    lines = _lines(beginning.decode("utf-8-sig" if encoding == "utf-8" else encoding, errors="replace"))
    skipped = 0
    while (
        skipped < len(lines) and lines[skipped].strip()[:1] in ("#", "") and not set(lines[skipped]) & set(SEPARATORS)
    ):
        skipped += 1
    header = re.sub(r'"[^"]*"', "", lines[skipped] if skipped < len(lines) else "")
    counts = {separator: header.count(separator) for separator in SEPARATORS}  # of equally many the first
    compression = "gzip" if _is_gzipped(path) else None
    return {
        "sep": max(counts, key=counts.__getitem__),
        "skiprows": skipped,
        "compression": compression,
        "encoding": encoding,
        "skipinitialspace": True,
    }


def _with_decimal_points(column: pd.Series) -> pd.Series:
    """In a file with semicolons, numbers may have decimal commas; a column of other texts stays as it is."""
    filled = column[column != ""]
    if filled.str.fullmatch(DECIMAL_COMMA).all() and filled.str.contains(",").any():
        return column.str.replace(",", ".")
    return column


def _check_once(path: Path, names: list[str], wanted: Collection[str]) -> None:
    if twice := sorted(name for name, number in Counter(names).items() if number > 1 and name in wanted):
        raise BadInput(f"{path}: has the column {twice[0]!r} more than once; leave one of them, or rename it")


def _of_parquet(path: Path, wanted: Collection[str], rows: int) -> Iterator[pd.DataFrame]:
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        _check_once(path, schema.names, wanted)
        columns = [name for name in schema.names if name in wanted]
        empty = True
        for batch in file.iter_batches(rows, columns=columns):
            empty = False
            yield _texts_of(path, batch)
        if empty:
            yield pd.DataFrame({name: [] for name in columns}, dtype=str)


def _texts_of(path: Path, batch: pa.RecordBatch) -> pd.DataFrame:
    texts = {}
    for name in batch.schema.names:
        column = batch[name]
        _check_texts(path, name, column)
        try:
            texts[name] = texts_of(column)
        except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
            raise BadInput(
                f"{path}, column {name}: holds {column.type}, not texts or numbers; pictures inside a table are read as a dataset"
            ) from error
    return pd.DataFrame(texts, dtype=str)


def _check_texts(path: Path, name: str, column: pa.Array) -> None:
    """Refuse texts that are none, of which pandas would find out when somebody looks at them."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid as error:
        raise BadInput(f"{path}, column {name}: is damaged ({' '.join(str(error).split())})") from error


def texts_of(column: pa.Array) -> pd.Series:
    """A column of Arrow as texts, "" where a cell is empty.

    Raises:
        pa.ArrowInvalid, pa.ArrowNotImplementedError: it holds something else than texts and numbers.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    # Not through pandas, which makes floats of whole numbers beside an empty cell.
    return column.cast(pa.string()).fill_null("").to_pandas()


def _astropy_table(path: Path, kind: Kind) -> Any:
    try:
        from astropy.table import Table
    except ImportError as error:
        raise BadInput(f"{path}: tables of this kind need astropy; pip install astropy") from error
    if kind == "ascii":
        from astropy.io.ascii import convert_numpy

        return Table.read(path, format=kind, converters={"*": [convert_numpy(str)]})  # of 00123 the zeros count
    if kind == "fits":
        check_counts(path)
    return Table.read(path, format=kind)


def _of_astropy(path: Path, kind: Kind, wanted: Collection[str]) -> pd.DataFrame:
    table = _astropy_table(path, kind)
    texts = {}
    for name in (name for name in table.colnames if name in wanted):
        column = table[name]
        if not _holds_cells(column):
            held = f"arrays of {column.shape[1:]}" if len(column.shape) > 1 else f"a {type(column).__name__}"
            raise BadInput(f"{path}, column {name}: holds {held}, not texts or numbers")
        missing = np.broadcast_to(np.ma.getmaskarray(np.ma.asarray(column)), len(column))
        texts[name] = ["" if gap else _text(value) for value, gap in zip(column.tolist(), missing, strict=True)]
    return pd.DataFrame(texts, dtype=str)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode()
    if isinstance(value, bool):
        return str(value).lower()  # as of Parquet
    if isinstance(value, float) and np.isnan(value):
        return ""
    return str(value).strip()  # texts of FITS are padded
