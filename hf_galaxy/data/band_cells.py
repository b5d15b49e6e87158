"""Fluxes in the cells of a column, in any form -> the content of a file that `band_files.read_bands` reads."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import save

from hf_galaxy.data.fluxes import SCALE
from hf_galaxy.errors import BadInput

NAMES, ARRAYS, WEIGHTS, SCALES = ("band",), ("flux", "array"), ("ivar", "invvar", "weight"), ("scale", SCALE)


def encoded_cell(cell: Any) -> bytes:
    """The content of a file with the fluxes in a cell.

    Args:
        cell: encoded bytes, or {"bytes": such}; an array, or nested lists, (H, W), (C, H, W) or (H, W, C); {band: (H, W)}; a PIL image; or, as
            MultimodalUniverse has them, {"band": names, "flux" or "array": (C, H, W), perhaps "ivar" and "scale"}, or a list of such for
            one band each. Its masks are not read, as some mark good pixels and others bad ones.

    Raises:
        BadInput: it is nothing of these.
    """
    if isinstance(cell, Mapping) and isinstance(cell.get("bytes"), bytes):
        cell = cell["bytes"]
    if isinstance(cell, bytes):
        return cell
    if isinstance(cell, Image.Image):
        file = io.BytesIO()
        cell.save(file, "TIFF")
        return file.getvalue()
    if isinstance(cell, list | tuple) and cell and all(isinstance(each, Mapping) for each in cell):
        cell = {key: [each.get(key) for each in cell] for key in cell[0]}
    if isinstance(cell, Mapping):
        return _of_mapping(cell)
    file = io.BytesIO()
    np.save(file, _array(cell, "the cell"), allow_pickle=False)
    return file.getvalue()


def _of_mapping(cell: Mapping[str, Any]) -> bytes:
    known = {key.lower(): value for key, value in cell.items()}
    names = next((known[key] for key in NAMES if key in known), None)
    if names is None:
        return save({band: _array(plane, band) for band, plane in cell.items() if plane is not None})
    planes = next((known[key] for key in ARRAYS if key in known), None)
    if planes is None or len(planes) != len(names) or len(set(names)) < len(names):
        raise BadInput(f"has bands {', '.join(map(str, names))}, but not one array {' or '.join(ARRAYS)} for each")
    weights = next((known[key] for key in WEIGHTS if known.get(key) is not None), [None] * len(names))
    scales = next((known[key] for key in SCALES if known.get(key) is not None), [])
    arrays = {band: _array(plane, band) for band, plane in zip(names, planes, strict=True)}
    arrays |= {
        f"weight {band}": _array(each, band) for band, each in zip(names, weights, strict=True) if each is not None
    }
    scale = next((float(each) for each in np.ravel(scales) if each is not None), None)
    return save(arrays, {SCALE: repr(scale)} if scale else None)


def _array(values: Any, name: str) -> np.ndarray:
    """The values as an array; None in lists is NaN.

    Raises:
        BadInput: they are no array of numbers.
    """
    try:
        array = values if isinstance(values, np.ndarray) and values.dtype != object else np.array(values, np.float64)
    except (ValueError, TypeError) as error:
        raise BadInput(f"{name}: is no array of numbers ({error})") from error
    if array.dtype.kind not in "buif" or array.ndim < 2:
        raise BadInput(f"{name}: {array.dtype} of shape {array.shape} is no picture of fluxes")
    return np.ascontiguousarray(array, array.dtype.newbyteorder("="))
