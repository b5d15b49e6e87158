"""The picture of a position in the sky from the Legacy Surveys, in words for a visitor: the only request to another server."""

from collections.abc import Callable
from functools import wraps
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError

import numpy as np

from hf_galaxy.cutouts import coordinates as written
from hf_galaxy.cutouts.answers import NO_LIGHT
from hf_galaxy.cutouts.services import Field, LegacySurveys
from hf_galaxy.download import SameServer, download
from hf_galaxy.errors import BadInput
from picture import Picture, read_picture
from text import sentence

SURVEY = LegacySurveys()
SECONDS, MAX_BYTES = 10, 5_000_000
# The frames of Galaxy Zoo scale with their galaxy: 424 pixels of the smaller of 0.04 times the Petrosian half-light
# radius and 0.02 times the 90 % radius (Walmsley et al. 2022, huggingface.co/papers/2102.08414), at least 42 arcsec. Of the
# galaxies of GZ DECaLS most frames have sides from 42 to 80.
FIELD, MIN_FIELD, MAX_FIELD = 60, 10, 600  # arcsec
MIN_PIXELS, MAX_PIXELS = 64, 512


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
    content = _fetched(SURVEY.url(Field(ra, dec, size_arcsec, int(pixels))))
    try:
        picture = read_picture(content, name or f"{ra:.5f} {dec:+.5f}")
    except BadInput as error:
        raise _refusal("odd") from error
    if np.ptp(picture.pixels, axis=(0, 1)).max() < NO_LIGHT:
        raise _refusal("outside")
    return picture


def _refusal(reason: str, **values: object) -> BadInput:
    return BadInput(sentence(f"cutouts.{reason}", **values))


def _in_words(parse: Callable) -> Callable:
    """The same function, whose refusals are in words for the visitor."""

    @wraps(parse)
    def parsed(text: str) -> Any:
        try:
            return parse(text)
        except written.NotCoordinates as error:
            raise _refusal(error.reason) from error

    return parsed


coordinates, right_ascension, declination = map(
    _in_words, (written.coordinates, written.right_ascension, written.declination)
)


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
