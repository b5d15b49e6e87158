"""Training views of fluxes as under worse conditions: blurred by a wider point spread function, and with more noise.

Legend: B galaxies, K bands, S side of the view.
"""

from collections.abc import Sequence

import numpy as np
import torch

from hf_galaxy.data.fluxes import arcsec_of
from hf_galaxy.data.targets import Rows, galaxy_of
from hf_galaxy.data.views import Framing
from hf_galaxy.errors import BadInput
from hf_galaxy.randomness import GOLDEN, seed_for, uniforms
from hf_galaxy.training.stretch import sampled_fluxes

FWHM = 2 * (2 * np.log(2)) ** 0.5  # of a Gaussian with a standard deviation of 1
CACHED = 2**16  # numbers whose generation stays in the caches of a core
GOLDEN_STEP = int(GOLDEN.astype(np.int64))
HALF = 2**32


def check_scales(parts: Sequence[Rows]) -> None:
    """Refuse fluxes without a scale, as far as a sample of the training galaxies of each dataset shows it.

    Raises:
        BadInput: names the galaxy.
    """
    for rows, index, content in sampled_fluxes(parts):
        try:
            arcsec_of(content)
        except BadInput as error:
            raise BadInput(f"{galaxy_of(rows, index)}: {error}; leave out --blur, or the galaxy") from error


def draw_blur(
    seed: int, positions: Sequence[int], most: float, framing: Framing, affine: np.ndarray, arcsec: np.ndarray
) -> np.ndarray:
    """(B,) float32: standard deviation of the Gaussian, in pixels of the view; its FWHM is uniform, from 0 to `most` arcsec.

    Args:
        affine: (B, 2, 3) from `augmentation.draw_affine`: a view that is magnified shows a wider blur.
        arcsec: (B,) side of a pixel of the canvas.
    """
    fwhm = most * uniforms(seed_for("blur", seed), positions, 1)[:, 0]
    pixel = arcsec * np.sqrt(abs(np.linalg.det(affine[:, :, :2]))) * framing.canvas / framing.size
    return (fwhm / FWHM / pixel).astype(np.float32)


def blurred(views: torch.Tensor, deviations: torch.Tensor) -> torch.Tensor:
    """The views (B, K, S, S), each convolved with a Gaussian; mirrored at their edges, so that no flux is lost.

    Args:
        deviations: (B,) in pixels of the view; less than a third of one leaves a view about as it is.
    """
    size = views.shape[-1]
    places = torch.arange(size, device=views.device)
    apart = places[:, None] - places
    beyond = places[:, None] + places + 1  # the distance to the mirror image of a pixel beyond the first edge
    distances = torch.stack([apart, beyond, 2 * size - beyond]).float()
    scaled = distances[:, None] / deviations.clamp_min(1e-3)[:, None, None]
    weights = (scaled.square() / -2).exp().sum(0)
    weights = (weights / weights.sum(-1, keepdim=True))[:, None]
    # Without the sky, which is often much larger than its noise: with --no-exact a GPU multiplies with fewer digits.
    level = views.mean((2, 3), keepdim=True)
    return weights @ (views - level) @ weights.mT + level


def draw_noise(seed: int, positions: Sequence[int], most: float) -> dict[str, np.ndarray]:
    """`noise` (B,) float32: its standard deviation in units of the noise of each band, uniform from 0 to `most`; and `noise_key` (B,)
    int64, from which `with_noise` draws it.
    """
    noise, key = uniforms(seed_for("noise", seed), positions, 2).T
    return {"noise": (most * noise).astype(np.float32), "noise_key": (key * 2.0**63).astype(np.int64)}


def with_noise(views: torch.Tensor, noise: torch.Tensor, keys: torch.Tensor, of_bands: torch.Tensor) -> torch.Tensor:
    """The views (B, K, S, S) with Gaussian noise, independent in every pixel of the view and every band.

    Args:
        noise, keys: (B,) of `draw_noise`.
        of_bands: (K, 1, 1) standard deviation of the noise of each band, in units of its fluxes.
    """
    noisy = torch.empty_like(views)
    step = len(views)
    if views.device.type == "cpu":
        step = max(1, torch.get_num_threads() * CACHED // views[0].numel())
    for some, levels, own, out in zip(
        views.split(step), noise.split(step), keys.split(step), noisy.split(step), strict=True
    ):
        drawn = normals(own, views[0].numel()).view_as(some)
        torch.addcmul(some, drawn, levels.view(-1, 1, 1, 1) * of_bands, out=out)
    return noisy


def normals(keys: torch.Tensor, count: int) -> torch.Tensor:
    """(B, count) float32 numbers of the standard normal distribution; those of a key depend on it alone, on every device.

    By SplitMix64, as `randomness.uniforms`, and the method of Box and Muller, which makes two numbers of one hash. A generator of
    torch would draw others on a GPU than on a CPU, and make the CPU wait for the key.
    """
    places = torch.arange((count + 1) // 2, device=keys.device)
    bits = _split_mix((keys[:, None] + places).mul_(GOLDEN_STEP))
    first, second = _shifted(bits, 32).float(), (bits & (HALF - 1)).float()
    radius = first.add_(0.5).div_(HALF).log_().mul_(-2).sqrt_()
    angle = second.mul_(2 * np.pi / HALF)
    return torch.cat([angle.cos().mul_(radius), angle.sin_().mul_(radius)], dim=1)[:, :count]


def _split_mix(z: torch.Tensor) -> torch.Tensor:
    """In place, as `randomness.split_mix`: int64 has the bits of uint64, and its products wrap around, too."""
    z.bitwise_xor_(_shifted(z, 30)).mul_(0xBF58476D1CE4E5B9 - 2**64)
    z.bitwise_xor_(_shifted(z, 27)).mul_(0x94D049BB133111EB - 2**64)
    return z.bitwise_xor_(_shifted(z, 31))


def _shifted(z: torch.Tensor, bits: int) -> torch.Tensor:
    """To the right, with zeros from the left also where the number is negative."""
    return (z >> bits).bitwise_and_(2 ** (64 - bits) - 1)
