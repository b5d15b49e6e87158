"""Digests of pictures and of what stands beside them, by which an interrupted prediction knows whether it goes on with the same ones."""

import hashlib
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
from PIL import Image

from hf_galaxy.data.band_cells import encoded_cell


def digest_of(lines: Iterable[str]) -> str:
    """SHA-256 of some texts, each with its end."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()


def digest_of_table(table: pa.Table) -> str:
    """SHA-256 of the names, types and cells of a table."""
    digest = _Digest()
    digest.write(str(table.schema.types).encode())
    pyarrow.csv.write_csv(
        table, pa.PythonFile(digest, "w")
    )  # not Arrow's own format, which has memory of whatever below what is missing
    return digest.sha.hexdigest()


class _Digest(io.RawIOBase):
    """A file of which only the SHA-256 stays."""

    def __init__(self) -> None:
        self.sha = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self.sha.update(content)
        return len(content)


def bytes_of(picture: Any) -> bytes:
    """Of a picture in any form: equal for those that show the same."""
    if isinstance(picture, bytes):
        return picture
    if picture is None:
        return b""
    if isinstance(picture, str | Path):
        return str(picture).encode()
    if isinstance(picture, Mapping):
        return encoded_cell(picture)
    if isinstance(picture, Image.Image) and picture.mode in ("P", "PA"):
        picture = picture.convert("RGBA")  # two pictures may differ by their palettes alone
    pixels = np.asarray(picture)
    return f"{pixels.shape} {pixels.dtype} ".encode() + pixels.tobytes()
