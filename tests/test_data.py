"""Splits never move, what is written is what is loaded, and every galaxy is seen as often as it should be."""

import io

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from hf_galaxy import load_tree
from hf_galaxy.data import (
    SPLITS,
    Galaxies,
    Share,
    TrainingSequence,
    check_tree_columns,
    class_names,
    evaluation_batches,
    labels_of,
    open_dataset,
    row_features,
    rows_of,
    split_of,
    training_batches,
    votes_of,
    write_dataset,
)
from hf_galaxy.errors import BadInput
from hf_galaxy.views import Framing

TREE = load_tree("gz_rings")


def jpeg(seed):
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def rows(number):
    for i in range(number):
        yield {
            "id_str": f"galaxy-{i}", "image": {"bytes": jpeg(i), "path": f"{i}.jpg"}, "ring_yes": i, "ring_no": 2 * i,
            "kind": ["a", "b"][i % 2], "ra": i / 7,
        }  # fmt: skip


@pytest.fixture
def written(tmp_path):
    features = row_features(TREE, {"kind": ["a", "b"]}, {"ra": "float64"})
    return write_dataset(rows(300), features, tmp_path), tmp_path


def test_the_split_of_a_galaxy_is_fixed_for_ever():
    assert [split_of(name) for name in ("587722952767439450", "mock-gz2-000000", "J000411.19+020924.0")] == [
        "train", "train", "test"
    ]  # fmt: skip


def test_split_shares():
    splits = [split_of(str(i)) for i in range(20000)]
    for split, share in SPLITS.items():
        assert splits.count(split) / len(splits) == pytest.approx(share, abs=0.01)


def test_what_is_written_is_what_load_dataset_reads(written):
    published, folder = written
    loaded = datasets.load_dataset(str(folder))
    assert {split: len(part) for split, part in loaded.items()} == {
        s: i.num_examples for s, i in published.splits.items()
    }
    assert sum(len(part) for part in loaded.values()) == 300
    for split, part in loaded.items():
        assert part.features == published.features
        raw = part.cast_column("image", datasets.Image(decode=False))
        for row in raw.select(range(5)):
            assert split_of(row["id_str"]) == split
            i = int(row["id_str"].split("-")[1])
            assert row["image"]["bytes"] == jpeg(i), "the original bytes"
            assert (row["ring_yes"], row["ring_no"], row["kind"], row["ra"]) == (i, 2 * i, i % 2, i / 7)
    assert published.sums == {"ring_yes": 300 * 299 // 2, "ring_no": 300 * 299}
    assert published.class_counts == {"kind": {"a": 150, "b": 150}}


def test_streaming_gives_the_same_galaxies(written):
    _, folder = written
    stream = datasets.load_dataset(str(folder), split="test", streaming=True)
    whole = datasets.load_dataset(str(folder), split="test")
    assert [row["id_str"] for row in stream] == whole["id_str"][:]


def test_messages_name_what_is_missing(written, tmp_path):
    _, folder = written
    opened = open_dataset(str(folder))
    with pytest.raises(BadInput, match="no split 'dev', only train"):
        rows_of(opened, "dev", "x")
    with pytest.raises(BadInput, match=r"lacks 30 of the 30.*smooth-or-featured-gz2_smooth"):
        check_tree_columns(opened["train"], load_tree("gz2"), "x")
    with pytest.raises(BadInput, match="no class label 'ring'; its label columns: kind"):
        class_names(opened["train"], "ring", "x")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(BadInput, match="no Parquet files"):
        open_dataset(str(tmp_path / "nothing"))
    with pytest.raises(BadInput, match="nobody/nothing"):
        open_dataset("nobody/nothing")


def galaxies_of(folder, target, split="train"):
    return Galaxies(open_dataset(str(folder))[split], Framing(32), target)


def test_batches_hold_votes_in_the_trees_order_or_labels(written):
    _, folder = written
    batch = galaxies_of(folder, TREE)[[3, 1]]
    assert batch["pixels"].shape == (2, 3, 32, 32)
    assert (batch["votes"][:, 1] == 2 * batch["votes"][:, 0]).all()
    np.testing.assert_array_equal(batch["votes"], votes_of(open_dataset(str(folder))["train"], TREE)[[3, 1]])
    assert set(galaxies_of(folder, "kind")[[0, 1, 2]]["labels"].tolist()) <= {0, 1}


def test_missing_votes_are_no_votes_and_missing_labels_are_refused(tmp_path):
    gaps = [row | {"ring_yes": None, "kind": None} if i % 3 == 0 else row for i, row in enumerate(rows(30))]
    (tmp_path / "data").mkdir()
    features = row_features(TREE, {"kind": ["a", "b"]}, {"ra": "float64"})
    datasets.Dataset.from_list(gaps, features=features).to_parquet(tmp_path / "data/train.parquet")
    opened = open_dataset(str(tmp_path))["train"]
    assert votes_of(opened, TREE)[[0, 1, 3]].tolist() == [[0, 0], [1, 2], [0, 6]]
    assert Galaxies(opened, Framing(32), TREE)[[0, 1]]["votes"].tolist() == [[0, 0], [1, 2]]
    with pytest.raises(BadInput, match="10 galaxies have no 'kind'"):
        labels_of(opened, "kind", "x")


def test_each_epoch_sees_every_galaxy_once_in_another_order(written):
    _, folder = written
    sequence = TrainingSequence(galaxies_of(folder, TREE), seed=0)
    n = len(sequence.galaxies)
    epochs = [[sequence.row(p) for p in range(e * n, (e + 1) * n)] for e in range(3)]
    assert all(sorted(epoch) == list(range(n)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert [sequence.row(p) for p in range(n)] == epochs[0], "looking back gives the same"


@pytest.mark.parametrize(("processes", "accumulate"), [(2, 1), (1, 2), (2, 2)])
def test_shares_of_a_batch_make_up_the_whole_batch(written, processes, accumulate):
    _, folder = written
    sequence = TrainingSequence(galaxies_of(folder, TREE), seed=0)
    whole = list(training_batches(sequence, 16, range(3, 5), Share(), workers=0))
    shares = [
        list(training_batches(sequence, 16, range(3, 5), Share(rank, processes, accumulate), workers=1))
        for rank in range(processes)
    ]
    assert all(len(share) == 2 * accumulate for share in shares)
    for step in range(2):
        parts = [shares[r][step * accumulate + a] for a in range(accumulate) for r in range(processes)]
        for name in ("pixels", "affine", "votes"):
            assert torch.equal(torch.cat([part[name] for part in parts]), whole[step][name])
    with pytest.raises(BadInput, match="not divisible"):
        Share(0, 2, 2).micro_batch(15)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_evaluation_sees_every_galaxy_once(written, processes):
    _, folder = written
    galaxies = galaxies_of(folder, TREE, "test")
    seen = [
        tuple(votes.tolist())
        for rank in range(processes)
        for batch in evaluation_batches(galaxies, 16, Share(rank, processes), workers=0)
        for votes in batch["votes"]
    ]
    assert sorted(seen) == sorted(map(tuple, votes_of(open_dataset(str(folder))["test"], TREE).tolist()))
