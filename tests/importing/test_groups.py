"""Groups of rows are those that sets and loops find, and texts are equal if their hashes are."""

import numpy as np
import pytest

from hf_galaxy.importing.categories import Categories
from hf_galaxy.importing.groups import Groups, hashes_of


def listed(groups):
    return groups.first(len(groups), 10**6)


@pytest.mark.parametrize("rows", [0, 1, 2, 300])
def test_rows_with_equal_keys_are_together_in_the_order_of_their_first_rows(rows):
    keys = np.random.default_rng(rows).integers(0, 150, rows)
    members = {}
    for row, key in enumerate(keys.tolist()):
        members.setdefault(key, []).append(row)
    expected = [group for group in members.values() if len(group) > 1]
    groups = Groups.of_equal(keys)
    assert listed(groups) == expected
    assert groups.sizes.tolist() == [len(group) for group in expected]
    assert groups.numbers.tolist() == [number for number, group in enumerate(expected) for _ in group]
    assert groups.pairs().tolist() == [[group[0], row] for group in expected for row in group[1:]]
    large = groups.sizes > 2
    assert listed(groups.where(large)) == [group for group in expected if len(group) > 2]


def test_rows_are_linked_through_others():
    assert listed(Groups.of_pairs(np.array([[7, 4], [0, 3], [3, 5]]))) == [[0, 3, 5], [4, 7]]
    assert listed(Groups.of_pairs(np.empty((0, 2), int))) == []


def test_hashes_are_those_of_the_texts_alone():
    texts = [f"galaxy {i % 40_000}" for i in range(50_000)]
    hashes = hashes_of(texts)
    assert len(set(hashes.tolist())) == 40_000
    np.testing.assert_array_equal(hashes[40_000:], hashes[:10_000])
    np.testing.assert_array_equal(hashes_of(texts[:5]), hashes[:5])
    assert hashes_of([]).shape == (0,)


def test_categories_are_their_texts():
    texts = ["b", "a", "b", "c"]
    made = Categories.of(texts)
    assert (list(made), made.names, made[1:3]) == (texts, ["b", "a", "c"], ["a", "b"])
    assert Categories.of(made) is made
    again = Categories.of_codes(np.array([1, 0, 1, 3], np.uint8), ["a", "b", "none", "c"])
    assert (list(again), again.names) == (texts, ["b", "a", "c"])
