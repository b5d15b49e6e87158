"""One file of a visitor -> a picture, or a kind refusal, whatever the file holds. Nothing is written to disk.

What a file may cost is limited before it is decoded: its bytes, its pixels by its header, and how many pieces it is made
of, as decoders go through millions of empty ones for seconds. EXIF's orientation is not applied, as scripts/predict.py
does not: the model sees the pixels as they lie in the file.
"""

import gzip
import io
import math
import re
import struct
import threading
import warnings
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from astropy.io import fits
from PIL import Image

from hf_galaxy.data.pictures import FITS_START, GZIP_START, PNG_START, kind_of
from hf_galaxy.data.pixels import pixels_of
from hf_galaxy.errors import BadInput
from text import say

MOST_BYTES = 20_000_000  # of a file
MOST_EXPANDED = 40_000_000  # bytes of the FITS file in a gzipped one
MOST_PIXELS = 50_000_000  # a telephone's largest
MOST_VALUES = 5_000_000  # of a FITS file or a PNG of 16 bits, which are stretched as 64-bit floats
LEAST_SIDE, MOST_ASPECT = 16, 4  # fewer pixels show no galaxy; of a longer strip the model sees the middle alone
MOST_CHUNKS, MOST_SEGMENTS, MOST_HDUS, MOST_GZIPS = 20_000, 300, 100, 1_000  # pieces of PNG, JPEG, FITS, gzip

JPEG_START = b"\xff\xd8"
# Of a JPEG's segments, all but restart markers, which stand alone and within the pixels' data.
MARKER = re.compile(rb"\xff[\x02-\xcf\xd9-\xfe]")
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9

# Decoding takes turns: so it takes no more memory than the largest picture does, and warnings' filters, which
# hf_galaxy.pictures sets, belong to all threads.
_turn = threading.Lock()


@dataclass(frozen=True, eq=False)
class Picture:
    """What a visitor gave.

    Attributes:
        name: of the file, without its folder; any letters may be in it, so it is for a page to escape.
        pixels: (H, W, 3) uint8.
    """

    name: str
    pixels: np.ndarray


def read_picture(file: str | Path | bytes, name: str = "") -> Picture:
    """The pixels that scripts/predict.py reads of the same JPEG, PNG or FITS file, gzipped or not; or those of a WebP.

    FITS images compressed tile by tile (fpack), which predict.py reads, are refused.

    Args:
        file: a path, or the file's bytes. What it is, its content says, not its name.
        name: by default the path's last part.

    Raises:
        BadInput: it is no such picture, or one that is too large, too small or damaged; in words for the visitor, which hold
            neither the name nor what a library said.
    """
    if not isinstance(file, bytes):
        name, file = name or Path(file).name, _content(Path(file))
    if not file:
        raise refusal("empty")
    if len(file) > MOST_BYTES:
        raise refusal("too_large", limit=f"{MOST_BYTES / 1e6:.0f} MB")
    with _turn, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about metadata; the visitor would not see them
        return Picture(plain_name(name), _pixels(file))


def plain_name(name: str) -> str:
    """The last part of a path in any system's way of writing, without letters that cannot be seen, 100 at most."""
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return "".join(letter for letter in last if letter.isprintable())[:100].strip()


def refusal(reason: str, **values) -> BadInput:
    """The sentence of that name in the section "inputs" as an exception."""
    return BadInput(say(f"inputs.{reason}", **values))


def _content(path):
    try:
        with path.open("rb") as file:
            return file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: no path at all
        raise refusal("gone") from error


def _pixels(content):
    if content.startswith(GZIP_START):
        content = _expanded(content)
    if content.startswith(FITS_START):
        return _fits_pixels(content)
    if content.startswith(PNG_START):
        _check_chunks(content)
    elif content.startswith(JPEG_START):
        _check_segments(content)
    try:
        picture = Image.open(io.BytesIO(content), formats=("JPEG", "PNG", "WEBP"))
        width, height = picture.size
        moves = picture.format == "WEBP" and picture.is_animated
    except Image.UnidentifiedImageError as error:
        raise _unknown(content) from error
    except Image.DecompressionBombError as error:
        raise refusal("too_many_pixels", limit=MOST_PIXELS // 1_000_000) from error
    except Exception as error:  # decoders raise many kinds; each means that the file is no good
        raise refusal("damaged") from error
    if moves:
        raise refusal("animated")
    _check_size(width, height, MOST_VALUES if picture.mode.startswith("I") else MOST_PIXELS)
    try:
        return pixels_of(picture if picture.format == "WEBP" else content)
    except Exception as error:
        raise refusal("damaged") from error


def _check_size(width, height, most):
    if width * height > most:
        raise refusal("too_many_pixels", limit=most // 1_000_000)
    if min(width, height) < LEAST_SIDE:
        raise refusal("too_small", width=width, height=height, least=LEAST_SIDE)
    if max(width, height) > MOST_ASPECT * min(width, height):
        raise refusal("too_long", width=width, height=height, most=MOST_ASPECT)


def _check_chunks(content):
    """Refuse a PNG of very many chunks, and one that moves."""
    position = 8
    for _ in range(MOST_CHUNKS):
        if position + 8 > len(content):
            return
        length, kind = struct.unpack_from(">I4s", content, position)
        if kind == b"acTL":
            raise refusal("animated")
        position += length + 12
    raise refusal("damaged")


def _check_segments(content):
    """Refuse a JPEG of very many segments, each of which may be a scan of all pixels, or with filling between those before
    its pixels."""
    position, scans = 2, False
    for _ in range(MOST_SEGMENTS):
        found = MARKER.search(content, position)
        if not found or content[found.end() - 1] == END_OF_IMAGE:
            return
        if found.start() > position + 64 and not scans:
            break
        scans = scans or content[found.end() - 1] == START_OF_SCAN
        position = found.end() + int.from_bytes(content[found.end() : found.end() + 2], "big")
    raise refusal("damaged")


def _expanded(content):
    """The FITS file in a gzipped one."""
    if content.count(GZIP_START + b"\x08") > MOST_GZIPS:
        raise refusal("damaged")
    try:
        with gzip.open(io.BytesIO(content)) as file:
            expanded = file.read(MOST_EXPANDED + 1)
    except Exception as error:
        raise refusal("damaged") from error
    if len(expanded) > MOST_EXPANDED:
        raise refusal("too_large", limit=f"{MOST_EXPANDED // 1_000_000} MB")
    if not expanded.startswith(FITS_START):
        raise refusal("gzip")
    return expanded


def _fits_pixels(content):
    try:
        with fits.open(io.BytesIO(content), memmap=False) as hdus:
            some = list(islice(hdus, MOST_HDUS + 1))
            values = max((math.prod(hdu.shape) for hdu in some if hdu.is_image), default=0)
            packed = any(isinstance(hdu, fits.CompImageHDU) for hdu in some)
        few = len(some) <= MOST_HDUS and values <= MOST_VALUES
        if few and not packed:
            kind_of(content)
    except Exception as error:
        raise refusal("fits_no_image") from error
    if not few:
        raise refusal("fits_too_many", values=MOST_VALUES // 1_000_000, images=MOST_HDUS)
    if packed:
        # A wrong header makes astropy's HCOMPRESS write beyond its memory (seen in 8.0.2), which would end the app.
        raise refusal("fits_packed")
    try:
        pixels = pixels_of(content)
    except Exception as error:
        raise refusal("fits_no_pixels") from error
    height, width, _ = pixels.shape
    _check_size(width, height, MOST_PIXELS)
    return pixels


def _unknown(content):
    """What to say of a file that is none of the formats."""
    if content.startswith(b"GIF8"):
        return refusal("gif")
    if content.startswith((b"II*\0", b"MM\0*", b"BM")):
        return refusal("other_picture")
    if content[4:8] == b"ftyp":
        return refusal("heic")
    if content.startswith((JPEG_START, PNG_START)):
        return refusal("damaged")
    return refusal("no_picture")
