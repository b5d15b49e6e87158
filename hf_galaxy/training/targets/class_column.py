"""A column of classes as the names of its classes: those of a ClassLabel, its texts, or its whole numbers and bools as texts.

Legend of shapes: N rows.
"""

from collections.abc import Callable, Mapping
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from hf_galaxy.data.schema import is_text
from hf_galaxy.errors import BadInput

TEXT = pa.large_string()
NO_TEXT = pa.scalar(None, TEXT)
# Texts of a missing label: pandas writes NaN as text where a column of texts became texts once more.
MISSING = pa.array(["", "nan", "NaN", "<NA>"], TEXT)
WHOLE = 2**53  # from here on a float stands for several whole numbers


def is_number(feature: Any) -> bool:
    """Whether a column of this type of `datasets` holds numbers."""
    return type(feature) is datasets.Value and feature.dtype.startswith(("int", "uint", "float"))


def is_bool(feature: Any) -> bool:
    """Whether a column of this type of `datasets` holds bools."""
    return type(feature) is datasets.Value and feature.dtype == "bool"


def may_hold_classes(feature: Any) -> bool:
    """Whether a column of this type of `datasets` may hold classes; its numbers must be whole."""
    return isinstance(feature, datasets.ClassLabel) or is_text(feature) or is_bool(feature) or is_number(feature)


def class_columns(features: Mapping[str, Any]) -> list[str]:
    """The columns whose type is one of classes, the likeliest first: of the type int32 most are votes; floats are values, if not whole."""
    likely: tuple[Callable[[Any], bool], ...] = (
        lambda feature: isinstance(feature, datasets.ClassLabel),
        is_bool,
        lambda feature: is_number(feature) and "int" in feature.dtype and feature.dtype != "int32",
        is_text,
        lambda feature: is_number(feature) and feature.dtype == "int32",
    )
    return [name for kind in likely for name, feature in features.items() if kind(feature) and name != "id_str"]


def class_texts(table: pa.Table, column: str, feature: Any, galaxy: Callable[[int], str]) -> pa.ChunkedArray:
    """(N,) texts, the name of the class of each row; null where it is missing: null, NaN (also as a text), -1, or a blank text.

    Args:
        feature: the type of the column, one that may hold classes.
        galaxy: from the place of a row to what messages call it.

    Raises:
        BadInput: a number stands for no class; names the galaxy and the column.
    """
    values = table[column]
    if is_text(feature):
        texts = values.cast(TEXT)
        return pc.if_else(pc.is_in(pc.utf8_trim_whitespace(texts), MISSING), NO_TEXT, texts)
    if is_bool(feature):
        return values.cast(TEXT)

    def refuse(wrong: pa.ChunkedArray, reason: str) -> None:
        row = pc.index(wrong, pa.scalar(True)).as_py()
        if row >= 0:
            number = values[row].as_py()
            shown = f"{number:g}" if isinstance(number, float) else number
            raise BadInput(f"{galaxy(row)}, column {column}: {shown} is no class; {reason}")

    if pa.types.is_floating(values.type):
        numbers = values.cast(pa.float64())
        numbers = pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.float64()), numbers)
        fractional = pc.or_(pc.not_equal(numbers, pc.floor(numbers)), pc.greater_equal(pc.abs(numbers), WHOLE))
        refuse(fractional, f"classes are whole numbers; for numbers to estimate give --values {column}")
        values = numbers
    whole = values.cast(pa.int64(), safe=False)
    if isinstance(feature, datasets.ClassLabel):
        names = feature.names
        refuse(pc.greater_equal(whole, len(names)), f"there are only {len(names)}: {', '.join(names[:20])}")
        return pc.take(pa.array(names, TEXT), _without(whole, pc.less(whole, 0)))
    refuse(pc.less(whole, -1), "of negative numbers -1 alone is allowed, which is a missing label; give others as null")
    return _without(whole, pc.equal(whole, -1)).cast(TEXT)


def _without(numbers: pa.ChunkedArray, missing: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(missing, pa.scalar(None, numbers.type), numbers)


def in_order(names: list[str], feature: Any) -> list[str]:
    """Names of classes in the order of their indices: numbers by size, texts by letters."""
    return sorted(names, key=int) if is_number(feature) else sorted(names)
