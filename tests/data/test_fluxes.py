"""Fluxes keep their numbers in a dataset, and their stretch is that of the survey."""

import numpy as np
import pytest
import torch
from astropy.stats import mad_std, sigma_clipped_stats
from safetensors.numpy import load

from hf_galaxy.data.band_stretch import BandStretch
from hf_galaxy.data.fluxes import arcsec_per_pixel_of, decode_fluxes, encode_fluxes, filled
from hf_galaxy.data.galaxies import Galaxies
from hf_galaxy.data.views import Framing, eval_view, to_canvases
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.dataset import open_dataset
from hf_galaxy.training.augmentation import Augmentation, draw_affine, train_view
from hf_galaxy.training.targets.classes import Classes
from tests.fluxes import BANDS, NOISE, SKY, galaxy, publish_fluxes


def test_fluxes_are_read_as_they_were_written():
    planes = {"z": np.float32([[1e-9, np.nan, 3e9]]), "g": np.float32([[-1, np.inf, 0.1]])}
    content = encode_fluxes(planes, 0.262)
    assert load(content).keys() == planes.keys(), "any reader of safetensors finds the bands by name"
    assert np.array_equal(decode_fluxes(content, ["g", "z"]), np.stack([planes["g"], planes["z"]]), equal_nan=True)
    assert np.array_equal(decode_fluxes(content, ["z"])[0], planes["z"], equal_nan=True)
    assert arcsec_per_pixel_of(content) == 0.262
    assert arcsec_per_pixel_of(encode_fluxes(planes)) is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "there is no picture of fluxes"),
        (b"", "cannot be read"),
        (b"\xff" * 64, "cannot be read"),
        (encode_fluxes({"g": np.zeros((3, 4))})[:-4], "cannot be read"),
        (encode_fluxes({"r": np.zeros((3, 4)), "i": np.zeros((3, 4))}), "has no band g, only i, r"),
        (encode_fluxes({"g": np.zeros((2, 3, 4))}), r"are not pictures of one size: \(2, 3, 4\)"),
        (encode_fluxes({"g": np.zeros((0, 4))}), "are not pictures of one size"),
    ],
)
def test_what_holds_no_fluxes_is_refused(content, reason):
    with pytest.raises(BadInput, match=reason):
        decode_fluxes(content, ["g"])


def test_pixels_without_a_value_get_that_of_their_plane():
    planes = np.float32([[[1, 2], [np.nan, 9]], [[np.nan, np.nan], [np.nan, np.nan]], [[np.inf, 4], [4, 6]]])
    result = filled(planes)
    assert result[0].tolist() == [[1, 2], [2, 9]]
    assert np.isnan(result[1]).all(), "the model knows the level of the sky"
    assert result[2].tolist() == [[4, 4], [4, 6]]
    assert np.isnan(planes[0, 1, 0]), "what was given stays what it was"


def test_sky_and_noise_are_those_that_were_drawn():
    drawn = [galaxy(i, 100) for i in range(20)]
    measured = BandStretch.of([np.concatenate([planes[b].ravel() for planes in drawn]) for b in BANDS], BANDS)
    for c in range(4):
        assert measured.sky[c] == pytest.approx((c + 1) * SKY, abs=0.1 * (c + 1) * NOISE)
        assert measured.noise[c] == pytest.approx((c + 1) * NOISE, rel=0.1)
    # Independent: astropy's clipping, of pixels far from the centre.
    border = np.concatenate([planes["g"][:9].ravel() for planes in drawn])
    _, median, _ = sigma_clipped_stats(border)
    assert measured.sky[0] == pytest.approx(median, abs=0.1)
    assert measured.noise[0] == pytest.approx(mad_std(border), rel=0.1)


def test_brightness_is_the_asinh_of_fluxes_in_units_of_the_noise():
    stretch = BandStretch(sky=(5.0, 0.0), noise=(2.0, 1.0), saturation=(105.0, 10.0))
    fluxes = torch.tensor([[[5.0, 7.0, 105.0, 1e9, np.nan]], [[0.0, -1.0, 10.0, -1e9, 5.0]]])
    expected = [
        [0, np.arcsinh(1) / np.arcsinh(50), 1, 1, 0],
        [0, -np.arcsinh(1) / np.arcsinh(10), 1, -1, np.arcsinh(5) / np.arcsinh(10)],
    ]
    np.testing.assert_allclose(stretch.brightness(fluxes)[:, 0], expected, rtol=1e-6)
    assert BandStretch.from_dict(stretch.to_dict()) == stretch


def test_a_band_that_shows_nothing_is_refused(caplog):
    with pytest.raises(BadInput, match="band z: has no values in the training set"):
        BandStretch.of([np.float32([np.nan, np.nan])], ["z"])
    with pytest.raises(BadInput, match="band z: shows no sources"):
        BandStretch.of([np.zeros(100, np.float32)], ["z"])
    masked = np.zeros(1000, np.float32)
    masked[:100] = np.linspace(1, 50, 100)  # the sky was set to 0
    assert BandStretch.of([masked], ["z"]).noise[0] == pytest.approx(0.5, rel=0.01)
    assert "more than half of its pixels are the number 0" in caplog.text


def test_canvases_of_fluxes_are_fluxes():
    planes = np.stack(list(galaxy(1).values()))
    same = to_canvases([planes], Framing(40, bands=BANDS))
    assert np.array_equal(same[0], planes)
    half = to_canvases([planes], Framing(20, bands=BANDS))
    assert half.shape == (1, 4, 20, 20)
    assert half.mean() == pytest.approx(planes.mean(), rel=0.01), "the brightness of the surface stays"
    missing = planes.copy()
    missing[3] = np.nan
    assert to_canvases([missing], Framing(20, bands=BANDS))[0, 3].isnan().all()
    assert torch.equal(to_canvases([missing], Framing(20, bands=BANDS))[0, :3], half[0, :3])


def test_views_of_fluxes_are_fluxes():
    framing = Framing(24, crop=0.6, bands=BANDS)
    canvases = to_canvases([np.stack(list(galaxy(i).values())) for i in range(3)], framing)
    centre = eval_view(canvases, framing)
    still = Augmentation(rotate=False, flip=False, zoom=(1, 1), shift=0)
    affine = torch.from_numpy(draw_affine(0, range(3), framing, still))
    torch.testing.assert_close(train_view(canvases, affine, framing), centre, rtol=1e-4, atol=1e-3)
    turned = train_view(canvases, torch.from_numpy(draw_affine(0, range(3), framing)), framing)
    assert turned.shape == centre.shape
    assert turned.max() > 20, "not divided by 255"


def test_galaxies_give_the_bands_that_are_asked_for(tmp_path):
    rows = open_dataset(str(publish_fluxes(tmp_path / "set", 40)))["train"]
    target = Classes("kind", ("round", "flat"))
    batch = Galaxies(rows, Framing(40, bands=("z", "g")), target)[[0, 1, 2]]
    assert batch["pixels"].dtype == torch.float32
    assert batch["labels"].shape == (3,)
    for pixels, name in zip(batch["pixels"].numpy(), rows[[0, 1, 2]]["id_str"].to_pylist(), strict=True):
        number = int(name.split()[1])
        drawn = galaxy(number)
        if number % 7:
            assert np.array_equal(pixels[1], drawn["g"])
        if number % 10:
            assert np.array_equal(pixels[0], drawn["z"])
        else:
            assert np.isnan(pixels[0]).all()
    with pytest.raises(BadInput, match=r"galaxy \d+.*has no band y, only g, i, r, z"):
        Galaxies(rows, Framing(40, bands=("y",)), target)[[0]]


def test_training_views_of_fluxes_have_nearly_the_noise_of_evaluation_views():
    framing = Framing(32, crop=0.5, bands=("r",))
    noise = torch.randn(64, 1, framing.canvas, framing.canvas, generator=torch.Generator().manual_seed(0))
    turned = Augmentation(zoom=(1, 1))
    views = train_view(noise, torch.from_numpy(draw_affine(0, range(64), framing, turned)), framing)
    assert 0.84 < float(views.std()) < 1, "of bilinear interpolation it is 2/3"
    in_8_bits = (noise * 20 + 128).round().clamp(0, 255).to(torch.uint8)
    views = train_view(in_8_bits, torch.from_numpy(draw_affine(0, range(64), framing, turned)), framing)
    assert float(views.std()) * 255 / 20 == pytest.approx(2 / 3, abs=0.02)
