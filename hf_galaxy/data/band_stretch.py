"""From fluxes to brightness, for each band as its sky, noise and brightest parts are in a training set. Legend: B galaxies, C bands."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import torch

from hf_galaxy.errors import BadInput

logger = logging.getLogger(__name__)
SATURATED = 99.9  # percentile of all fluxes of a band
CLIPPED = 3  # standard deviations from the sky beyond which a pixel shows a source
ITERATIONS = 10
WITHOUT_NOISE = 100  # then the part of the saturation that stands for it
NORMAL_QUARTILE = 0.6744897501960817  # half of a normal distribution lies within this many standard deviations


@dataclass(frozen=True)
class BandStretch:
    """How fluxes become what a backbone sees: asinh of the flux above the sky in units of its noise, 1 where the band saturates.

    Attributes:
        sky: of each band, the flux where there is no source.
        noise: its standard deviation there; fluxes of a few times this are shown linearly, larger ones logarithmically.
        saturation: flux that is shown as 1, and the largest that is told apart.
    """

    sky: tuple[float, ...]
    noise: tuple[float, ...]
    saturation: tuple[float, ...]

    @classmethod
    def of(cls, planes: Sequence[np.ndarray], bands: Sequence[str]) -> Self:
        """Measured on some galaxies.

        Args:
            planes: of each band the fluxes of all their pixels, (N,), NaN where there is no value.
            bands: their names, for messages.

        Raises:
            BadInput: a band has no values, or all are one number.
        """
        measured = [_measured(plane[np.isfinite(plane)], band) for plane, band in zip(planes, bands, strict=True)]
        return cls(*zip(*measured, strict=True))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Of `to_dict`."""
        return cls(**{name: tuple(map(float, each)) for name, each in values.items()})

    def to_dict(self) -> dict[str, list[float]]:
        """For JSON."""
        return {name: list(each) for name, each in asdict(self).items()}

    def of_band(self, c: int) -> Self:
        """That of one band."""
        return type(self)(*((each[c],) for each in (self.sky, self.noise, self.saturation)))

    def brightness(self, fluxes: torch.Tensor) -> torch.Tensor:
        """(..., C, H, W) fluxes -> brightness in [-1, 1], 0 for the sky and where there is no value."""
        return stretched(
            fluxes, *(torch.tensor(each).view(-1, 1, 1) for each in (self.sky, self.noise, self.saturation))
        )


def stretched(fluxes: torch.Tensor, sky: torch.Tensor, noise: torch.Tensor, saturation: torch.Tensor) -> torch.Tensor:
    """As `BandStretch.brightness`, with tensors (C, 1, 1)."""
    white = torch.asinh((saturation - sky) / noise)
    shown = torch.asinh((fluxes - sky) / noise) / white
    return torch.where(shown.isnan(), torch.zeros_like(shown), shown).clamp(-1, 1)


def _measured(values: np.ndarray, band: str) -> tuple[float, float, float]:
    """Sky, noise and saturation of the fluxes of one band."""
    if not len(values):
        raise BadInput(f"band {band}: has no values in the training set")
    values = values.astype(np.float64)
    sky, noise = float(np.median(values)), np.inf
    for _ in range(ITERATIONS):
        near = values[np.abs(values - sky) <= CLIPPED * noise]
        sky = float(np.median(near))
        below = sky - near[near <= sky]  # sources only add light, so that the fainter half shows the noise alone
        earlier, noise = noise, float(np.median(below)) / NORMAL_QUARTILE
        if not noise or noise == earlier:
            break
    saturation = float(np.percentile(values, SATURATED))
    if not saturation > sky:
        raise BadInput(
            f"band {band}: shows no sources in the training set: its sky and its brightest parts are {sky:g}"
        )
    if not noise:
        noise = (saturation - sky) / WITHOUT_NOISE
        logger.warning(
            "band %s: more than half of its pixels are the number %g, so that its noise cannot be measured; fluxes up to %g above it are "
            "shown linearly",
            band, sky, noise,
        )  # fmt: skip
    return sky, noise, saturation
