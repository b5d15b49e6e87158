"""Degraded pictures are those that GalSim draws farther away, blurred or deeper; their noise is the survey's."""

from dataclasses import replace

import galsim
import numpy as np
import pytest
from PIL import Image

from hf_galaxy.data.degrading import Background, Change, degraded, log_transfer
from hf_galaxy.errors import BadInput
from hf_galaxy.progress import log_once

SIDE, FWHM, FLUX = 96, 3.2, 5000.0


def drawn(shrink=1.0, fwhm=FWHM, flux=FLUX, side=SIDE, scale=1.0, profile="moffat"):
    """(side, side) a disk and a bulge off the centre, with its PSF; and the PSF."""
    psf = galsim.Moffat(beta=3.5, fwhm=fwhm) if profile == "moffat" else galsim.Gaussian(fwhm=fwhm)
    disk = galsim.Exponential(half_light_radius=6).shear(g1=0.3, g2=0.1)
    galaxy = 0.8 * disk + 0.2 * galsim.Sersic(2, half_light_radius=2).shift(3, -2)
    galaxy = galaxy.dilate(1 / shrink).withFlux(flux)
    return galsim.Convolve(galaxy, psf).drawImage(nx=side, ny=side, scale=scale, method="sb").array.astype(float)


@pytest.mark.parametrize("profile", ["moffat", "gaussian"])
@pytest.mark.parametrize("shrink", [1.3, 2.0])
def test_a_galaxy_farther_away_is_the_one_that_galsim_draws_there(profile, shrink):
    change = Change(shrink, psf_fwhm=FWHM, new_psf_fwhm=FWHM, profile=profile, framing="sky")
    expected = drawn(shrink, flux=FLUX / shrink**2, profile=profile)  # as its distance grows, far from cosmology
    result = degraded(drawn(profile=profile)[None], change, "a", 0)[0]
    assert np.abs(result - expected).max() < 0.004 * expected.max()
    assert result.sum() == pytest.approx(FLUX / shrink**2, rel=0.003)
    # Framed as before, it is the same picture magnified: that of a telescope whose PSF and pixels are as much wider.
    result = degraded(drawn(profile=profile)[None], replace(change, framing="galaxy"), "a", 0)[0]
    expected = drawn(fwhm=shrink * FWHM, profile=profile)
    assert np.abs(result - expected).max() < 0.006 * expected.max()


@pytest.mark.parametrize("shrink", [1.5, 3.0])
def test_a_star_keeps_its_width_on_the_sky_and_its_flux_falls_with_the_square(shrink):
    psf = galsim.Moffat(beta=3.5, fwhm=FWHM)
    star = psf.withFlux(FLUX).drawImage(nx=SIDE, ny=SIDE, scale=1, method="sb").array
    change = Change(shrink, psf_fwhm=FWHM, new_psf_fwhm=FWHM, framing="sky")
    result = degraded(star[None].astype(float), change, "a", 0)[0].astype(float)
    expected = psf.withFlux(FLUX / shrink**2).drawImage(nx=SIDE, ny=SIDE, scale=1, method="sb")
    assert result.sum() == pytest.approx(FLUX / shrink**2, rel=0.003)
    width = galsim.Image(result, scale=1.0).calculateFWHM(center=expected.true_center)
    assert width == pytest.approx(expected.calculateFWHM(center=expected.true_center), rel=0.03)


def test_a_wider_psf_and_wider_pixels_are_those_of_galsim():
    wider = degraded(drawn()[None], Change(psf_fwhm=FWHM, new_psf_fwhm=2 * FWHM), "a", 0)[0]
    expected = drawn(fwhm=2 * FWHM)
    assert np.abs(wider - expected).max() < 0.003 * expected.max()
    coarse = degraded(drawn()[None], Change(psf_fwhm=FWHM, new_psf_fwhm=FWHM, pixels=2, framing="sky"), "a", 0)[0]
    means = drawn().reshape(SIDE // 2, 2, SIDE // 2, 2).mean((1, 3))
    assert coarse.shape == (SIDE // 2, SIDE // 2)
    assert np.abs(coarse - means).max() < 0.01 * means.max()


def test_surface_brightness_dims_and_the_sky_stays():
    sky = 50.0
    faint = degraded(drawn()[None] + sky, Change(dimming=0.25, psf_fwhm=FWHM, new_psf_fwhm=FWHM), "a", 0)[0]
    # The level is a median at the border, where the galaxy's wings are.
    assert np.abs(faint - sky - 0.25 * drawn()).max() < 0.01 * drawn().max()


def noise(seed, side=SIDE, sigma=2.0, enlarged=1.0):
    """Noise of white pixels, enlarged as surveys show small galaxies."""
    few = round(side / enlarged)
    white = np.random.default_rng(seed).normal(0, sigma, (few, few)).astype("f4")
    return np.asarray(Image.fromarray(white).resize((side, side), Image.Resampling.BICUBIC)).astype(float)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (Change(1.5), 1.0), (Change(2.5, dimming=0.3), 1.0), (Change(2.0, framing="sky"), 1.0), (Change(depth=2.0), 2.0),
        (Change(1.5, depth=1.5), 1.5), (Change(1.7, pixels=2.0), 0.5), (Change(1.5, pixels=2.0, framing="sky"), 0.5),
        (Change(1.4, psf_fwhm=3.0, new_psf_fwhm=4.0), 1.0),
    ],
)  # fmt: skip
def test_noise_is_that_of_the_survey_again(change, expected):
    ratios = []
    for seed in range(6):
        before = noise(seed)
        ratios.append(degraded(100 + before[None], change, f"galaxy {seed}", 0)[0].std() / before.std())
    assert np.mean(ratios) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("shrink", [1.5, 2.0, 4.0])
def test_pictures_that_were_reduced_have_the_noise_of_the_surveys_own_pixels(shrink):
    """Twice reduced: a galaxy farther away is cut out smaller, and reduced less, or enlarged."""
    sigma, results, expected = 2.0, [], []
    for seed in range(6):
        picture = noise(seed, 120, sigma / 2)  # the mean of four pixels of the survey
        results.append(degraded(picture[None], Change(shrink, reduced=2.0), f"{seed}", 0)[0])
        expected.append(noise(100 + seed, 120, sigma / max(2 / shrink, 1), max(shrink / 2, 1)))
    # A bicubic enlargement loses some of the noise; the transform none.
    assert np.std(results) == pytest.approx(np.std(expected) if shrink <= 2 else sigma, rel=0.03)


@pytest.mark.parametrize("shrink", [1.5, 2.0])
def test_noise_of_enlarged_pixels_is_correlated_over_pixels_that_are_larger_by_as_much(shrink):
    """As if the survey had enlarged fewer of its pixels to the same picture."""

    def shown(plane):
        values = plane - plane.mean()
        return [values.std(), *((values[:, lag:] * values[:, :-lag]).mean() / values.var() for lag in (1, 2, 3, 5))]

    change = Change(shrink, psf_fwhm=6.0, new_psf_fwhm=6.0)  # 3 of its pixels
    results = [degraded(noise(s, 160, enlarged=2.0)[None], change, f"{s}", 0)[0] for s in range(6)]
    expected = [noise(100 + s, 160, enlarged=2.0 * shrink) for s in range(6)]
    ours, theirs = (np.mean([shown(plane) for plane in planes], axis=0) for planes in (results, expected))
    assert ours[0] == pytest.approx(theirs[0], rel=0.08)
    assert ours[1:] == pytest.approx(theirs[1:], abs=0.1)


def test_a_noisy_galaxy_farther_away_differs_from_the_drawn_one_by_noise_alone():
    """In pixels: galaxy and noise in one picture, against GalSim's galaxy at the new distance with noise of its own."""
    sigma, shrink, differences = 0.4, 1.8, []
    for seed in range(8):
        picture = drawn() + noise(seed, sigma=sigma)
        change = Change(shrink, psf_fwhm=FWHM, new_psf_fwhm=FWHM, framing="sky")
        expected = drawn(shrink, flux=FLUX / shrink**2) + noise(50 + seed, sigma=sigma)
        differences.append(degraded(picture[None], change, f"{seed}", 0)[0] - expected)
    assert np.std(differences) == pytest.approx(2**0.5 * sigma, rel=0.03)
    mean = np.mean(differences, axis=0)
    assert np.abs(mean - np.median(mean)).max() < 5.5 * 2**0.5 * sigma / 8**0.5, "no structure is left"
    centre = mean[SIDE // 2 - 12 : SIDE // 2 + 12, SIDE // 2 - 12 : SIDE // 2 + 12]
    assert centre.std() == pytest.approx(2**0.5 * sigma / 8**0.5, rel=0.15)


def test_sky_and_noise_are_measured_beside_a_galaxy():
    measured = [Background.of(7 + drawn() + noise(seed, sigma=0.5)) for seed in range(8)]
    assert np.mean([each.level for each in measured]) == pytest.approx(7, abs=0.08)
    assert np.mean([each.noise for each in measured]) == pytest.approx(0.5, rel=0.06)
    assert np.mean([each.correlation[1:] for each in measured], axis=0) == pytest.approx(np.zeros(12), abs=0.06)
    flat = Background.of(np.full((20, 20), 3.0))
    assert (flat.level, flat.noise) == (3.0, 0.0)


def test_the_transform_of_the_psf_is_that_of_galsim_beyond_the_table_too():
    for profile, psf in (("moffat", galsim.Moffat(beta=3.5, fwhm=2.0)), ("gaussian", galsim.Gaussian(fwhm=2.0))):
        for k in (0.0, 0.3, 1.0, 4.0):
            assert np.exp(log_transfer(np.array([2.0 * k]), profile))[0] == pytest.approx(
                psf.kValue(k, 0).real, abs=1e-4
            )
    assert log_transfer(np.array([60.0]), "moffat")[0] < log_transfer(np.array([30.0]), "moffat")[0] - 10


def test_no_change_is_none_and_noise_is_that_of_the_name():
    picture = drawn()[None] + noise(1)
    assert degraded(picture, Change(psf_fwhm=2.0, new_psf_fwhm=2.0, framing="sky"), "a", 0) is picture
    first = degraded(picture, Change(1.5), "a", 0)
    np.testing.assert_array_equal(first, degraded(picture, Change(1.5), "a", 0))
    for name, seed in (("b", 0), ("a", 1)):
        assert np.abs(first - degraded(picture, Change(1.5), name, seed)).mean() > 0.5
    three = degraded(np.concatenate([picture] * 3), Change(1.5), "a", 0)
    assert np.corrcoef(three[0].ravel() - three.mean(0).ravel(), three[1].ravel() - three.mean(0).ravel())[0, 1] < 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (Change(0.5), "would appear 2 times larger"),
        (Change(1.5, psf_fwhm=4, new_psf_fwhm=2), "would need a sharper PSF than its 4 pixels, 3 pixels"),
        (Change(20), "would have 5 x 5 pixels, fewer than 8"),
        (Change(pixels=0.5), "would have pixels 2 times smaller"),
    ],
)
def test_what_a_picture_cannot_become_is_refused(change, reason):
    with pytest.raises(BadInput, match=reason):
        degraded(drawn()[None], change, "a", 0)


def test_a_sky_of_one_number_is_reported_as_its_noise_is_not_known(caplog):
    picture = np.where(drawn() > 1, drawn(), 0.0)
    log_once.cache_clear()
    with caplog.at_level("INFO", "hf_galaxy"):
        degraded(picture[None], Change(1.5), "a", 0)
    assert "is one number at their border" in caplog.text


def test_pictures_need_not_be_square():
    plane = np.pad(drawn(), ((0, 0), (10, 22)))
    result = degraded(plane[None], Change(1.5, psf_fwhm=FWHM, new_psf_fwhm=FWHM), "a", 0)
    assert result.shape == (1, SIDE, SIDE + 32)
    assert result.sum() == pytest.approx(plane.sum(), rel=0.01)
