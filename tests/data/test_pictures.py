"""Files of any format become 8-bit pictures, or are kept as they are; what is no picture is refused."""

import gzip
import io
import json
import pickle
import re
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
import yaml
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from PIL import Image

from hf_galaxy.data import pictures
from hf_galaxy.data.galaxies import decode
from hf_galaxy.data.pictures import Rendering, kind_of
from hf_galaxy.errors import BadInput

RNG = np.random.default_rng(1)
SKY = RNG.normal(0, 1, (40, 60)) + 300 * np.exp(-np.hypot(*np.mgrid[-20:20, -25:35]) / 4)  # a galaxy, not quite central
CUBE = np.stack([SKY, 1.5 * SKY, 2 * SKY + RNG.normal(0, 1, SKY.shape)]).astype(np.float32)
COLOURS = RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8)


def saved(pixels, form="PNG", mode=None, **options):
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    (picture.convert(mode) if mode else picture).save(file, form, **options)
    return file.getvalue()


def raw_png(rows, depth, colour):
    """PNG of big-endian `rows` (height, width, bands) with IHDR's bit depth and colour type; Pillow writes not all."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", rows.shape[1], rows.shape[0], depth, colour, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def fits_file(*hdus):
    hdus = [hdu if isinstance(hdu, fits.hdu.base._BaseHDU) else fits.PrimaryHDU(hdu) for hdu in hdus]
    file = io.BytesIO()
    fits.HDUList(hdus).writeto(file)
    return file.getvalue()


def pixels_of(content, **settings):
    return np.asarray(Rendering(**settings).open(content, "a.file"))


def kept_of(content, **settings):
    """What is kept of the pixels of a file, before it is written as JPEG."""
    rendering = Rendering(**settings)
    return np.asarray(rendering.reduced(rendering.decode(content).pixels))


def interval(values):
    values = values[np.isfinite(values)].astype(np.float64)
    return np.percentile(values, 0.25), np.percentile(values, 99.75)


def by_hand(values, stretch):
    low, high = interval(values)
    x = np.clip((values.astype(np.float64) - low) / (high - low), 0, 1)
    return np.rint(255 * stretch(x)).astype(int)[..., ::-1, :]


def asinh(x):
    return np.arcsinh(x / 0.1) / np.arcsinh(10)


def close(pixels, expected):
    """Equal but for a rounding of halves."""
    return pixels.shape == expected.shape and np.abs(pixels.astype(int) - expected).max() <= 1


# Files that are kept


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("size", [None, 40, 100])
def test_an_8_bit_picture_that_is_small_enough_is_kept_byte_for_byte(form, mode, size):
    content = saved(COLOURS, form, mode)
    suffix = {"JPEG": ".jpg", "PNG": ".png"}[form]
    assert Rendering(size=size).render(content, "a.fits") == (content, suffix)
    assert kind_of(content) == form.lower()
    np.testing.assert_array_equal(pixels_of(content, size=size), np.asarray(Image.open(io.BytesIO(content))))


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_larger_picture_is_reduced_and_grey_stays_grey(form, mode):
    content = saved(COLOURS, form, mode, **({"icc_profile": b"stale"} if form == "PNG" else {}))
    result, suffix = Rendering(size=20, quality=90).render(content)
    picture = Image.open(io.BytesIO(result))
    assert (suffix, picture.format, picture.mode, picture.size) == (".jpg", "JPEG", mode, (30, 20))
    assert "icc_profile" not in picture.info
    assert [layer[1:3] for layer in picture.layer] == [(1, 1)] * len(mode)  # no band is coarser than the others
    expected = Image.open(io.BytesIO(content)).resize((30, 20), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(kept_of(content, size=20), np.asarray(expected))
    assert result == saved(expected, "JPEG", quality=90, subsampling=0)


def test_the_shorter_side_is_exact_in_either_orientation():
    wide = Image.new("L", (333, 77), 9)
    assert Rendering(size=20).open(saved(wide)).size == (86, 20)
    assert Rendering(size=20).open(saved(wide.transpose(Image.Transpose.ROTATE_90))).size == (20, 86)


@pytest.mark.parametrize(
    ("shape", "crop", "rows", "columns"),
    [
        ((40, 60), 0.6, slice(8, 32), slice(18, 42)),  # a square of 24 pixels in the middle of each side
        ((60, 40), 0.6, slice(18, 42), slice(8, 32)),
        ((41, 41), 0.61, slice(8, 33), slice(8, 33)),  # 25.01 pixels are 25: as many are left out on each side
        ((40, 41), 0.5, slice(10, 30), slice(10, 30)),  # of an odd number the one more is left out at the end
        ((40, 40), 0.99, slice(0, 40), slice(0, 40)),
        ((40, 60), 0.001, slice(19, 20), slice(29, 30)),
    ],
)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_crop_keeps_the_square_in_the_centre(shape, crop, rows, columns, mode):
    pixels = RNG.integers(0, 256, (*shape, 3)[: 2 if mode == "L" else 3], dtype=np.uint8)
    content = saved(pixels)
    np.testing.assert_array_equal(kept_of(content, crop=crop), pixels[rows, columns])
    result, suffix = Rendering(crop=crop, quality=90).render(content)
    assert suffix == ".jpg"
    assert result == saved(np.ascontiguousarray(pixels[rows, columns]), "JPEG", quality=90, subsampling=0)


def test_a_crop_is_reduced_if_it_is_larger_than_the_size():
    middle = Image.fromarray(COLOURS[5:35, 15:45])
    expected = np.asarray(middle.resize((20, 20), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(kept_of(saved(COLOURS), crop=0.75, size=20), expected)
    np.testing.assert_array_equal(kept_of(saved(COLOURS), crop=0.75, size=30), np.asarray(middle))
    np.testing.assert_array_equal(kept_of(saved(COLOURS), crop=0.75, size=35), np.asarray(middle))


def test_a_crop_of_fits_has_the_brightness_of_the_whole():
    whole = pixels_of(fits_file(SKY))
    np.testing.assert_array_equal(kept_of(fits_file(SKY), crop=0.5), whole[10:30, 20:40])
    assert Rendering(crop=0.5).render(fits_file(SKY))[1] == ".jpg"


@pytest.mark.parametrize("form", ["JPEG", "PNG", "FITS"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(
    "options", [{}, {"crop": 0.6}, {"size": 20}, {"crop": 0.9, "size": 30, "quality": 70}, {"size": 40}]
)
def test_what_is_opened_is_what_a_dataset_holds_to_the_bit(form, mode, options):
    content = fits_file(SKY if mode == "L" else CUBE) if form == "FITS" else saved(COLOURS, form, mode)
    opened, published = (
        Rendering(**options).open(content),
        Image.open(io.BytesIO(Rendering(**options).render(content)[0])),
    )
    assert opened.mode == published.mode == mode
    np.testing.assert_array_equal(np.asarray(opened), np.asarray(published))
    np.testing.assert_array_equal(decode(Rendering(**options).render(content)[0]), np.asarray(opened.convert("RGB")))


# Other 8-bit files


def test_transparent_pixels_lie_over_black():
    pixels = np.dstack([COLOURS, np.full((40, 60), 128, np.uint8)])
    pixels[0, 0, 3], pixels[0, 1, 3] = 0, 255
    content = saved(pixels)
    assert kind_of(content) == "other8"
    result, suffix = Rendering().render(content)
    assert suffix == ".png"
    made = np.asarray(Image.open(io.BytesIO(result)))
    assert close(made, np.rint(pixels[..., :3] * (pixels[..., 3:] / 255)).astype(int))
    assert made[0, 0].tolist() == [0, 0, 0]
    assert made[0, 1].tolist() == COLOURS[0, 1].tolist()


@pytest.mark.parametrize(
    "content",
    [
        saved(COLOURS, mode="LA"),
        saved(COLOURS, mode="1"),
        saved(COLOURS, mode="P"),
        saved(COLOURS, mode="P", transparency=3),
        saved(COLOURS, mode="RGB", transparency=tuple(map(int, COLOURS[0, 0]))),
        saved(COLOURS, "JPEG", mode="CMYK"),
    ],
)
def test_other_8_bit_modes_become_rgb_pngs(content):
    assert kind_of(content) == "other8"
    result, suffix = Rendering().render(content)
    picture = Image.open(io.BytesIO(result))
    assert (suffix, picture.format, picture.mode, picture.info) == (".png", "PNG", "RGB", {})
    expected = Image.open(io.BytesIO(content)).convert("RGBA")
    black = Image.new("RGBA", expected.size, "black")
    np.testing.assert_array_equal(np.asarray(picture), np.asarray(Image.alpha_composite(black, expected))[..., :3])
    assert Rendering(size=20).render(content)[1] == ".jpg"


def test_a_png_of_4_bits_is_written_with_8():
    content = raw_png(np.array([[[0x0F], [0x3A]]], np.uint8), depth=4, colour=0)
    content = content.replace(struct.pack(">II", 2, 1), struct.pack(">II", 4, 1))  # two pixels in each byte
    content = content[:29] + struct.pack(">I", zlib.crc32(content[12:29])) + content[33:]
    assert kind_of(content) == "other8"
    assert np.asarray(Image.open(io.BytesIO(Rendering().render(content)[0]))).tolist() == [[0, 255, 51, 170]]


# 16 bits


def test_a_16_bit_grey_png_is_stretched_and_not_flipped():
    values = np.clip(SKY * 200 + 1000, 0, 65535).astype(np.uint16)
    content = saved(values)
    assert kind_of(content) == "png16"
    assert close(pixels_of(content), by_hand(values, asinh)[::-1])
    result, suffix = Rendering().render(content)
    assert suffix == ".png"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(result))), pixels_of(content))
    assert Rendering(size=20).render(content)[1] == ".jpg"


@pytest.mark.parametrize(("bands", "colour"), [(3, 2), (4, 6), (2, 4)])
def test_16_bits_of_colour_keep_the_upper_8(bands, colour):
    values = RNG.integers(0, 65536, (5, 6, bands), dtype=np.uint16)
    if bands != 3:
        values[..., -1] = 65535
    content = raw_png(values.astype(">u2"), 16, colour)
    assert kind_of(content) == "png16rgb"
    result, suffix = Rendering().render(content)
    upper = values[..., :3] >> 8 if bands > 2 else np.repeat(values[..., :1] >> 8, 3, -1)
    assert suffix == ".png"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(result))), upper)


# FITS


@pytest.mark.parametrize(
    ("stretch", "formula"),
    [
        ("asinh", asinh),
        ("linear", lambda x: x),
        ("sqrt", np.sqrt),
        ("log", lambda x: np.log(1000 * x + 1) / np.log(1001)),
    ],
)
def test_fits_is_stretched_as_its_formula_says_and_flipped(stretch, formula):
    content = fits_file(SKY)
    assert close(pixels_of(content, stretch=stretch), by_hand(SKY, formula))
    three = by_hand(CUBE, formula)  # percentiles of all bands together
    assert close(pixels_of(fits_file(CUBE), stretch=stretch, rgb=(2, 0, 1)), np.moveaxis(three[[2, 0, 1]], 0, -1))


def test_the_percentiles_and_the_softening_are_those_asked_for():
    low, high = np.percentile(SKY, [10, 90])
    expected = np.arcsinh(np.clip((SKY - low) / (high - low), 0, 1) / 0.5) / np.arcsinh(2)
    assert close(pixels_of(fits_file(SKY), low=10, high=90, softening=0.5), np.rint(255 * expected[::-1]).astype(int))


def test_the_first_row_of_fits_is_at_the_bottom():
    values = np.zeros((9, 12))
    values[0, 3] = values[0, 4] = 1
    assert np.argwhere(pixels_of(fits_file(values), high=100)).tolist() == [[8, 3], [8, 4]]


def test_what_is_not_finite_is_black_and_sets_no_level():
    values = SKY.copy()
    values[3, 4], values[5, 6], values[7, 8] = np.nan, np.inf, -np.inf
    pixels = pixels_of(fits_file(values))[::-1]
    assert pixels[3, 4] == pixels[5, 6] == pixels[7, 8] == 0
    low, high = interval(values)
    assert close(pixels[20:], np.rint(255 * asinh(np.clip((values[20:] - low) / (high - low), 0, 1))).astype(int))


@pytest.mark.parametrize("size", [None, 20])
@pytest.mark.parametrize(("values", "mode"), [(SKY, "L"), (SKY[None], "L"), (CUBE, "RGB")])
def test_fits_is_written_as_lossless_png_or_reduced_as_jpeg(values, mode, size):
    content = fits_file(values)
    assert kind_of(content) == ("fits1" if mode == "L" else "fits3")
    result, suffix = Rendering(size=size).render(content)
    picture = Image.open(io.BytesIO(result))
    assert (suffix, picture.format, picture.mode) == ((".jpg", "JPEG", mode) if size else (".png", "PNG", mode))
    assert picture.size == ((30, 20) if size else (60, 40))
    if not size:
        np.testing.assert_array_equal(np.asarray(picture), pixels_of(content))
    assert Rendering(size=size).render(content) == (result, suffix)


def test_every_way_to_store_fits_gives_the_same_picture():
    whole = np.rint(SKY * 10).astype(np.int16)
    expected = pixels_of(fits_file(whole))
    scaled = fits.PrimaryHDU((whole.astype(np.int32) - 5).astype(np.int16))
    scaled.header["BZERO"], scaled.header["BSCALE"] = 2.5, 0.5
    assert close(pixels_of(fits_file(scaled)), expected.astype(int))
    unsigned = (whole.astype(np.int32) + 32768).astype(np.uint16)
    for hdus in [
        [whole.astype(">f4")], [whole.astype("<f8")], [unsigned], [whole.astype(np.int64)],
        [fits.PrimaryHDU(), fits.BinTableHDU(np.array([(1,)], [("x", "i4")])), fits.ImageHDU(whole)],
        [np.zeros((2, 2, 2, 2)), fits.ImageHDU(np.zeros((4, 9, 9))), fits.ImageHDU(whole)],
        [fits.PrimaryHDU(), fits.CompImageHDU(whole, compression_type="RICE_1")],
        [fits.PrimaryHDU(), fits.CompImageHDU(whole, compression_type="GZIP_2")],
    ]:  # fmt: skip
        np.testing.assert_array_equal(pixels_of(fits_file(*hdus)), expected)
    np.testing.assert_array_equal(pixels_of(gzip.compress(fits_file(whole))), expected)
    assert kind_of(gzip.compress(fits_file(CUBE))) == "fits3"


@pytest.mark.parametrize("name", ["MASK", "bad_mask", "WHT", "ERR", "IVAR", "DQ"])
def test_a_mask_before_the_science_image_is_not_the_picture(name):
    expected = pixels_of(fits_file(SKY))
    other = fits.ImageHDU((SKY > 0).astype(np.uint8), name=name)
    np.testing.assert_array_equal(
        pixels_of(fits_file(fits.PrimaryHDU(), other, fits.ImageHDU(SKY, name="SCI"))), expected
    )
    np.testing.assert_array_equal(pixels_of(fits_file(fits.PrimaryHDU(SKY), other)), expected)


@pytest.mark.parametrize("form", ["TIFF", "GIF", "BMP", "WEBP"])
def test_other_formats_become_png_at_publishing_and_are_the_same_picture_everywhere(form):
    file, grey = io.BytesIO(), Image.fromarray(COLOURS).convert("L")
    grey.save(file, form, **({"lossless": True} if form == "WEBP" else {}))
    expected = np.asarray(Image.open(io.BytesIO(file.getvalue())).convert("RGB"))
    assert kind_of(file.getvalue()) == "other8"
    content, suffix = Rendering().render(file.getvalue())
    assert suffix == ".png"
    for pixels in (np.asarray(Image.open(io.BytesIO(content)).convert("RGB")), decode(file.getvalue())):
        np.testing.assert_array_equal(pixels, expected)


def test_a_tiff_of_16_bits_is_stretched_like_a_png():
    values = np.rint(1000 * SKY - 1000 * SKY.min()).astype(np.uint16)
    np.testing.assert_array_equal(pixels_of(saved(values, "TIFF")), pixels_of(saved(values)))


def test_a_blank_integer_is_black():
    whole = np.rint(SKY * 10).astype(np.int16)
    whole[2, 2] = 32000
    hdu = fits.PrimaryHDU(whole)
    hdu.header["BLANK"] = 32000
    assert pixels_of(fits_file(hdu))[-3, 2] == 0


def test_what_astropy_only_warns_of_does_not_matter():
    content = fits_file(SKY)
    end = b"END".ljust(160)
    odd = content.replace(end, b"BLANK   = -1".ljust(80) + end[:80]) + b"what is no HDU"
    with pytest.warns(AstropyWarning, match="BLANK"), pytest.warns(AstropyWarning, match="extra bytes"):
        assert len(fits.open(io.BytesIO(odd))) == 1
    np.testing.assert_array_equal(pixels_of(odd), pixels_of(content))


def test_lupton_keeps_the_hue_and_prints_high_white():
    values = RNG.normal(0, 0.01, (3, 50, 50))
    values[:, 10, 10] = 1000, 2000, 4000  # blue to red, far above white
    values[:, 20, 20] = 0.5, 1, 2
    content = fits_file(values)
    pixels = pixels_of(content, stretch="lupton")[::-1]
    assert pixels[10, 10].tolist() == [255, 128, 64]
    red, green, blue = pixels[20, 20].astype(float)
    assert (red / green, green / blue) == pytest.approx((2, 2), rel=0.05)
    assert pixels_of(content)[::-1][10, 10].tolist() == [255, 255, 255]  # asinh does not

    ramp = np.repeat(np.linspace(0, 1, 401)[None, None], 3, 0).repeat(9, 1)
    pixels = pixels_of(fits_file(ramp), stretch="lupton", low=0, high=50)[0, :, 0]
    expected = np.arcsinh(8 * ramp[0, 0] / 0.5) / np.arcsinh(8)
    assert close(pixels, np.rint(255 * expected.clip(0, 1)).astype(int))
    assert pixels[190] < 255 == pixels[200]


def test_lupton_shows_what_is_not_finite_as_black():
    values = CUBE.copy()
    values[:, 4, 5] = np.nan, np.inf, -np.inf
    assert pixels_of(fits_file(values), stretch="lupton")[::-1][4, 5].tolist() == [0, 0, 0]


# What is refused


FITS = fits_file(SKY)
NEITHER = "is neither JPEG, PNG, WEBP, TIFF, GIF, BMP nor FITS"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", NEITHER),
        (b"this is text", NEITHER),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', NEITHER),
        (b"<html><body>404</body></html>", NEITHER),
        (pickle.dumps(SKY), NEITHER),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n", NEITHER),  # Pillow would start Ghostscript
        (saved(COLOURS, "PPM"), NEITHER),
        (gzip.compress(saved(COLOURS)), NEITHER),
        (saved(COLOURS, "JPEG")[:900], "truncated"),
        (saved(COLOURS)[:900], "truncated"),
        (saved(COLOURS)[:-12], "is truncated"),
        (FITS[:40], "."),
        (FITS[:2880], "File may have been truncated"),
        (FITS[:9000], "File may have been truncated"),
        (FITS[:-1], "File may have been truncated"),
        (gzip.compress(FITS)[:-100], "ended before the end"),
        (fits_file(fits.PrimaryHDU()), "has no image"),
        (fits_file(np.zeros(9)), r"has the shape \(9,\), not"),
        (fits_file(np.zeros((5, 9, 8))), r"has the shape \(5, 9, 8\), not"),
        (fits_file(np.zeros((9, 8, 3))), r"has the shape \(9, 8, 3\), not"),
        (fits_file(np.zeros((2, 1, 9, 8))), r"has the shape \(2, 1, 9, 8\), not"),
        (fits_file(np.full((9, 9), np.nan)), "has no finite pixel"),
        (fits_file(np.full((9, 9), 7)), "its pixels are all 7, from percentile 0.25 to 99.75"),
        (saved(np.full((9, 9), 40000, np.uint16)), "its pixels are all 40000"),
        (fits_file(np.array([[-1.7e308, 1.7e308]] * 9)), "overflow"),
    ],
)  # fmt: skip
def test_what_is_no_picture_is_refused(content, reason):
    for read in (Rendering().render, Rendering().open):
        with pytest.raises(BadInput, match=rf"^a\.jpg: cannot be read as a picture \(.*{reason}.*\)$"):
            read(content, "a.jpg")
    with pytest.raises(BadInput, match=r"^cannot be read as a picture \("):
        Rendering().render(content)


def test_kind_of_refuses_too():
    with pytest.raises(BadInput, match=rf"^b\.png: cannot be read as a picture \({NEITHER}\)$"):
        kind_of(b"text", "b.png")


@pytest.mark.parametrize("content", [FITS, fits_file(SKY[None]), saved(np.arange(81, dtype=np.uint16).reshape(9, 9))])
def test_lupton_needs_three_bands(content):
    with pytest.raises(BadInput, match=r'^g: .*\(has one band; stretch "lupton" needs three\)$'):
        Rendering(stretch="lupton").render(content, "g")


def test_too_many_pixels_are_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow itself errs beyond twice as many
    for content in (saved(COLOURS), saved(COLOURS, "JPEG")):
        with pytest.raises(BadInput, match="exceeds limit of 2000 pixels"):
            Rendering().render(content, "a.png")
    for content in (FITS, fits_file(fits.PrimaryHDU(), fits.CompImageHDU(SKY))):
        with pytest.raises(BadInput, match=r"its image of shape \(40, 60\) is empty or too large"):
            Rendering().render(content, "a.fits")


def test_a_gzip_that_expands_too_far_is_refused(monkeypatch):
    monkeypatch.setattr(pictures, "MAX_BYTES", len(FITS))
    Rendering().render(gzip.compress(FITS))
    with pytest.raises(BadInput, match=r"^a\.fits\.gz: cannot be read as a picture \(is larger than 1 GiB\)$"):
        Rendering().render(gzip.compress(FITS + bytes(2880)), "a.fits.gz")


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 7}, {"stretch": "histogram"}, {"low": 99.75}, {"low": -1}, {"high": 101}, {"softening": 0},
        {"softening": float("nan")}, {"lupton_q": 0}, {"rgb": (0, 1, 1)}, {"rgb": (0, 1)}, {"rgb": (1, 2, 3)},
        {"quality": 0}, {"quality": 101}, {"crop": 0}, {"crop": 1.1}, {"crop": float("nan")},
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(BadInput, match=f"^pictures: .*{next(iter(wrong))}"):
        Rendering(**wrong).check()


def test_possible_settings_pass():
    Rendering().check()
    Rendering(0.01, 8, "lupton", 0, 100, 2, 1, (0, 1, 2), 100).check()


@pytest.mark.parametrize(
    ("stated", "rendering"),
    [
        (None, Rendering()),
        ({}, Rendering()),
        ({"low": 1, "rgb": [0, 2, 1]}, Rendering(low=1, rgb=(0, 2, 1))),
        (Rendering(0.5, 64, "lupton", 0, 99, 0.2, 5, (0, 1, 2), 80).to_dict(),) * 2,
    ],
)
def test_a_stated_rendering_is_read_again(stated, rendering):
    rendering = (
        rendering if isinstance(rendering, Rendering) else Rendering(0.5, 64, "lupton", 0, 99, 0.2, 5, (0, 1, 2), 80)
    )
    assert Rendering.of(stated) == rendering
    assert Rendering.of(json.loads(json.dumps(rendering.to_dict()))) == rendering
    assert Rendering.of(yaml.safe_load(yaml.safe_dump(rendering.to_dict()))) == rendering
    assert rendering.whole == replace(rendering, crop=1, size=None)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"zoom": 2}, "zoom is none of crop, size, stretch"),
        ({"stretch": "cubic"}, "stretch 'cubic' is not one of"),
        ({"rgb": 3}, "has a value of a wrong type"),
        ({"low": "little"}, "has a value of a wrong type"),
        ({"size": 64.5}, "has a value of a wrong type"),
        ({"quality": "95"}, "has a value of a wrong type"),
        ({"rgb": [0.0, 1.0, 2.0]}, "has a value of a wrong type"),
    ],
)
def test_values_that_are_none_are_refused(values, reason):
    with pytest.raises(BadInput, match=f"^pictures: .*{re.escape(reason)}"):
        Rendering.of(values)
