"""Rows that are one galaxy are found: by all distances on the sphere computed one by one, and by what pictures show."""

import io
import math

import numpy as np
import pytest
from astropy.coordinates import angular_separation, offset_by
from PIL import Image, ImageOps
from scipy.stats import binom

from hf_galaxy.importing import duplicates, sky
from hf_galaxy.importing.duplicates import (
    MIN_SIMILARITY,
    SIDE,
    fine_structure,
    groups_on_the_sky,
    pictures_alike,
)
from hf_galaxy.publishing.mock_pictures import draw
from hf_galaxy.publishing.simulate import CAMPAIGNS, draw_morphology

ARCSEC = 1 / 3600


def brute_force(positions, arcsec=20.0):
    """The set of groups, from all pairs: astropy's great-circle distances, and a walk along the near ones."""
    ra, dec = np.radians(positions).T
    near = np.degrees(angular_separation(ra[:, None], dec[:, None], ra, dec)) * 3600 <= arcsec
    groups, left = set(), set(range(len(positions)))
    while left:
        group, todo = set(), [left.pop()]
        while todo:
            i = todo.pop()
            group.add(i)
            todo += set(np.flatnonzero(near[i]).tolist()) & left
            left -= set(todo)
        groups.add(frozenset(group))
    return groups


def found(positions, *arguments):
    groups = groups_on_the_sky(np.asarray(positions, float), *arguments)
    several = {frozenset(rows) for rows in groups.first(len(groups), len(positions))}
    return several | {frozenset([row]) for row in set(range(len(positions))).difference(*several)}


def scattered(ra, dec, rng, galaxies=300, arcsec=200.0):
    """Positions within some arcsec of one, at any angle: some are near others."""
    distance = arcsec * ARCSEC * np.sqrt(rng.random(galaxies))
    out = offset_by(np.radians(ra), np.radians(dec), rng.uniform(0, 2 * np.pi, galaxies), np.radians(distance))
    return np.degrees([np.mod(getattr(out[0], "rad", out[0]), 2 * np.pi), getattr(out[1], "rad", out[1])]).T


@pytest.mark.parametrize(
    ("ra", "dec"),
    [(150.0, 2.0), (0.0, 0.0), (360.0, -30.0), (0.001, 75.0), (12.0, 89.99), (12.0, 90.0), (200.0, -90.0)],
    ids=["anywhere", "ra 0", "ra 360", "ra 0 in the north", "near the pole", "north pole", "south pole"],
)
@pytest.mark.parametrize("rows_of_band", [50_000, 37, 1])
def test_groups_are_those_of_all_pairs(ra, dec, rows_of_band, monkeypatch):
    monkeypatch.setattr(sky, "ROWS_OF_BAND", rows_of_band)
    positions = scattered(ra, dec, np.random.default_rng(0))
    expected = brute_force(positions)
    assert 10 < len(expected) < 290, "some are near others, some are not"
    assert found(positions) == expected
    assert found(positions, 5.0) == brute_force(positions, 5.0) != expected


@pytest.mark.parametrize("rows_of_band", [50_000, 100])
def test_groups_of_a_whole_sky_with_duplicates_are_those_of_all_pairs(rows_of_band, monkeypatch):
    monkeypatch.setattr(sky, "ROWS_OF_BAND", rows_of_band)
    rng = np.random.default_rng(1)
    once = np.stack([rng.uniform(0, 360, 400), np.degrees(np.arcsin(rng.uniform(-1, 1, 400)))], axis=1)
    again = once[:150] + rng.normal(0, 12 * ARCSEC, (150, 2))
    positions = rng.permutation(np.concatenate([once, again, once[:20]]))
    assert found(positions) == brute_force(positions)


@pytest.mark.parametrize("angle", [0, 45, 90, 180, 271])
@pytest.mark.parametrize("dec", [0.0, 60.0, -89.9])
def test_exactly_20_arcsec_are_within_and_a_millionth_more_is_not(dec, angle):
    for ra in (0.0, 123.4):
        for arcsec, groups in ((20.0, 1), (20 * (1 - 1e-6), 1), (20 * (1 + 1e-6), 2)):
            moved = offset_by(*np.radians([ra, dec, angle, arcsec * ARCSEC]))
            other = np.degrees([float(getattr(x, "rad", x)) for x in moved])
            assert len(found([[ra, dec], other])) == groups, arcsec


def test_a_chain_of_neighbours_is_one_group():
    rng = np.random.default_rng(2)
    for step, groups in ((15, 1), (25, 100)):
        chain = np.stack([np.full(100, 359.9), np.arange(100) * step * ARCSEC], axis=1)
        assert len(found(rng.permutation(chain))) == groups


def test_galaxies_without_a_position_are_alone():
    positions = [[1, 1], [np.nan, 1], [1, np.nan], [np.nan, np.nan], [1, 1], [np.inf, 1], [361, 1]]
    assert found(positions) == {frozenset(group) for group in ([0, 4, 6], [1], [2], [3], [5])}
    assert len(found([[np.nan, np.nan]] * 3)) == 3
    assert len(groups_on_the_sky(np.empty((0, 2)))) == 0


@pytest.fixture(scope="module")
def pictures():
    """Drawn galaxies of the mock survey, 128 px."""
    rng = np.random.default_rng(0)
    drawn = (draw(draw_morphology(rng), CAMPAIGNS[i % 2].imaging, 128, rng) for i in range(24))
    return [Image.open(io.BytesIO(content)).convert("RGB") for content in drawn]


def encoded(picture, form, **options):
    file = io.BytesIO()
    picture.save(file, form, **options)
    return Image.open(io.BytesIO(file.getvalue()))


def detail(pictures):
    return np.stack([fine_structure(picture) for picture in pictures])


def test_different_galaxies_look_different(pictures):
    structures = detail(pictures).astype(float)
    assert np.linalg.norm(structures, axis=1) == pytest.approx(np.ones(len(pictures)), abs=1e-3)
    assert (structures @ structures.T - np.eye(len(pictures))).max() < 0.76
    assert len(pictures_alike(detail(pictures))) == 0
    assert len(pictures_alike(detail([*pictures, *map(ImageOps.mirror, pictures)]))) == 0


@pytest.mark.parametrize(
    "again",
    [
        lambda picture: encoded(picture, "PNG"),
        lambda picture: encoded(picture.convert("L"), "PNG"),
        lambda picture: encoded(picture, "JPEG", quality=95),
        lambda picture: encoded(picture, "JPEG", quality=75),
        lambda picture: picture.resize((64, 64), Image.Resampling.BICUBIC),
    ],
    ids=["other file", "grey", "quality 95", "quality 75", "half size"],
)
def test_the_same_picture_encoded_again_or_scaled_is_found(pictures, again):
    pairs = pictures_alike(detail([*pictures, *map(again, pictures)])).tolist()
    n = len(pictures)
    assert all(second == first + n for first, second in pairs), "no other is taken for it"
    assert len(pairs) >= n - 1


def test_pairs_are_those_of_all_correlations():
    one, other = np.random.default_rng(3).standard_normal((2, 600, 1024))
    one /= np.linalg.norm(one, axis=1, keepdims=True)
    other -= (other * one).sum(axis=1, keepdims=True) * one
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    wanted = np.repeat([0.8, 0.84, 0.88, 0.92, 0.95, 1.0], 100)[:, None]
    structures = np.concatenate([one, wanted * one + np.sqrt(1 - wanted**2) * other]).astype(np.float16)
    correlation = np.triu(structures.astype(float) @ structures.T.astype(float), 1)
    found = {tuple(pair) for pair in pictures_alike(structures).tolist()}
    assert found <= {tuple(pair) for pair in np.argwhere(correlation > MIN_SIMILARITY - 1e-4).tolist()}
    for least, number, share in ((0.86, 400, 0.95), (0.91, 300, 0.98), (0.94, 200, 0.99)):
        near = {tuple(pair) for pair in np.argwhere(correlation > least).tolist()}
        assert len(near) == number
        assert len(near & found) >= share * len(near)


def share_found(rows, similarity):
    """The probability that a pair of this correlation is found among so many rows, for random planes: computed, not drawn.

    Of the planes a binomial number is between the two. Given that number, the bands of one order of planes, which have none in
    common, are all missed with a probability that inclusion and exclusion gives; another order is independent of it.
    """
    bands, planes = list(duplicates._bands(rows)), duplicates.PLANES
    bits, of_one_order, number = len(bands[0]), planes // len(bands[0]), len(bands)
    between = np.arange(planes // 2)  # never more

    def all_missed(bands):
        terms = [(-1) ** k * math.comb(bands, k) for k in range(bands + 1)]
        each = [sum(term * math.comb(planes - k * bits, n) for k, term in enumerate(terms)) for n in between.tolist()]
        return np.array([missed / math.comb(planes, n) for n, missed in enumerate(each)])

    missed = all_missed(of_one_order) ** (number // of_one_order) * all_missed(number % of_one_order)
    weights = binom.pmf(between, planes, np.arccos(similarity) / np.pi)
    kept = binom.cdf(duplicates.MAX_BETWEEN * planes, planes, np.arccos(similarity) / np.pi)
    kept_at_first = binom.cdf(duplicates.MAX_OF_64, 64, np.arccos(similarity) / np.pi)
    return 1 - (weights * missed).sum() - (1 - kept) - (1 - kept_at_first)


@pytest.mark.parametrize("rows", [2**16, 2**16 + 1, 2**17 + 1, 2**20, 2**24, 2**30])
def test_no_smaller_share_is_found_among_more_rows(rows):
    for similarity, at_least in ((0.85, 0.888), (0.86, 0.915), (0.9, 0.984), (0.95, 0.9999)):
        assert share_found(rows, similarity) >= at_least


@pytest.mark.parametrize("rows", [1000, 2**18, 2**22])
def test_what_is_computed_to_be_found_is_found(rows, monkeypatch):
    monkeypatch.setattr(duplicates, "MIN_SIMILARITY", 0.84)  # so that rounding decides nothing
    wanted = np.repeat([0.85, 0.87, 0.9, 0.95], 500)
    one, other = np.random.default_rng(5).standard_normal((2, len(wanted), 256))
    one /= np.linalg.norm(one, axis=1, keepdims=True)
    other -= (other * one).sum(axis=1, keepdims=True) * one
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    again = wanted[:, None] * one + np.sqrt(1 - wanted**2)[:, None] * other
    expected, bands = [share_found(rows, similarity) for similarity in wanted[::500]], list(duplicates._bands(rows))
    monkeypatch.setattr(duplicates, "_bands", lambda _: bands)
    found = pictures_alike(np.concatenate([one, again]).astype(np.float16))
    assert (found[:, 1] - found[:, 0] == len(wanted)).all()
    shares = np.bincount(found[:, 0] // 500, minlength=4) / 500
    assert np.abs(shares - expected) == pytest.approx(0, abs=4 * np.sqrt(0.89 * 0.11 / 500))
    assert (shares[2:] > 0.97).all()


def test_as_many_pairs_of_each_row_are_compared_however_many_rows_there_are():
    rng = np.random.default_rng(6)
    for rows in (2**16, 2**18 - 5, 2**20):
        band = next(duplicates._bands(rows))
        sides = rng.integers(0, 256, (band.max() + 1, -(-rows // 8)), dtype=np.uint8)
        groups = list(duplicates._of_one_code(duplicates._code(sides, band, rows)))
        pairs = sum(len(same) * math.comb(same.shape[1], 2) for same in groups)
        assert pairs / rows == pytest.approx(0.5, abs=0.01)
        assert duplicates._code(sides, band, rows).max() < 2 ** len(band)


def nearly_equal(number):
    rng = np.random.default_rng(4)
    structures = rng.standard_normal(1024) + 0.05 * rng.standard_normal(
        (number, 1024)
    )  # of which most are on one side of most planes
    return (structures / np.linalg.norm(structures, axis=1, keepdims=True)).astype(np.float16)


def test_many_of_one_code_are_compared_in_pieces(monkeypatch):
    monkeypatch.setattr(duplicates, "LARGEST", 8)
    pairs = pictures_alike(nearly_equal(50)).tolist()
    assert pairs == [[one, other] for one in range(50) for other in range(one + 1, 50)]


def test_of_very_many_pairs_only_those_are_held_that_connect_all(monkeypatch):
    monkeypatch.setattr(duplicates, "LARGEST", 8)
    monkeypatch.setattr(duplicates, "MAX_PAIRS", 30)
    assert pictures_alike(nearly_equal(30)).tolist() == [[0, other] for other in range(1, 30)]


def test_pictures_of_one_brightness_are_like_no_other(pictures):
    flat = [Image.new("RGB", (60, 60), colour) for colour in ("black", "grey", "black")]
    assert not detail(flat).any()
    assert len(pictures_alike(detail([*flat, *pictures]))) == 0
    assert pictures_alike(np.empty((0, SIDE * SIDE), np.float16)).shape == (0, 2)
