"""A catalogue becomes galaxies with names, places, fields and files, or is refused at the row that is wrong."""

import logging
import os
import re

import numpy as np
import pandas as pd
import pytest
from astropy.table import Table

from hf_galaxy.cutouts.positions import FieldSize, file_names, read_positions
from hf_galaxy.cutouts.services import Field
from hf_galaxy.errors import BadInput

ONE = FieldSize(arcsec=60)


def read(path, text, size=ONE, columns=(None, None, None)):
    path.write_text(text, encoding="utf-8")
    return read_positions(path, size, 64, "jpg", columns)


def test_the_columns_are_guessed_and_the_guess_is_said(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        positions = read(
            tmp_path / "t.csv", "objID,RAJ2000,DEJ2000,z\n1237648720142401611,184.74,47.3,0.1\n7,0,-90,0.2\n"
        )
    assert [galaxy.id_str for galaxy in positions.galaxies] == ["1237648720142401611", "7"]
    assert [galaxy.image for galaxy in positions.galaxies] == ["1237648720142401611.jpg", "7.jpg"]
    assert [galaxy.field for galaxy in positions.galaxies] == [Field(184.74, 47.3, 60, 64), Field(0, -90, 60, 64)]
    assert list(positions.cells) == ["objID", "RAJ2000", "DEJ2000", "z"]
    assert caplog.messages == [f"{tmp_path / 't.csv'}: id from objID, ra from RAJ2000, dec from DEJ2000"]


def test_degrees_and_other_ways_of_writing_may_stand_in_one_column(tmp_path):
    text = 'id,ra,dec\na,184.74,47.304\nb,12:18:57.6,+47:18:14.4\nc,12h18m57.6s,47d18m14.4s\nd,"12 18 57.6",47.304\n'
    fields = [galaxy.field for galaxy in read(tmp_path / "t.csv", text).galaxies]
    for field in fields:
        assert (field.ra, field.dec) == pytest.approx((184.74, 47.304), abs=1e-9)


def test_without_names_the_places_are_names(tmp_path):
    positions = read(tmp_path / "t.csv", "ra,dec\n184.74,47.304\n0.00001,-1.5\n")
    assert [galaxy.id_str for galaxy in positions.galaxies] == ["184.74000+47.30400", "0.00001-1.50000"]
    with pytest.raises(BadInput, match=r"row 2, column ra: .* the same place as of an earlier row; give names"):
        read(tmp_path / "t.csv", "ra,dec\n184.74,47.304\n184.740001,47.304\n")


def test_a_table_of_astronomy_loses_no_digit_and_only_its_arrays(tmp_path, caplog):
    table = {
        "objid": [1237648720142401611, 5],
        "ra": [1.123456789012345, 2.0],
        "dec": [0.5, 3.0],
        "flux": np.ones((2, 3)),
    }
    Table(table | {"kind": ["a", "b"]}).write(tmp_path / "t.fits")
    with caplog.at_level(logging.INFO):
        positions = read_positions(tmp_path / "t.fits", ONE, 64, "fits")
    assert positions.galaxies[0].id_str == "1237648720142401611"
    assert positions.galaxies[0].field.ra == 1.123456789012345
    assert list(positions.cells) == ["objid", "kind"]  # ra and dec are columns of cutouts.csv itself
    assert "columns that hold neither texts nor numbers are left out: flux" in caplog.text


def test_a_field_is_a_multiple_of_a_radius_within_limits(tmp_path, caplog):
    size = FieldSize(column="r", factor=8, least=20, most=100)
    with caplog.at_level(logging.INFO):
        positions = read(tmp_path / "t.csv", "id,ra,dec,r\na,1,1,5\nb,1,1,0.1\nc,1,1,1e3\n", size)
    assert [galaxy.field.arcsec for galaxy in positions.galaxies] == [40, 20, 100]
    assert "2 of 3 fields would be smaller than 20 or larger than 100 arcsec" in caplog.text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "id,ra,dec\na,1,1\nb,x,1\nc,y,1\n",
            "row 2, column ra: 'x' is not a right ascension; .* (and 1 more such rows)",
        ),
        ("id,ra,dec\na,361,1\n", "row 1, column ra: '361' is not a right ascension, which is from 0 to 360"),
        ("id,ra,dec\na,-0.5,1\n", "row 1, column ra: '-0.5' is not a right ascension, which is from 0 to 360"),
        ("id,ra,dec\na,1,\n", "row 1, column dec: '' is not a declination"),
        ("id,ra,dec\na,1,nan\n", "row 1, column dec: 'nan' is not a declination"),
        ("id,ra,dec\na,inf,1\n", "row 1, column ra: 'inf' is not a right ascension"),
        ("id,ra,dec\na,1,-90.5\n", "row 1, column dec: '-90.5' is not a declination, which is from -90 to 90"),
        ("id,ra,dec\na,1,1\n ,1,1\n", "row 2, column id: '' is empty"),
        ("id,ra,dec\na,1,1\na,2,1\n", "row 2, column id: 'a' is a name that an earlier row has; name another column"),
        ("id,ra,dec\n", "has no rows"),
        ("id,dec\na,1\n", "no column with a usual name for ra; name it, --ra-column (it has id, dec)"),
        ("id,ra,ra,dec\na,1,1,1\n", "has the column 'ra' more than once"),
    ],
)
def test_bad_rows_are_refused_with_their_place(tmp_path, text, said):
    with pytest.raises(BadInput, match=re.escape(said).replace(r"\.\*", ".*")):
        read(tmp_path / "t.csv", text)


@pytest.mark.parametrize("cell", ["0", "-1", "", "x", "inf", "nan"])
def test_a_radius_is_above_0(tmp_path, cell):
    with pytest.raises(BadInput, match=r"row 1, column r: .* is not a radius in arcseconds"):
        read(tmp_path / "t.csv", f"id,ra,dec,r\na,1,1,{cell}\n", FieldSize(column="r"))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "--fov-arcsec, or the column of a radius, --fov-column"),
        ({"arcsec": 60, "column": "r"}, "--fov-arcsec, or the column of a radius, --fov-column"),
        ({"arcsec": 0}, "--fov-arcsec must be above 0"),
        ({"arcsec": float("nan")}, "--fov-arcsec must be above 0"),
        ({"column": "r", "factor": 0}, "--fov-factor must be above 0"),
        ({"column": "r", "least": 5, "most": 4}, "at most --fov-max"),
    ],
)
def test_sizes_that_are_none_are_refused(values, said):
    with pytest.raises(BadInput, match=said):
        FieldSize(**values)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (("name", None, None), "no column 'name', which --id-column names; it has id, ra, dec"),
        ((None, None, "DEC"), "--dec-column"),
    ],
)
def test_columns_that_are_not_there_are_refused(tmp_path, columns, said):
    with pytest.raises(BadInput, match=said):
        read(tmp_path / "t.csv", "id,ra,dec\na,1,1\n", columns=columns)
    with pytest.raises(BadInput, match="no column 'r', which --fov-column names"):
        read(tmp_path / "t.csv", "id,ra,dec\na,1,1\n", FieldSize(column="r"))


@pytest.mark.parametrize(
    ("content", "said"), [(None, "no such file"), (b"\x00\xff" * 50, "cannot be read|no column|has no rows")]
)
def test_what_is_no_table_is_refused(tmp_path, content, said):
    path = tmp_path / "t.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput, match=said):
        read_positions(path, ONE, 64, "jpg")


NAMES = [
    "NGC 1300", "../../etc/passwd", "..", ".", "/", "\\", "a/b", "a\\b", "a:b", "CON", "nul.1", "x" * 300, "M31", "m31", "\u00e9toile",
    "-rf", ".hidden", "a\nb", "J1218+4718", "galaxy", "\U0001f30c", "a b", "a_b", "end.", "%2e%2e%2f",
]  # fmt: skip


def test_every_name_becomes_one_file_in_the_folder_on_every_system(tmp_path):
    names = file_names(NAMES, "jpg")
    assert len({name.lower() for name in names}) == len(NAMES)
    for name in names:
        assert name == os.path.basename(name)
        assert name.isascii()
        assert len(name) < 100
        assert not name.startswith((".", "-"))
        assert not set(name) & set('/\\:*?"<>| \n')
        assert name.partition(".")[0].lower() not in ("con", "nul")
        (tmp_path / name).write_text("")
    assert len(list(tmp_path.iterdir())) == len(NAMES)
    kept = {"J1218+4718", "galaxy", "a_b"}
    assert {id_str for id_str, name in zip(NAMES, names, strict=True) if name == f"{id_str}.jpg"} == kept


def test_the_name_of_a_file_does_not_depend_on_the_rows_around_it():
    assert file_names(NAMES[:5], "fits") == file_names(NAMES, "fits")[:5]


def test_many_positions_are_read_soon(tmp_path):
    """Not row by row: a million would take minutes."""
    number = 20_000
    table = pd.DataFrame({"id": range(number), "ra": np.linspace(0, 359, number), "dec": np.linspace(-80, 80, number)})
    table.to_csv(tmp_path / "t.csv", index=False)
    assert len(read_positions(tmp_path / "t.csv", ONE, 64, "jpg").galaxies) == number
