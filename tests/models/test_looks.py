"""Looks are what can be worked out by hand of gratings, discs and colours, whichever way up, and of views of any size."""

import numpy as np
import pytest

from hf_galaxy.models.familiarity import RINGS, looks_of

NOTHING = -7  # dex


def octaves_of(side):
    """How many of the looks of such a view are of scales."""
    return looks_of(np.zeros((1, 3, side, side))).shape[1] - 5 - 3


def parts(views):
    """Octaves, rings, colours and their variance of views."""
    return np.split(looks_of(views), np.cumsum([octaves_of(views.shape[-1]), 5, 2]), axis=1)


@pytest.mark.parametrize(("side", "octaves"), [(32, 4), (64, 5), (75, 5), (224, 6)])
def test_a_constant_picture_has_light_and_colours_and_nothing_else(side, octaves):
    colours = np.array([0.6, 0.3, 0.3])
    scales, rings, excess, variance = parts(np.broadcast_to(colours[:, None, None], (2, 3, side, side)))
    assert scales.shape == (2, octaves)
    np.testing.assert_allclose(scales, NOTHING)
    np.testing.assert_allclose(rings, np.log10(0.41))
    np.testing.assert_allclose(excess, [[0.2, -0.1]] * 2)
    np.testing.assert_allclose(variance, np.log10((0.2**2 + 2 * 0.1**2) / 3 + 1e-7))
    grey = parts(np.full((1, 3, side, side), 0.5))
    np.testing.assert_allclose(grey[2], 0, atol=1e-15)
    np.testing.assert_allclose(grey[3], NOTHING)


@pytest.mark.parametrize("side", [64, 75, 224])
@pytest.mark.parametrize(("wavelength", "octave"), [(2.8, 0), (5.6, 1), (11.3, 2)])
def test_a_grating_is_in_the_octave_of_its_wavelength(side, wavelength, octave):
    """It has half the square of its amplitude as variance."""
    across = np.arange(side)
    for wave in (across, across[:, None], (across + across[:, None]) / np.sqrt(2)):
        grating = 0.5 + 0.3 * np.sin(2 * np.pi * wave / wavelength)
        variances = 10 ** parts(np.broadcast_to(grating, (1, 3, side, side)))[0][0]
        assert variances[octave] == pytest.approx(0.045, rel=0.05)
        assert np.delete(variances, octave).max() < 0.002


def test_octaves_add_up_to_the_variance_seen_through_the_window():
    rng = np.random.default_rng(0)
    views = rng.uniform(size=(4, 3, 45, 45)) ** 3
    light = views.mean(axis=1)
    window = np.hanning(47)[1:-1] ** 2
    window = np.outer(window, window)
    squares = (light - light.mean(axis=(1, 2), keepdims=True)) ** 2
    expected = [np.average(each, weights=window) for each in squares]
    np.testing.assert_allclose((10 ** parts(views)[0] - 1e-7).sum(axis=1), expected)


@pytest.mark.parametrize("side", [32, 65, 224])
def test_rings_are_shares_of_the_view(side):
    """Light that falls off linearly from the centre: the mean of r over a ring is that of its area."""
    across = (np.arange(side) + 0.5) * 2 / side - 1
    light = np.broadcast_to(1 - 0.6 * np.hypot(across[:, None], across), (1, 3, side, side))
    inner, outer = np.array(RINGS[:4]), np.array(RINGS[1:5])  # the last ring is cut by the borders
    radius = 2 / 3 * (outer**3 - inner**3) / (outer**2 - inner**2)
    np.testing.assert_allclose(10 ** parts(light)[1][0][:4] - 0.01, 1 - 0.6 * radius, atol=0.5 / side)


@pytest.mark.parametrize("side", [10, 64, 75])
def test_neither_turns_nor_mirrors_change_anything(side):
    views = np.random.default_rng(0).uniform(size=(3, 3, side, side))
    looks = looks_of(views)
    assert np.isfinite(looks).all()
    for turned in (np.rot90(views, axes=(2, 3)), views[..., ::-1], views[..., ::-1, :], views.transpose(0, 1, 3, 2)):
        np.testing.assert_allclose(looks_of(turned), looks)
    assert np.abs(looks_of(np.roll(views, side // 2, axis=3)) - looks).max() > 0.01


def test_each_view_is_by_itself_and_single_precision_is_enough():
    views = np.random.default_rng(0).uniform(size=(5, 3, 32, 32))
    together = looks_of(views)
    np.testing.assert_allclose(together, np.concatenate([looks_of(view[None]) for view in views]), rtol=1e-12)
    np.testing.assert_allclose(looks_of(views.astype(np.float32)), together, atol=1e-6)
