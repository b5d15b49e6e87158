"""Names of bands, and the planes of a file that are called so, as surveys write them: "g", "DES-g", "r.MP9602", "NIR_Y", "F200W"."""

import re
from collections.abc import Sequence

from hf_galaxy.data.fluxes import MAX_BANDS
from hf_galaxy.errors import BadInput

NAME = re.compile(r"[A-Za-z0-9][\w.+'-]{0,31}", re.ASCII)


def check_bands(bands: Sequence[str]) -> None:
    """Check the names of --bands.

    Raises:
        BadInput: there are none or too many, one is there twice, or it has letters that names of files and columns cannot have.
    """
    given = " ".join(bands)
    if not 1 <= len(bands) <= MAX_BANDS:
        raise BadInput(f"--bands {given}: are {len(bands)}; name 1 to {MAX_BANDS}, such as --bands g r i z")
    if wrong := next((band for band in bands if not NAME.fullmatch(band)), None):
        raise BadInput(
            f"--bands {given}: {wrong!r} is no name of a band; names have letters, digits and . _ - + ', and blanks between them"
        )
    if twice := next((band for band in bands if bands.count(band) > 1), None):
        raise BadInput(f"--bands {given}: {twice} is there twice")


def names_band(text: str, band: str) -> int:
    """How well a text names a band: 0 not at all, up to 4 for the name itself; "g DECam SDSS c0001" and "DES-G" name g."""
    if text == band:
        return 4
    if text.lower() == band.lower():
        return 3
    words, wanted = _words(text), _words(band)
    if _holds(words, wanted):
        return 2
    return int(_holds([word.lower() for word in words], [word.lower() for word in wanted]))


def best_named(band: str, planes: Sequence[Sequence[str]]) -> list[int]:
    """The planes that are called like a band; several if it cannot be told which.

    Args:
        planes: the texts of each plane that may name its band, the most telling first.
    """
    for place in range(max(map(len, planes), default=0)):
        scores = [names_band(texts[place], band) if place < len(texts) else 0 for texts in planes]
        if best := max(scores):
            return [plane for plane, score in enumerate(scores) if score == best]
    return []


def places_by_name(bands: Sequence[str], planes: Sequence[Sequence[str]]) -> list[int] | None:
    """The plane of each band; None: no plane has the name of a band.

    Args:
        planes: as of `best_named`.

    Raises:
        BadInput: only some bands have a plane, or one has several.
    """
    named = {band: best_named(band, planes) for band in bands}
    if not any(named.values()):
        return None
    if missing := [band for band, places in named.items() if not places]:
        raise BadInput(f"has no band {', '.join(missing)}; {described(planes)}")
    places = [places[0] for places in named.values()]
    if several := next((band for band, each in named.items() if len(each) > 1 or places.count(each[0]) > 1), None):
        raise BadInput(f"which plane is band {several} cannot be told; {described(planes)}")
    return places


def described(planes: Sequence[Sequence[str]]) -> str:
    """The planes of a file, for a message."""
    names = [" ".join(dict.fromkeys(filter(None, texts))) for texts in planes]
    if not any(names):
        return f"it has {len(planes)} plane{'' if len(planes) == 1 else 's'} without names"
    return f"it has {', '.join(name or 'a plane without name' for name in names)}"


def _words(text: str) -> list[str]:
    """The words of a name: of letters and digits, and the apostrophe of u'."""
    return re.findall(r"[^\W_]+'?", text)


def _holds(words: list[str], wanted: list[str]) -> bool:
    """Whether words stand next to each other within others."""
    size = len(wanted)
    return bool(size) and any(words[i : i + size] == wanted for i in range(len(words) - size + 1))
