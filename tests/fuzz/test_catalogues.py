"""Catalogues of anybody: from a file and as a DataFrame they are the same galaxies, joined columns are those of the right rows, and cells that
hold something else are refused with their table and column."""

import csv
import io
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import example
from hypothesis import strategies as st

from hf_galaxy.cutouts.positions import FieldSize, read_positions
from hf_galaxy.importing.frames import NAME, open_frame
from hf_galaxy.importing.join_keys import arcsec_in
from hf_galaxy.importing.joining import JoinedTable
from hf_galaxy.importing.reading import VotesReading
from hf_galaxy.importing.tables import open_table
from tests.fuzz.cases import Refused, answer, fuzz, own_folder
from tests.fuzz.mutations import TEXTS
from tests.galaxies import jpeg_bytes

NUMBER = 5
FOLDER = own_folder()


@pytest.fixture(scope="module", autouse=True)
def pictures():
    for i in range(NUMBER):
        (FOLDER / f"g{i}.jpg").write_bytes(jpeg_bytes(i))


WORDS = TEXTS.map(lambda text: text.replace("\0", "").replace("\r", "").strip())
ODD_CELLS = WORDS | st.sampled_from(
    ["", "nan", "1.0", "-1", "1e400", "0x10", "1_000", "true", "TRUE", "12345678901234567890", "-0", "+5", ".5", "00123", "2147483648", "--",
     "1.23e+17", "g0", "g0.jpg", "../g0.jpg", "/g1.jpg", "inf", "12:18:57.6", "12h18m57.6s", "361", "-91", "90.0000001", "1e-320"]
)  # fmt: skip
USUAL = {
    "votes": st.integers(0, 40).map(str),
    "degrees": st.floats(-90, 90).map(repr),
    "numbers": st.floats(-1e6, 1e6).map(repr),
    "whole": st.integers(-9, 2**60).map(str),
    "bool": st.sampled_from(["True", "False"]),
    "words": WORDS,
}


@st.composite
def catalogues(draw, odd=True):
    """Column -> texts, of galaxies whose pictures are here."""
    columns = {"file": [f"g{i}.jpg" for i in range(NUMBER)]}
    for name, kind in draw(
        st.lists(
            st.sampled_from(
                [("name", "words"), ("ring_yes", "votes"), ("ring_no", "votes"), ("ra", "degrees"), ("dec", "degrees"),
                 ("z", "numbers"), ("objid", "whole"), ("kind", "words"), ("flag", "bool"), ("id_str", "words"), ("image", "words")]
            ),
            max_size=6, unique_by=lambda each: each[0],
        )
    ):  # fmt: skip
        columns[name] = [draw(USUAL[kind]) for _ in range(NUMBER)]
    if odd:
        for _ in range(draw(st.integers(0, 2))):
            columns[draw(st.sampled_from(sorted(columns)))][draw(st.integers(0, NUMBER - 1))] = draw(ODD_CELLS)
    return columns


def csv_of(columns, name="mine.csv"):
    file = io.StringIO()
    rows = zip(*columns.values(), strict=True)
    csv.writer(file, quoting=csv.QUOTE_ALL).writerows([list(columns), *rows])
    path = FOLDER / name
    path.write_text(file.getvalue(), encoding="utf-8", errors="replace", newline="")
    return path


def fields_of(catalogue):
    tree = catalogue.tree and catalogue.tree.columns
    pieces = list(catalogue.cells.pieces()) or [pa.table({})]  # there are no columns but that of the pictures
    cells = pa.concat_tables(pieces).to_pydict()
    return list(catalogue.ids), list(catalogue.files), catalogue.dtypes, tree, cells


@fuzz(catalogues())
def test_a_file_and_a_frame_are_the_same_galaxies(columns):
    path = csv_of(columns)
    reading = VotesReading(images=(FOLDER,))
    of_file = answer(open_table, str(path), reading, place=str(path))
    of_frame = answer(open_frame, pd.DataFrame(columns, dtype=str), reading, place=NAME)
    assert isinstance(of_file, Refused) == isinstance(of_frame, Refused), (of_file, of_frame)
    if isinstance(of_file, Refused):
        # Rows and columns are named alike.
        assert of_file.message.replace(str(path), NAME) == of_frame.message
        return
    np.testing.assert_equal(fields_of(of_file), fields_of(of_frame))
    if of_file.tree:
        ours = np.array([columns["ring_yes"], columns["ring_no"]]).astype(float).sum(axis=0)
        assert of_file.total_votes.tolist() == ours.tolist()
    position = of_file.positions
    if position is not None:
        for place, name in enumerate(("ra", "dec")):
            expected = [float(cell) if cell not in ("", "nan", "--") else math.nan for cell in columns[name]]
            np.testing.assert_array_equal(position[:, place], np.mod(expected, 360) if name == "ra" else expected)


@fuzz(catalogues(odd=False), st.lists(st.tuples(WORDS, USUAL["numbers"]), min_size=1, max_size=6), st.data())
def test_joined_columns_are_those_of_the_row_with_the_name(columns, rows, data):
    keys = data.draw(st.permutations([*(row[0] for row in rows), "g0", "g2"]))
    path = csv_of({"key": keys, "mass": [*(row[1] for row in rows), "2.5", ""]}, "join.csv")
    table = answer(JoinedTable.of, VotesReading(join=path, on="id_str=key"), place=str(path))
    names = [f"g{i}" for i in range(NUMBER)]
    if isinstance(table, Refused):
        assert len(set(keys)) < len(keys) or "rounded" in table.message or "has no rows" in table.message, table
        return
    brought = answer(table.bring, pa.table({"id_str": names}), "mine", place=str(path))
    assert not isinstance(brought, Refused), brought
    masses = dict(zip(keys, table.columns["mass"].to_pylist(), strict=True))
    assert brought.columns["mass"].to_pylist() == [masses.get(name) for name in names]


@fuzz(catalogues(), catalogues(), st.sampled_from(["id_str", "name=objid", "z", "1arcsec", "10deg", "0.5'"]))
def test_a_table_to_join_with_odd_cells_is_refused_with_its_name(ours, theirs, how):
    path = csv_of(theirs, "join.csv")
    options = {"on_sky": how} if how[0].isdigit() else {"on": how}
    table = answer(JoinedTable.of, VotesReading(join=path, **options), place=str(path))
    if isinstance(table, Refused):
        return
    galaxies = pa.table({name: pa.array(cells, pa.string()) for name, cells in ours.items()})
    columns = answer(table.needed, galaxies.column_names, "mine", place="mine")
    if not isinstance(columns, Refused):
        brought = answer(table.bring, galaxies.select(columns), "mine", place="mine")
        if not isinstance(brought, Refused):
            beside = answer(brought.beside, galaxies.column_names, place="--join")
            assert isinstance(beside, Refused) or len(beside) == NUMBER


@fuzz(TEXTS | st.from_regex(r"\A[0-9.e+-]{1,6} ?(arcsec|arcmin|deg|'|\"|s)?\Z"))
@example("1_0arcsec")
@example("٣arcsec")
def test_a_radius_is_plain(text):
    radius = answer(arcsec_in, text, place="--on-sky")
    if not isinstance(radius, Refused):
        assert 0 < radius < math.inf
        assert text.isascii()


@fuzz(
    catalogues(),
    st.sampled_from([None, "z", "objid", "kind"]),
    st.tuples(*[st.sampled_from([None, None, "z", "name"])] * 3),
)
def test_positions_are_within_the_sky_and_files_have_names_of_their_own(columns, radius, named):
    path = csv_of(columns, "positions.csv")
    size = FieldSize(column=radius) if radius else FieldSize(arcsec=30)
    found = answer(read_positions, path, size, 64, "jpg", named, place=str(path))
    if isinstance(found, Refused):
        return
    assert len(found.galaxies) == NUMBER
    files = [galaxy.image for galaxy in found.galaxies]
    assert len({file.lower() for file in files}) == NUMBER
    for galaxy in found.galaxies:
        assert 0 <= galaxy.field.ra < 360
        assert -90 <= galaxy.field.dec <= 90
        assert 0 < galaxy.field.arcsec < math.inf
        assert Path(galaxy.image).name == galaxy.image
        assert galaxy.image.isascii()
