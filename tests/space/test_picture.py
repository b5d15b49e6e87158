"""A visitor's file becomes the pixels that scripts/predict.py reads of it, or a kind refusal; nothing else, and soon."""

import gzip
import io
import struct
import time
import tomllib
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image

from hf_galaxy.data.pictures import Rendering
from hf_galaxy.data.views import Framing
from hf_galaxy.errors import BadInput
from hf_galaxy.models.prediction_inputs import Reader
from picture import Picture, plain_name, read_picture
from tests.conftest import ROOT

RNG = np.random.default_rng(7)
COLOURS = RNG.integers(0, 256, (48, 64, 3), dtype=np.uint8)
SMOOTH = np.asarray(Image.fromarray(COLOURS[::8, ::8]).resize((64, 48), Image.Resampling.BICUBIC))
FLUX = (RNG.normal(0, 1, (48, 64)) + 300 * np.exp(-np.hypot(*np.mgrid[-24:24, -30:34]) / 4)).astype(np.float32)
SENTENCES = tomllib.loads((ROOT / "spaces_app" / "text" / "en.toml").read_text())["inputs"]


def saved(pixels, form, mode="RGB", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, form, **options)
    return file.getvalue()


def fits_bytes(*images):
    file = io.BytesIO()
    hdus = [each if isinstance(each, fits.hdu.base._BaseHDU) else fits.PrimaryHDU(each) for each in images]
    fits.HDUList(hdus).writeto(file)
    return file.getvalue()


def chunk(kind, data=b""):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunks(png, chunks):
    """A PNG with more chunks behind its header."""
    return png[:33] + chunks + png[33:]


def with_holes():
    values = FLUX.copy()
    values[:5] = np.nan
    return values


def turned():
    exif = Image.Exif()
    exif[274] = 6
    return saved(SMOOTH, "JPEG", exif=exif)


GOOD = {
    "jpeg": saved(SMOOTH, "JPEG"),
    "progressive": saved(SMOOTH, "JPEG", progressive=True, quality=97, subsampling=0),
    "grey jpeg": saved(SMOOTH, "JPEG", "L"),
    "cmyk": saved(SMOOTH, "JPEG", "CMYK"),
    "turned by exif": turned(),
    "png": saved(SMOOTH, "PNG"),
    "grey png": saved(SMOOTH, "PNG", "L"),
    "alpha": saved(np.dstack([SMOOTH, SMOOTH[..., 0]]), "PNG", "RGBA"),
    "palette": saved(SMOOTH, "PNG", "P"),
    "transparent palette": saved(SMOOTH, "PNG", "P", transparency=3),
    "black and white": saved(SMOOTH, "PNG", "1"),
    "16 bits": saved((FLUX - FLUX.min()) .astype(np.uint16) * 100, "PNG", "I;16"),
    "fits": fits_bytes(FLUX),
    "three bands": fits_bytes(np.stack([FLUX, 2 * FLUX, 3 * FLUX])),
    "fits in an extension": fits_bytes(None, fits.ImageHDU(FLUX)),
    "gzipped fits": gzip.compress(fits_bytes(FLUX)),
    "nans": fits_bytes(with_holes()),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_pixels_are_those_of_predict(name, tmp_path):
    read = Reader([], [], Framing(32), Rendering()).decoded(GOOD[name])
    (tmp_path / "a.png").write_bytes(GOOD[name])
    for file in (GOOD[name], tmp_path / "a.png", str(tmp_path / "a.png")):
        picture = read_picture(file)
        assert isinstance(picture, Picture)
        assert picture.pixels.dtype == np.uint8
        np.testing.assert_array_equal(picture.pixels, read)
    assert picture.name == "a.png"
    assert picture.pixels.shape == (48, 64, 3)


def test_webp_becomes_rgb_over_black():
    lossless = saved(np.dstack([SMOOTH, SMOOTH[..., 0]]), "WEBP", "RGBA", lossless=True, exact=True)
    as_png = read_picture(GOOD["alpha"])
    np.testing.assert_array_equal(read_picture(lossless, "a.jpg").pixels, as_png.pixels)
    lossy = read_picture(saved(SMOOTH, "WEBP", quality=95)).pixels.astype(int)
    assert np.abs(lossy - SMOOTH).mean() < 6


def moving(form):
    frames = [Image.fromarray(SMOOTH), Image.fromarray(SMOOTH[::-1].copy())]
    file = io.BytesIO()
    frames[0].save(file, form, save_all=True, append_images=frames[1:], duration=100)
    return file.getvalue()


TABLE = fits.BinTableHDU.from_columns([fits.Column("a", "E", array=np.arange(3.0))])
HUGE = fits_bytes(FLUX).replace(b"NAXIS1  =                   64", b"NAXIS1  =          64000000000")
BOMB = GOOD["png"][:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 90_000, 8, 2, 0, 0, 0)) + GOOD["png"][33:]
BAD = {
    "empty": b"",
    "too_large": bytes(20_000_001),
    "no_picture": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
    "no_picture ": b"<!DOCTYPE html><html><script>alert(1)</script></html>",
    "no_picture  ": b"%PDF-1.7\n%\xe2\xe3",
    "no_picture   ": b"#!/bin/sh\nrm -rf /",
    "no_picture    ": b"PK\x03\x04" + bytes(100),
    "no_picture     ": bytes(5000),
    "no_picture      ": b"RIFF\x10\0\0\0WEBP",
    "gif": moving("GIF"),
    "gif ": saved(SMOOTH, "GIF"),
    "animated": moving("WEBP"),
    "animated ": moving("PNG"),
    "other_picture": saved(SMOOTH, "TIFF"),
    "other_picture ": saved(SMOOTH, "BMP"),
    "heic": b"\0\0\0\x18ftypheic" + bytes(100),
    "damaged": GOOD["jpeg"][:500],
    "damaged ": GOOD["jpeg"][:-20],
    "damaged  ": GOOD["png"][:500],
    "damaged   ": GOOD["png"][:-12],
    "damaged    ": saved(SMOOTH, "WEBP")[:-50],
    "damaged     ": b"\xff\xd8\xff",
    "damaged      ": GOOD["gzipped fits"][:-200],
    "damaged, of very many chunks": with_chunks(GOOD["png"], chunk(b"abCd") * 1_000_000),
    "damaged, of very many segments": GOOD["jpeg"][:2] + b"\xff\xfe\0\2" * 4_000_000 + GOOD["jpeg"][2:],
    "damaged, of filling": GOOD["jpeg"][:2] + b"\xff" * 15_000_000 + GOOD["jpeg"][2:],
    "damaged, of very many scans": GOOD["progressive"][:-2]
    + GOOD["progressive"][GOOD["progressive"].rindex(b"\xff\xda") : -2] * 1000
    + b"\xff\xd9",
    "damaged, of very many gzips": gzip.compress(b"") * 500_000,
    "too_many_pixels": BOMB,
    "too_many_pixels ": saved(np.zeros((7200, 7200), np.uint8), "PNG", "L"),
    "too_many_pixels  ": saved(np.zeros((7200, 7200), np.uint8), "JPEG", "L"),
    "too_many_pixels   ": saved(np.zeros((3000, 3000), np.uint16), "PNG", "I;16"),
    "too_large, gzipped": gzip.compress(fits_bytes(FLUX) + bytes(100_000_000), 1),
    "gzip": gzip.compress(GOOD["jpeg"]),
    "too_small": saved(SMOOTH[:1, :1], "PNG"),
    "too_small ": fits_bytes(FLUX[:, :9]),
    "too_small  ": saved(np.zeros((3, 20_000), np.uint8), "PNG", "L"),
    "too_long": saved(np.zeros((20, 81), np.uint8), "JPEG", "L"),
    "fits_no_image": fits_bytes(None, TABLE),
    "fits_no_image ": fits_bytes(np.zeros((4, 20, 20), np.float32)),
    "fits_no_image  ": fits_bytes(FLUX)[:5760],
    "fits_no_pixels  ": fits_bytes(FLUX).replace(b"BITPIX  =                  -32", b"BITPIX  =                  -33"),
    "fits_no_image   ": b"SIMPLE  =" + bytes(9000),
    "fits_no_image    ": fits_bytes(None),
    "fits_packed": fits_bytes(None, fits.CompImageHDU(FLUX)),
    # Decoding it would end the process.
    "fits_packed ": fits_bytes(None, fits.CompImageHDU(FLUX, compression_type="HCOMPRESS_1")).replace(
        b"ZNAXIS1 =                   64", b"ZNAXIS1 =                   10"
    ),
    "fits_no_pixels": fits_bytes(np.full((40, 40), np.nan, np.float32)),
    "fits_no_pixels ": fits_bytes(np.ones((40, 40), np.float32)),
    "fits_too_many": HUGE,
    "fits_too_many ": fits_bytes(FLUX, *[fits.ImageHDU()] * 120),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_picture_is_refused_in_kind_words_and_soon(name):
    reason = name.split(",")[0].strip()
    start = time.thread_time()  # not the time of whatever else runs here
    with pytest.raises(BadInput) as refused:
        read_picture(BAD[name], "galaxy.jpg")
    assert time.thread_time() - start < 3
    begin = SENTENCES[reason].partition("{")[0]
    assert begin
    assert str(refused.value).startswith(begin), refused.value
    assert "{" not in str(refused.value)


def test_a_square_within_the_limits_is_accepted():
    assert read_picture(saved(np.zeros((16, 64), np.uint8), "PNG", "L")).pixels.shape == (16, 64, 3)


def test_a_file_that_is_not_there_is_said_to_be_gone(tmp_path):
    for path in (tmp_path / "none.png", tmp_path, "a\0b", "http://localhost/a.jpg", "x" * 5000):
        with pytest.raises(BadInput, match="was not received") as refused:
            read_picture(path)
        assert str(tmp_path) not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("../../etc/passwd", "passwd"),
        ("/a/b.png", "b.png"),
        ("C:\\Users\\me\\b.png", "b.png"),
        ("a\n\0b\u202e\udcff.png", "ab.png"),
        ("n" * 300, "n" * 100),
        ("folder/", "folder"),
        ("Größe 1.png", "Größe 1.png"),
        ("", ""),
    ],
)
def test_a_name_is_the_last_part_of_a_path(name, plain):
    assert plain_name(name) == plain
    assert read_picture(GOOD["png"], name).name == plain


def mutated(content, generator):
    """The file with some of its bytes changed, or cut off, or a piece repeated."""
    values = bytearray(content)
    for _ in range(generator.integers(1, 9)):
        place = int(generator.integers(len(values))) // int(generator.choice([1, 1, 4, 64]))
        values[place] = generator.integers(256)
    if generator.random() < 0.3:
        values = values[: generator.integers(1, len(values))]
    if generator.random() < 0.1:
        values[100:100] = values[: generator.integers(1, 3000)]
    return bytes(values)


def test_damaged_files_give_pictures_or_refusals_only():
    generator, sources = np.random.default_rng(3), [*GOOD.values(), saved(SMOOTH, "WEBP"), moving("WEBP")]
    pictures, reasons = [], []
    for source in sources * 15:
        try:
            pictures.append(read_picture(mutated(source, generator)).pixels)
        except BadInput as error:
            reasons.append(str(error))
    assert all(each.dtype == np.uint8 and each.ndim == 3 and each.shape[2] == 3 for each in pictures)
    begins = tuple(each.partition("{")[0] for each in SENTENCES.values())
    assert all(each.startswith(begins) for each in reasons)
    assert len(pictures) > 20
    assert len(reasons) > 50


def test_several_at_once_give_the_same():
    names = [*GOOD] * 4
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda name: read_picture(GOOD[name]).pixels, names))
    for name, pixels in zip(names, read, strict=True):
        np.testing.assert_array_equal(pixels, read_picture(GOOD[name]).pixels)
