"""A subset has its share of every kind of galaxy, lies inside every larger one, and depends on names and seed alone."""

import itertools

import datasets
import numpy as np
import pytest
from scipy.stats import chi2

from hf_galaxy import load_tree
from hf_galaxy.data.splits import strata_of, subset
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.dataset import open_dataset
from hf_galaxy.training.targets.classes import Classes
from hf_galaxy.training.targets.votes import Votes
from tests.galaxies import Rows, published

RNG = np.random.default_rng(0)


def named(count):
    return datasets.Dataset.from_dict({"id_str": [f"galaxy-{i}" for i in range(count)]})


# One large kind, some of middle size, and many of a galaxy or two.
STRATA = np.repeat(np.arange(5, 75), [700, 150, 40, 7, *[2] * 16, *[1] * 50])
ROWS = named(len(STRATA))


def test_small_subsets_are_inside_large_ones():
    shares = [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, *RNG.uniform(0.002, 1, 20)]
    chosen = {share: set(subset(ROWS, STRATA, share, seed=3).tolist()) for share in shares}
    for one, other in itertools.combinations(sorted(shares), 2):
        assert chosen[one] <= chosen[other]
    assert chosen[1] == set(range(len(ROWS)))


@pytest.mark.parametrize("share", [1 / 8, 1 / 4, 0.5, 0.9])
def test_every_kind_gives_its_share(share):
    for seed in range(5):
        chosen = subset(ROWS, STRATA, share, seed)
        assert len(chosen) == round(share * len(ROWS))
        assert (np.diff(chosen) > 0).all()
        counts = np.bincount(STRATA[chosen], minlength=75)[5:]
        # The rule says give or take one; of the largest, as many more as the small ones together are off by chance.
        assert abs(counts - share * np.bincount(STRATA)[5:])[1:].max() < 2
        assert abs(counts[0] - 700 * share) < 12
        assert abs(counts[4:].sum() - share * 82) < 15, "kinds of one galaxy give theirs too"
    even = subset(named(1000), np.arange(1000) % 10, share, seed=0)
    assert abs(np.bincount(even % 10) - 100 * share).max() <= 1


def test_the_choice_depends_on_names_and_seed_not_on_the_order_of_rows():
    order = RNG.permutation(len(ROWS))
    chosen = subset(ROWS, STRATA, 0.3, seed=1)
    mixed = subset(ROWS.select(order), STRATA[order], 0.3, seed=1)
    assert sorted(order[mixed]) == chosen.tolist()
    other = subset(ROWS, STRATA, 0.3, seed=2)
    assert 0.2 < np.isin(other, chosen).mean() < 0.4


def test_any_galaxy_is_as_likely_as_any_other():
    strata, seeds = np.repeat([0, 1, 2, 3, 4], [20, 10, 7, 2, 1]), 800
    rows, chosen = named(40), np.zeros(40)
    for seed in range(seeds):
        chosen[subset(rows, strata, 0.3, seed)] += 1
    assert chi2.sf(((chosen - 0.3 * seeds) ** 2).sum() / (seeds * 0.3 * 0.7), 40) > 1e-3
    per_stratum = [chosen[strata == kind].mean() / seeds for kind in range(5)]
    assert abs(np.array(per_stratum) - 0.3).max() < 4 * (0.3 * 0.7 / seeds) ** 0.5


@pytest.mark.parametrize("share", [0, -1, 1.01, 1e-4, float("nan")])
def test_shares_that_are_none_or_leave_nothing_are_refused(share):
    with pytest.raises(BadInput, match=r"a share of .* of 979 galaxies"):
        subset(ROWS, STRATA, share, seed=0)


@pytest.mark.parametrize("streaming", [False, True])
def test_strata_of_a_published_dataset(tmp_path, streaming):
    published(Rows(100), tmp_path)
    rows = open_dataset(str(tmp_path), streaming=streaming)["train"]
    plain = rows.select_columns(["kind", "ring_yes", "id_str"]).with_format("arrow")[:]
    kinds = strata_of(rows, Classes("kind", ("a", "b")))
    assert kinds.tolist() == plain["kind"].to_pylist()
    assert strata_of(rows, Votes(Rows.tree)).tolist() == [int(votes > 0) for votes in plain["ring_yes"].to_pylist()]
    chosen = subset(rows, kinds, 0.25, seed=0)
    again = datasets.Dataset.from_dict({"id_str": plain["id_str"].to_pylist()})
    assert chosen.tolist() == subset(again, kinds, 0.25, seed=0).tolist()
    assert len(rows.select(chosen)) == round(len(rows) / 4)


def test_strata_of_a_tree_are_sets_of_campaigns():
    tree = load_tree(["gz_rings", "gz2", "gz_hubble"])
    count = 25_000  # more than one batch of rows
    asked = RNG.integers(0, 2, (count, 3))
    columns = {column: np.zeros(count, np.int32) for column in tree.columns}
    for c, campaign in enumerate(["gz_rings", "gz2", "gz_hubble"]):
        for q in tree.campaigns[campaign][:2]:
            columns[tree.questions[q].columns[1]] = 5 * asked[:, c].astype(np.int32)
    expected = asked @ [1, 2, 4]
    np.testing.assert_array_equal(strata_of(datasets.Dataset.from_dict(columns), Votes(tree)), expected)
    without = {name: values for name, values in columns.items() if "hubble" not in name}
    np.testing.assert_array_equal(strata_of(datasets.Dataset.from_dict(without), Votes(tree)), expected & 3)
