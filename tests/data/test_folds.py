"""The folds of a dataset test each of its galaxies once, and which one tests it depends on its name alone."""

import hashlib
import itertools
import os
import runpy
import sys

import datasets
import numpy as np
import pytest

from hf_galaxy.data.galaxies import Galaxies
from hf_galaxy.data.schema import SPLITS
from hf_galaxy.data.splits import FOLDS, in_fold
from hf_galaxy.data.views import Framing
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.dataset import open_dataset
from hf_galaxy.reports.run_record import RunRecord
from hf_galaxy.training.settings import Settings
from hf_galaxy.training.sources import open_sources
from hf_galaxy.training.targets.votes import Votes
from tests.conftest import ROOT
from tests.galaxies import Rows, published
from tests.training.runs import run

GALAXIES = 400


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A published dataset."""
    folder = tmp_path_factory.mktemp("dataset")
    published(Rows(GALAXIES), folder)
    return folder


@pytest.fixture(params=[False, True], ids=["copied", "streamed"])
def streaming(request):
    return request.param


def names_in(rows):
    return rows.select_columns(["id_str"]).with_format("arrow")[:]["id_str"].to_pylist()


def test_every_galaxy_is_tested_in_one_fold_and_the_shares_are_those_of_published_splits(folder, streaming):
    opened = open_dataset(str(folder), streaming=streaming)
    folds = {k: {s: names_in(rows) for s, rows in in_fold(opened, k, "x").items()} for k in range(1, FOLDS + 1)}
    everything = sorted(f"galaxy-{i}" for i in range(GALAXIES))
    assert sorted(itertools.chain.from_iterable(fold["test"] for fold in folds.values())) == everything
    for fold in folds.values():
        assert tuple(fold) == ("train", "validation", "test")
        assert sorted(itertools.chain.from_iterable(fold.values())) == everything
        for split, share in SPLITS.items():
            assert abs(len(fold[split]) - share * GALAXIES) < 4 * (share * (1 - share) * GALAXIES) ** 0.5
    validating = [set(fold["validation"]) for fold in folds.values()]
    assert not set.intersection(*validating), "no galaxy is kept from all training"
    assert len(set.union(*validating)) > 2 * GALAXIES / 8, "as a hash that is not of the fold would"


def test_the_fold_is_a_hash_of_the_name_whatever_the_rows_and_their_splits_are(folder):
    opened = open_dataset(str(folder))
    whole = in_fold(opened, 2, "x")
    for name in names_in(whole["test"]):
        digest = hashlib.sha256(f"fold of {name}".encode()).hexdigest()
        assert 1 / 5 <= int(digest[:16], 16) / 2**64 < 2 / 5
    other = {"train": opened["test"].select(np.arange(0, 60, 2)), "test": opened["validation"], "more": opened["train"]}
    few = in_fold(other, 2, "x")
    pooled = names_in(other["train"]) + names_in(other["test"])
    for split, rows in few.items():
        assert names_in(rows) == [name for name in pooled if name in set(names_in(whole[split]))]


def test_rows_of_a_fold_hold_what_was_published_of_their_galaxy(folder, streaming):
    fold = in_fold(open_dataset(str(folder), streaming=streaming), 4, "x")
    for rows in fold.values():
        galaxies = Galaxies(rows, Framing(32), Votes(Rows.tree))
        numbers = [int(name.removeprefix("galaxy-")) for name in names_in(rows)]
        for indices in ([len(rows) - 1, 0, 3], list(range(7))):
            votes = galaxies[indices]["votes"].tolist()
            assert votes == [[numbers[i], 2 * numbers[i]] for i in indices]


def test_a_validation_split_that_was_taken_from_the_train_split_is_pooled_once(tmp_path, streaming):
    (tmp_path / "data").mkdir()
    rows = [Rows(60).row(i).columns for i in range(60)]
    datasets.Dataset.from_list(rows, features=Rows.features).to_parquet(tmp_path / "data/train.parquet")
    opened = open_dataset(str(tmp_path), streaming=streaming)
    assert set(opened) == {"train", "validation"}
    fold = in_fold(opened, 1, "x")
    assert sorted(itertools.chain.from_iterable(map(names_in, fold.values()))) == sorted(Rows(60).ids)
    drawn = fold["train"][[5, 0]]
    assert [f"galaxy-{votes}" for votes in drawn["ring_yes"].to_pylist()] == drawn["id_str"].to_pylist()


def test_what_cannot_be_divided_is_refused(folder):
    opened = open_dataset(str(folder))
    with pytest.raises(BadInput, match=r"--dataset x: has none of the splits train, validation, test, only dev"):
        in_fold({"dev": opened["train"]}, 1, "x")
    with pytest.raises(BadInput, match="--fold 1 leaves none of its 2 galaxies for"):
        in_fold({"train": opened["train"].select(np.arange(2))}, 1, "x")
    with pytest.raises(BadInput, match="same columns, of the same types"):
        in_fold(opened | {"test": opened["test"].select_columns(["id_str", "image"])}, 1, "x")
    settings = dict(dataset=(str(folder),), backbone="test_convnext", out=folder / "none", epochs=1)
    for fold in (0, FOLDS + 1):
        with pytest.raises(BadInput, match=f"--fold {fold}: is the number of a fold, 1 to 5"):
            Settings(**settings, fold=fold).check()


def test_a_run_is_measured_again_on_the_splits_of_its_fold_from_wherever_and_by_any_name(folder, tmp_path, monkeypatch):
    typed = os.path.relpath(folder)
    settings = dict(dataset=(typed,), task="classes", label="kind", epochs=1, fold=3)
    sources = open_sources(Settings(**settings, out=tmp_path / "none"))
    expected = in_fold(open_dataset(str(folder)), 3, "x")
    for split, (rows,) in sources.splits.items():
        assert names_in(rows) == names_in(expected[split])
    record = run(tmp_path / "run", **settings)
    assert record.settings["fold"] == 3
    assert record.dataset["splits"] == {split: len(rows) for split, rows in expected.items()}
    assert "| fold | 3 |" in (tmp_path / "run/README.md").read_text()
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    for named in ([], ["--dataset", str(folder)], ["--dataset", "link/"]):
        command = ["evaluate", "--run", str(tmp_path / "run"), "--workers", "0", "--cpu", *named]
        monkeypatch.setattr(sys, "argv", command)
        runpy.run_path(str(ROOT / "scripts/evaluate.py"), run_name="__main__")
    after = RunRecord.load(tmp_path / "run").results
    for again in (after["test"], after[f"{folder}, test"], after["link/, test"]):
        assert again["confusion"] == record.results["test"]["confusion"]
        assert again["loss"]["model"] == pytest.approx(record.results["test"]["loss"]["model"], rel=1e-5)
