"""Pictures of anybody: what is accepted has the pixels that Pillow alone decodes, from every door, and everything else is refused in one line."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import example
from hypothesis import strategies as st
from PIL import Image, features

from hf_galaxy.data import pictures
from hf_galaxy.data.galaxies import decode
from hf_galaxy.data.pictures import Rendering, kind_of
from hf_galaxy.data.pixels import pixels_of
from tests.fuzz.cases import Refused, answer, fuzz, memory_for
from tests.fuzz.mutations import damaged

MOST = 200_000  # pixels, instead of 89 million
MEMORY = 2**28  # bytes
PLAIN = Rendering()


def saved(picture, form, **options):
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def noise(mode, size=(11, 9), seed=0):
    bands = {"1": 1, "L": 1, "P": 1, "I;16": 1, "F": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4}[mode]
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], bands), np.uint8)
    if mode == "I;16":
        return Image.fromarray(values[..., 0].astype(np.uint16) * 257)
    if mode == "F":
        return Image.fromarray(values[..., 0].astype(np.float32))
    if mode in ("1", "P"):
        return Image.fromarray(values[..., 0]).convert(mode)
    return Image.fromarray(values[..., 0] if bands == 1 else values, mode)


def valid_files():
    for mode in ("L", "RGB", "CMYK"):
        yield saved(noise(mode), "JPEG", progressive=mode == "RGB")
    yield saved(noise("RGB"), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0", restart_marker_blocks=1)
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        yield saved(noise(mode), "PNG")
    yield saved(noise("P"), "PNG", transparency=3)
    yield saved(noise("RGB"), "PNG", icc_profile=b"x" * 40)
    for mode in ("RGB", "RGBA"):
        yield saved(noise(mode), "WEBP", lossless=mode == "RGBA")
    for mode in ("L", "RGB", "RGBA", "I;16", "F", "1"):
        yield saved(noise(mode), "TIFF")
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        yield saved(noise("RGB"), "TIFF", compression=compression)
    yield saved(noise("L"), "TIFF", save_all=True, append_images=[noise("L", seed=1), noise("L", seed=2)])
    for form in ("GIF", "BMP"):
        yield saved(noise("P"), form)
    yield saved(noise("P"), "GIF", save_all=True, append_images=[noise("P", (11, 9), 1)], transparency=0)


FILES = list(valid_files())


@pytest.fixture(autouse=True)
def few_pixels(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", MOST)
    monkeypatch.setattr(pictures, "MAX_BYTES", 2**22)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


BOMB = zlib.compress(b"\0" * 10_000_000)


def png(width, height, depth, colour, data, *chunks):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def alone(content):
    """The pixels that Pillow alone decodes, (H, W) or (H, W, 3), of a picture of 8 bits without transparency."""
    picture = Image.open(io.BytesIO(content))
    picture.load()
    return np.asarray(picture if picture.mode == "L" else picture.convert("RGB"))


def check(content):
    """All doors agree on a file."""
    with memory_for(MEMORY):
        whole = answer(PLAIN.decode, content, "a.file", place="a.file")
        kind = answer(kind_of, content, "a.file", place="a.file")
        pixels = answer(pixels_of, content)
        if isinstance(whole, Refused):
            assert isinstance(pixels, Refused)
            return None
        assert kind == whole.kind
        assert whole.pixels.mode in ("L", "RGB")
        shown = np.asarray(whole.pixels)
        np.testing.assert_array_equal(pixels, shown if shown.ndim == 3 else np.stack([shown] * 3, -1))
        rendered = answer(PLAIN.render, content, "a.file", place="a.file")
        assert not isinstance(rendered, Refused)
        # What a dataset holds has the same pixels, for its readers, too.
        np.testing.assert_array_equal(alone(rendered[0]), shown)
        np.testing.assert_array_equal(decode(rendered[0]), pixels)
        return whole


@fuzz(
    st.sampled_from(["PNG", "WEBP", "TIFF", "BMP"]),
    st.sampled_from(["L", "RGB"]),
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(0, 100),
)
def test_pixels_are_those_that_were_written(form, mode, width, height, seed):
    picture = noise(mode, (width, height), seed)
    whole = check(saved(picture, form, **({"lossless": True} if form == "WEBP" else {})))
    assert whole is not None
    np.testing.assert_array_equal(np.asarray(whole.pixels.convert("RGB")), np.asarray(picture.convert("RGB")))


@fuzz(damaged(st.sampled_from(FILES)))
@example(b"")
@example(b"\x89PNG\r\n\x1a\n")
@example(FILES[0][:20] + b"bytes too many" + FILES[0][20:])
def test_damaged_pictures_are_read_as_pillow_reads_them_or_refused(content):
    whole = check(content)
    if whole is not None and whole.kind in ("jpeg", "png"):
        np.testing.assert_array_equal(np.asarray(whole.pixels), alone(content))


DATA = {"nothing": b"", "little": zlib.compress(b"\0" * 10_000), "much": BOMB}
CHUNKS = {
    "none": b"",
    "palette": chunk(b"PLTE", bytes(range(256)) * 3),
    "transparency": chunk(b"tRNS", b"\0\1\2\3\4\5"),
    "animation": chunk(b"acTL", b"\0" * 8),
    "long text": chunk(b"zTXt", b"k\0\0" + BOMB),
    "long profile": chunk(b"iCCP", b"k\0\0" + BOMB),
}


@fuzz(
    st.integers(0, 2**31) | st.integers(0, 600),
    st.integers(0, 2**31) | st.integers(0, 600),
    st.sampled_from([1, 2, 4, 8, 16]),
    st.sampled_from([0, 2, 3, 4, 6]),
    st.sampled_from(sorted(DATA)),
    st.lists(st.sampled_from(sorted(CHUNKS)), max_size=2),
)
def test_a_png_that_says_it_is_large_needs_no_memory(width, height, depth, colour, data, chunks):
    whole = check(png(width, height, depth, colour, DATA[data], *(CHUNKS[each] for each in chunks)))
    assert whole is None or width * height <= MOST


def test_all_kinds_of_files_are_there():
    assert {Image.open(io.BytesIO(content)).format for content in FILES} == set(pictures.FORMATS)
    assert features.check("libtiff"), "else compressed TIFF files are all refused"
    assert all(check(content) is not None for content in FILES[:-1])
