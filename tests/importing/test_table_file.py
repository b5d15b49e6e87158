"""Tables as astronomers have them: the same texts whatever the file is, and no digit lost."""

import gzip

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import MaskedColumn, Table
from astropy.time import Time

from hf_galaxy.errors import BadInput
from hf_galaxy.importing.table_file import column_names, read_texts

OBJID = 1237648720693755918  # more digits than a float has
NAMES = ["name", "objid", "z", "ring"]
EXPECTED = {"name": ["a", "b, c"], "objid": [str(OBJID), ""], "z": ["0.5", "-1.25"], "ring": ["1", "0"]}
CSV = f'name,objid,z,ring,other\na,{OBJID},0.5,1,x\n"b, c",,-1.25,0,y\n'
SEMICOLONS = f"name;objid;z;ring;other\na;{OBJID};0,5;1;x\nb, c;;-1,25;0;y\n"


def astropy_table():
    return Table(
        {
            "name": ["a", "b, c"], "objid": MaskedColumn(np.array([OBJID, 0]), mask=[False, True]), "z": [0.5, -1.25],
            "ring": np.array([1, 0], np.int16), "other": np.zeros((2, 3)),
        }
    )  # fmt: skip


def write(path):
    """The table in the format that the name of the file tells."""
    if path.suffix in (".fits", ".ecsv", ".vot"):
        astropy_table().write(path, format={".vot": "votable"}.get(path.suffix))
        return
    if path.suffix.lower() in (".parquet", ".pq"):
        columns = {"objid": pa.array([OBJID, None]), "z": [0.5, -1.25], "ring": pa.array([1, 0], pa.int8())}
        name = pa.array(["a", "b, c"]).dictionary_encode()
        pq.write_table(pa.table({"name": name, **columns, "other": [{"bytes": b""}] * 2}), path)
        return
    content = {
        "commas.csv": CSV.encode(), "gzipped.csv": gzip.compress(CSV.encode()), "marked.csv": CSV.encode("utf-8-sig"),
        "skyserver.csv": f"#Table1\n\n{CSV}".encode("utf-8-sig"), "semicolons.csv": SEMICOLONS.encode(),
        "tabs.tsv": SEMICOLONS.replace(";", "\t").replace("0,5", "0.5").replace("1,25", "1.25").encode(), "excel.txt": CSV.replace(",", "\t").replace('"b\t c"', "b, c").encode("utf-16"),
    }  # fmt: skip
    path.write_bytes(content[path.name])


@pytest.mark.parametrize(
    "file",
    [
        "commas.csv", "gzipped.csv", "marked.csv", "skyserver.csv", "semicolons.csv", "tabs.tsv", "excel.txt", "table.parquet", "table.PARQUET",
        "table.pq", "table.fits", "table.ecsv", "table.vot",
    ],
)  # fmt: skip
def test_every_format_gives_the_same_texts(tmp_path, file, c_loader_off):
    write(tmp_path / file)
    assert column_names(tmp_path / file) == [*NAMES, "other"]
    pd.testing.assert_frame_equal(read_texts(tmp_path / file, NAMES)[NAMES], pd.DataFrame(EXPECTED, dtype=str))


def test_a_decimal_comma_is_one_only_where_all_are_numbers(tmp_path):
    (tmp_path / "t.csv").write_text("a;b;c\n1,5;1,5;x,1\n2;z;\n")
    cells = read_texts(tmp_path / "t.csv", ["a", "b", "c"])
    assert cells.to_dict("list") == {"a": ["1.5", "2"], "b": ["1,5", "z"], "c": ["x,1", ""]}


@pytest.mark.parametrize("file", ["t.csv", "t.parquet"])
def test_a_column_that_is_there_twice_is_refused_if_it_is_wanted(tmp_path, file):
    if file == "t.csv":
        (tmp_path / file).write_text("a,b,b\n1,2,3\n")
    else:
        pq.write_table(pa.Table.from_arrays([pa.array([1])] * 3, ["a", "b", "b"]), tmp_path / file)
    with pytest.raises(BadInput, match="has the column 'b' more than once"):
        read_texts(tmp_path / file, ["a", "b"])
    assert read_texts(tmp_path / file, ["a"])["a"].tolist() == ["1"]


def test_columns_of_other_things_are_refused(tmp_path):
    for file in ("table.parquet", "table.fits"):
        write(tmp_path / file)
        with pytest.raises(BadInput, match=rf"{file}, column other: holds .*, not texts or numbers"):
            read_texts(tmp_path / file, ["name", "other"])


def test_a_column_of_times_is_refused(tmp_path, c_loader_off):
    Table({"name": ["a"], "when": Time(["2026-01-01"])}).write(tmp_path / "t.ecsv")
    with pytest.raises(BadInput, match=r"t\.ecsv, column when: holds a Time, not texts or numbers"):
        read_texts(tmp_path / "t.ecsv", ["when"])


def test_blanks_around_the_cells_of_a_csv_file_are_none_of_them(tmp_path):
    (tmp_path / "t.csv").write_text('a, b , c d\n1, x, "y, z"\n')
    assert column_names(tmp_path / "t.csv") == ["a", "b", "c d"]
    cells = read_texts(tmp_path / "t.csv", ["a", "b", "c d"])
    assert cells.to_dict("list") == {"a": ["1"], "b": ["x"], "c d": ["y, z"]}


@pytest.mark.parametrize(
    ("rows", "message", "some"),
    [
        # Below the first row, pandas counts the cells of whole rows only.
        ("1,2\n1,2,3\n", "Expected 2 fields in line 3, saw 3", ["ab"]),
        ("1,2,\n1,2,3\n", "row 2: has more cells than the header has columns, such as '3'", ["a", "ab"]),
        ("1,2,,3\n1,2\n", "row 1: has more cells than the header has columns, such as '3'", ["a", "ab"]),
        (",\u2028,3\n", "row 1: has more cells than the header has columns, such as '3'", ["a", "ab"]),
    ],
)
def test_a_row_with_too_many_cells_is_refused(tmp_path, rows, message, some):
    (tmp_path / "t.csv").write_text(f"a,b\n{rows}", encoding="utf-8")
    for wanted in some:
        with pytest.raises(ValueError, match=message):
            read_texts(tmp_path / "t.csv", list(wanted))


def test_rows_may_end_with_a_separator_or_too_early(tmp_path, recwarn):
    (tmp_path / "t.csv").write_text("a,b\n1,2,,\n3\n")
    assert read_texts(tmp_path / "t.csv", ["a", "b"]).to_dict("list") == {"a": ["1", "3"], "b": ["2", ""]}
    assert not recwarn.list


@pytest.mark.parametrize("header", ["id  ra   file", "# id ra file"])
def test_columns_may_be_apart_by_blanks(tmp_path, header):
    (tmp_path / "table.dat").write_text(f'{header}\n00123   10.50 "a 1.jpg"\n  {OBJID} -- b.jpg\n')
    assert column_names(tmp_path / "table.dat") == ["id", "ra", "file"]
    expected = {"id": ["00123", str(OBJID)], "ra": ["10.50", "--"], "file": ["a 1.jpg", "b.jpg"]}
    assert read_texts(tmp_path / "table.dat", ["id", "ra", "file"]).to_dict("list") == expected


def test_a_column_whose_name_has_a_blank_is_one_column(tmp_path):
    (tmp_path / "table.csv").write_text("galaxy name\nNGC1300\nM51\n")
    assert read_texts(tmp_path / "table.csv", ["galaxy name"]).to_dict("list") == {"galaxy name": ["NGC1300", "M51"]}


def test_texts_of_parquet_that_are_none_are_refused_with_their_column(tmp_path):
    wrong = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\x80")])
    pq.write_table(pa.table({"a": ["x"], "b": wrong}), tmp_path / "t.parquet")
    with pytest.raises(BadInput, match=r"t.parquet, column b: is damaged \(Invalid UTF8"):
        read_texts(tmp_path / "t.parquet", ["a", "b"])
    assert read_texts(tmp_path / "t.parquet", ["a"]).to_dict("list") == {"a": ["x"]}
