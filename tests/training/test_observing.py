"""Blur is that of scipy and of the widths that were asked for, in arcsec; noise is normal, of the deviation that was asked for."""

import datasets
import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from hf_galaxy.data.fluxes import encode_fluxes
from hf_galaxy.data.galaxies import Galaxies
from hf_galaxy.data.views import Framing
from hf_galaxy.errors import BadInput
from hf_galaxy.randomness import GOLDEN, split_mix
from hf_galaxy.training import observing
from hf_galaxy.training.augmentation import Augmentation, train_view
from hf_galaxy.training.observing import (
    FWHM,
    blurred,
    check_scales,
    draw_blur,
    draw_noise,
    normals,
    with_noise,
)
from hf_galaxy.training.random_views import draw_views
from hf_galaxy.training.targets.values import Values


def views_of(count=4, bands=3, size=40):
    rng = np.random.default_rng(0)
    light = ndimage.gaussian_filter(rng.normal(0, 1, (count, bands, size, size)), (0, 0, 1, 1))
    return torch.from_numpy((1000 + 100 * light).astype(np.float32))


def test_a_blurred_view_is_that_of_scipy():
    views, deviations = views_of(), torch.tensor([0.0, 0.6, 1.7, 6.0])
    result = blurred(views, deviations)
    assert torch.equal(result[0], views[0])
    for view, out, sigma in zip(views[1:], result[1:], deviations[1:].tolist(), strict=True):
        expected = ndimage.gaussian_filter(view.double(), (0, sigma, sigma), mode="reflect", truncate=9)
        np.testing.assert_allclose(out, expected, atol=2e-3)  # of fluxes that differ by hundreds
    torch.testing.assert_close(result.sum((2, 3)), views.sum((2, 3)), rtol=1e-6, atol=0)


def test_a_band_without_values_stays_without_and_the_others_do_not_notice():
    views, deviations = views_of(), torch.tensor([1.0, 2.0, 3.0, 4.0])
    expected = blurred(views, deviations)
    views[1, 2] = torch.nan
    result = blurred(views, deviations)
    assert result[1, 2].isnan().all()
    result[1, 2] = expected[1, 2]
    torch.testing.assert_close(result, expected)


def width(view):
    """FWHM in pixels of a point source, by its second moments."""
    y, x = np.mgrid[: view.shape[0], : view.shape[1]]
    weights = view / view.sum()
    return FWHM * np.sqrt(
        ((x - (weights * x).sum()) ** 2 * weights).sum() / 2 + ((y - (weights * y).sum()) ** 2 * weights).sum() / 2
    )


@pytest.mark.parametrize("side", [60, 120, 150], ids="{} pixels".format)
def test_point_sources_of_a_dataset_get_the_widths_in_arcsec_whatever_their_pixels(side):
    """Pictures of 30 arcsec in few or many pixels, seen with any zoom: the width in arcsec is uniform up to the maximum."""
    framing, most, arcsec = Framing(60, bands=("g",)), 4.0, 30 / side
    y, x = (np.mgrid[:side, :side] - side / 2 + 0.5) * arcsec
    star = np.exp(-(x**2 + y**2) / 2 * (FWHM / 2) ** 2)  # a FWHM of 2 arcsec
    content = encode_fluxes({"g": 5 + 100 * star}, arcsec)
    rows = datasets.Dataset.from_list([{"flux": {"bytes": content, "path": None}, "z": 1.0}] * 200)
    batch = Galaxies(rows, framing, Values(("z",)), scales=True)[list(range(200))]
    assert batch["arcsec"][0] == pytest.approx(0.5)
    augmentation = Augmentation(shift=0, blur=most, zoom=(0.8, 1.6))
    drawn = draw_views(0, range(200), framing, augmentation, batch["arcsec"])
    seen = train_view(batch["pixels"], drawn["affine"], framing)
    after = blurred(seen, drawn["blur"])
    zoom = np.linalg.det(drawn["affine"][:, :, :2]) / (framing.size / framing.canvas) ** 2
    pixel = 0.5 * np.sqrt(abs(zoom))  # arcsec of the view
    added = [
        np.sqrt(max(0, width(wide[0].numpy() - 5) ** 2 - width(narrow[0].numpy() - 5) ** 2))
        for wide, narrow in zip(after, seen, strict=True)
    ] * pixel
    expected = drawn["blur"].numpy() * FWHM * pixel
    some = (expected < 3) & (
        drawn["blur"].numpy() > 0.6
    )  # the edges take a part of wider ones away; narrower ones do nothing
    assert some.sum() > 100
    np.testing.assert_allclose(added[some], expected[some], rtol=0.03)
    assert stats.kstest(expected, "uniform", (0, most)).pvalue > 1e-3


def test_galaxies_without_a_scale_are_named():
    contents = [encode_fluxes({"g": np.ones((8, 8))}, scale) for scale in (0.2, 0.2, None)] + [None]
    rows = datasets.Dataset.from_list(
        [{"id_str": f"galaxy {i}", "flux": {"bytes": each, "path": "a"}, "z": 1.0} for i, each in enumerate(contents)]
    )
    check_scales([rows.select([0, 1])])
    message = "id_str galaxy 2: the side of its pixels in arcsec is not known.*leave out --blur, or the galaxy"
    with pytest.raises(BadInput, match=message):
        check_scales([rows.select([0, 1]), rows.select([2])])
    galaxies = Galaxies(rows, Framing(8, bands=("g",)), Values(("z",)), scales=True)
    assert galaxies[[0, 1]]["arcsec"].tolist() == pytest.approx([0.2, 0.2])
    with pytest.raises(BadInput, match=message):
        galaxies[[1, 2]]
    with pytest.raises(BadInput, match="id_str galaxy 3: there is no picture"):
        check_scales([rows.select([3])])


def test_blur_is_wider_in_a_view_that_is_magnified():
    framing, arcsec = Framing(50, 0.5), np.full(3, 0.4, np.float32)
    scale = framing.size / framing.canvas
    affine = np.array([[[1, 0, 0], [0, 1, 0]], [[0, 0.5, 0], [-0.5, 0, 0]], [[1, 0.3, 0], [0, 1, 0]]]) * scale
    plain, near, sheared = draw_blur(0, [7, 7, 7], 2.0, framing, affine, arcsec)
    assert near == pytest.approx(2 * plain)
    assert sheared == pytest.approx(plain)


def test_noise_has_the_deviation_of_each_view_and_band():
    bands = torch.tensor([0.1, 1.0, 30.0]).view(3, 1, 1)
    views, levels = torch.full((3, 3, 100, 101), 7.0), torch.tensor([0.0, 0.5, 2.0])
    noise = with_noise(views, levels, torch.tensor([5, 6, 7]), bands) - views
    expected = levels.view(-1, 1) * bands.view(1, -1)
    torch.testing.assert_close(noise.std((2, 3)), expected, rtol=0.03, atol=1e-6)
    assert (noise.mean((2, 3)).abs() <= 4 * expected / 100).all()
    pixels = (noise[1:] / expected[1:, :, None, None]).flatten(2)
    for plane in pixels.flatten(0, 1):
        assert stats.kstest(plane, "norm").pvalue > 1e-3
    correlations = np.corrcoef(pixels.flatten(0, 1)) - np.eye(6)  # of bands and of galaxies
    assert abs(correlations).max() < 5 / 100
    image = noise[2, 1].numpy()
    for neighbours in ((image[1:], image[:-1]), (image[:, 1:], image[:, :-1])):
        assert abs(np.corrcoef(*(each.ravel() for each in neighbours))[0, 1]) < 5 / 100
    views[0, 1] = torch.nan
    assert with_noise(views, levels, torch.tensor([5, 6, 7]), bands).isnan().sum() == 100 * 101


def test_levels_of_noise_are_uniform_and_keys_differ():
    drawn = draw_noise(0, range(5000), 3.0)
    assert stats.kstest(drawn["noise"], "uniform", (0, 3)).pvalue > 1e-3
    assert len(set(drawn["noise_key"].tolist())) == 5000
    assert np.corrcoef(drawn["noise"], drawn["noise_key"])[0, 1] < 0.1


def test_noise_of_a_view_does_not_depend_on_the_others(monkeypatch):
    views, levels, keys = torch.zeros(5, 2, 9, 9), torch.rand(5), torch.arange(5) * 10**15
    whole = with_noise(views, levels, keys, torch.ones(2, 1, 1))
    monkeypatch.setattr(observing, "CACHED", 1)
    assert torch.equal(with_noise(views, levels, keys, torch.ones(2, 1, 1)), whole)
    assert torch.equal(with_noise(views[3:4], levels[3:4], keys[3:4], torch.ones(2, 1, 1)), whole[3:4])


def test_normal_numbers_are_those_of_box_and_muller_from_splitmix64():
    keys = np.array([0, 12345, 2**62 + 17])
    with np.errstate(over="ignore"):
        bits = split_mix((keys[:, None].astype(np.uint64) + np.arange(500, dtype=np.uint64)) * GOLDEN)
    radius = np.sqrt(-2 * np.log(((bits >> np.uint64(32)) + 0.5) / 2**32))
    angle = 2 * np.pi * (bits & np.uint64(2**32 - 1)) / 2**32
    expected = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    np.testing.assert_allclose(normals(torch.from_numpy(keys), 1000), expected, atol=2e-5)
    assert normals(torch.from_numpy(keys), 7).shape == (3, 7)
    many = normals(torch.arange(40) * 10**12, 50_000)
    assert many.isfinite().all()
    tails = [many.abs().gt(level).double().mean() / (2 * stats.norm.sf(level)) for level in (2, 3, 4)]
    np.testing.assert_allclose(tails, 1, atol=0.25)
