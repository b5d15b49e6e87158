"""What is counted of a dataset is what is there: the same numbers as by hand, whatever the batches and the order of rows."""

import io
import json
import math
from collections import Counter

import datasets
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from hf_galaxy import load_tree
from hf_galaxy.data.schema import row_features
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.counts import Statistics

TREE = load_tree(["gz2", "gz_rings"])
SPLITS = ("train", "validation", "test")
VALUES = {"mass": "float32", "size": "float64", "nothing": "float32"}
KINDS = ["spiral", "elliptical", "never"]
FEATURES = row_features(TREE, {"kind": KINDS, "other": ["a", "b"]}, VALUES)
SIZES = [((40, 40), "RGB", "JPEG"), ((40, 40), "L", "JPEG"), ((40, 40), "RGB", "PNG"), ((24, 40), "L", "PNG")]


def encoded(size, mode, kind):
    file = io.BytesIO()
    Image.new(mode, size).save(file, kind)
    return {"bytes": file.getvalue(), "path": None}


def walk(rng):
    """Votes that walk the tree."""
    votes = np.zeros(len(TREE.columns), int)
    for q in TREE.order:
        asked = votes[TREE.parents[q]].sum() if TREE.parents[q] else rng.integers(0, 60)
        answers = len(TREE.questions[q].answers)
        votes[TREE.slices[q]] = rng.multinomial(asked, np.ones(answers) / answers)
    return votes.tolist()


@pytest.fixture(scope="module")
def rows():
    """(split, row) of 300 galaxies."""
    rng = np.random.default_rng(3)
    pictures = [encoded(*size) for size in SIZES]
    found = []
    for i in range(300):
        votes = dict(zip(TREE.columns, walk(rng), strict=True))
        for column in rng.choice(TREE.columns, rng.integers(0, 3) * (i % 3 == 0), replace=False):
            votes[column] += 1  # some break the tree
        if i % 7 == 0:
            votes = {c: 0 if c.startswith("ring") else n for c, n in votes.items()}
        row = {
            "id_str": str(i), "image": pictures[rng.choice(4, p=[0.4, 0.3, 0.2, 0.1])],
            "kind": [0, 0, 1, None][rng.integers(4)], "other": int(rng.integers(2)), "nothing": None,
            "mass": [float(rng.normal(10, 3)), None, math.nan, math.inf][rng.choice(4, p=[0.7, 0.1, 0.1, 0.1])],
            "size": float(10 ** rng.uniform(-8, 8)),  # their sum depends on its order
        }  # fmt: skip
        found.append((SPLITS[rng.choice(3, p=[0.7, 0.1, 0.2])], row | votes))
    return found


def table_of(rows):
    return pa.Table.from_pylist(rows, schema=FEATURES.arrow_schema)


def counted(rows, batch):
    """The statistics of the rows, added in batches of neighbours of one split."""
    statistics = Statistics(FEATURES, TREE, list(VALUES))
    for split in SPLITS:
        own = [row for where, row in rows if where == split]
        for first in range(0, len(own), batch):
            statistics.add(split, table_of(own[first : first + batch]))
    return statistics.to_dict()


@pytest.fixture(scope="module")
def statistics(rows):
    return counted(rows, 1000)


def asked(row, question):
    return sum(row[column] for column in question.columns)


def test_galaxies_and_pictures_are_counted(rows, statistics):
    assert statistics["galaxies"] == Counter(split for split, _ in rows)
    assert statistics["pictures"]["bytes"] == sum(len(row["image"]["bytes"]) for _, row in rows)
    names = {encoded(*size)["bytes"]: f"{size[0][0]} x {size[0][1]} {size[1]} {size[2]}" for size in SIZES}
    assert statistics["pictures"]["sizes"] == Counter(names[row["image"]["bytes"]] for _, row in rows)
    assert list(statistics["pictures"]["sizes"]) == list(names.values()), "the most frequent first"


def test_votes_are_counted(rows, statistics):
    assert statistics["votes"] == {column: sum(row[column] for _, row in rows) for column in TREE.columns}
    assert list(statistics["votes"]) == TREE.columns
    assert statistics["questions"] == {
        question.name: {
            "galaxies_asked": sum(asked(row, question) > 0 for _, row in rows),
            "with_enough_votes": sum(asked(row, question) >= 20 for _, row in rows),
        }
        for question in TREE.questions
    }


def test_numbers_that_are_no_votes_are_not_counted():
    """Nor do they stop the count: the checker names them."""
    features = FEATURES | {"ring_yes": datasets.Value("float64")}
    statistics = Statistics(datasets.Features(features), TREE, [])
    row = dict.fromkeys(features) | {"id_str": "a", "image": encoded(*SIZES[0])}
    schema = datasets.Features(features).arrow_schema
    rows = [row | {"ring_yes": yes, "ring_no": no} for yes, no in ((3.0, 4), (2.5, 1), (1.0, -99))]
    statistics.add("train", pa.Table.from_pylist(rows, schema=schema))
    votes = statistics.to_dict()["votes"]
    assert (votes["ring_yes"], votes["ring_no"]) == (4, 5)


def test_twenty_votes_are_enough():
    statistics = Statistics(FEATURES, TREE, [])
    row = dict.fromkeys(FEATURES) | {"id_str": "a", "image": encoded(*SIZES[0])}
    statistics.add("train", table_of([row | {"ring_yes": yes, "ring_no": 10} for yes in (9, 10, 11)]))
    assert statistics.to_dict()["questions"]["ring"] == {"galaxies_asked": 3, "with_enough_votes": 2}


def test_votes_that_break_the_tree_are_counted(rows, statistics):
    questions, galaxies = Counter(), 0
    for _, row in rows:
        broken = [q.name for q in TREE.questions if q.parents and asked(row, q) != sum(row[c] for c in q.parents)]
        questions.update(broken)
        galaxies += bool(broken)
    assert galaxies > 20
    assert statistics["inconsistent"] == {"galaxies": galaxies, "questions": questions}


def test_classes_are_counted_in_each_split(rows, statistics):
    for label, names in (("kind", KINDS), ("other", ["a", "b"])):
        expected = {
            name: Counter(split for split, row in rows if row[label] == number) for number, name in enumerate(names)
        }
        assert statistics["classes"][label] == expected
    assert statistics["classes"]["kind"]["never"] == {}
    assert sum(sum(n.values()) for n in statistics["classes"]["kind"].values()) < len(rows), "some have none"


def test_a_missing_label_is_no_class():
    """Null, or -1, which is how the datasets library says so: not the last class."""
    statistics = Statistics(FEATURES, TREE, [])
    row = dict.fromkeys(FEATURES) | {"id_str": "a", "image": encoded(*SIZES[0])}
    statistics.add("test", table_of([row | {"kind": kind} for kind in (0, -1, None, 2, -1)]))
    classes = statistics.to_dict()["classes"]["kind"]
    assert classes == {"spiral": {"test": 1}, "elliptical": {}, "never": {"test": 1}}
    with pytest.raises(BadInput, match="there is no class 3, only 3: spiral"):
        statistics.add("test", table_of([row | {"kind": 3}]))


def test_values_that_are_not_known_are_left_out(rows, statistics):
    masses = [np.float32(row["mass"]) for _, row in rows if row["mass"] is not None]
    known = np.array([mass for mass in masses if np.isfinite(mass)], np.float64)
    assert 150 < len(known) < len(masses) < len(rows)
    assert statistics["values"]["mass"] == {
        "galaxies": len(known), "missing": len(rows) - len(known), "mean": pytest.approx(known.sum() / len(known)),
        "standard_deviation": pytest.approx(math.sqrt(((known - known.mean()) ** 2).sum() / len(known))),
        "smallest": min(known), "largest": max(known),
    }  # fmt: skip
    assert statistics["values"]["nothing"] == {"galaxies": 0, "missing": len(rows)}
    assert statistics["values"]["size"]["galaxies"] == len(rows)


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_batch_by_batch_is_all_at_once(rows, statistics, batch):
    assert counted(rows, batch) == statistics


def test_counts_of_parts_add_up(rows):
    """Each file is counted by itself; in order, the sum is that of all rows, also in the order of its keys."""
    together, whole = (Statistics(FEATURES, TREE, list(VALUES)) for _ in range(2))
    for first in (0, 20, 40):
        part = Statistics(FEATURES, TREE, list(VALUES))
        for split, row in rows[first : first + 20]:
            table = table_of([row])
            part.add(split, table)
            whole.add(split, table)
        together.update(part)
    assert json.dumps(together.to_dict()) == json.dumps(whole.to_dict())


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_rows_does_not_change_a_bit(rows, statistics, seed):
    shuffled = [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))]
    assert json.dumps(counted(shuffled, 50), sort_keys=True) == json.dumps(statistics, sort_keys=True)


def test_plain_data_survives_a_file(statistics):
    assert json.loads(json.dumps(statistics, allow_nan=False)) == statistics


def test_a_dataset_of_pictures_alone():
    features = datasets.Features({"id_str": datasets.Value("string"), "image": datasets.Image()})
    statistics = Statistics(features, None, [])
    rows = [{"id_str": "a", "image": encoded(*SIZES[0])}]
    statistics.add("train", pa.Table.from_pylist(rows, schema=features.arrow_schema))
    found = statistics.to_dict()
    assert found["galaxies"] == {"train": 1}
    assert (found["votes"], found["questions"], found["classes"], found["values"]) == ({}, {}, {}, {})
    assert found["inconsistent"] == {"galaxies": 0, "questions": {}}
