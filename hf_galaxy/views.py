"""From a picture to the pixels that a backbone sees. Legend: B galaxies, S side of the view, C side of the canvas.

A picture is decoded, scaled and centre-cropped once to a canvas: uint8, a little larger than the view, so that
a rotated or shifted view still shows sky at its corners and not a border. Views are taken of whole batches of canvases,
on whatever device they are: `eval_view` is their centre, `train_view` a random rotation, flip, zoom and shift of it.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import center_crop, pil_to_tensor, resize

# sqrt(2) shows real sky in the corners at any rotation; the rest is for the shift.
CANVAS_MARGIN = 1.5


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

    # Both differ from `size` by an even number, so that the centre of one is the centre of the other, to the pixel.


def to_canvas(picture: Image.Image, framing: Framing) -> torch.Tensor:
    """(3, C, C) uint8 RGB: the middle of the picture, at the scale of the view. Grey pictures become three equal bands."""
    scaled = resize(picture.convert("RGB"), framing.scaled, InterpolationMode.BICUBIC)
    return pil_to_tensor(center_crop(scaled, [framing.canvas]))


def eval_view(canvases: torch.Tensor, framing: Framing) -> torch.Tensor:
    """(B, 3, C, C) uint8 -> (B, 3, S, S) float32 in [0, 1]: the centre, always the same."""
    return center_crop(canvases, [framing.size]).float() / 255


def train_view(canvases: torch.Tensor, affine: torch.Tensor, framing: Framing) -> torch.Tensor:
    """(B, 3, C, C) uint8 -> (B, 3, S, S) float32 in [0, 1]: each canvas seen through its own affine map.

    Args:
        affine: (B, 2, 3), from `draw_affine`: where in the canvas, in units of half its side, a point of the view lies.
    """
    grid = F.affine_grid(affine, (len(canvases), 3, framing.size, framing.size), align_corners=False)
    # Reflection, not zeros: where the canvas is no larger than the view, the corners of a rotated view lie outside,
    # and mirrored sky is closer to what `eval_view` shows than black wedges are.
    return F.grid_sample(canvases.float() / 255, grid, padding_mode="reflection", align_corners=False).clamp_(0, 1)


def draw_affine(rng: np.random.Generator, framing: Framing, flip: bool = True) -> np.ndarray:
    """A random (2, 3) affine map: any rotation, a zoom of 0.9 to 1.1, a shift of up to 5 % of the view, and a mirror.

    Galaxies have no up and no left, so these change nothing that volunteers are asked; `flip=False` is for labels that
    know a spiral's handedness, which a mirror swaps. The ranges are milder than Zoobot's (zoom 1.2 to 1.4, shear 20
    degrees: both change how round and how large a galaxy looks).
    """
    angle = rng.uniform(0, 2 * np.pi)
    zoom = rng.uniform(0.9, 1.1)
    shift = rng.uniform(-0.05, 0.05, 2)
    mirror = -1.0 if rng.random() < 0.5 and flip else 1.0
    scale = framing.size / framing.canvas / zoom
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    return np.array(
        [[cos * mirror, -sin, shift[0] * 2 * scale], [sin * mirror, cos, shift[1] * 2 * scale]], dtype=np.float32
    )
