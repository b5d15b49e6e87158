"""A table of predictions as VOTable, part by part, so that memory does not grow with its rows. Legend: N rows of a part."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import pyarrow as pa
import pyarrow.compute as pc

from hf_galaxy.models.prediction_columns import Column
from hf_galaxy.safe_text import visible

# Whole numbers without a sign go into the next wider type, as VOTable has them only of 8 bits.
TYPES = {
    pa.float16(): "float", pa.float32(): "float", pa.float64(): "double", pa.bool_(): "boolean", pa.int8(): "short",
    pa.uint8(): "unsignedByte", pa.int16(): "short", pa.uint16(): "int", pa.int32(): "int", pa.uint32(): "long", pa.int64(): "long",
}  # fmt: skip
HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">
<RESOURCE type="results">
<TABLE name="predictions">
"""
TAIL = "</TABLEDATA></DATA>\n</TABLE>\n</RESOURCE>\n</VOTABLE>\n"
NOT_XML = dict.fromkeys([0xFFFE, 0xFFFF], "\N{REPLACEMENT CHARACTER}")


def write_votable(
    out: Path,
    columns: Sequence[Column],
    parts: Callable[[list[str]], Iterable[pa.Table]],
    rows: int,
    facts: Mapping[str, str],
) -> None:
    """Write a VOTable file with one table; a missing value is an empty cell.

    Args:
        columns, parts, rows, facts: as of `fits_table.write_fits`.
    """
    with open(out, "w", encoding="utf-8", newline="\n") as file:
        file.write(HEAD)
        about = "; ".join(f"{name}: {value}" for name, value in facts.items())
        file.write(f"<DESCRIPTION>{_text(about)}</DESCRIPTION>\n")
        file.writelines(map(_field, columns))
        file.write("<DATA><TABLEDATA>\n")
        for part in parts([column.name for column in columns]):
            if len(part):
                cells = [_cells(part[column.name]) for column in columns]
                joined = pc.binary_join_element_wise(*cells, "</TD><TD>", null_handling="replace", null_replacement="")
                file.writelines(f"<TR><TD>{row}</TD></TR>\n" for row in joined.to_pylist())
        file.write(TAIL)


def _field(column: Column) -> str:
    kind = TYPES.get(column.type)
    held = f'datatype="{kind}"' if kind else 'datatype="unicodeChar" arraysize="*"'
    unit = f" unit={quoteattr(column.unit)}" if column.unit else ""
    name = quoteattr(visible(column.name).translate(NOT_XML))
    return f"<FIELD name={name} {held}{unit}><DESCRIPTION>{_text(column.meaning)}</DESCRIPTION></FIELD>\n"


def _cells(values: pa.ChunkedArray) -> pa.Array:
    """(N,) the texts of a column, null where it has none."""
    array = values.combine_chunks()
    if pa.types.is_floating(array.type):
        if array.type == pa.float16():
            array = array.cast(pa.float32())
        written, special = array.cast(pa.string()), {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}
        if pc.all(pc.is_finite(array)).as_py() is False:
            written = pa.array([special.get(each, each) for each in written.to_pylist()], pa.string())
        return written
    if pa.types.is_boolean(array.type):
        return pc.if_else(array, "T", "F")
    written = array.cast(pa.string())
    if array.type in TYPES:
        return written
    return pa.array([None if word is None else _text(word) for word in written.to_pylist()], pa.string())


def _text(text: str) -> str:
    """What XML can hold: control characters are shown."""
    return escape(visible(text).translate(NOT_XML))
