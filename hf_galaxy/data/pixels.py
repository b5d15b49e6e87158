"""Pictures in any form -> their pixels: a file, a URL, bytes, a PIL image or an array. Legend: H and W of a picture."""

import io
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hf_galaxy.data.pictures import MAX_BYTES, Rendering, reading, to_rgb
from hf_galaxy.download import download
from hf_galaxy.errors import BadInput

DEFAULT = Rendering()


def pixels_of(picture: Any, rendering: Rendering = DEFAULT, timeout: float = 20) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a picture, the same from its file, its bytes, its PIL image or its array.

    Args:
        picture: path or http(s) URL of a JPEG, PNG, WebP, TIFF, GIF, BMP or FITS file, its bytes, or a PIL image; or an array (H, W), (H, W, 1) or
            (H, W, 3) of uint8, of uint16 (grey, rendered as a 16-bit PNG), or of floats from 0 (black) to 1 (white), as
            matplotlib shows them. Raw fluxes are for FITS files.
        rendering: how it becomes a picture of a dataset, of which all kinds are cropped and reduced.
        timeout: seconds that a download may take.

    Raises:
        BadInput: it cannot be read, or has another type or shape.
    """
    if isinstance(picture, str | Path):
        return _rgb(rendering.open(content_of(str(picture), timeout), str(picture)))
    if isinstance(picture, bytes):
        return _rgb(rendering.open(picture, "bytes"))
    if isinstance(picture, Image.Image):
        return _of_image(picture, rendering)
    if isinstance(picture, np.ndarray):
        return _of_array(picture, rendering)
    raise BadInput(
        f"a {type(picture).__name__} is not a picture; pass a path, URL, bytes, PIL image or numpy array, a list of these, "
        'or for a dataset transformers.pipelines.pt_utils.KeyDataset(dataset, "image")'
    )


def encoded(picture: Any) -> bytes:
    """The bytes of a picture in memory: those that it has, or a PNG with the pixels that `pixels_of` gives; one of 16 bits keeps them.

    Args:
        picture: bytes, {"bytes": bytes}, a PIL image, or an array.

    Raises:
        BadInput: as `pixels_of`.
    """
    content = picture.get("bytes") if isinstance(picture, dict) else picture
    if isinstance(content, bytes):
        return content
    if isinstance(content, Image.Image) and _is_deep(content):
        with reading(str(content)):
            content = _values_of(content)
    if isinstance(content, np.ndarray) and _is_grey16(content):
        return _png(content.reshape(content.shape[:2]))
    file = io.BytesIO()
    Image.fromarray(pixels_of(content)).save(file, "PNG")
    return file.getvalue()


def _png(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(values)).save(file, "PNG", compress_level=0)
    return file.getvalue()


def content_of(name: str, timeout: float = 20) -> bytes:
    """The bytes of a file, or of what is at a URL.

    Raises:
        BadInput: it cannot be read.
    """
    if name.startswith(("http://", "https://")):
        return _downloaded(name, timeout)
    try:
        return Path(name).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: not a path
        raise BadInput(f"{name}: cannot be read ({error})") from error


def _downloaded(url: str, timeout: float) -> bytes:
    try:
        return download(url, timeout, MAX_BYTES)
    except (OSError, HTTPException, ValueError) as error:  # HTTPError, URLError and TimeoutError are OSErrors
        raise BadInput(f"{url}: cannot be downloaded ({error})") from error


def _rgb(picture: Image.Image) -> np.ndarray:
    return np.asarray(to_rgb(picture))


def _of_image(picture: Image.Image, rendering: Rendering) -> np.ndarray:
    try:
        picture.load()
        if _is_deep(picture):
            return _of_array(_values_of(picture), rendering)
        is_grey = picture.mode == "L" and not picture.has_transparency_data
        return _rgb(rendering.shown(picture if is_grey else to_rgb(picture)))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadInput(f"{picture}: cannot be read ({error})") from error


def _is_deep(picture: Image.Image) -> bool:
    """Whether it has more than 8 bits."""
    return picture.mode.startswith(("I", "F"))


def _values_of(picture: Image.Image) -> np.ndarray:
    """(H, W) of a picture of more than 8 bits: uint16, if that holds its whole numbers."""
    values = np.asarray(picture)
    fits_uint16 = picture.mode.startswith("I") and values.min() >= 0 and values.max() < 2**16
    return values.astype(np.uint16) if fits_uint16 else values


def _is_grey16(values: np.ndarray) -> bool:
    return values.dtype == np.uint16 and values.size > 0 and (values.ndim == 2 or values.shape[2:] == (1,))


def _of_array(values: np.ndarray, rendering: Rendering) -> np.ndarray:
    bands = values[..., 0] if values.ndim == 3 and values.shape[-1] == 1 else values
    if not (bands.ndim == 2 or (bands.ndim == 3 and bands.shape[-1] == 3)) or not bands.size:
        fluxes = "; --bands with the names of its planes reads fluxes" if values.ndim == 3 else ""
        raise BadInput(
            f"an array of shape {values.shape} is not a picture; it must be (H, W), (H, W, 1) or (H, W, 3){fluxes}"
        )
    if _is_grey16(bands):
        return _rgb(rendering.open(_png(bands), "an array of uint16"))
    if np.issubdtype(bands.dtype, np.floating):
        if not (bands.min() >= 0 and bands.max() <= 1):  # in this form NaN raises the error too
            raise BadInput(
                f"an array of floats must be from 0 (black) to 1 (white), and is from {bands.min():g} to {bands.max():g}; "
                "pass raw fluxes as a FITS file, which is stretched"
            )
        bands = np.rint(bands * 255).astype(np.uint8)
    if bands.dtype != np.uint8:
        raise BadInput(f"an array {values.shape} of {values.dtype} is not a picture; pass uint8, or floats from 0 to 1")
    return _rgb(rendering.shown(Image.fromarray(np.ascontiguousarray(bands))))
