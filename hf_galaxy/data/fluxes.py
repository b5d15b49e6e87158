"""Pictures of fluxes in several bands, as datasets hold them in their column `flux`. Legend: C bands, H and W of a picture.

Each is a safetensors file with one float32 array (H, W) for each band, under the band's name; pixels without a value are NaN.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from hf_galaxy.errors import BadInput
from hf_galaxy.plain_json import mapping_in, mapping_of, text_of

FLUX = "flux"  # the column; its type is {"bytes": binary, "path": string}
MAX_BANDS = 8
SCALE = "arcsec_per_pixel"  # key in the metadata of a file
METADATA = "__metadata__"  # key in the header of a safetensors file


def encode_fluxes(planes: Mapping[str, np.ndarray], arcsec_per_pixel: float | None = None) -> bytes:
    """A picture as a dataset holds it.

    Args:
        planes: band -> (H, W) floats, NaN where there is no value; all have one shape.
        arcsec_per_pixel: side of a pixel; None: unknown.
    """
    arrays = {band: np.ascontiguousarray(plane, np.float32) for band, plane in planes.items()}
    return save(arrays, None if arcsec_per_pixel is None else {SCALE: repr(float(arcsec_per_pixel))})


def decode_fluxes(content: bytes | None, bands: Sequence[str]) -> np.ndarray:
    """(C, H, W) float32, NaN where there is no value.

    Args:
        content: of `encode_fluxes`.
        bands: names of the planes wanted, in this order.

    Raises:
        BadInput: there is no picture, it is damaged, or it lacks a band.
    """
    if content is None:
        raise BadInput("there is no picture of fluxes")
    try:
        planes = load(content)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"its fluxes cannot be read ({error})") from error
    if missing := [band for band in bands if band not in planes]:
        raise BadInput(f"has no band {', '.join(missing)}, only {', '.join(sorted(planes))}")
    shapes = {planes[band].shape for band in bands}
    if len(shapes) > 1 or len(shape := shapes.pop()) != 2 or not min(shape):
        raise BadInput(
            f"its bands are not pictures of one size: {', '.join(str(planes[band].shape) for band in bands)}"
        )
    return np.stack([planes[band] for band in bands]).astype(np.float32, copy=False)


def arcsec_per_pixel_of(content: bytes) -> float | None:
    """The side of a pixel of an encoded picture; None: unknown.

    Raises:
        ValueError: its header is damaged.
    """
    length = int.from_bytes(content[:8], "little")
    metadata = mapping_in(content[8 : 8 + length]).get(METADATA, {})
    return float(text_of(metadata, SCALE)) if SCALE in mapping_of(metadata) else None


def arcsec_of(content: bytes | None) -> float:
    """The side of a pixel of an encoded picture, which must be known.

    Raises:
        BadInput: it is not, or there is no picture.
    """
    if content is None:
        raise BadInput("there is no picture of fluxes")
    try:
        scale = arcsec_per_pixel_of(content)
    except ValueError as error:
        raise BadInput(f"its fluxes cannot be read ({error})") from error
    if scale is None:
        raise BadInput("the side of its pixels in arcsec is not known, which a header with a WCS gives")
    return scale


def filled(planes: np.ndarray) -> np.ndarray:
    """The same with the median of a plane's other pixels where it has no value: (C, H, W).

    A plane without any value stays NaN: a model takes it for empty sky, whose level it knows.
    """
    known = np.isfinite(planes)
    if known.all():
        return planes
    result = planes.copy()
    for plane, where in zip(result, known, strict=True):
        plane[~where] = np.median(plane[where]) if where.any() else np.nan
    return result
