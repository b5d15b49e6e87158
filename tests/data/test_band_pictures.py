"""The preview is the picture that a file without --bands gives, and crops and sizes of fluxes keep fluxes, scale and missing values."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from astropy.io import fits
from PIL import Image
from torch.nn.functional import interpolate

from hf_galaxy.data.band_files import BandPicture, read_bands
from hf_galaxy.data.band_pictures import flux_columns, fluxes_of, preview, preview_bands, reduced
from hf_galaxy.data.fluxes import arcsec_per_pixel_of, decode_fluxes
from hf_galaxy.data.pictures import Rendering

BANDS = ("u", "g", "r", "i", "z")


def galaxy(height=41, width=50, bands=BANDS, **attributes):
    y, x = np.mgrid[:height, :width]
    rng = np.random.default_rng(3)
    light = np.exp(-np.hypot(x - width / 2.2, y - height / 1.8) / 4)
    planes = {band: ((b + 1) * light + rng.normal(0, 0.05, light.shape)).astype("f4") for b, band in enumerate(bands)}
    return BandPicture(planes, **attributes)


def stacked(picture):
    return np.stack(list(picture.planes.values()))


def fits_file(values):
    file = io.BytesIO()
    fits.PrimaryHDU(values).writeto(file)
    return file.getvalue()


@pytest.mark.parametrize(
    "rendering", [Rendering(), Rendering(crop=0.6), Rendering(size=20), Rendering(stretch="lupton")]
)
def test_three_bands_look_as_their_file_does_without_bands(rendering):
    content = fits_file(stacked(galaxy(bands="grz")))
    columns, kinds = flux_columns(read_bands(content, "a", "grz"), rendering, "a")
    image, suffix = rendering.render(content, "a.fits")
    assert columns["image"] == {"bytes": image, "path": "a" + suffix}
    assert kinds == {"bands"}


@pytest.mark.parametrize(
    ("bands", "shown"),
    [("g", "g"), ("gr", "g"), ("grz", "grz"), ("griz", "riz"), ("ugriz", "gri"), ("ugrizyJH", "gri")],
)
def test_the_preview_shows_some_bands(bands, shown):
    assert preview_bands(tuple(bands)) == list(shown)
    picture = galaxy(bands=bands)
    expected = Rendering().stretched(np.stack([picture.planes[band] for band in shown]))
    assert np.array_equal(preview(picture, Rendering()), expected)
    assert expected.mode == ("L" if len(shown) == 1 else "RGB")


def test_a_band_without_values_is_black_and_others_stand_in_for_all():
    picture = galaxy(bands="grz")
    picture.planes["z"][:] = np.nan
    red, green, blue = np.moveaxis(np.asarray(preview(picture, Rendering())), -1, 0)
    assert not red.any()
    assert green.any()
    assert blue.any()
    picture = galaxy()
    for band in "gri":
        picture.planes[band][:] = np.nan
    expected = Rendering().stretched(np.stack([picture.planes["u"]] * 3))
    assert np.array_equal(preview(picture, Rendering()), expected)
    flat = BandPicture({"g": np.zeros((4, 5), np.float32)})
    assert np.asarray(preview(flat, Rendering())).tolist() == np.zeros((4, 5)).tolist()


@pytest.mark.parametrize("from_bottom", [False, True])
@pytest.mark.parametrize("crop", [0.5, 0.61, 1])
def test_crops_of_fluxes_and_of_the_preview_show_the_same(crop, from_bottom):
    rendering = Rendering(crop=crop)
    picture = galaxy(from_bottom=from_bottom)
    cropped = reduced(picture, rendering)
    rows = np.broadcast_to(np.arange(picture.size[0])[:, None], picture.size)
    columns = np.broadcast_to(np.arange(picture.size[1]), picture.size)
    places = reduced(replace(picture, planes={"y": rows.astype("f4"), "x": columns.astype("f4")}), rendering).planes
    pixels = np.asarray(rows[::-1] if from_bottom else rows).astype(np.uint8)
    shown = np.asarray(rendering.reduced(Image.fromarray(np.ascontiguousarray(pixels))))
    assert np.array_equal(places["y"][::-1] if from_bottom else places["y"], shown)
    y, x = (places[axis].astype(int) for axis in "yx")
    assert np.array_equal(stacked(cropped), stacked(picture)[:, y, x])


def test_a_smaller_picture_is_that_of_torch_and_keeps_the_flux_per_area():
    picture = galaxy(60, 72, arcsec_per_pixel=0.2)
    smaller = reduced(picture, Rendering(size=20))
    assert smaller.size == (20, 24)
    assert smaller.arcsec_per_pixel == pytest.approx(0.6)
    batch = torch.from_numpy(stacked(picture))[None]
    expected = interpolate(batch, size=(20, 24), mode="bicubic", antialias=True)[0]
    assert np.allclose(stacked(smaller), expected, atol=1e-5)
    assert np.allclose(stacked(smaller).mean(axis=(1, 2)), stacked(picture).mean(axis=(1, 2)), rtol=0.01)
    assert reduced(picture, Rendering(size=60)).planes is picture.planes  # never enlarged


def test_most_of_a_pixel_must_have_values():
    picture = galaxy(40, 40, bands="gr")
    plane = picture.planes["g"]
    plane[:3, :4] = np.nan  # three quarters of one pixel, half of the next
    picture.planes["r"][:] = np.nan
    smaller = reduced(picture, Rendering(size=10)).planes
    assert np.isnan(smaller["g"]).sum() == 1
    assert np.isnan(smaller["g"][0, 0])
    assert np.isnan(smaller["r"]).all()
    others = reduced(galaxy(40, 40, bands="g"), Rendering(size=10)).planes["g"]
    assert np.array_equal(smaller["g"][3:, 3:], others[3:, 3:])  # beyond the reach of bicubic interpolation


@pytest.mark.parametrize("rendering", [Rendering(), Rendering(crop=0.5, size=16)])
def test_a_file_or_an_array_has_the_fluxes_that_a_dataset_would_hold(rendering):
    array = stacked(galaxy())
    content = fits_file(array)
    columns, _ = flux_columns(read_bands(content, "a", BANDS), rendering, "a")
    expected = decode_fluxes(columns["flux"]["bytes"], BANDS)
    assert np.array_equal(fluxes_of(content, BANDS, rendering), expected)
    if rendering.crop == 1:
        assert np.array_equal(fluxes_of(array, BANDS, rendering), expected)


def test_the_column_holds_the_planes_and_their_scale():
    picture = galaxy(arcsec_per_pixel=0.262)
    columns, _ = flux_columns(picture, Rendering(), "a")
    content = columns["flux"]["bytes"]
    assert columns["flux"]["path"] == "a.safetensors"
    assert np.array_equal(decode_fluxes(content, BANDS), stacked(picture))
    assert arcsec_per_pixel_of(content) == 0.262
