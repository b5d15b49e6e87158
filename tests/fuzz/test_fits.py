"""FITS images of anybody: what is accepted has the values that its bytes say, and whatever is wrong with it, compressed or not, is one line."""

import gzip
import io
import os

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import example
from hypothesis import strategies as st
from PIL import Image

from hf_galaxy.cutouts.answers import cube, fits_values
from hf_galaxy.data import band_layers, packed_fits, pictures
from hf_galaxy.data.band_files import read_bands
from hf_galaxy.data.packed_fits import check_counts
from hf_galaxy.data.pictures import Rendering, kind_of
from tests.fuzz.cases import Refused, answer, fuzz, memory_for
from tests.fuzz.mutations import damaged

MOST = 200_000  # pixels, instead of 89 million
MEMORY = 2**28  # bytes
TYPES = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
PLAIN = Rendering()


@pytest.fixture(autouse=True)
def few_pixels(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", MOST)
    for module in (pictures, band_layers):
        monkeypatch.setattr(module, "MAX_BYTES", 2**22)


def block(content, fill=b"\0"):
    return content + fill * (-len(content) % 2880)


def header(cards):
    lines = [f"{key:8}= {value:>20}" if value is not None else key for key, value in [*cards, ("END", None)]]
    return block(b"".join(line[:80].ljust(80).encode("latin-1", "replace") for line in lines), b" ")


def image(values, bitpix, more=(), first=True):
    """An HDU of values as they are stored."""
    axes = [(f"NAXIS{i}", str(side)) for i, side in enumerate(values.shape[::-1], 1)]
    start = [("SIMPLE", "T")] if first else [("XTENSION", "'IMAGE   '")]
    end = [] if first else [("PCOUNT", "0"), ("GCOUNT", "1")]
    cards = [*start, ("BITPIX", str(bitpix)), ("NAXIS", str(values.ndim)), *axes, *end, *more]
    return header(cards) + block(values.astype(TYPES[bitpix]).tobytes())


@st.composite
def images(draw):
    """(bytes of a file, its values as numbers): an image of one or three bands."""
    bitpix = draw(st.sampled_from(sorted(TYPES)))
    shape = (*draw(st.sampled_from([(), (1,), (3,)])), draw(st.integers(1, 9)), draw(st.integers(1, 9)))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    stored = rng.integers(0, 100, shape).astype(TYPES[bitpix])
    if bitpix < 0:
        stored = stored + rng.normal(size=shape).astype(TYPES[bitpix])
        stored[rng.random(shape) < draw(st.sampled_from([0, 0.3]))] = np.nan
    scale, zero = draw(st.sampled_from([(1, 0), (0.5, 0), (2, -7.25), (1, 2 ** (bitpix - 1) if bitpix > 8 else 1)]))
    values, more = stored.astype(np.float64) * scale + zero, [("BSCALE", scale), ("BZERO", zero)]
    if bitpix > 0 and draw(st.booleans()):
        more.append(("BLANK", "5"))
        values[stored == 5] = np.nan
    content = image(stored, bitpix, [(key, str(value)) for key, value in more])
    if draw(st.booleans()):
        content = header([("SIMPLE", "T"), ("BITPIX", "8"), ("NAXIS", "0")]) + image(
            stored, bitpix, [(key, str(value)) for key, value in more], first=False
        )
    return draw(st.sampled_from([content, gzip.compress(content, 1)])), values


def packed(values, kind, **options):
    file = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(values, compression_type=kind, **options)]).writeto(file)
    return file.getvalue()


def packed_files():
    rng = np.random.default_rng(1)
    sky = rng.normal(10, 3, (23, 17))
    for kind in ("RICE_1", "GZIP_1", "GZIP_2", "PLIO_1", "HCOMPRESS_1", "NOCOMPRESS"):
        for values in (sky.astype(np.int16),) if kind == "PLIO_1" else (sky.astype(np.float32), sky.astype(np.int32)):
            yield packed(values, kind, tile_shape=(8, 17), quantize_level=16)


PACKED = list(packed_files())
ODD_VALUES = st.sampled_from(
    ["0", "1", "-1", "2", "3", "7", "8", "16", "23", "24", "255", "65536", "2147483647", "-2147483648", "1E400", "NaN", "'x'", "T", "",
     "1000000", "99999999999999999999", "'1PB(7)'", "'1QB(1)'", "'1PB(2000000000)'", "'8A'", "'RICE_1'", "'HCOMPRESS_1'", "'GZIP_2'", "'PLIO_1'",
     "'SUBTRACTIVE_DITHER_2'", "'BYTEPIX'"]
)  # fmt: skip


@st.composite
def changed_cards(draw, valid):
    """A FITS file in whose headers some values are replaced, or cards removed or doubled, and some bytes of which are damaged."""
    content = bytearray(draw(valid))
    places = [
        i for i in range(0, len(content) - 79, 80) if content[i + 8 : i + 9] == b"=" and content[i : i + 1].isupper()
    ]
    for _ in range(draw(st.integers(0, 3))):
        if not places:
            break
        place = draw(st.sampled_from(places))
        how = draw(st.sampled_from(["value", "value", "value", "remove", "copy"]))
        if how == "value":
            content[place + 10 : place + 80] = draw(ODD_VALUES).rjust(20).ljust(70).encode()
        elif how == "remove":
            content[place : place + 80] = b"COMMENT".ljust(80)
        else:
            content[place : place + 80] = content[(other := draw(st.sampled_from(places))) : other + 80]
    if draw(st.booleans()):
        content = draw(damaged(st.just(bytes(content))))
    return bytes(content)


def check(content):
    """Every door refuses a file in one line, or gives what can be used."""
    with memory_for(MEMORY):
        whole = answer(PLAIN.decode, content, "a.fits", place="a.fits")
        kind = answer(kind_of, content, "a.fits", place="a.fits")
        planes = answer(read_bands, content, "a.fits", "gri" if kind == "fits3" else "g", place="a.fits")
        values = answer(fits_values, content)
    if not isinstance(whole, Refused):
        assert kind == whole.kind
        assert np.asarray(whole.pixels).dtype == np.uint8
    if not isinstance(planes, Refused):
        assert all(plane.dtype == np.float32 and not np.isinf(plane).any() for plane in planes.planes.values())
    if not isinstance(values, Refused):
        assert values.ndim >= 2
    return whole, planes, values


@fuzz(images())
def test_values_are_those_in_the_bytes(given):
    content, expected = given
    whole, planes, values = check(content)
    assert not isinstance(planes, Refused) or not np.isfinite(expected).any(), planes
    if not isinstance(planes, Refused):
        found = np.stack(list(planes.planes.values()))
        np.testing.assert_allclose(found, expected.reshape(found.shape), rtol=1e-6)
    if not content.startswith(b"\x1f\x8b"):
        assert not isinstance(values, Refused)
        np.testing.assert_allclose(values, expected, rtol=1e-6)
        np.testing.assert_array_equal(fits_values(cube([content, content], ("g", "r"))), np.stack([values, values]))
    bands = expected.reshape(-1, *expected.shape[-2:])[:, ::-1]
    shown = answer(PLAIN.stretched, bands)
    assert isinstance(shown, Refused) == isinstance(whole, Refused)
    if not isinstance(whole, Refused):
        assert np.abs(np.asarray(shown, int) - np.asarray(whole.pixels, int)).max() <= 1


@fuzz(changed_cards(images().map(lambda made: made[0])))
@example(header([("SIMPLE", "T"), ("BITPIX", "8"), ("NAXIS", "2"), ("NAXIS1", "400"), ("NAXIS2", "400")]))
@example(gzip.compress(b"SIMPLE  =" + b" " * 10_000_000))
@example(header([("SIMPLE", "T"), ("BITPIX", "8"), ("NAXIS", "2147483647")]))
@example(gzip.compress(header([("SIMPLE", "T"), ("BITPIX", "8"), ("NAXIS", "1000")])))
@example(header([("SIMPLE", "T"), ("BITPIX", "99999999999"), ("NAXIS", "1"), ("NAXIS1", "1"), ("GCOUNT", "'a'")]))
@example(header([("SIMPLE", "T"), ("BITPIX", "8"), ("NAXIS", "2"), ("NAXIS1", "99999999999"), ("NAXIS2", "'a'")]))
def test_a_damaged_image_is_refused_in_one_line(content):
    check(content)


def test_headers_that_claim_too_many_axes_or_columns_are_named():
    content = image(np.zeros((3, 4)), -32)
    check_counts(content + block(b"NAXIS1  =               100000"))
    for name in ("NAXIS", "ZNAXIS", "TFIELDS"):
        for file in (wrong := content + header([("XTENSION", "'BINTABLE'"), (name, "1000")]), gzip.compress(wrong)):
            with pytest.raises(ValueError, match=f"its header {name} is 1000, and 999 is the most"):
                check_counts(file)
    check_counts(content + header([("XTENSION", "'BINTABLE'"), ("TFIELDS", "999")]))


@pytest.mark.parametrize("name", ["NAXIS", "NAXIS2", "GCOUNT", "PCOUNT"])
def test_headers_that_count_in_texts_are_named(name):
    wrong = image(np.zeros((3, 4)), -32) + header([("XTENSION", "'IMAGE'"), ("BITPIX", "8"), (name, "'9'")])
    with pytest.raises(ValueError, match=f"its header {name.rstrip('2')} is a text, where a number is meant"):
        check_counts(wrong)


@fuzz(changed_cards(st.sampled_from(PACKED)))
def test_a_damaged_compressed_image_is_refused_in_one_line_and_ends_no_process_of_ours(content):
    check(content)


def test_bands_of_compressed_answers_become_a_cube_with_their_values():
    values = np.arange(600, dtype=np.uint16).reshape(20, 30) + 40_000
    content = packed(values, "RICE_1")
    np.testing.assert_array_equal(fits_values(cube([content, content], ("g", "r"))), np.stack([values, values]))


def test_a_compressed_image_that_kills_its_process_is_refused_and_the_next_is_read():
    good = packed(np.random.default_rng(2).normal(size=(64, 64)).astype(np.float32), "HCOMPRESS_1")
    card = b"ZNAXIS1 =                   "
    killing = good.replace(card + b"64", card + b"10")  # fewer pixels than the stream has, which are written anyway
    assert killing != good
    expected = read_bands(good, "a.fits", "g").planes["g"]
    for _ in range(3):
        refused = answer(read_bands, killing, "a.fits", "g", place="a.fits")
        assert isinstance(refused, Refused)
        assert "cannot be unpacked" in refused.message
        np.testing.assert_array_equal(read_bands(good, "a.fits", "g").planes["g"], expected)


def test_a_process_that_is_forked_gets_one_of_its_own_and_no_answer_of_another():
    content = packed(np.arange(600, dtype=np.float32).reshape(20, 30), "GZIP_1")
    expected = read_bands(content, "a.fits", "g").planes["g"]
    if not (child := os.fork()):
        try:
            same = (read_bands(content, "a.fits", "g").planes["g"] == expected).all()
            packed_fits._unpacker.stop()
            os._exit(0 if same else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    np.testing.assert_array_equal(read_bands(content, "a.fits", "g").planes["g"], expected)


def test_an_image_that_takes_very_long_is_given_up(monkeypatch):
    content = packed(np.arange(600, dtype=np.float32).reshape(20, 30), "GZIP_1")
    monkeypatch.setattr(packed_fits, "SECONDS", 1e-3)
    refused = answer(read_bands, content, "a.fits", "g", place="a.fits")
    assert refused == Refused("a.fits: cannot be read as a picture (its compressed pixels cannot be unpacked)")
