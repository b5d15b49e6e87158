"""Random views of whole batches of galaxies, on the device where they are. Legend: B galaxies, S side of the view, C side of the canvas."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from hf_galaxy.data.views import Framing
from hf_galaxy.errors import BadInput
from hf_galaxy.randomness import uniforms

CACHED = 2**16  # pixels that are in the caches of a core as canvas, grid and view together

# Both differ from `size` by an even number, so that the centre of one is the centre of the other, to the pixel.


@dataclass(frozen=True)
class Augmentation:
    """How training views differ from the evaluation view; with all of it off they are equal.

    Galaxies have no preferred orientation, so rotations and reflections do not change the answers of volunteers, except about the
    handedness of spirals, which a reflection swaps. The ranges are milder than Zoobot's (zoom 1.2 to 1.4, shear 20 degrees:
    both change how round and how large a galaxy looks).

    Attributes:
        rotate: by any angle.
        flip: reflect half of the views.
        zoom: minimum and maximum magnification; (1, 1): none.
        shift: maximum in each direction, as a fraction of the view; 0: none.
    """

    rotate: bool = True
    flip: bool = True
    zoom: tuple[float, float] = (0.9, 1.1)
    shift: float = 0.05

    def check(self) -> None:
        """Refuse wrong ranges.

        Raises:
            BadInput: names the setting.
        """
        if not 0 < self.zoom[0] <= self.zoom[1] < np.inf:
            raise BadInput(
                f"--zoom {self.zoom[0]} {self.zoom[1]}: must be the minimum magnification, above 0, and the maximum"
            )
        if not 0 <= self.shift < 1:
            raise BadInput(f"--shift {self.shift}: is a fraction of the view, in [0, 1)")


USUAL = Augmentation()


def train_view(canvases: torch.Tensor, affine: torch.Tensor, framing: Framing) -> torch.Tensor:
    """(B, K, C, C) -> (B, K, S, S) float32: each canvas under its own affine map; uint8 becomes [0, 1], fluxes stay fluxes.

    Args:
        affine: (B, 2, 3), from `draw_affine`: where in the canvas, in units of half its side, a point of the view lies.
    """
    views = torch.empty(*canvases.shape[:2], framing.size, framing.size, device=canvases.device)
    step = len(canvases)
    if canvases.device.type == "cpu":
        # A few canvases a thread at a time: the floats of a whole batch would leave its caches, at three times the cost.
        step = torch.get_num_threads() * max(1, CACHED // canvases[0, 0].numel())
    for some, maps, out in zip(canvases.split(step), affine.split(step), views.split(step), strict=True):
        # Reflection, not zeros: where the canvas is no larger than the view, the corners of a rotated view lie outside,
        # and mirrored sky is closer to `eval_view` than black wedges are.
        view = F.grid_sample(some.float(), _grid(maps, framing.size), padding_mode="reflection", align_corners=False)
        if canvases.is_floating_point():
            out.copy_(view)
        else:
            torch.div(view, 255, out=out).clamp_(0, 1)  # the view is divided, which is smaller than the canvas
    return views


def _grid(affine: torch.Tensor, size: int) -> torch.Tensor:
    """(B, S, S, 2): where in the canvas each pixel of the view lies. As F.affine_grid, which multiplies matrices, slowly."""
    middles = (torch.arange(size, device=affine.device) * 2 + 1) / size - 1
    across, down, start = affine.unsqueeze(-1).unbind(2)  # (B, 2, 1) each
    return ((across * middles)[:, :, None] + (down * middles + start)[..., None]).permute(0, 2, 3, 1)


def draw_affine(
    seed: int, positions: Sequence[int], framing: Framing, augmentation: Augmentation = USUAL
) -> np.ndarray:
    """(B, 2, 3) random affine maps.

    Args:
        seed, positions: map b depends on the seed and on position b alone; switching one change off leaves the others as they are.
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
