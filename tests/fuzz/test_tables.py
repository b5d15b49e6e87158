"""Tables of anybody: the texts that are read are those that were written, whatever the format; what is no table is refused with its name."""

import csv
import gzip
import io

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import MaskedColumn, Table
from hypothesis import example
from hypothesis import strategies as st

from hf_galaxy.importing.catalogue_table import CatalogueTable
from hf_galaxy.importing.table_file import BEHIND, holds_pictures, read_texts
from hf_galaxy.importing.tables import is_table
from tests.fuzz.cases import Refused, answer, fuzz, memory_for, own_folder
from tests.fuzz.mutations import TEXTS, damaged

MEMORY = 2**29
NAMES = st.lists(st.text("abcXYZ_01é", min_size=1, max_size=4), min_size=2, max_size=4, unique=True)
SUFFIXES = {"csv": ".csv", "parquet": ".parquet", "fits": ".fits", "votable": ".vot", "ascii.ecsv": ".ecsv"}
FOLDER = own_folder()


pytestmark = pytest.mark.usefixtures("c_loader_off")


def written(content, suffix=".csv"):
    path = FOLDER / f"mine{suffix}"
    path.write_bytes(content)
    return path


CELLS = TEXTS | st.sampled_from(
    ["", "1.5", "-3", "nan", "True", "00123", "1,5", "a,b", 'a"b', "a\nb", " a", "NA", "1e400", "12345678901234567890"]
)


@st.composite
def csv_files(draw):
    """(bytes, names, rows of texts) in a dialect that people have."""
    separator = draw(st.sampled_from(",;\t|"))
    names = draw(NAMES)
    rows = draw(st.lists(st.lists(CELLS, min_size=len(names), max_size=len(names)), min_size=1, max_size=5))
    # What a CSV file cannot say: NUL, and lone ends of lines; blanks before a cell do not count.
    rows = [[cell.replace("\0", "").replace("\r", "").lstrip(" ") for cell in row] for row in rows]
    file = io.StringIO()
    end = draw(st.sampled_from(["\n", "\r\n"]))
    writer = csv.writer(file, delimiter=separator, lineterminator=end, quoting=csv.QUOTE_MINIMAL)
    writer.writerows([names, *rows])
    text = file.getvalue()
    before = draw(st.sampled_from(["", "", "#Table1\n", "\n# a comment\n\n"]))
    content = (before + text).encode(draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16"])), "surrogatepass")
    return gzip.compress(content, 1) if draw(st.booleans()) else content, names, rows, separator


@fuzz(csv_files())
@example((b"0\t1\n\t\n", ["0", "1"], [["", ""]], "\t"))
def test_a_csv_file_is_read_as_it_was_written(made):
    content, names, rows, separator = made
    path = written(content)
    read = answer(CatalogueTable.read_all, path, "--dataset", place=str(path))
    assert not isinstance(read, Refused), read
    found = read.cells
    assert list(found) == names
    for place, name in enumerate(names):
        cells = [row[place] for row in rows]
        if separator == ";":  # decimal commas
            assert [cell.replace(",", ".") for cell in found[name]] == [cell.replace(",", ".") for cell in cells]
        else:
            assert found[name].tolist() == cells
    assert read_texts(path, names[:1])[names[0]].tolist() == found[names[0]].tolist()


@st.composite
def typed_tables(draw):
    """Name -> (values, None where there is none; their texts) of columns of one type each."""
    number = draw(st.integers(1, 5))
    kinds = {
        "s": st.text("abé, \"'|;0-", max_size=5).map(str.strip),
        "i": st.integers(-(2**53), 2**53),
        "b": st.booleans(),
        "f": st.floats(-1e30, 1e30, width=64).map(float),
    }
    columns = {}
    for place, kind in enumerate(draw(st.lists(st.sampled_from(sorted(kinds)), min_size=1, max_size=4))):
        cells = draw(
            st.lists(kinds[kind] | st.none() if kind in "i" else kinds[kind], min_size=number, max_size=number)
        )
        columns[f"{kind}{place}"] = cells
    return columns


def text(cell):
    return "" if cell is None else str(cell).lower() if isinstance(cell, bool) else str(cell)


def in_format(columns, form):
    """The bytes of a file in a format."""
    if form == "parquet":
        file = io.BytesIO()
        pq.write_table(
            pa.table(
                {
                    name: pa.array(cells) if any(c is not None for c in cells) else pa.array(cells, pa.int64())
                    for name, cells in columns.items()
                }
            ),
            file,
        )
        return file.getvalue()
    if form == "csv":
        file = io.StringIO()
        csv.writer(file).writerows(
            [list(columns), *([text(cell) for cell in row] for row in zip(*columns.values(), strict=True))]
        )
        return file.getvalue().encode()
    table = Table()
    for name, cells in columns.items():
        mask = [cell is None for cell in cells]
        values = [0 if cell is None else cell for cell in cells] if any(mask) else cells
        table[name] = MaskedColumn(values, mask=mask) if any(mask) else values
    if form == "votable":
        file = io.BytesIO()
        table.write(file, format="votable")
        return file.getvalue()
    path = FOLDER / f"made{SUFFIXES[form]}"
    table.write(path, format=form, overwrite=True)
    return path.read_bytes()


@fuzz(typed_tables(), st.sampled_from(sorted(SUFFIXES)))
def test_every_format_gives_the_texts_of_its_values(columns, form):
    if form == "fits":  # whose texts are ASCII
        columns = {
            name: [c.replace("é", "e") if isinstance(c, str) else c for c in cells] for name, cells in columns.items()
        }
    path = written(in_format(columns, form), SUFFIXES[form])
    read = answer(CatalogueTable.read_all, path, "--dataset", place=str(path))
    assert not isinstance(read, Refused), read
    for name, cells in columns.items():
        for found, cell in zip(read[name], cells, strict=True):
            if isinstance(cell, float):
                assert float(found) == cell
            else:
                assert found == text(cell), (name, found, cell)


SMALL = {"name": ["a", "b, c", "d"], "n": [1, None, -3], "x": [0.5, 1e10, -2.25], "yes": [True, False, True]}


def check(content, suffix):
    path = written(content, suffix)
    with memory_for(MEMORY):
        assert is_table(str(path)) in (True, False)
        assert holds_pictures(path) in (True, False)
        read = answer(CatalogueTable.read_all, path, "--dataset", place=str(path))
        if isinstance(read, Refused):
            return
        assert len(read) > 0
        assert all(isinstance(cell, str) for name in read.cells for cell in read.cells[name])
        assert not any(name.startswith(BEHIND) for name in read.cells)
        # Some columns are those of all.
        for column in list(read.cells)[:1]:
            again = answer(CatalogueTable.read, path, [column], place=str(path))
            assert not isinstance(again, Refused), again
            pd.testing.assert_series_equal(again[column], read[column])


@fuzz(st.sampled_from(sorted(SUFFIXES)), st.data())
def test_a_damaged_table_is_refused_with_its_name(form, data):
    content = data.draw(damaged(st.just(in_format(SMALL, form))))
    check(content, SUFFIXES[form])


@fuzz(damaged(csv_files().map(lambda made: made[0])))
@example(b"")
@example(b"a,b\n" + b"x" * 200_000 + b",1\n")
@example(b"\x1f\x8b" + b"x" * 30)
@example(b'\r\na,1,0.5,true\r\n"b, c",,b, c",,10000000000.0,false\r\n')
@example("0\0001,00\n,\u2028,\n".encode())
def test_a_damaged_csv_file_is_refused_with_its_name(content):
    check(content, ".csv")
