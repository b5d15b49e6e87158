"""Random views of whole batches of galaxies, on the device where they are. Legend: B galaxies, S side of the view, C side of the canvas."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from hf_galaxy.data.views import Framing
from hf_galaxy.errors import BadInput
from hf_galaxy.randomness import seed_for, uniforms

CACHED = 2**16  # pixels that are in the caches of a core as canvas, grid and view together
ERASED_AREA = (0.02, 0.2)  # of the view
ERASED_SHAPE = (0.3, 1 / 0.3)  # height to width; with these areas no rectangle is larger than the view


@dataclass(frozen=True)
class Augmentation:
    """How training views differ from the evaluation view; with all of it off they are equal.

    Every number is drawn by the seed and the position alone, and those of one change by a generator of their own: so views depend
    neither on processes, micro-batches and workers, nor on what else is switched on.

    Galaxies have no preferred orientation, so rotations and reflections do not change the answers of volunteers, except about the
    handedness of spirals, which a reflection swaps. The ranges are milder than Zoobot's (zoom 1.2 to 1.4, shear 20 degrees:
    both change how round and how large a galaxy looks).

    Attributes:
        rotate: by any angle.
        flip: reflect half of the views.
        zoom: minimum and maximum magnification; (1, 1): none.
        shift: maximum in each direction, as a fraction of the view; 0: none.
        shear: maximum angle in degrees, in any direction; 0: none.
        erase: share of the views of which a rectangle is erased.
        blur: maximum FWHM in arcsec of the Gaussian with which fluxes are convolved; 0: none.
        noise: maximum standard deviation of the noise that is added to fluxes, in units of that of their sky; 0: none.
        mixup, cutmix: alpha of the Beta distribution of the share of one galaxy in a mixture of two; 0: none.
    """

    rotate: bool = True
    flip: bool = True
    zoom: tuple[float, float] = (0.9, 1.1)
    shift: float = 0.05
    shear: float = 0.0
    erase: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    @property
    def mixes(self) -> bool:
        """Whether views are mixtures of two galaxies."""
        return self.mixup > 0 or self.cutmix > 0

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
        if not 0 <= self.shear < 90:
            raise BadInput(f"--shear {self.shear}: is an angle in degrees, in [0, 90)")
        if not 0 <= self.erase <= 1:
            raise BadInput(f"--erase {self.erase}: is a share of the views, in [0, 1]")
        for name in ("blur", "noise", "mixup", "cutmix"):
            if not 0 <= (value := getattr(self, name)) < np.inf:
                raise BadInput(f"--{name} {value}: must not be negative")


USUAL = Augmentation()


def train_view(canvases: torch.Tensor, affine: torch.Tensor, framing: Framing) -> torch.Tensor:
    """(B, K, C, C) -> (B, K, S, S) float32: each canvas under its own affine map; uint8 becomes [0, 1], fluxes stay fluxes.

    Args:
        affine: (B, 2, 3), from `draw_affine`: where in the canvas, in units of half its side, a point of the view lies.
    """
    views = torch.empty(*canvases.shape[:2], framing.size, framing.size, device=canvases.device)
    # Evaluation sees the noise of fluxes as it is. Bilinear interpolation would take a third of it out of training views, and what a
    # model learns there of faint light would be wrong in a test; cubic interpolation leaves most of it. Pictures of 8 bits show less noise.
    mode = "bicubic" if canvases.is_floating_point() else "bilinear"
    step = len(canvases)
    if canvases.device.type == "cpu":
        # A few canvases a thread at a time: the floats of a whole batch would leave its caches, at three times the cost.
        step = torch.get_num_threads() * max(1, CACHED // canvases[0, 0].numel())
    for some, maps, out in zip(canvases.split(step), affine.split(step), views.split(step), strict=True):
        # Reflection, not zeros: where the canvas is no larger than the view, the corners of a rotated view lie outside,
        # and mirrored sky is closer to `eval_view` than black wedges are.
        grid = _grid(maps, framing.size)
        view = F.grid_sample(some.float(), grid, mode, padding_mode="reflection", align_corners=False)
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
    if augmentation.shear:
        turned = turned @ _shears(seed, positions, augmentation.shear)
    return np.concatenate([turned, (shift * 2 * scale[:, None])[..., None]], axis=2).astype(np.float32)


def _shears(seed: int, positions: Sequence[int], degrees: float) -> np.ndarray:
    """(B, 2, 2) shears of any direction d and by angles a up to some degrees, which keep areas: 1 + tan(a) d n, with n normal to d."""
    direction, size = uniforms(seed_for("shear", seed), positions, 2).T
    tangent = np.tan(np.radians(degrees) * (2 * size - 1))
    cos, sin = np.cos(np.pi * direction), np.sin(np.pi * direction)
    along, normal = np.stack([cos, sin], axis=1), np.stack([-sin, cos], axis=1)
    return np.eye(2) + tangent[:, None, None] * along[:, :, None] * normal[:, None, :]


def draw_erased(seed: int, positions: Sequence[int], size: int, share: float) -> np.ndarray:
    """(B, 4) int64: the rectangle that is erased of each view, as first row, row after the last, and the same of columns; empty
    where nothing is. Areas are uniform, shapes log-uniform, as in Random Erasing (huggingface.co/papers/1708.04896).

    Args:
        size: side of the view in pixels.
        share: of the views, with a rectangle.
    """
    erase, area, shape, *places = uniforms(seed_for("erase", seed), positions, 5).T
    area = (ERASED_AREA[0] + (ERASED_AREA[1] - ERASED_AREA[0]) * area) * (erase < share)
    ratio = ERASED_SHAPE[0] * (ERASED_SHAPE[1] / ERASED_SHAPE[0]) ** shape
    edges = []
    for length, place in zip((np.sqrt(area * ratio), np.sqrt(area / ratio)), places, strict=True):
        pixels = (size * length).round()
        first = np.floor(place * (size - pixels + 1))
        edges += [first, first + pixels]
    return np.stack(edges, axis=1).astype(np.int64)


def inside(rectangles: torch.Tensor, size: int) -> torch.Tensor:
    """(B, 4) rectangles, as `draw_erased` gives them -> (B, 1, S, S) bool: the pixels in them."""
    first_row, end_row, first_column, end_column = rectangles.view(-1, 4, 1, 1).unbind(1)
    places = torch.arange(size, device=rectangles.device)
    rows, columns = places.view(1, -1, 1), places.view(1, 1, -1)
    return ((first_row <= rows) & (rows < end_row) & (first_column <= columns) & (columns < end_column))[:, None]


def erased(views: torch.Tensor, rectangles: torch.Tensor, fluxes: bool) -> torch.Tensor:
    """The views (B, K, S, S) with sky in a rectangle of each.

    Fluxes have no value there, which models take for sky. Pictures of 8 bits have the median of the view, channel by channel: that is
    the sky wherever the galaxy fills less than half of it, also if it is white or coloured, where black would be a new object.

    Args:
        rectangles: of `draw_erased`.
    """
    if fluxes:
        return views.masked_fill(inside(rectangles, views.shape[-1]), torch.nan)
    some = (
        views[..., ::4, ::4].flatten(2).sort().values
    )  # a sixteenth of the pixels has the same median, to little more than the noise
    return torch.where(inside(rectangles, views.shape[-1]), some[..., some.shape[-1] // 2, None, None], views)
