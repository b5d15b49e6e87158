"""The mock survey is the same for the same seed, its volunteers walk the trees, and its pictures show what they should."""

import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from hf_galaxy import load_tree
from hf_galaxy.publishing.mock_pictures import Morphology, draw
from hf_galaxy.publishing.simulate import (
    CAMPAIGNS,
    CLASSES,
    METADATA,
    MOCK_TREE,
    MockSurvey,
    clarity,
    draw_morphology,
    mock_class,
    true_path,
    vote,
)

TREE = load_tree(MOCK_TREE)
GZ2, DR5 = CAMPAIGNS


def rows_of(survey):
    return [survey.row(i).columns for i in range(len(survey.ids))]


@pytest.fixture(scope="module")
def rows():
    return rows_of(MockSurvey(12, seed=3, size=48))


@pytest.fixture(scope="module")
def survey():
    """Votes without pictures: (galaxy, campaign, votes) of 600 galaxies."""
    rng = np.random.default_rng(0)
    galaxies = [(draw_morphology(rng), CAMPAIGNS[i % 2]) for i in range(600)]
    return [(galaxy, campaign, vote(galaxy, campaign, rng)) for galaxy, campaign in galaxies]


def test_more_galaxies_begin_with_the_same_and_another_seed_gives_others(rows):
    assert rows_of(MockSurvey(5, seed=3, size=48)) == rows[:5]
    other = MockSurvey(1, seed=4, size=48).row(0).columns
    assert other["image"]["bytes"] != rows[0]["image"]["bytes"]
    assert other["id_str"] != rows[0]["id_str"]


def test_names_and_campaigns_are_known_before_anything_is_drawn(rows):
    survey = MockSurvey(12, seed=3, size=48)
    assert survey.ids == [row["id_str"] for row in rows]
    assert [f"mock_{campaign}" for campaign in survey.campaigns] == [row["dataset_name"] for row in rows]
    assert set(survey.features) == set(rows[0])


def test_rows_hold_every_column_and_call_themselves_mock(rows):
    for row in rows:
        assert set(row) == {"id_str", "image", "mock_class", *TREE.columns, *METADATA}
        assert row["id_str"].startswith("mock-")
        assert row["dataset_name"].startswith("mock_")
        picture = Image.open(io.BytesIO(row["image"]["bytes"]))
        assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (48, 48))
        other = next(c for c in MOCK_TREE if f"mock_{c}" != row["dataset_name"])
        assert sum(row[column] for column in load_tree(other).columns) == 0


def test_votes_walk_the_trees(survey):
    for campaign in CAMPAIGNS:
        tree = load_tree(campaign.tree)
        votes = np.array([[votes[c] for c in tree.columns] for _, who, votes in survey if who == campaign])
        assert tree.inconsistencies(votes) == []
        for question, where in zip(tree.questions, tree.slices, strict=True):
            assert (votes[:, where].sum(0) > 0).all(), f"{question.name}: an answer that nobody ever gives"


def test_campaigns_have_as_many_volunteers_as_their_models(survey):
    def root(campaign):
        columns = load_tree(campaign.tree).columns[:3]
        return np.array([sum(votes[c] for c in columns) for _, who, votes in survey if who == campaign])

    gz2, dr5 = root(GZ2), root(DR5)
    assert gz2.min() >= 20
    assert 42 < gz2.mean() < 46
    assert 0.15 < (dr5 > 20).mean() < 0.35
    assert np.median(dr5) == pytest.approx(5, abs=1)


def test_every_class_occurs_and_the_true_path_is_a_walk(survey):
    counts = Counter(mock_class(galaxy) for galaxy, _, _ in survey)
    assert set(counts) == set(CLASSES)
    assert min(counts.values()) >= 10
    for galaxy, campaign, _ in survey:
        tree = load_tree(campaign.tree)
        given = true_path(galaxy, campaign).split(" > ")
        assert given[0].startswith("smooth-or-featured")
        for column in given:
            question = tree.questions[tree.question_of_answer[tree.columns.index(column)]]
            assert not question.parents or set(question.parents) & set(given)


def share_right(galaxy, campaign, column, volunteers=200):
    rng = np.random.default_rng(0)
    tree = load_tree(campaign.tree)
    columns = tree.questions[tree.question_of_answer[tree.columns.index(column)]].columns
    right = total = 0
    for _ in range(volunteers):
        votes = vote(galaxy, campaign, rng)
        right, total = right + votes[column], total + sum(votes[c] for c in columns)
    return right / total


@pytest.mark.parametrize(
    "column",
    ["smooth-or-featured-gz2_featured-or-disk", "has-spiral-arms-gz2_yes", "bar-gz2_yes", "spiral-arm-count-gz2_2"],
)
def test_small_and_faint_galaxies_are_mistaken_more_often(column):
    spiral = dict(axis_ratio=0.9, arms=2, bar="strong", bulge_size="small", winding="loose")
    clear = Morphology("featured", 15.0, 7.0, **spiral)
    small, faint = Morphology("featured", 15.0, 1.5, **spiral), Morphology("featured", 18.5, 7.0, **spiral)
    best = share_right(clear, GZ2, column)
    assert best > 0.6
    assert share_right(small, GZ2, column) < best - 0.1
    assert share_right(faint, GZ2, column) < best - 0.1
    assert clarity(small, DR5.imaging) > clarity(small, GZ2.imaging), "the sharper, deeper campaign sees more"


def grey(galaxy, campaign=DR5, seed=0):
    picture = Image.open(io.BytesIO(draw(galaxy, campaign.imaging, 64, np.random.default_rng(seed)))).convert("L")
    pixels = np.asarray(picture).astype(float)
    return np.maximum(pixels - np.median(pixels) - 12, 0)


def elongation(pixels):
    y, x = np.mgrid[0:64, 0:64] - 31.5
    weights = pixels * (np.hypot(x, y) < 24)
    moments = np.array([[(weights * a * b).sum() for a in (x, y)] for b in (x, y)]) / weights.sum()
    small, large = np.linalg.eigvalsh(moments)
    return (large / small) ** 0.5


def test_pictures_are_as_elongated_as_their_galaxies():
    seen = {"magnitude": 15.5, "half_light_radius_arcsec": 5.0}
    round_one, cigar, edge_on = (
        np.median([elongation(grey(Morphology(**seen, **galaxy), seed=seed)) for seed in range(8)])
        for galaxy in (
            {"kind": "smooth", "axis_ratio": 1.0},
            {"kind": "smooth", "axis_ratio": 0.3},
            {"kind": "featured", "edge_on": True},
        )
    )
    assert round_one < 1.4 < cigar < edge_on


def test_arms_show_as_many_times_around_the_centre_as_there_are():
    angle = np.arange(0, 2 * np.pi, 2 * np.pi / 360)
    for arms in (2, 3, 4):
        galaxy = Morphology("featured", 14.5, 8.0, axis_ratio=1.0, arms=arms, winding="tight", bulge_size="none")
        power = np.zeros(8)
        for seed in range(4):
            pixels = grey(galaxy, seed=seed)
            for radius in range(8, 15):
                ring = pixels[
                    (31.5 + radius * np.sin(angle)).round().astype(int),
                    (31.5 + radius * np.cos(angle)).round().astype(int),
                ]
                power += np.abs(np.fft.rfft(ring - ring.mean()))[:8]
        assert power[2:6].argmax() + 2 == arms
