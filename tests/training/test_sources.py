"""Galaxies that a file names are neither learnt from nor validated with, but tests keep them."""

from types import SimpleNamespace

import datasets
import numpy as np
import pytest

from hf_galaxy.errors import BadInput
from hf_galaxy.training.settings import Settings
from hf_galaxy.training.sources import _others, _shuffle_targets, open_sources
from tests.galaxies import Rows, jpeg_bytes, published
from tests.training.runs import assert_bit_equal, run, start, wait_for_checkpoints


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A published dataset of 60 galaxies with a class."""
    folder = tmp_path_factory.mktemp("sources") / "rings"
    folder.mkdir()
    published(Rows(60), folder)
    return folder


def names(sources):
    return {
        split: [name for rows in parts for name in rows.select_columns(["id_str"])[:]["id_str"].to_pylist()]
        for split, parts in sources.splits.items()
    }


def opened(folder, leave_out=None, **settings):
    settings = {"dataset": (str(folder),), "task": "classes", "label": "kind"} | settings
    return open_sources(Settings(**settings, out=folder / "none", leave_out=leave_out))


def written(path, ids, other="split,how\n", rest="train,name"):
    path.write_text("dataset,id_str," + other + "".join(f"elsewhere,{name},{rest}\n" for name in ids))
    return path


def test_images_are_for_the_tables_among_the_datasets(folder, tmp_path):
    (tmp_path / "cutouts").mkdir()
    for i in range(40):
        (tmp_path / f"cutouts/{i}.jpg").write_bytes(jpeg_bytes(i))
    table = tmp_path / "survey.csv"
    table.write_text("name,file,kind\n" + "".join(f"g{i},{i}.jpg,{'ab'[i % 2]}\n" for i in range(40)))
    images = {"images": (tmp_path / "cutouts",)}
    found = names(opened(folder, dataset=(str(table), str(folder)), **images))
    assert {name for of_split in found.values() for name in of_split} == {f"g{i}" for i in range(40)} | {
        f"galaxy-{i}" for i in range(60)
    }
    with pytest.raises(BadInput, match=r"--images .*cutouts: is for a table of galaxies; .* leave --images out"):
        opened(folder, dataset=(str(folder), str(folder)), **images)


@pytest.mark.parametrize("streaming", [False, True])
def test_named_galaxies_are_in_no_split_but_test(folder, tmp_path, streaming, caplog):
    whole = names(opened(folder, streaming=streaming))
    assert len(whole["test"]) > 1
    gone = {whole["train"][0], whole["train"][3], whole["validation"][-1], whole["test"][1]}
    caplog.set_level("INFO", "hf_galaxy")
    caplog.clear()
    file = written(tmp_path / "overlap.csv", [*gone, *gone, "stranger"])
    left = names(opened(folder, file, streaming=streaming))
    assert left["train"] == [name for name in whole["train"] if name not in gone]
    assert left["validation"] == [name for name in whole["validation"] if name not in gone]
    assert left["test"] == whole["test"]
    assert caplog.messages[0] == f"2 of the {len(whole['train'])} galaxies of split train of {folder} are left out"
    assert caplog.messages[1].startswith(f"1 of the {len(whole['validation'])} galaxies of split validation")
    assert caplog.messages[-1] == "galaxies: " + ", ".join(f"{len(found)} {split}" for split, found in left.items())


def test_a_subset_is_taken_of_what_is_left(folder, tmp_path):
    whole = names(opened(folder))["train"]
    file = written(tmp_path / "overlap.csv", whole[:5])
    half = names(opened(folder, file, subset=0.5))["train"]
    assert len(half) == round((len(whole) - 5) / 2)
    assert not set(half) & set(whole[:5])


def test_names_are_texts_as_they_stand(tmp_path):
    (tmp_path / "data").mkdir()
    for split in ("train", "validation", "test"):
        rows = {"id_str": ["007", "7", "NA", "1e3", "1000", "588297864731164766"], "kind": ["a", "b"] * 3}
        rows["image"] = [{"bytes": jpeg_bytes(), "path": "x.jpg"}] * 6
        features = datasets.Features(
            {"id_str": datasets.Value("string"), "kind": datasets.Value("string"), "image": datasets.Image()}
        )
        datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / f"data/{split}.parquet")
    file = written(tmp_path / "gone.csv", ["007", "NA", "1e3"])
    assert names(opened(tmp_path, file))["train"] == ["7", "1000", "588297864731164766"]
    file.write_text("id_str\n588297864731164766\n1000\n")
    assert names(opened(tmp_path, file))["train"] == ["007", "7", "NA", "1e3"]


def test_what_is_no_list_of_names_is_refused(folder, tmp_path):
    with pytest.raises(
        BadInput, match=r"--leave-out .*none\.csv: is no CSV file with a column id_str \(.*No such file"
    ):
        opened(folder, tmp_path / "none.csv")
    for content in (b"", b"name,split\na,train\n", b"\xff\xfe\x00\x01", b'id_str\n"a\nb'):
        (tmp_path / "bad.csv").write_bytes(content)
        with pytest.raises(BadInput, match=r"--leave-out .*bad\.csv: is no CSV file with a column id_str"):
            opened(folder, tmp_path / "bad.csv")
    with pytest.raises(BadInput, match="is no CSV file"):
        opened(folder, tmp_path)
    whole = names(opened(folder))
    for split in ("train", "validation"):
        file = written(tmp_path / "all.csv", whole[split])
        with pytest.raises(BadInput, match=rf"--leave-out .*all\.csv: leaves none of split {split} of "):
            opened(folder, file)


def test_a_run_records_what_it_left_out_and_counts_what_it_saw(mock_dataset, tmp_path):
    whole = names(opened(mock_dataset, label="mock_class"))
    file = written(tmp_path / "overlap.csv", whole["train"][:9] + whole["test"][:3])
    record = run(
        tmp_path / "run", dataset=(str(mock_dataset),), task="classes", label="mock_class", epochs=1, leave_out=file
    )
    assert record.settings["leave_out"] == str(file)
    assert record.dataset["splits"]["train"] == len(whole["train"]) - 9
    assert record.dataset["splits"]["test"] == len(whole["test"])


def targets_of(sources, split):
    """(N, ...) the targets of a split, and its tables without them."""
    rows = sources.splits[split][0]
    table = rows.select_columns(["id_str", *sources.target.columns_of(rows)]).with_format("arrow")[:]
    (target,) = sources.target.tensors(table, rows.features).values()
    return target.numpy(), table["id_str"].to_pylist()


@pytest.mark.parametrize("kind", ["classes", "votes"])
def test_shuffled_targets_are_those_of_other_galaxies_of_the_split(folder, mock_dataset, kind):
    options = (
        {} if kind == "classes" else {"dataset": (str(mock_dataset),), "task": "votes", "label": None, "min_votes": 3}
    )
    plain, mixed, again, other = (
        opened(folder, **options, shuffle_targets=shuffled, seed=seed)
        for shuffled, seed in ((False, 1), (True, 1), (True, 1), (True, 2))
    )
    for split in ("train", "validation", "test"):
        (true, galaxies), (ours, same), (repeated, _), (seeded, _) = (
            targets_of(each, split) for each in (plain, mixed, again, other)
        )
        assert galaxies == same
        if split == "test":
            np.testing.assert_array_equal(ours, true)
            continue
        order = np.argsort([str(row) for row in true.tolist()]), np.argsort([str(row) for row in ours.tolist()])
        np.testing.assert_array_equal(true[order[0]], ours[order[1]])
        np.testing.assert_array_equal(ours, repeated)
        assert (ours != true).any()
        assert (ours != seeded).any()
    rows, target = mixed.splits["train"][0], mixed.target
    parts = [
        each.splits["train"][0].select_columns(["image"]).with_format("arrow")[[3, 0, 5]] for each in (mixed, plain)
    ]
    assert parts[0].equals(parts[1]), "pictures are as they are"
    assert (
        rows.select(np.array([4, 1]))
        .select_columns(target.columns_of(rows))[:]
        .equals(rows.select_columns(target.columns_of(rows))[[4, 1]])
    )


@pytest.mark.parametrize("size", [2, 3, 50])
def test_none_keeps_its_own_target(size):
    drawn = {tuple(_others(size, np.random.default_rng(seed)).tolist()) for seed in range(40)}
    for others in drawn:
        assert sorted(others) == list(range(size))
        assert (np.array(others) != np.arange(size)).all()
    assert len(drawn) == {2: 1, 3: 2, 50: 40}[size]


def test_a_galaxy_alone_in_its_split_has_no_target_of_another_one(folder):
    sources = opened(folder)
    splits = sources.splits | {"validation": [sources.splits["validation"][0].select(np.array([0]))]}
    settings = SimpleNamespace(dataset=("rings",), seed=1)
    with pytest.raises(BadInput, match="split validation of rings has one galaxy"):
        _shuffle_targets(settings, splits, sources.target, list(sources.strata or []))


def test_a_subset_of_shuffled_targets_is_stratified_by_them(folder):
    whole, half = (opened(folder, shuffle_targets=True, subset=share) for share in (1.0, 0.5))
    for sources in (whole, half):
        np.testing.assert_array_equal(targets_of(sources, "train")[0], sources.strata[0])
    target_by_galaxy = dict(zip(targets_of(whole, "train")[1], targets_of(whole, "train")[0], strict=True))
    assert all(target_by_galaxy[name] == label for label, name in zip(*targets_of(half, "train"), strict=True))


def test_a_control_resumes_exactly_and_says_what_it_is(mock_dataset, tmp_path):
    options = {"dataset": (str(mock_dataset),), "shuffle_targets": True, "epochs": 3}
    record = run(tmp_path / "whole", **options)
    started = start(tmp_path / "broken", **options)
    wait_for_checkpoints(1, tmp_path / "broken", started)
    for process in started:
        process.kill()
        process.join()
    run(tmp_path / "broken", **options)
    assert_bit_equal(tmp_path / "whole", tmp_path / "broken")
    assert record.settings["shuffle_targets"]
    assert "**This is a control: each training" in (tmp_path / "whole/README.md").read_text()
    assert record.results["test"]["galaxies"] > 0


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"streaming": True}, "--shuffle-targets: needs random access"),
        ({"train": "head", "start": "somewhere"}, "--shuffle-targets: a backbone that stays as it is"),
    ],
)
def test_a_control_that_makes_no_sense_is_refused(folder, options, why):
    with pytest.raises(BadInput, match=why):
        Settings(
            dataset=(str(folder),), task="classes", label="kind", out=folder / "none", shuffle_targets=True, **options
        ).check()
