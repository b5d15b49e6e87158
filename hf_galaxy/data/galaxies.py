"""Rows of a dataset -> decoded pictures and tensors. Legend of shapes: B galaxies, H and W of a picture, C side of the canvas."""

from contextlib import suppress

import numpy as np
import torch
from torch.utils.data import Dataset

from hf_galaxy.data.fluxes import FLUX, arcsec_of, decode_fluxes, filled
from hf_galaxy.data.pictures import check_pixels, open_picture, to_rgb
from hf_galaxy.data.schema import InvalidVotes, contents_of
from hf_galaxy.data.targets import Rows, Target, galaxy_of, with_target
from hf_galaxy.data.views import Framing, to_canvases
from hf_galaxy.errors import BadInput
from hf_galaxy.randomness import key_of

try:
    import simplejpeg
except ImportError:  # Pillow decodes to the same pixels, at half the speed
    simplejpeg = None


def decode(content: bytes | None, shorter: int | None = None, out: np.ndarray | None = None) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an encoded picture of 8 bits, as `pictures.to_rgb` converts it.

    Args:
        shorter: decode a JPEG at 1/2, 1/4 or 1/8 of its size, as long as its shorter side is no shorter than this, which takes
            less time. Pillow and simplejpeg give the same pixels, to the bit.
        out: array to decode into, if it has the size of the picture.

    Raises:
        BadInput: there is no picture, it cannot be decoded completely, or it has more than 8 bits or too many pixels.
    """
    try:
        return _decoded(content, shorter, out)
    except BadInput:
        raise
    except Exception as error:  # decoders raise many kinds of errors; each means that the picture is damaged
        raise BadInput(" ".join(str(error).split()) or type(error).__name__) from error


def _decoded(content: bytes | None, shorter: int | None, out: np.ndarray | None) -> np.ndarray:
    if simplejpeg and content and simplejpeg.is_jpeg(content):
        # It refuses bytes too many between the parts of a file, which Pillow, and so a publication, leaves out.
        with suppress(ValueError):
            return _decoded_fast(content, shorter, out)
    picture = open_picture(content)
    width, height = picture.size
    factor = _reduction(min(width, height), shorter)
    if factor > 1:
        picture.draft(picture.mode, (width // factor, height // factor))
    pixels = np.asarray(to_rgb(picture))
    if out is not None and out.shape == pixels.shape:
        out[:] = pixels
    return pixels


def _decoded_fast(content: bytes, shorter: int | None, out: np.ndarray | None) -> np.ndarray:
    """A JPEG as `_decoded` gives it.

    Raises:
        ValueError: Pillow decodes it, or says what is wrong: there are oddities in it, it is CMYK, or has too many pixels.
    """
    assert simplejpeg
    height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
    check_pixels(width, height)
    if colours not in ("YCbCr", "Gray", "RGB"):
        raise ValueError(colours)
    factor = _reduction(min(height, width), shorter)
    height, width = -(-height // factor), -(-width // factor)
    smaller = {"min_height": height, "min_width": width} if factor > 1 else {}
    buffer = out if out is not None and out.shape == (height, width, 3) else None
    return simplejpeg.decode_jpeg(content, "RGB", buffer=buffer, **smaller)


def _reduction(side: int, shorter: int | None) -> int:
    """The largest factor by which a JPEG may be reduced."""
    return max((factor for factor in (1, 2, 4, 8) if shorter and side // factor >= shorter), default=1)


def decode_batch(contents: list[bytes | None], shorter: int | None = None) -> np.ndarray | list[np.ndarray]:
    """(B, H, W, 3) uint8 of pictures of one size, decoded in place; a list of arrays if they have several sizes."""
    first = decode(contents[0], shorter)
    batch = np.empty((len(contents), *first.shape), np.uint8)
    pictures = [decode(content, shorter, out) for content, out in zip(contents, batch, strict=True)]
    return batch if all(picture.shape == first.shape for picture in pictures) else pictures


def picture_column(framing: Framing) -> str:
    """The column of a dataset that has what these views show."""
    return FLUX if framing.bands else "image"


class Galaxies(Dataset):
    """Rows as tensors, one batch per call: `pixels` (B, 3, C, C) uint8 canvases, or (B, bands, C, C) float32 of fluxes, beside `votes`
    (B, A) or `labels`.

    Args:
        rows: a split of a published dataset.
        framing: how pictures are cropped and scaled to canvases; with bands, those of their column `flux`.
        target: gives `votes` or `labels` (`Target.tensors`).
        fast: reduce large JPEGs while they are decoded, if they are reduced anyway. For training; otherwise pictures are
            exactly what an image processor returns.
        keyed: also give `keys` (B,) int64, derived from the galaxies' names (`randomness.key_of`), or from their row numbers
            if they have no `id_str`.
        scales: also give `arcsec` (B,) float32, the side of a pixel of the canvas; for fluxes.

    Raises:
        BadInput: as `Target.columns_of`.
    """

    def __init__(
        self,
        rows: Rows,
        framing: Framing,
        target: Target,
        fast: bool = False,
        keyed: bool = False,
        scales: bool = False,
    ) -> None:
        self.framing, self.target, self.shorter = framing, target, framing.scaled if fast else None
        self.scales, self.keyed, self.named = scales, keyed, keyed and "id_str" in rows.column_names
        names = ["id_str"] if self.named else []
        self.column = picture_column(framing)
        self.rows, self._whole = with_target(rows, [self.column, *names], target), rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        table = self.rows[indices]
        contents = contents_of(table[self.column])
        try:
            pictures = self._decoded(contents)
        except BadInput:
            self._name_undecodable(indices, contents)
            raise
        pixels = to_canvases(pictures, self.framing)
        try:
            batch = {"pixels": pixels, **self.target.tensors(table, self.rows.features)}
        except InvalidVotes as error:
            raise BadInput(f"{galaxy_of(self._whole, indices[error.row])}, {error.reason}") from error
        if self.scales:
            batch["arcsec"] = self._scales(indices, contents, pictures)
        if self.keyed:
            names = table["id_str"].to_pylist() if self.named else map(str, indices)
            batch["keys"] = torch.tensor([key_of(name) for name in names])
        return batch

    def _decoded(self, contents: list[bytes | None]) -> np.ndarray | list[np.ndarray]:
        if not self.framing.bands:
            return decode_batch(contents, self.shorter)
        return [filled(decode_fluxes(content, self.framing.bands)) for content in contents]

    def _scales(
        self, indices: list[int], contents: list[bytes | None], pictures: np.ndarray | list[np.ndarray]
    ) -> torch.Tensor:
        """(B,) float32: the side in arcsec of a pixel of each canvas."""
        scales = []
        for index, content, picture in zip(indices, contents, pictures, strict=True):
            try:
                scales.append(arcsec_of(content) * min(picture.shape[1:]) / self.framing.scaled)
            except BadInput as error:
                raise BadInput(f"{galaxy_of(self._whole, index)}: {error}; leave out --blur, or the galaxy") from error
        return torch.tensor(scales, dtype=torch.float32)

    def _name_undecodable(self, indices: list[int], contents: list[bytes | None]) -> None:
        """Raise BadInput about the first picture that cannot be decoded."""
        for index, content in zip(indices, contents, strict=True):
            try:
                self._decoded([content])
            except BadInput as error:
                raise BadInput(
                    f"{galaxy_of(self._whole, index)}: its picture cannot be decoded ({error}); "
                    "hf-galaxy check lists all such pictures"
                ) from error
