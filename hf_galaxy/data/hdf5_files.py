"""The arrays of an HDF5 file, read in another process.

The HDF5 library (2.0.0) ends the process that reads some damaged files. This file is the program of the process that may die
(`packed_fits.Helper`), too.
"""

from __future__ import annotations

import io
import json
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from hf_galaxy.data.fluxes import SCALE
from hf_galaxy.data.packed_fits import Helper, run
from hf_galaxy.errors import BadInput

FILTERS = ("FILTER", "BAND", "FILTER1", "FILTER2", "FILTNAM")  # attributes
PLANES = ("bands", "band_names", "filters", "channels")
LIMITS = struct.Struct("<QQ")  # bytes of all arrays, values of one
LENGTH = struct.Struct("<Q")  # bytes of the descriptions


@dataclass(frozen=True)
class Array:
    """An array of real numbers of two dimensions or more.

    Attributes:
        name: its path in the file.
        shape: of it.
        filters, planes: texts of attributes that may name its band, or its planes.
        scale: side of a pixel in arcsec by an attribute; None: unknown.
        stored: bytes of its values, in the format npy; 0: they are too many.
    """

    name: str
    shape: tuple[int, ...]
    filters: tuple[str, ...]
    planes: tuple[str, ...]
    scale: float | None
    stored: int


_helper = Helper(Path(__file__), "its HDF5 content cannot be read")


def hdf5_arrays(content: bytes, most_bytes: int, most_values: int) -> Iterator[tuple[Array, bytes]]:
    """The arrays of a file, and their values in the format npy.

    Links to other files, and datasets made of these, are left out.

    Args:
        content: of the file.
        most_bytes: of all arrays together.
        most_values: of an array; of one with more there are no values.

    Raises:
        BadInput: h5py is not installed.
        ValueError: it is damaged, or its arrays are too large.
    """
    if find_spec("h5py") is None:
        raise BadInput("is an HDF5 file, which needs h5py: pip install 'hf_galaxy[hdf5]'")
    answer = io.BytesIO(_helper.ask(LIMITS.pack(most_bytes, most_values), content))
    for fields in json.loads(answer.read(*LENGTH.unpack(answer.read(LENGTH.size)))):
        texts = {name: tuple(fields[name]) for name in ("shape", "filters", "planes")}
        array = Array(**fields | texts)
        yield array, answer.read(array.stored)


# The program


def _arrays(request: bytes) -> bytes:
    """The answer of the process: descriptions as JSON, and values."""
    import h5py

    most_bytes, most_values = LIMITS.unpack(request[: LIMITS.size])
    arrays, values, total = [], [], 0
    with h5py.File(io.BytesIO(request[LIMITS.size :]), "r") as file:
        for item in _within(file):
            if item.shape is None or len(item.shape) < 2 or item.dtype.kind not in "buif":
                continue
            stored = b""
            if math.prod(item.shape) <= most_values:
                total += math.prod(item.shape) * item.dtype.itemsize
                if total > most_bytes:
                    raise ValueError(f"its arrays are more than {most_bytes:,} bytes")
                with io.BytesIO() as npy:
                    np.save(npy, item[()], allow_pickle=False)
                    stored = npy.getvalue()
            planes = next(_texts(item.attrs, PLANES), ()) or next(_texts(item.parent.attrs, PLANES), ())
            filters = tuple(each[0] for each in _texts(item.attrs, FILTERS) if each)
            scale = next(_texts(item.attrs, [SCALE]), None) or next(_texts(file.attrs, [SCALE]), None)
            about = Array(
                item.name.strip("/"), item.shape, filters, planes, float(scale[0]) if scale else None, len(stored)
            )
            arrays.append(asdict(about))
            values.append(stored)
    described = json.dumps(arrays).encode()
    return b"".join([LENGTH.pack(len(described)), described, *values])


def _within(group: Any) -> Iterator[Any]:
    """The datasets in a group and its groups."""
    import h5py

    for key in group:
        if isinstance(group.get(key, getlink=True), h5py.HardLink):  # others lead to other files, or in circles
            item = group[key]
            if isinstance(item, h5py.Group):
                yield from _within(item)
            elif isinstance(item, h5py.Dataset) and not item.external and not item.is_virtual:
                yield item


def _texts(attributes: Any, names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The values of attributes, by their names in capitals or not."""
    known = {key.lower(): key for key in attributes}
    for name in names:
        if name.lower() in known:
            value = np.atleast_1d(attributes[known[name.lower()]]).tolist()
            yield tuple(each.decode() if isinstance(each, bytes) else str(each) for each in value)


if __name__ == "__main__":
    import h5py  # noqa: F401  # before the forks, which then have it

    run(_arrays)
