"""Coordinates in the usual ways of writing -> degrees: 184.74, 184.74d, 12:18:57.6, 12h18m57.6s, 12 18 57.6."""

import re

from hf_galaxy.errors import BadInput

NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?(?:°|d|deg)?", re.ASCII | re.IGNORECASE)
PARTS = re.compile(
    r"(?P<sign>[+-]?)(?P<whole>\d{1,3})(?P<unit>[hd:°]|\s)\s*(?P<minutes>[0-5]?\d)(?:[m:'\N{PRIME}]|\s|$)\s*"
    r"(?:(?P<seconds>[0-5]?\d(?:\.\d*)?)(?:s|\"|\N{DOUBLE PRIME}|'')?)?",
    re.ASCII | re.IGNORECASE,
)
MESSAGES = {
    "form": "is not a right ascension and a declination, such as 184.74 47.304 or 12:18:57.6 +47:18:14",
    "ra_form": "is not a right ascension; write degrees, such as 184.74, or hours, minutes and seconds, such as 12:18:57.6",
    "dec_form": "is not a declination; write degrees, such as -47.304, or degrees, arcminutes and arcseconds, such as -47:18:14",
    "ra_range": "is not a right ascension, which is from 0 to 360 degrees, or from 0 to 24 hours",
    "dec_range": "is not a declination, which is from -90 to 90 degrees",
}


class NotCoordinates(BadInput):
    """A text that is not what it should be.

    Attributes:
        reason: one of `MESSAGES`, for those who have other words for it.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(MESSAGES[reason])
        self.reason = reason


def coordinates(text: str) -> tuple[float, float]:
    """Right ascension and declination in degrees, from one line: "184.74 47.304", "12:18:57.6, +47:18:14".

    Raises:
        NotCoordinates: the line is not such a pair.
    """
    words = re.split(r"[\s,;]+", text.strip())
    half = len(words) // 2
    if len(words) not in (2, 4, 6):
        raise NotCoordinates("form")
    return right_ascension(" ".join(words[:half])), declination(" ".join(words[half:]))


def right_ascension(text: str) -> float:
    """Degrees from 0 to 360, from decimal degrees or from hours, minutes and seconds (degrees if the first has a d or °).

    Raises:
        NotCoordinates: the text is neither.
    """
    degrees, unit = _degrees(text, "ra_form")
    if unit in ("h", ":", " "):
        degrees *= 15
    if not 0 <= degrees <= 360 or text.strip().startswith("-"):
        raise NotCoordinates("ra_range")
    return degrees % 360


def declination(text: str) -> float:
    """Degrees from -90 to 90, from decimal degrees or from degrees, arcminutes and arcseconds.

    Raises:
        NotCoordinates: the text is neither.
    """
    degrees, unit = _degrees(text, "dec_form")
    if unit == "h":
        raise NotCoordinates("dec_form")
    if not -90 <= degrees <= 90:
        raise NotCoordinates("dec_range")
    return degrees


def _degrees(text: str, reason: str) -> tuple[float, str]:
    """The number in units of its first part, and the character after that part; "" if the text is a single number."""
    text = text.strip().replace("\N{MINUS SIGN}", "-")
    if NUMBER.fullmatch(text):
        return float(text.lower().rstrip("deg°")), ""
    parts = PARTS.fullmatch(text)
    if not parts:
        raise NotCoordinates(reason)
    whole, minutes, seconds = (float(parts[each] or 0) for each in ("whole", "minutes", "seconds"))
    number = whole + minutes / 60 + seconds / 3600
    return -number if parts["sign"] == "-" else number, parts["unit"].lower().replace("\t", " ")
