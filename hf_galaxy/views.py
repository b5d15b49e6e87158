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

from hf_galaxy.errors import BadInput

# sqrt(2) shows real sky in the corners at any rotation; the rest is for the shift.
CANVAS_MARGIN = 1.5
STRIP = 16  # of a picture whose sides have a greater ratio, what is beyond is cut off before it is scaled
CACHED = 2**16  # pixels that are in the caches of a core as canvas, grid and view together
GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio: the step of SplitMix64


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


@dataclass(frozen=True)
class Augmentation:
    """How training views differ from the evaluation view; all of it off, they are that view.

    Galaxies have no up and no left, so turns and mirrors change nothing that volunteers are asked, unless the label knows
    a spiral's handedness, which a mirror swaps. The ranges are milder than Zoobot's (zoom 1.2 to 1.4, shear 20 degrees:
    both change how round and how large a galaxy looks).

    Attributes:
        rotate: by any angle.
        flip: mirror every other view.
        zoom: least and most enlargement; (1, 1): none.
        shift: farthest, to each side, as a share of the view; 0: none.
    """

    rotate: bool = True
    flip: bool = True
    zoom: tuple[float, float] = (0.9, 1.1)
    shift: float = 0.05

    def check(self) -> None:
        """Refuse ranges that are none.

        Raises:
            BadInput: names the setting.
        """
        if not 0 < self.zoom[0] <= self.zoom[1] < np.inf:
            raise BadInput(f"--zoom {self.zoom[0]} {self.zoom[1]}: the least enlargement, above 0, and the most")
        if not 0 <= self.shift < 1:
            raise BadInput(f"--shift {self.shift}: is a share of the view, in [0, 1)")


USUAL = Augmentation()


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


def train_view(canvases: torch.Tensor, affine: torch.Tensor, framing: Framing) -> torch.Tensor:
    """(B, 3, C, C) uint8 -> (B, 3, S, S) float32 in [0, 1]: each canvas seen through its own affine map.

    Args:
        affine: (B, 2, 3), from `draw_affine`: where in the canvas, in units of half its side, a point of the view lies.
    """
    views = torch.empty(len(canvases), 3, framing.size, framing.size, device=canvases.device)
    step = len(canvases)
    if canvases.device.type == "cpu":
        # A few canvases a thread at a time: the floats of a whole batch would leave its caches, at three times the cost.
        step = torch.get_num_threads() * max(1, CACHED // canvases[0, 0].numel())
    for some, maps, out in zip(canvases.split(step), affine.split(step), views.split(step), strict=True):
        # Reflection, not zeros: where the canvas is no larger than the view, the corners of a rotated view lie outside,
        # and mirrored sky is closer to what `eval_view` shows than black wedges are.
        seen = F.grid_sample(some.float(), _grid(maps, framing.size), padding_mode="reflection", align_corners=False)
        torch.div(seen, 255, out=out).clamp_(0, 1)  # the view is divided, which is smaller than the canvas
    return views


def _grid(affine, size):
    """(B, S, S, 2): where in the canvas each pixel of the view lies. As F.affine_grid, which multiplies matrices, slowly."""
    middles = (torch.arange(size, device=affine.device) * 2 + 1) / size - 1
    across, down, start = affine.unsqueeze(-1).unbind(2)  # (B, 2, 1) each
    return ((across * middles)[:, :, None] + (down * middles + start)[..., None]).permute(0, 2, 3, 1)


def draw_affine(
    seed: int, positions: Sequence[int], framing: Framing, augmentation: Augmentation = USUAL
) -> np.ndarray:
    """(B, 2, 3) random affine maps.

    Args:
        seed, positions: map b depends on the seed and on position b alone; what is switched off changes nothing else.
    """
    turn, enlarge, right, down, mirrored = uniforms(seed, positions, 5).T
    least, most = augmentation.zoom
    scale = framing.size / framing.canvas / (least + (most - least) * enlarge)
    mirror = np.where((mirrored < 0.5) & augmentation.flip, -1.0, 1.0)
    angle = 2 * np.pi * turn * augmentation.rotate
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    shift = (np.stack([right, down], axis=1) * 2 - 1) * augmentation.shift
    turned = np.stack([cos * mirror, -sin, sin * mirror, cos], axis=1).reshape(-1, 2, 2)
    return np.concatenate([turned, (shift * 2 * scale[:, None])[..., None]], axis=2).astype(np.float32)


def uniforms(seed: int, positions: Sequence[int], draws: int) -> np.ndarray:
    """(B, draws) random numbers in [0, 1): those of a position depend on it and the seed alone.

    A generator for each position would cost as much as a tenth of decoding its picture; SplitMix64 (Steele, Lea and Flood
    2014, doi 10.1145/2660193.2660195), whose state is a counter, gives those of a whole batch at once.
    """
    with np.errstate(over="ignore"):  # arithmetic modulo 2**64 is meant
        start = split_mix(np.uint64(seed) + GOLDEN) + np.asarray(positions, dtype=np.uint64)[:, None] * np.uint64(draws)
        bits = split_mix((start + np.arange(draws, dtype=np.uint64)) * GOLDEN)
    return (bits >> np.uint64(11)) / 2.0**53


def split_mix(z):
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
