"""From a picture to the pixels that a backbone sees. Legend: B galaxies, S side of the view, C side of the canvas.

A picture is decoded, scaled and centre-cropped once to a canvas: uint8, a little larger than the view, so that
a rotated or shifted view still shows sky at its corners and not a border. Views are taken of whole batches of canvases,
on whatever device they are: `eval_view` is their centre, `train_view` a random rotation, flip, zoom and shift of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

# sqrt(2) shows real sky in the corners at any rotation; the rest is for the shift.
CANVAS_MARGIN = 1.5
STRIP = 16  # of a picture whose sides have a greater ratio, what is beyond is cut off before it is scaled


@dataclass(frozen=True)
class Framing:
    """Which part of the picture is seen, and how large.

    Attributes:
        size: side of the view in pixels.
        crop: share of the picture's shorter side that the view shows, from its centre; in (0, 1].
    """

    size: int
    crop: float = 1.0

    @property
    def scaled(self) -> int:
        """Shorter side in pixels of the whole picture at the scale of the view."""
        return self.size + 2 * round(self.size * (1 / self.crop - 1) / 2)

    @property
    def canvas(self) -> int:
        """Side of the canvas in pixels: no larger than the scaled picture."""
        return min(self.size + 2 * round(self.size * (CANVAS_MARGIN - 1) / 2), self.scaled)


def to_canvases(pictures: Sequence[np.ndarray], framing: Framing) -> torch.Tensor:
    """(B, 3, C, C) uint8: the middle of each picture, at the scale of the view.

    Args:
        pictures: (H, W, 3) uint8 RGB, a list of several sizes or an array of one.
    """
    if isinstance(pictures, list) and len({picture.shape for picture in pictures}) > 1:
        return torch.cat([to_canvases([picture], framing) for picture in pictures])
    # Still (B, H, W, 3) in memory: torch resizes uint8 in that layout several times faster than Pillow does.
    batch = torch.from_numpy(np.asarray(pictures)).permute(0, 3, 1, 2)
    # Of a strip the middle alone is seen; scaled as a whole, one of 1 x 50,000 pixels would take gigabytes.
    batch = _middle(batch, min(batch.shape[2:]) * STRIP)
    height, width = batch.shape[2:]
    if min(height, width) != framing.scaled:
        size = [max(framing.scaled, int(framing.scaled * side / min(height, width))) for side in (height, width)]
        batch = F.interpolate(batch, size=size, mode="bicubic", antialias=True)
    return _middle(batch, framing.canvas)


def _middle(pictures: torch.Tensor, side: int) -> torch.Tensor:
    """(B, 3, side, side), or less where a picture is less, rounded down as in image processors; torchvision's center_crop rounds to even."""
    top, left = (max(0, length - side) // 2 for length in pictures.shape[2:])
    return pictures[..., top : top + side, left : left + side]


def eval_view(canvases: torch.Tensor, framing: Framing) -> torch.Tensor:
    """(B, 3, C, C) uint8 -> (B, 3, S, S) float32 in [0, 1]: the centre, always the same."""
    return _middle(canvases, framing.size).float() / 255
