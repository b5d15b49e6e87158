"""Any rows of columns on the disk are what was written, in whatever pieces, and the file goes with the object."""

import os
import pickle
import tempfile

import numpy as np
import pyarrow as pa
import pytest

from hf_galaxy.importing.column_file import ColumnFile, Texts


@pytest.fixture
def table():
    """40 rows of all types, with gaps."""
    rng = np.random.default_rng(0)
    gaps = rng.random((6, 40)) < 0.3
    columns = {
        "votes": pa.array(rng.integers(0, 9, 40), pa.int32()),
        "other": pa.array(rng.integers(0, 9, 40), pa.int32(), mask=gaps[0]),
        "objid": pa.array(rng.integers(2**60, 2**62, 40), pa.int64(), mask=gaps[1]),
        "z": pa.array(rng.normal(size=40), pa.float32(), mask=gaps[2]),
        "ra": pa.array(np.where(gaps[3], np.nan, rng.normal(size=40))),
        "good": pa.array(rng.random(40) < 0.5, mask=gaps[4]),
        "text": pa.array(["", "ä", None, "b c"] * 10),
    }
    return pa.table(columns)


def bits(table):
    """The values, of which NaN is one."""
    return [[repr(value) for value in column] for column in table.to_pydict().values()]


@pytest.mark.parametrize("size", [1, 7, 40])
def test_rows_are_those_that_were_written(table, size):
    file = ColumnFile(table[first : first + size] for first in range(0, 40, size))
    rows = [31, 0, 39, 0, 7, 12, 6]
    found = file.rows(rows)
    assert found.schema == table.schema
    assert bits(found) == bits(table.take(rows))
    assert len(file.rows([])) == 0
    assert bits(pa.concat_tables(file.pieces())) == bits(table)
    assert bits(file.columns(["text", "z"])) == bits(table.select(["text", "z"]))
    copy = pickle.loads(pickle.dumps(file))
    assert bits(copy.rows(rows)) == bits(found)


def test_the_file_goes_with_the_object(table):
    file = ColumnFile([table, table[:0]])
    path = file.path
    assert path.exists()
    copy = pickle.loads(pickle.dumps(file))
    del copy
    assert path.exists(), "of another process"
    del file
    assert not path.exists()


def test_files_of_killed_processes_are_removed(table, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    used = ColumnFile([table])
    left, other = (used.path.with_name(f"{start}left.arrow") for start in ("hf_galaxy-columns-", "mine-"))
    for path in (left, other):
        path.touch()
    just_made = ColumnFile([table])
    assert left.exists()
    for path in tmp_path.iterdir():
        os.utime(path, (0, 0))
    last = ColumnFile([table])
    assert set(tmp_path.iterdir()) == {used.path, just_made.path, last.path, other}


def test_a_table_without_columns_has_rows_without_columns():
    assert ColumnFile([pa.table({})]).rows([3, 1]).num_columns == 0


@pytest.mark.parametrize("size", [1, 7, 40])
def test_texts_are_a_sequence_that_may_be_copied(table, size):
    texts = Texts(ColumnFile(table[first : first + size] for first in range(0, 40, size)), "text")
    expected = table["text"].to_pylist()
    for each in (texts, pickle.loads(pickle.dumps(texts))):
        assert list(each) == [each[np.int32(i)] for i in range(len(each))] == expected
        assert each[5:30] == expected[5:30]
    assert [text for piece in texts.pieces() for text in piece] == expected
