"""A mixture has every dataset and class in its share, every galaxy in its turn, and does not know how it is dealt out."""

import io
import time

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import chisquare

from hf_galaxy import load_tree
from hf_galaxy.data.galaxies import Galaxies
from hf_galaxy.data.views import Framing
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.dataset import open_dataset
from hf_galaxy.training.augmentation import Augmentation
from hf_galaxy.training.mixture import BLOCK, Mixture, balanced, mixed
from hf_galaxy.training.sequence import ProcessShard, TrainingSequence, training_batches
from hf_galaxy.training.targets.classes import Classes
from hf_galaxy.training.targets.votes import Votes
from tests.galaxies import Rows, jpeg_bytes, published

FRAMING = Framing(16)
BOTH = load_tree(["gz_rings", "gz_cosmic_dawn"])


def drawn(count, first=0, tree="gz_rings"):
    """Galaxies whose number stands in the votes of the tree's first answer."""
    columns = {column: [0] * count for column in load_tree(tree).columns}
    columns[load_tree(tree).columns[0]] = list(range(first, first + count))
    pictures = [{"bytes": jpeg_bytes(first + i), "path": None} for i in range(count)]
    rows = datasets.Dataset.from_dict({"image": pictures} | columns).cast_column("image", datasets.Image())
    return Galaxies(rows, FRAMING, Votes(BOTH))


@pytest.fixture(scope="module")
def two():
    """100 galaxies with votes on rings, and 37 with those of another campaign."""
    return [drawn(100, first=1), drawn(37, first=1001, tree="gz_cosmic_dawn")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A published dataset."""
    folder = tmp_path_factory.mktemp("dataset")
    published(Rows(120), folder)
    return folder


def seen_in(mixture, positions):
    return np.array([mixture.row(p) for p in positions])


@pytest.mark.parametrize("weights", [[1], [3, 1], [0.2, 0.3, 0.5], [1, 1e-3, 7, 1], list(np.geomspace(1, 1e-5, 60))])
def test_every_part_has_its_share_of_every_beginning(two, weights):
    parts = [TrainingSequence(two[i % 2], 0, part=i) for i in range(len(weights))]
    mixture, shares = Mixture(parts, weights), np.array(weights) / sum(weights)
    most = (1 + (1 / np.arange(1, len(weights) + 1)).sum()) / 2
    for blocks in (1, 2, 3, 10, 77, 1001, 123_456_789):
        counts = mixture.before(blocks * BLOCK)
        assert sum(counts) == blocks * BLOCK
        assert abs(counts - shares * blocks * BLOCK).max() <= most
    for position in (5, 1500, 70_000 * BLOCK + 600):
        assert abs(mixture.before(position) - shares * position).max() <= most + BLOCK / 4
        step = np.subtract(mixture.before(position + 1), mixture.before(position))
        assert step.tolist() == np.eye(len(weights))[mixture.row(position)[0]].tolist()


def test_shares_never_shrink_from_block_to_block(two):
    rng = np.random.default_rng(0)
    for _ in range(20):
        weights = rng.lognormal(0, 3, size=rng.integers(2, 40))
        mixture = Mixture([TrainingSequence(two[0], 0, part=i) for i in range(len(weights))], list(weights))
        counts = np.array([mixture._apportion(total) for total in range(3000, 3300)])
        assert set(np.unique(np.diff(counts, axis=0))) <= {0, 1}


def test_every_row_of_a_part_comes_once_before_any_comes_twice(two):
    mixture = mixed(two, [1, 2.5], seed=4)
    seen = seen_in(mixture, range(3 * BLOCK + 17))
    for part, galaxies in enumerate(two):
        rows, n = seen[seen[:, 0] == part, 1], len(galaxies)
        whole = rows[: len(rows) // n * n].reshape(-1, n)
        assert len(whole) > 5
        assert (np.sort(whole) == np.arange(n)).all()
        assert (whole[0] != whole[1]).any()


def test_parts_stand_in_random_order_within_a_block(two):
    owners = seen_in(mixed(two, [1, 1], seed=0), range(8 * BLOCK))[:, 0]
    assert chisquare(np.bincount(owners[:-1] * 2 + owners[1:])).pvalue > 1e-3, "the next does not depend on the last"
    assert (owners[:BLOCK] != owners[BLOCK : 2 * BLOCK]).any()
    assert (owners != seen_in(mixed(two, [1, 1], seed=1), range(8 * BLOCK))[:, 0]).any()


def test_a_mixture_of_one_is_its_training_sequence(two):
    alone, mixture = TrainingSequence(two[0], 7), mixed(two[:1], [3.0], seed=7)
    positions = [0, 5, 99, 100, 5000]
    one, other = alone[positions], mixture[positions]
    assert one.keys() == other.keys() == {"pixels", "votes", "affine"}
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_position_has_the_galaxy_of_its_row_and_no_votes_for_the_others_questions(two):
    mixture = mixed(two, [1, 1], seed=0, augmentation=Augmentation(flip=False))
    batch, rings = mixture[list(range(40, 80))], len(load_tree("gz_rings").columns)
    assert batch["votes"].shape == (40, len(BOTH.columns))
    owners = []
    for b, position in enumerate(range(40, 80)):
        part, row = mixture.row(position)
        own = two[part][[row]]
        assert torch.equal(batch["pixels"][b], own["pixels"][0])
        assert torch.equal(batch["votes"][b], own["votes"][0])
        assert batch["votes"][b].sum() == (1 if part == 0 else 1001) + row
        assert batch["votes"][b, slice(rings, None) if part == 0 else slice(rings)].sum() == 0
        owners.append(part)
    assert 0 < sum(owners) < 40
    assert len(batch["affine"].unique(dim=0)) == 40
    np.testing.assert_array_equal(batch["affine"], mixture.parts[1].with_views({}, list(range(40, 80)))["affine"])


def batches_of(mixture, steps, share=ProcessShard(), workers=0):  # noqa: B008
    return list(training_batches(mixture, 16, steps, share, workers))


@pytest.mark.parametrize(("processes", "accumulate", "workers"), [(2, 1, 0), (1, 2, 1), (2, 2, 2)])
def test_how_it_is_dealt_out_does_not_change_what_is_seen(two, processes, accumulate, workers):
    whole = batches_of(mixed(two, [2, 1], seed=1), range(62, 66))  # over the end of a block
    shares = [
        batches_of(mixed(two, [2, 1], seed=1), range(62, 66), ProcessShard(rank, processes, accumulate), workers)
        for rank in range(processes)
    ]
    for step in range(4):
        parts = [shares[r][step * accumulate + a] for a in range(accumulate) for r in range(processes)]
        for name in ("pixels", "affine", "votes"):
            assert torch.equal(torch.cat([part[name] for part in parts]), whole[step][name])


@pytest.mark.parametrize("start", [1, 64, 100])
def test_a_run_goes_on_where_it_stopped(two, start):
    walked = mixed(two, [2, 1], seed=1)
    for position in range(start * 16):
        walked.row(position)
    for one, other in zip(
        batches_of(walked, range(start, start + 2)),
        batches_of(mixed(two, [2, 1], seed=1), range(start, start + 2)),
        strict=True,
    ):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_balancing_is_between_the_galaxies_as_they_are_and_equal_classes(two):
    sizes = [70, 25, 5]
    strata = np.random.default_rng(0).permutation(np.repeat([3, 1, 8], sizes))
    for power in (0, 0.5, 1):
        mixture = mixed(two[:1], [1], seed=0, strata=[strata], power=power)
        rows = seen_in(mixture, range(20 * BLOCK))[:, 1]
        expected = np.array(sizes) ** (1.0 - power)
        counts = np.array([(strata[rows] == kind).sum() for kind in (3, 1, 8)])
        np.testing.assert_allclose(counts / counts.sum(), expected / expected.sum(), atol=2 / (20 * BLOCK))
        # Any batch is a fair sample of these shares, not only the whole.
        thirds = [(strata[rows[i::3]] == 3).sum() for i in range(3)]
        assert chisquare(thirds, [len(rows[i::3]) * counts[0] / len(rows) for i in range(3)]).pvalue > 1e-3
        for kind in (3, 1, 8):
            times = np.bincount(rows, minlength=100)[strata == kind]
            assert times.max() - times.min() <= 1
    rows, shares = balanced(np.array([4, 2, 4, 4]), 1)
    assert ([r.tolist() for r in rows], shares) == ([[1], [0, 2, 3]], [0.5, 0.5])


def test_weights_of_datasets_are_shared_out_to_their_strata(two):
    strata = [np.repeat([0, 1], [90, 10]), np.zeros(37, int)]
    mixture = mixed(two, [3, 1], seed=0, strata=strata, power=1)
    seen = seen_in(mixture, range(4 * BLOCK))
    assert np.bincount(seen[:, 0]).tolist() == [1.5 * BLOCK, 1.5 * BLOCK, BLOCK]
    batch = mixture[list(range(64))]  # the strata of a dataset are read together, and stand where they belong
    for b in range(64):
        part, row = mixture.row(b)
        assert batch["votes"][b].sum() == (1001 if part == 2 else 1) + row


def test_hundreds_of_strata_stay_cheap(two):
    mixture = mixed(two[:1], [1], seed=0, strata=[np.arange(100)], power=1)
    start = time.process_time()
    seen_in(mixture, range(10_000))
    assert time.process_time() - start < 2  # decoding so many takes as long


def test_labels_and_pictures_of_several_sizes():
    features = datasets.Features({"image": datasets.Image(), "kind": datasets.ClassLabel(names=["a", "b"])})
    parts = []
    for kind, side in enumerate((40, 64)):
        file = io.BytesIO()
        Image.new("RGB", (side, side), (0, 100 * kind, 0)).save(file, "PNG")
        columns = {"image": [{"bytes": file.getvalue(), "path": None}] * 6, "kind": [kind] * 6}
        parts.append(Galaxies(datasets.Dataset.from_dict(columns, features), FRAMING, Classes("kind", ("a", "b"))))
    batch = mixed(parts, [1, 1], seed=0)[list(range(20))]
    assert batch["pixels"].shape == (20, 3, 16, 16)
    assert set(batch["labels"].tolist()) == {0, 1}
    assert (batch["pixels"][:, 1, 8, 8] == 100 * batch["labels"]).all()
    with pytest.raises(BadInput, match="'kind' has the classes a, b, not b, a"):
        Galaxies(parts[0].rows, FRAMING, Classes("kind", ("b", "a")))


@pytest.mark.parametrize("weights", [[1, 0], [1], [1, 2, 3], [1, -1], [1, float("nan")], [1, float("inf")]])
def test_weights_that_are_none_are_refused(two, weights):
    with pytest.raises(BadInput, match=r"--weights 1.*one number above 0 for each of 2 datasets"):
        mixed(two, weights, seed=0)


def test_what_cannot_be_mixed_is_refused(two, folder):
    with pytest.raises(BadInput, match=r"--balance 1.5: .*\[0, 1\]"):
        mixed(two, [1, 1], 0, strata=[np.zeros(100), np.zeros(37)], power=1.5)
    other = Galaxies(two[1].rows, Framing(24), Votes(BOTH))
    with pytest.raises(BadInput, match="the same framing"):
        mixed([two[0], other], [1, 1], 0)
    stream = Galaxies(open_dataset(str(folder), streaming=True)["train"], FRAMING, Votes(Rows.tree))
    with pytest.raises(BadInput, match="a stream cannot be balanced"):
        mixed([stream], [1], 0, strata=[np.arange(len(stream)) % 2])
    with pytest.raises(BadInput, match="all are streamed or none"):
        mixed([Galaxies(two[0].rows, FRAMING, Votes(Rows.tree)), stream], [1, 1], 0)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("processes", [1, 2])
def test_streams_are_mixed_and_each_process_reads_its_own_part(folder, processes, workers):
    splits = open_dataset(str(folder), streaming=True)
    galaxies = [Galaxies(splits[split], FRAMING, Votes(Rows.tree)) for split in ("train", "test")]
    per_process = [len(g) // processes for g in galaxies]
    names = [set(rows[:]["ring_yes"].to_pylist()) for rows in (splits["train"], splits["test"])]
    seen = []
    for rank in range(processes):
        share = ProcessShard(rank, processes)
        mixture = mixed(galaxies, list(map(len, galaxies)), 0, shard=share, batch_size=16)
        steps = range(0, 20 * processes)
        batches = batches_of(mixture, steps, share, workers)
        again = batches_of(
            mixed(galaxies, list(map(len, galaxies)), 0, shard=share, batch_size=16), range(9, 11), share
        )
        assert all(torch.equal(one[k], other[k]) for one, other in zip(batches[9:11], again, strict=True) for k in one)
        seen.append([g for batch in batches for g in batch["votes"][:, 0].tolist()])
    for part, n in enumerate(per_process):
        epochs = [[g for g in of_rank if g in names[part]][:n] for of_rank in seen]
        together = [g for epoch in epochs for g in epoch]
        assert len(together) == len(set(together)) == n * processes


def test_a_question_has_columns_for_all_answers_or_none(two):
    rows = two[0].rows.remove_columns("ring_no")
    with pytest.raises(BadInput, match="question ring has no column for its answers ring_no"):
        Galaxies(rows, FRAMING, Votes(BOTH))
    with pytest.raises(BadInput, match="votes for a question of tree gz_hubble"):
        Galaxies(two[0].rows, FRAMING, Votes(load_tree("gz_hubble")))
