"""Mixtures of two galaxies and of their classes: mixup and cutmix. Legend: B galaxies, K channels, S side of the view, C classes.

Positions 2k and 2k + 1 of the training sequence are a pair, and each of them becomes a mixture of both, with the same share of its
own galaxy. So a mixture does not depend on how a batch is divided among processes and micro-batches, no picture is decoded twice,
and every galaxy counts as much as without mixing.
"""

from collections.abc import Sequence

import numpy as np
import torch

from hf_galaxy.data.band_stretch import stretched
from hf_galaxy.randomness import seed_for, uniforms
from hf_galaxy.training.augmentation import inside


def draw_pairs(seed: int, positions: Sequence[int], size: int, mixup: float, cutmix: float) -> dict[str, np.ndarray]:
    """How pairs are mixed; if both are given, each pair in one of the two ways, with equal probability.

    mixup (huggingface.co/papers/1710.09412): `share` of the own galaxy from Beta(mixup, mixup), in all pixels and in the classes.
    cutmix (huggingface.co/papers/1905.04899): a square of 1 - Beta(cutmix, cutmix) of the view, around a random pixel, is that of the
    other galaxy; `share` is the rest, after the square was cut at the edges of the view.

    Args:
        positions: whole pairs, in order.
        size: side of the view in pixels.
        mixup, cutmix: alpha; 0: not in this way.

    Returns:
        `share` (B,) float32 of the own galaxy in the target; `opacity` (B,) float32, that in the pixels outside the square; `square`
        (B, 4) int64, as `augmentation.draw_erased`.
    """
    from scipy.special import betaincinv

    assert len(positions) % 2 == positions[0] % 2 == 0, "micro-batches hold whole pairs"
    pairs = [position // 2 for position in positions[::2]]
    way, rank, *centre = uniforms(seed_for("pairs", seed), pairs, 4).T
    cut = (way < 0.5) if mixup and cutmix else np.full(len(pairs), cutmix > 0)
    alpha = np.where(cut, cutmix, mixup)
    share = betaincinv(alpha, alpha, rank)
    side = np.floor(size * np.sqrt(1 - share)) * cut
    edges = []
    for place in centre:
        first = np.floor(place * size) - side // 2
        edges += [first.clip(0, size), (first + side).clip(0, size)]
    square = np.stack(edges, axis=1).astype(np.int64)
    area = (square[:, 1] - square[:, 0]) * (square[:, 3] - square[:, 2])
    opacity = np.where(cut, 1.0, share)
    share = np.where(cut, 1 - area / size**2, share)
    drawn: dict[str, np.ndarray] = {
        "share": share.astype(np.float32),
        "opacity": opacity.astype(np.float32),
        "square": square,
    }
    return {name: values.repeat(2, axis=0) for name, values in drawn.items()}


def mixed_views(views: torch.Tensor, opacity: torch.Tensor, square: torch.Tensor) -> torch.Tensor:
    """(B, K, S, S): each view mixed with that of the other galaxy of its pair."""
    other = _others(views)
    return torch.where(inside(square, views.shape[-1]), other, other.lerp(views, opacity.view(-1, 1, 1, 1)))


def mixed_labels(labels: torch.Tensor, share: torch.Tensor, classes: int) -> torch.Tensor:
    """(B, C): the shares of the classes in each mixture, or of a yes in each label, NaN where one of the two galaxies has none.

    Args:
        labels: (B,) class indices, or (B, C) yes/no labels.
        share: (B,) of the own galaxy.
    """
    if labels.dim() == 1:
        labels = (labels[:, None] == torch.arange(classes, device=labels.device)).float()
    return _others(labels).lerp(labels, share[:, None])


def mixed_fluxes(
    fluxes: torch.Tensor, opacity: torch.Tensor, square: torch.Tensor, stretch: Sequence[torch.Tensor]
) -> torch.Tensor:
    """(B, K, S, S): fluxes that a model sees as the mixture of what it sees of both galaxies.

    Their light itself is not added: of two galaxies of which one is a hundred times brighter only that one would be seen, whatever the
    shares in the target say.

    Args:
        stretch: sky, noise and saturation of each band, (K, 1, 1).
    """
    sky, noise, saturation = stretch
    shown = mixed_views(stretched(fluxes, sky, noise, saturation), opacity, square)
    return sky + noise * (shown * torch.asinh((saturation - sky) / noise)).sinh()


def _others(of_pairs: torch.Tensor) -> torch.Tensor:
    """Each row replaced by that of the other galaxy of its pair."""
    return of_pairs.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
