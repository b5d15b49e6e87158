"""From pictures of 8 bits back to light, as far as their stretch is known, and again to 8 bits. Legend: H and W of a picture, C bands.

Light is in units in which black is 0 and white is 1: what was brighter than white, or darker than black, is lost. For a picture that
somebody else made the stretch is an assumption; `docs/howto/farther-away.md` says how large the error is where the truth is known.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from hf_galaxy.data.pictures import Stretch
from hf_galaxy.errors import BadInput

# Of the asinh in the colour pictures of SDSS: 1 / sinh(3), with their nonlinearity 3 (https://huggingface.co/papers/astro-ph/0312483).
SOFTENING = 0.1
Limits = Literal["fixed", "file"]


@dataclass(frozen=True)
class PictureStretch:
    """How the brightness of pictures of 8 bits follows from light.

    Attributes:
        curve: "lupton" stretches the mean of the bands and keeps their ratios, so that of a grey picture it is the asinh; the
            others stretch each band by itself.
        softening: of the asinh: share of white below which it is linear.
        limits: "fixed": black and white are the same light in all pictures of the survey, so that a fainter galaxy is shown darker;
            "file": the percentiles `low` and `high` of each picture's own values are, so that it is shown as bright with more noise.
    """

    curve: Stretch = "lupton"
    softening: float = SOFTENING
    limits: Limits = "fixed"
    low: float = 0.25
    high: float = 99.75

    def __post_init__(self) -> None:
        if not 0 < self.softening < np.inf:
            raise BadInput(f"--picture-softening {self.softening:g}: give a share of white above 0, such as 0.1")
        if not 0 <= self.low < self.high <= 100:
            raise BadInput(f"--low {self.low:g}, --high {self.high:g}: must be increasing percentiles")

    def light(self, pixels: np.ndarray) -> np.ndarray:
        """(C, H, W) float32 of a picture; C is 1 where it is grey.

        Args:
            pixels: (H, W, 3) uint8.
        """
        grey = bool((pixels == pixels[..., :1]).all())
        bands = np.moveaxis(pixels[..., :1] if grey else pixels, -1, 0)
        if grey or self.curve != "lupton":  # each value is that of one brightness
            return self._inverse(np.arange(256) / 255).astype(np.float32)[bands]
        shares = bands.astype(np.float32) / 255
        mean = shares.mean(axis=0)
        factor = np.divide(self._inverse(mean), mean, out=np.full_like(mean, self._flattest), where=mean > 0)
        return shares * factor

    def pixels(self, light: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8: the inverse of `light`, but for what is darker than black or brighter than white."""
        if self.limits == "file":
            low, high = np.percentile(light, [self.low, self.high])
            light = (light - low) / max(high - low, 1e-12)
        if self.curve == "lupton":
            mean = light.mean(axis=0)
            safe = np.maximum(mean, 1e-9)  # what is fainter than black is linear, with the slope at black
            shares = light * np.where(mean > 1e-9, self._forward(safe) / safe, 1 / self._flattest)
            shares = shares / np.maximum(shares.max(axis=0), 1)  # brighter than white keeps its hue
        else:
            shares = self._forward(np.clip(light, 0, 1))
        pixels = np.rint(255 * np.clip(shares, 0, 1)).astype(np.uint8)
        return np.ascontiguousarray(np.moveaxis(np.broadcast_to(pixels, (3, *pixels.shape[1:])), 0, -1))

    @property
    def _flattest(self) -> float:
        """Light per brightness at black, of the asinh."""
        return self.softening * float(np.arcsinh(1 / self.softening))

    def _inverse(self, shares: np.ndarray) -> np.ndarray:
        if self.curve in ("asinh", "lupton"):
            return self.softening * np.sinh(shares * np.arcsinh(1 / self.softening))
        if self.curve == "log":  # astropy's LogStretch
            return np.expm1(shares * np.log(1001)) / 1000
        return shares**2 if self.curve == "sqrt" else shares

    def _forward(self, light: np.ndarray) -> np.ndarray:
        if self.curve in ("asinh", "lupton"):
            return np.arcsinh(light / self.softening) / np.arcsinh(1 / self.softening)
        if self.curve == "log":
            return np.log1p(1000 * light) / np.log(1001)
        return np.sqrt(light) if self.curve == "sqrt" else light
