"""The types of columns of texts. Legend: N rows."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from hf_galaxy.importing.column_map import Dtype

# What programs write into cells of numbers that are missing.
MISSING = ("", "nan", "null", "none", "n/a", "na", "--", "masked", "<na>")
WRITTEN = tuple({each for word in MISSING for each in (word, word.upper(), word.title(), "NaN")})
WHOLE = r"^[+-]?(0|[1-9]\d*)(\.0)?$"
# A number of many digits that went through a float, and lost some.
ROUNDED = r"^\d\.\d+[eE]\+?\d+$"
BOOLS = ("true", "false")
LARGEST_FLOAT32 = 3.4e38


def without_missing(cells: pd.Series) -> pd.Series:
    """(N,) the texts; "" where a cell is one of the words for a missing number."""
    return cells.where(~cells.isin(WRITTEN), "")


def dtype_of(cells: pd.Series) -> Dtype:
    """The type of a column: the strictest that every filled cell has.

    Names with zeros in front and whole numbers of more than 18 digits that int64 cannot hold stay texts. Other numbers are float32, as published
    values, so that a model learns the same from both.

    Args:
        cells: (N,) texts, `without_missing`.
    """
    texts = pa.array(cells, pa.large_string())
    filled = texts.filter(pc.not_equal(texts, ""))
    if not len(filled):
        return "string"
    first = filled[0].as_py().lower()
    if first in BOOLS:
        return (
            "bool" if pc.all(pc.is_in(pc.utf8_lower(filled), pa.array(BOOLS, pa.large_string()))).as_py() else "string"
        )
    if not _is(filled, pa.float64()) or pc.any(pc.match_substring_regex(filled, r"^[+-]?0\d")).as_py():
        return "string"
    if pc.all(pc.match_substring_regex(filled, WHOLE)).as_py():
        return "int64" if _is(filled, pa.int64()) else "string"
    largest = pc.max(pc.abs(filled.cast(pa.float64()))).as_py()
    return "float64" if LARGEST_FLOAT32 < largest < float("inf") else "float32"


def _is(texts: pa.Array, dtype: pa.DataType) -> bool:
    if pa.types.is_integer(dtype):
        texts = pc.replace_substring_regex(pc.utf8_ltrim(texts, "+"), r"\.0$", "")
    try:
        texts.cast(dtype)
    except pa.ArrowInvalid:
        return False
    return True
