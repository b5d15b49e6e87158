"""Columns in memory stand beside the columns of files, whatever is done with the rows."""

import pickle

import numpy as np
import pyarrow as pa
import pytest

from hf_galaxy.data.copied import CopiedRows
from hf_galaxy.data.dataset import open_published
from hf_galaxy.data.streaming import StreamedRows
from hf_galaxy.data.vote_matrix import MATRIX, matrix_of
from hf_galaxy.importing import writer
from tests.galaxies import Rows, published


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "ROWS_PER_GROUP", 10)
        published(Rows(60), folder)
    return folder


@pytest.fixture(params=[False, True], ids=["copied", "streamed"])
def opened(folder, request):
    """Each split with a column `number`, that of the galaxy's name, null if it is odd, and a column `text`."""
    splits = {}
    for split, rows in open_published(str(folder), streaming=request.param).items():
        assert isinstance(rows, StreamedRows if request.param else CopiedRows)
        numbers = [int(name.rpartition("-")[2]) for name in rows[:]["id_str"].to_pylist()]
        even = pa.array([None if number % 2 else number for number in numbers], pa.float32())
        splits[split] = rows.joined_with(pa.table({"number": even, "text": list(map(str, numbers))}))
    return splits


def consistent(table):
    numbers = [int(name.rpartition("-")[2]) for name in table["id_str"].to_pylist()]
    assert numbers
    assert table["number"].to_pylist() == [None if number % 2 else number for number in numbers]
    return numbers


def test_joined_columns_follow_their_rows(opened):
    rows = opened["train"]
    numbers = consistent(rows[:])
    assert rows[:].column_names == rows.column_names == [*rows.features]
    assert rows.features["number"].dtype == "float32"
    assert consistent(rows[[7, 3, 11]]) == [numbers[i] for i in (7, 3, 11)]
    chosen = rows.select(np.array([2, 5, 30]))
    assert consistent(chosen[:]) == [numbers[i] for i in (2, 5, 30)]
    assert consistent(pickle.loads(pickle.dumps(chosen))[[1, 0]]) == [numbers[5], numbers[2]]
    whole = type(rows).concatenated([*opened.values()])
    assert sorted(consistent(whole[:])) == list(range(60))


def test_columns_may_be_joined_to_chosen_rows(opened):
    plain = opened["train"].select_columns(["id_str"]).select(np.array([4, 1, 9]))
    rows = plain.joined_with(pa.table({"place": [0, 1, 2]}))
    assert rows[[2, 0, 1]]["place"].to_pylist() == [2, 0, 1]


def test_only_chosen_columns_are_read(opened):
    rows = opened["train"].select_columns(["number", "id_str"])
    assert rows[[0, 1]].column_names == ["number", "id_str"]
    consistent(rows[:])
    alone = opened["train"].select_columns(["text"])
    assert alone[[3]].to_pylist() == opened["train"][[3]].select(["text"]).to_pylist()
    assert len(alone[:]) == len(alone)


def test_votes_stay_one_column(opened):
    votes = ["ring_no", "ring_yes"]
    rows = opened["test"].select_columns(["id_str", "number"], votes=votes)
    table = rows[:]
    assert table.column_names == ["id_str", "number", MATRIX]
    np.testing.assert_array_equal(matrix_of(table, votes), np.outer(consistent(table), [2, 1]))
    joined = opened["test"].select_columns(["id_str"], votes=["number", "ring_yes"])[:]
    assert joined.column_names == ["id_str", "number", "ring_yes"]
    numbers = np.array(consistent(joined))
    np.testing.assert_array_equal(matrix_of(joined, ["number", "ring_yes"])[:, 0], np.where(numbers % 2, 0, numbers))
