"""The random views of a batch: the numbers that are drawn where its galaxies are read, and what is made of them on the device.

Legend: B galaxies, K channels, C side of the canvas, S of the view.
"""

from collections.abc import Sequence

import torch

from hf_galaxy.data.views import Framing
from hf_galaxy.models.model import GalaxyPreTrainedModel
from hf_galaxy.training.augmentation import Augmentation, draw_affine, draw_erased, erased, train_view
from hf_galaxy.training.observing import blurred, draw_blur, draw_noise, with_noise
from hf_galaxy.training.pairs import draw_pairs, mixed_fluxes, mixed_labels, mixed_views


def draw_views(
    seed: int,
    positions: Sequence[int],
    framing: Framing,
    augmentation: Augmentation,
    arcsec: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """The random numbers of the view of each position, for those changes that are switched on: `affine` always.

    Args:
        positions: with mixup or cutmix, whole pairs.
        arcsec: (B,) side of a pixel of each canvas; needed for `blur`.
    """
    affine = draw_affine(seed, positions, framing, augmentation)
    drawn = {"affine": affine}
    if augmentation.blur:
        assert arcsec is not None, "galaxies are read with their scales"
        drawn["blur"] = draw_blur(seed, positions, augmentation.blur, framing, affine, arcsec.numpy())
    if augmentation.noise:
        drawn |= draw_noise(seed, positions, augmentation.noise)
    if augmentation.erase:
        drawn["erased"] = draw_erased(seed, positions, framing.size, augmentation.erase)
    if augmentation.mixes:
        drawn |= draw_pairs(seed, positions, framing.size, augmentation.mixup, augmentation.cutmix)
    return {name: torch.from_numpy(values) for name, values in drawn.items()}


def random_views(batch: dict[str, torch.Tensor], model: GalaxyPreTrainedModel) -> torch.Tensor:
    """(B, K, C, C) canvases -> (B, K, S, S) views, each changed as `draw_views` drew it.

    In the order in which it would come about: the place in the sky, the atmosphere, the noise of the detector, then a defect. Mixtures
    are made of finished views.
    """
    config = model.config
    views = train_view(batch["pixels"], batch["affine"], config.framing)
    if "blur" in batch:
        views = blurred(views, batch["blur"])
    if "noise" in batch:
        views = with_noise(views, batch["noise"], batch["noise_key"], model.band_noise)
    if "erased" in batch:
        views = erased(views, batch["erased"], fluxes=bool(config.bands))
    if "share" not in batch:
        return views
    if config.bands:
        stretch = (model.band_sky, model.band_noise, model.band_saturation)
        return mixed_fluxes(views, batch["opacity"], batch["square"], stretch)
    return mixed_views(views, batch["opacity"], batch["square"])


def target_of_views(batch: dict[str, torch.Tensor], model: GalaxyPreTrainedModel) -> dict[str, torch.Tensor]:
    """The batch, with the labels of mixtures where its views are mixed."""
    if "share" not in batch:
        return batch
    return batch | {"labels": mixed_labels(batch["labels"], batch["share"], model.config.num_labels)}
