"""From a picture to the input of a backbone. Legend: B galaxies, K channels, S side of the view, C side of the canvas.

A picture is decoded, scaled and centre-cropped once to a canvas: uint8, or float32 for fluxes, a little larger than the view, so that
a rotated or shifted view still shows sky at its corners and not a border. Views are taken of whole batches of canvases,
on their device: `eval_view` is their centre, `training.augmentation.train_view` a random rotation, flip, zoom and shift of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

# sqrt(2) shows real sky in the corners at any rotation; the rest is for the shift.
CANVAS_MARGIN = 1.5
STRIP = 16  # the greatest ratio of a picture's sides: a longer one is cropped before it is scaled


@dataclass(frozen=True)
class Framing:
    """What a view shows of a picture, and its size.

    Attributes:
        size: side of the view in pixels.
        crop: share of the picture's shorter side that the view shows, from its centre; in (0, 1].
        bands: whose fluxes it shows; None: red, green and blue of the picture of 8 bits.
    """

    size: int
    crop: float = 1.0
    bands: tuple[str, ...] | None = None

    @property
    def scaled(self) -> int:
        """Shorter side in pixels of the whole picture at the scale of the view."""
        return self.size + 2 * round(self.size * (1 / self.crop - 1) / 2)

    @property
    def canvas(self) -> int:
        """Side of the canvas in pixels: no larger than the scaled picture."""
        return min(self.size + 2 * round(self.size * (CANVAS_MARGIN - 1) / 2), self.scaled)


def to_canvases(pictures: Sequence[np.ndarray] | np.ndarray, framing: Framing) -> torch.Tensor:
    """(B, K, C, C): the centre of each picture, at the scale of the view; uint8 RGB or float32 fluxes, as they are.

    Args:
        pictures: (H, W, 3) uint8 RGB, or (K, H, W) float32, a list of several sizes or an array of one.
    """
    if isinstance(pictures, list) and len({picture.shape for picture in pictures}) > 1:
        return torch.cat([to_canvases([picture], framing) for picture in pictures])
    # RGB is still (B, H, W, 3) in memory: torch resizes uint8 in that layout several times faster than Pillow does.
    batch = torch.from_numpy(np.asarray(pictures))
    batch = batch if batch.is_floating_point() else batch.permute(0, 3, 1, 2)
    # Only the centre of a strip is used; scaling all of one of 1 x 50,000 pixels would take gigabytes.
    batch = _centre(batch, min(batch.shape[2:]) * STRIP)
    height, width = batch.shape[2:]
    if min(height, width) != framing.scaled:
        size = [max(framing.scaled, int(framing.scaled * side / min(height, width))) for side in (height, width)]
        batch = F.interpolate(batch, size=size, mode="bicubic", antialias=True)
    return _centre(batch, framing.canvas)


def _centre(pictures: torch.Tensor, side: int) -> torch.Tensor:
    """(B, K, side, side), or less of a smaller picture. Rounds down as image processors do; torchvision's center_crop rounds to even."""
    top, left = (max(0, length - side) // 2 for length in pictures.shape[2:])
    return pictures[..., top : top + side, left : left + side]


def eval_view(canvases: torch.Tensor, framing: Framing) -> torch.Tensor:
    """(B, K, C, C) -> (B, K, S, S) float32: the centre, always the same; uint8 becomes [0, 1], fluxes stay what they are."""
    view = _centre(canvases, framing.size)
    return view if view.is_floating_point() else view.float() / 255
