"""Digests of pictures, by which an interrupted prediction knows whether it goes on with the same ones."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def digest_of(lines: Iterable[str]) -> str:
    """SHA-256 of some texts, each with its end."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()


def bytes_of(picture: Any) -> bytes:
    """Of a picture in any form: equal for those that show the same."""
    if isinstance(picture, bytes):
        return picture
    if picture is None:
        return b""
    if isinstance(picture, str | Path):
        return str(picture).encode()
    if isinstance(picture, Image.Image) and picture.mode in ("P", "PA"):
        picture = picture.convert("RGBA")  # two pictures may differ by their palettes alone
    pixels = np.asarray(picture)
    return f"{pixels.shape} {pixels.dtype} ".encode() + pixels.tobytes()
