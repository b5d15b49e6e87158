"""Columns that are taken together hold what they held, whatever is done to the table."""

import numpy as np
import pyarrow as pa
import pytest

from hf_galaxy import load_tree
from hf_galaxy.data.schema import InvalidVotes, votes_in
from hf_galaxy.data.vote_matrix import INVALID, columns_in, matrix_of, with_matrix
from hf_galaxy.errors import BadInput


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ([[1, 2, 3], [4, 5, 6]], [[1, 4], [2, 5], [3, 6]]),
        ([[1, None, 3], [4, 5, 6]], [[1, 4], [0, 5], [3, 6]]),
        ([[1.0, np.nan, None], [4, 5, 6]], [[1, 4], [0, 5], [0, 6]]),
        ([[None, None, None], [4, 5, 6]], [[0, 4], [0, 5], [0, 6]]),
        ([[True, False, None], [4, 5, 6]], [[1, 4], [0, 5], [0, 6]]),
    ],
)
def test_votes_of_several_columns(columns, expected):
    table = pa.table({f"answer{i}": values for i, values in enumerate(columns)} | {"id_str": ["a", "b", "c"]})
    names = ["answer0", "answer1"]
    for each in (table, pa.concat_tables([table.slice(0, 1), table.slice(1)])):
        np.testing.assert_array_equal(matrix_of(each, names), np.array(expected))
        np.testing.assert_array_equal(matrix_of(each, names[::-1]), np.array(expected)[:, ::-1])
    (batch,) = table.to_batches()
    np.testing.assert_array_equal(matrix_of(batch, names), np.array(expected))
    assert matrix_of(table, names).dtype == np.int32
    assert matrix_of(table.slice(0, 0), names).shape == (0, 2)


@pytest.mark.parametrize("others", [{}, {"id_str": ["a", "b", "c", "d"], "kind": [0, 1, 2, 3]}])
def test_what_was_taken_together_survives_slices_joins_and_choices(others):
    votes, names = np.arange(12, dtype=np.int32).reshape(4, 3), ["x", "y", "z"]
    table = with_matrix(pa.table(others), names, votes)
    assert columns_in(table) == [*others, *names]
    np.testing.assert_array_equal(matrix_of(table, names), votes)
    np.testing.assert_array_equal(matrix_of(table, ["z", "x"]), votes[:, [2, 0]])
    mixed = pa.concat_tables([table.slice(3), table.slice(1, 2)])
    np.testing.assert_array_equal(matrix_of(mixed, names), votes[[3, 1, 2]])
    np.testing.assert_array_equal(matrix_of(table.take([2, 0, 2]), names), votes[[2, 0, 2]])
    assert matrix_of(table.slice(0, 0), names).shape == (0, 3)


@pytest.mark.parametrize("number", [3.7, 0.9, -0.5, np.inf, -np.inf, 2.0**31, 1e300])
def test_what_is_no_whole_number_is_marked_and_refused(number):
    table = pa.table({"ring_yes": [2.0, 0.0], "ring_no": [5.0, number]})
    assert matrix_of(table, ["ring_no", "ring_yes"]).tolist() == [[5, 2], [INVALID, 0]]
    with pytest.raises(InvalidVotes, match="row 1, column ring_no: a number that is not whole, or too large") as error:
        votes_in(table, load_tree("gz_rings"))
    assert error.value.row == 1
    assert votes_in(table, load_tree("gz_rings"), errors="ignore").tolist() == [[2, 5], [0, INVALID]]


def test_votes_written_as_text_are_read_if_they_are_numbers():
    table = pa.table({"ring_yes": ["12", None], "ring_no": ["3.0", "4"]})
    assert votes_in(table, load_tree("gz_rings")).tolist() == [[12, 3], [0, 4]]
    with pytest.raises(BadInput, match="column ring_no holds string, but votes are whole numbers"):
        matrix_of(pa.table({"ring_yes": ["1"], "ring_no": ["many"]}), ["ring_yes", "ring_no"])
