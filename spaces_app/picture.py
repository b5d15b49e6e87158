"""A visitor's file as a picture, or a polite refusal, for any content. Nothing is written to disk.

The cost of a file is limited before it is decoded: its bytes, its pixels by its header, and its number of parts, since decoders
spend seconds on millions of empty ones. As in hf-galaxy predict, the EXIF orientation is not applied: the model gets the pixels
as they are in the file.
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

from hf_galaxy.data.packed_fits import check_counts
from hf_galaxy.data.pictures import FITS_START, GZIP_START, PNG_START, Rendering, kind_of
from hf_galaxy.data.pixels import DEFAULT, pixels_of
from hf_galaxy.errors import BadInput
from text import sentence

MAX_BYTES = 20_000_000  # of a file
MAX_EXPANDED = 40_000_000  # bytes of the FITS file in a gzipped one
MAX_PIXELS = 50_000_000  # a telephone's largest
MAX_VALUES = 5_000_000  # of a FITS file or a PNG of 16 bits, which become 64-bit floats
MIN_SIDE, MAX_ASPECT = (
    16,
    4,
)  # with fewer pixels a galaxy is not visible; of a longer strip the model gets the centre only
MAX_CHUNKS, MAX_SEGMENTS, MAX_HDUS, MAX_GZIPS = 20_000, 300, 100, 1_000  # parts of PNG, JPEG, FITS, gzip

JPEG_START = b"\xff\xd8"
# Segments of a JPEG, except restart markers, which are within the data of the pixels.
MARKER = re.compile(rb"\xff[\x02-\xcf\xd9-\xfe]")
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9

# One picture is decoded at a time: this limits the memory, and the filters of warnings, which hf_galaxy.data.pictures
# sets, are shared by all threads.
_turn = threading.Lock()


@dataclass(frozen=True, eq=False)
class Picture:
    """A visitor's picture.

    Attributes:
        name: of the file, without its folder. It may have any characters, so a page must escape it.
        content: the file's bytes, unzipped.
        pixels: (H, W, 3) uint8.
    """

    name: str
    content: bytes
    pixels: np.ndarray

    def rendered(self, rendering: Rendering) -> np.ndarray:
        """(H, W, 3) uint8 as the training set of a model would hold it.

        Raises:
            BadInput: it cannot be rendered so, in words for the visitor.
        """
        if rendering == DEFAULT:
            return self.pixels
        try:
            with _turn, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return pixels_of(self.content, rendering)
        except Exception as error:
            raise refusal("not_rendered") from error


def read_picture(file: str | Path | bytes, name: str = "") -> Picture:
    """Read a JPEG, PNG or FITS file, gzipped or not, with the same pixels as in hf-galaxy predict, for a model whose training set was
    rendered by default; or a WebP file.

    FITS images compressed tile by tile (fpack), which predict.py reads, are refused.

    Args:
        file: a path, or the file's bytes. Its content decides the format, not its name.
        name: of the picture; by default the last part of the path.

    Raises:
        BadInput: the file is not such a picture, or too large, too small or damaged; in words for the visitor, without the
            name and without messages of libraries.
    """
    if not isinstance(file, bytes):
        name, file = name or Path(file).name, _content(Path(file))
    if not file:
        raise refusal("empty")
    if len(file) > MAX_BYTES:
        raise refusal("too_large", limit=f"{MAX_BYTES / 1e6:.0f} MB")
    with _turn, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about metadata; visitors would not see them
        content = _expanded(file) if file.startswith(GZIP_START) else file
        return Picture(plain_name(name), content, _pixels(content))


def plain_name(name: str) -> str:
    """The last part of a path of any operating system, without invisible characters, at most 100."""
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return "".join(letter for letter in last if letter.isprintable())[:100].strip()


def refusal(reason: str, **values: object) -> BadInput:
    """The text of that name in the section "inputs" as an exception."""
    return BadInput(sentence(f"inputs.{reason}", **values))


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: not a path
        raise refusal("gone") from error


def _pixels(content: bytes) -> np.ndarray:
    if content.startswith(FITS_START):
        return _fits_pixels(content)
    if content.startswith(PNG_START):
        _check_chunks(content)
    elif content.startswith(JPEG_START):
        _check_segments(content)
    try:
        picture = Image.open(io.BytesIO(content), formats=("JPEG", "PNG", "WEBP"))
        width, height = picture.size
        animated = picture.format == "WEBP" and picture.is_animated
    except Image.UnidentifiedImageError as error:
        raise _unknown(content) from error
    except Image.DecompressionBombError as error:
        raise refusal("too_many_pixels", limit=MAX_PIXELS // 1_000_000) from error
    except Exception as error:  # decoders raise many kinds
        raise refusal("damaged") from error
    if animated:
        raise refusal("animated")
    _check_size(width, height, MAX_VALUES if picture.mode.startswith("I") else MAX_PIXELS)
    try:
        return pixels_of(picture if picture.format == "WEBP" else content)
    except Exception as error:
        raise refusal("damaged") from error


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise refusal("too_many_pixels", limit=max_pixels // 1_000_000)
    if min(width, height) < MIN_SIDE:
        raise refusal("too_small", width=width, height=height, least=MIN_SIDE)
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise refusal("too_long", width=width, height=height, most=MAX_ASPECT)


def _check_chunks(content: bytes) -> None:
    """Refuse a PNG with very many chunks, and an animated one."""
    position = 8
    for _ in range(MAX_CHUNKS):
        if position + 8 > len(content):
            return
        length, kind = struct.unpack_from(">I4s", content, position)
        if kind == b"acTL":
            raise refusal("animated")
        position += length + 12
    raise refusal("damaged")


def _check_segments(content: bytes) -> None:
    """Refuse a JPEG with very many segments, each of which may be a scan of all pixels, or with other bytes between those
    before the pixels."""
    position, scans = 2, False
    for _ in range(MAX_SEGMENTS):
        found = MARKER.search(content, position)
        if not found or content[found.end() - 1] == END_OF_IMAGE:
            return
        if found.start() > position + 64 and not scans:
            break
        scans = scans or content[found.end() - 1] == START_OF_SCAN
        position = found.end() + int.from_bytes(content[found.end() : found.end() + 2], "big")
    raise refusal("damaged")


def _expanded(content: bytes) -> bytes:
    """The FITS file in a gzipped file."""
    if content.count(GZIP_START + b"\x08") > MAX_GZIPS:
        raise refusal("damaged")
    try:
        with gzip.open(io.BytesIO(content)) as file:
            expanded = file.read(MAX_EXPANDED + 1)
    except Exception as error:
        raise refusal("damaged") from error
    if len(expanded) > MAX_EXPANDED:
        raise refusal("too_large", limit=f"{MAX_EXPANDED // 1_000_000} MB")
    if not expanded.startswith(FITS_START):
        raise refusal("gzip")
    return expanded


def _fits_pixels(content: bytes) -> np.ndarray:
    try:
        check_counts(content)
        with fits.open(io.BytesIO(content), memmap=False) as hdus:
            some = list(islice(hdus, MAX_HDUS + 1))
            values = max((math.prod(hdu.shape) for hdu in some if hdu.is_image), default=0)
            packed = any(isinstance(hdu, fits.CompImageHDU) for hdu in some)
        few = len(some) <= MAX_HDUS and values <= MAX_VALUES
        if few and not packed:
            kind_of(content)
    except Exception as error:
        raise refusal("fits_no_image") from error
    if not few:
        raise refusal("fits_too_many", values=MAX_VALUES // 1_000_000, images=MAX_HDUS)
    if packed:
        # With a wrong header, astropy's HCOMPRESS writes beyond its memory (in 8.0.2), which would end the app.
        raise refusal("fits_packed")
    try:
        pixels = pixels_of(content)
    except Exception as error:
        raise refusal("fits_no_pixels") from error
    height, width, _ = pixels.shape
    _check_size(width, height, MAX_PIXELS)
    return pixels


def _unknown(content: bytes) -> BadInput:
    """The refusal of a file that has none of the formats."""
    if content.startswith(b"GIF8"):
        return refusal("gif")
    if content.startswith((b"II*\0", b"MM\0*", b"BM")):
        return refusal("other_picture")
    if content[4:8] == b"ftyp":
        return refusal("heic")
    if content.startswith((JPEG_START, PNG_START)):
        return refusal("damaged")
    return refusal("no_picture")
