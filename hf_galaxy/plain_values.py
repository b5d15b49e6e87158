"""Values of options as people write them: plain numbers, and texts and names that a file system can hold.

Python reads more as numbers than people mean: digits of other scripts, 1_000, nan and inf. They are refused, as is what 64 bits do not
hold: so that no option needs to think of them.
"""

import dataclasses
import math
import re
from fractions import Fraction
from pathlib import Path
from typing import Any, SupportsFloat

from hf_galaxy.errors import BadInput

WHOLE = re.compile(r"[+-]?[0-9]+")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
MOST_DIGITS = 400  # more are not even read: Python needs minutes for a million, or refuses
LONGEST_NAME = 255  # bytes, on every usual file system


def whole_number(text: str) -> int:
    """A whole number, such as 12.

    Raises:
        ValueError: the text is none, or is none of 64 bits.
    """
    if len(text) > MOST_DIGITS or not WHOLE.fullmatch(text):
        raise ValueError("give a whole number, such as 12")
    return checked_whole(int(text))


def checked_whole(value: int) -> int:
    """The number.

    Raises:
        ValueError: it is none of 64 bits.
    """
    if abs(value) >= 2**63:
        raise ValueError("the number is too large")
    return value


def number(text: str) -> float:
    """A number, such as 0.5, 12 or 1e-3.

    Raises:
        ValueError: the text is none, or too large.
    """
    if len(text) > MOST_DIGITS or not NUMBER.fullmatch(text):
        raise ValueError("give a number, such as 0.5 or 1e-3")
    return checked_number(float(text))


def checked_number(value: SupportsFloat) -> float:
    """The number as a float.

    Raises:
        ValueError: it is infinite, nan, or too large.
    """
    try:
        converted = float(value)
    except OverflowError:
        converted = math.inf
    if not math.isfinite(converted):
        raise ValueError("the number is too large" if math.isinf(converted) else "give a number, such as 0.5 or 1e-3")
    return converted


def share(text: str) -> float:
    """A number that may be written as a fraction, such as 1/64.

    Raises:
        ValueError: the text is none.
    """
    above, slash, below = text.partition("/")
    if not slash:
        return number(text)
    if not (divisor := whole_number(below)):
        raise ValueError("the number after / must not be 0")
    return float(Fraction(whole_number(above), divisor))


def check_texts(option: str, value: Any) -> None:
    """Refuse texts and names of files that no system call takes, wherever they are in a value or in the parts of settings.

    Args:
        option: its name, for the message.

    Raises:
        BadInput: names the option.
    """
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            check_texts(f"--{field.name.replace('_', '-')}", getattr(value, field.name))
    elif isinstance(value, list | tuple):
        for each in value:
            check_texts(option, each)
    elif isinstance(value, str | Path) and "\0" in str(value):
        raise BadInput(f"{option}: has a NUL character, which no name and no text can have")
    elif isinstance(value, Path):
        for name in value.parts:
            if len(name.encode(errors="surrogateescape")) > LONGEST_NAME:
                raise BadInput(f"{option} {name[:40]}...: is too long a name: file systems allow {LONGEST_NAME} bytes")
