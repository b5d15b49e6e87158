"""The picture of a position in the sky from the Legacy Surveys: the only request to another server, at one address."""

import re
from http.client import HTTPException
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode

import numpy as np

from hf_galaxy.download import SameServer, download
from hf_galaxy.errors import BadInput
from picture import Picture, read_picture
from text import sentence

ADDRESS = "https://www.legacysurvey.org/viewer/cutout.jpg"
LAYER = "ls-dr10"  # Legacy Surveys DR10 in the south, DR9 in the north, as displayed by the viewer
SECONDS, MAX_BYTES = 10, 5_000_000
# The frames of Galaxy Zoo scale with their galaxy: 424 pixels of the smaller of 0.04 times the Petrosian half-light
# radius and 0.02 times the 90 % radius (Walmsley et al. 2022, huggingface.co/papers/2102.08414), at least 42 arcsec. Of the
# galaxies of GZ DECaLS most frames have sides from 42 to 80.
FIELD, MIN_FIELD, MAX_FIELD = 60, 10, 600  # arcsec
MIN_PIXELS, MAX_PIXELS = 64, 512
NO_LIGHT = 3  # levels of 255; the noise of any sky has a larger range

NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?(?:°|d|deg)?", re.ASCII | re.IGNORECASE)
PARTS = re.compile(
    r"(?P<sign>[+-]?)(?P<whole>\d{1,3})(?P<unit>[hd:°]|\s)\s*(?P<minutes>[0-5]?\d)(?:[m:'\N{PRIME}]|\s|$)\s*"
    r"(?:(?P<seconds>[0-5]?\d(?:\.\d*)?)(?:s|\"|\N{DOUBLE PRIME}|'')?)?",
    re.ASCII | re.IGNORECASE,
)


def coordinates(text: str) -> tuple[float, float]:
    """Right ascension and declination in degrees, from one line: "184.74 47.304", "12:18:57.6, +47:18:14".

    Raises:
        BadInput: in words for the visitor: the line is not such a pair.
    """
    words = re.split(r"[\s,;]+", text.strip())
    half = len(words) // 2
    if len(words) not in (2, 4, 6):
        raise _refusal("form")
    return right_ascension(" ".join(words[:half])), declination(" ".join(words[half:]))


def right_ascension(text: str) -> float:
    """Degrees from 0 to 360, from decimal degrees or from hours, minutes and seconds (degrees if the first has a d or °).

    Raises:
        BadInput: the text is neither.
    """
    degrees, unit = _degrees(text, "ra_form")
    if unit in ("h", ":", " "):
        degrees *= 15
    if not 0 <= degrees <= 360 or text.strip().startswith("-"):
        raise _refusal("ra_range")
    return degrees % 360


def declination(text: str) -> float:
    """Degrees from -90 to 90, from decimal degrees or from degrees, arcminutes and arcseconds.

    Raises:
        BadInput: the text is neither.
    """
    degrees, unit = _degrees(text, "dec_form")
    if unit == "h":
        raise _refusal("dec_form")
    if not -90 <= degrees <= 90:
        raise _refusal("dec_range")
    return degrees


def cutout(ra: float, dec: float, size_arcsec: float = FIELD, pixels: int = 256, name: str = "") -> Picture:
    """The colour picture of a position from the viewer of the Legacy Surveys, north up, east left.

    Args:
        ra, dec: in degrees.
        size_arcsec: side of the field. Galaxy Zoo's frames have about 8.5 times the radius that contains 90 % of the light.
        pixels: side of the picture. A pixel of the survey is 0.262 arcsec.
        name: of the picture; by default the coordinates.

    Raises:
        BadInput: a value is out of range; the server cannot be reached, is slow or sends no picture; or the position is
            outside the survey.
    """
    if not 0 <= ra <= 360:
        raise _refusal("ra_range")
    if not -90 <= dec <= 90:
        raise _refusal("dec_range")
    if not (isinstance(size_arcsec, int | float) and MIN_FIELD <= size_arcsec <= MAX_FIELD):
        raise _refusal("field_range", least=MIN_FIELD, most=MAX_FIELD)
    if not MIN_PIXELS <= pixels <= MAX_PIXELS:
        raise _refusal("pixels_range", least=MIN_PIXELS, most=MAX_PIXELS)
    query = {"ra": f"{ra:.7f}", "dec": f"{dec:.7f}", "layer": LAYER, "pixscale": f"{size_arcsec / pixels:.6f}"}
    content = _fetched(f"{ADDRESS}?{urlencode(query | {'size': int(pixels)})}")
    try:
        picture = read_picture(content, name or f"{ra:.5f} {dec:+.5f}")
    except BadInput as error:
        raise _refusal("odd") from error
    if np.ptp(picture.pixels, axis=(0, 1)).max() < NO_LIGHT:
        raise _refusal("outside")
    return picture


def _refusal(reason: str, **values: object) -> BadInput:
    return BadInput(sentence(f"cutouts.{reason}", **values))


def _degrees(text: str, reason: str) -> tuple[float, str]:
    """The number in units of its first part, and the character after that part; "" if the text is a single number."""
    text = text.strip().replace("\N{MINUS SIGN}", "-")
    if NUMBER.fullmatch(text):
        return float(text.lower().rstrip("deg°")), ""
    parts = PARTS.fullmatch(text)
    if not parts:
        raise _refusal(reason)
    whole, minutes, seconds = (float(parts[each] or 0) for each in ("whole", "minutes", "seconds"))
    number = whole + minutes / 60 + seconds / 3600
    return -number if parts["sign"] == "-" else number, parts["unit"].lower().replace("\t", " ")


def _fetched(address: str) -> bytes:
    try:
        return download(address, SECONDS, MAX_BYTES, SameServer())
    except HTTPError as error:
        error.close()
        raise _refusal("refused", code=error.code) from error
    except (OSError, HTTPException) as error:  # URLError and TimeoutError are OSErrors
        late = isinstance(error.reason if isinstance(error, URLError) else error, TimeoutError)
        raise (_refusal("slow", limit=SECONDS) if late else _refusal("no_network")) from error
    except ValueError as error:
        raise _refusal("odd") from error
