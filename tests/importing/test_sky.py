"""Rows of two tables that are the same object are those that astropy finds, wherever in the sky they are."""

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import SkyCoord

from hf_galaxy.importing.sky import match, nearest

FIELDS = {"north pole": (0, 90), "south pole": (0, -90), "ra 0": (0, 0), "ra 0, high": (0, 75), "plain": (150, 2.2)}
ARCSEC = 1 / 3600


def around(centre, number, degrees, rng):
    """(number, 2) positions within some degrees of another, in random directions."""
    places = SkyCoord(*centre, unit="deg").directional_offset_by(
        rng.uniform(0, 360, number) * units.deg, degrees * np.sqrt(rng.uniform(size=number)) * units.deg
    )
    return np.stack([places.ra.deg, places.dec.deg], axis=1)


@pytest.mark.parametrize("field", FIELDS)
def test_matches_are_the_mutual_nearest_of_astropy(field):
    rng = np.random.default_rng(1)
    ours, theirs = (around(FIELDS[field], number, 0.02, rng) for number in (300, 400))
    theirs[theirs[:, 0] > 180] -= [360, 0]  # as some catalogues count
    found = match(ours, theirs, 8)
    a, b = SkyCoord(ours, unit="deg"), SkyCoord(theirs, unit="deg")
    rows, separations, _ = a.match_to_catalog_sky(b)
    back, _, _ = b.match_to_catalog_sky(a)
    expected = (separations.arcsec <= 8) & (back[rows] == np.arange(len(ours)))
    assert 50 < expected.sum() < 300
    np.testing.assert_array_equal(found.rows, np.where(expected, rows, -1))
    np.testing.assert_allclose(found.arcsec[expected], separations.arcsec[expected], rtol=1e-6)
    second = a.match_to_catalog_sky(b, nthneighbor=2)[1].arcsec
    assert found.ambiguous == (second[expected] <= 8).sum()
    assert found.nearer == ((separations.arcsec <= 8) & ~expected).sum()
    assert nearest(ours, theirs) == pytest.approx(separations.arcsec.min())


def test_no_row_is_used_twice_and_rows_without_a_position_have_no_match():
    ours = np.array([[10, 0], [10, 0], [10 + 2 * ARCSEC, 0], [np.nan, 0], [10, 0.3 * ARCSEC]])
    theirs = np.array([[50, 0], [np.nan, np.nan], [10 + 1.8 * ARCSEC, 0], [10, 0], [10, 0.9 * ARCSEC]])
    found = match(ours, theirs, 1)
    assert found.rows.tolist() == [3, -1, 2, -1, -1]
    assert found.arcsec.tolist()[:3:2] == [0, pytest.approx(0.2)]
    assert (found.ambiguous, found.nearer) == (1, 2)


@pytest.mark.parametrize("side", ["ours", "theirs"])
def test_nothing_matches_nothing(side):
    positions = {"ours": np.array([[1.0, 2.0]]), "theirs": np.array([[1.0, 2.0]]), side: np.full((1, 2), np.nan)}
    assert match(**positions, arcsec=1).rows.tolist() == [-1]
    assert nearest(**positions) is None


def test_chance_matches_are_as_many_as_of_shifted_positions():
    rng = np.random.default_rng(2)
    ours = around(FIELDS["ra 0, high"], 3000, 0.3, rng)
    theirs = np.concatenate([ours[:2000], around(FIELDS["ra 0, high"], 20_000, 0.3, rng)])
    found = match(ours, theirs, 2)
    shifted = [(match(ours + np.array([0, sign * 30 * ARCSEC]), theirs, 2).rows >= 0).sum() for sign in (-1, 1)]
    assert found.by_chance == pytest.approx(np.mean(shifted), rel=0.15), "the counterparts themselves count for nothing"
    assert (found.rows >= 0).sum() > 2000


def test_chance_matches_are_no_more_than_there_are_rows():
    points = np.random.default_rng(0).uniform(0, 60, (50, 2))
    assert match(points, points, 3600 * 60).by_chance == 50
    assert match(points[:1], points[:1], 1).by_chance == 0
