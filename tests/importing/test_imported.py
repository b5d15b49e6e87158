"""An imported dataset has the rows that publishing would give, in the same splits and order, and is made once."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import datasets
import numpy as np
import pytest

from hf_galaxy.data.card_facts import DatasetFacts
from hf_galaxy.data.targets import column_of
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.dataset import open_dataset
from hf_galaxy.importing.imported import import_source, open_imported
from tests.galaxies import Rows, published


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache" / "hf_galaxy"


def tables(opened):
    return {
        split: rows.with_format("arrow")[list(range(len(rows)))].combine_chunks().to_pylist()
        for split, rows in opened.items()
    }


@pytest.mark.parametrize("streaming", [False, True])
def test_its_rows_are_those_of_the_published_dataset(tmp_path, streaming):
    source = Rows(60)
    published(source, tmp_path / "published")
    expected = tables(open_dataset(str(tmp_path / "published")))
    assert tables(open_imported(source, "catalogue.csv", streaming=streaming)) == expected
    assert set(map(len, expected.values())) != {0}


def test_it_is_made_once_even_by_several_at_a_time(cache, caplog):
    source = Rows(40)
    made = []
    source.row = lambda i: made.append(i) or Rows.row(source, i)
    source.notes = ["3 rows have no picture."]
    caplog.set_level("INFO")
    with ThreadPoolExecutor(4) as readers:
        opened = list(readers.map(lambda _: open_imported(source, "data/catalogue.csv"), range(4)))
    assert sorted(made) == list(range(40))
    assert [len(column_of(each["train"], "id_str")) for each in opened] == [len(opened[0]["train"])] * 4
    assert len(list(cache.glob("catalogue.csv-*"))) == 1
    assert [r.getMessage() for r in caplog.records].count("data/catalogue.csv: 3 rows have no picture.") == 4
    (folder,) = cache.glob("catalogue.csv-*")
    assert DatasetFacts.by(str(folder)).title == "catalogue.csv"
    open_imported(Rows(41), "data/catalogue.csv")  # other rows
    assert len(list(cache.glob("catalogue.csv-*"))) == 2


def test_given_splits_stay():
    splits = ["test" if i % 3 else "train" for i in range(39)] + ["extra"]
    opened = open_imported(Rows(40), "x", splits)
    assert {split: len(rows) for split, rows in opened.items()} == {"train": 13, "test": 26, "extra": 1}
    assert set(column_of(opened["test"], "id_str").to_pylist()) == {f"galaxy-{i}" for i in range(39) if i % 3}


def test_a_row_that_cannot_be_made_leaves_no_import(cache):
    source = Rows(40)

    def row(i):
        raise BadInput(f"row {i} is bad")

    source.row = row
    with pytest.raises(BadInput, match=r"row \d+ is bad"):
        open_imported(source, "x")
    assert not [each for each in cache.iterdir() if each.is_dir()]


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "file" / "cache")
    with pytest.raises(BadInput, match=r"x: its import cannot be written: Not a directory .* set HF_HOME"):
        open_imported(Rows(4), "x")


def test_a_field_that_is_too_crowded_needs_a_smaller_angle():
    positions = [(0.001 * i, 0.0) for i in range(40)]
    with pytest.raises(BadInput, match=r"^x: .*--same-galaxy-arcsec, such as 1"):
        open_imported(Rows(40, positions=np.array(positions)), "x")
    opened = open_imported(Rows(40, positions=np.array(positions)), "x", arcsec=1)
    assert sum(map(len, opened.values())) == 40


def test_an_import_that_is_lost_says_what_it_was(cache):
    folder = str(import_source(Rows(40), "DataFrame"))
    assert open_dataset(folder)
    shutil.rmtree(folder)
    with pytest.raises(
        BadInput, match=r"DataFrame-\w+: was made of galaxies in memory, .* call with the same galaxies"
    ):
        open_dataset(folder)
