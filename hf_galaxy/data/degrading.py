"""Pictures of galaxies as if they were farther away, or observed worse: smaller, dimmer, blurred more, with the noise of the survey.

The sky below a galaxy, and the noise in it, are measured at the border of its picture. Light above the sky is transformed; its own noise
shrinks, dims and is averaged with it; as much new noise is added as lacks from that of the survey, with the correlations that it has in
the picture. All is done to the coefficients of a discrete cosine transform: it is a Fourier transform of the picture and its mirror
images, so that borders do not wrap around, and fewer of its coefficients are the same picture in fewer pixels.

Values are surface brightness: light per area of the sky, as those of pixels of one size. Legend: C bands, H and W of a picture.
"""

import logging
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, Self

import numpy as np
from scipy import fft
from scipy.special import ndtri

from hf_galaxy.errors import BadInput
from hf_galaxy.progress import log_once
from hf_galaxy.randomness import key_of, seed_for, uniforms

logger = logging.getLogger(__name__)
Profile = Literal["moffat", "gaussian"]
Framing = Literal["galaxy", "sky"]
BETA = 3.5  # of the Moffat profile
BORDER = 0.1  # of the shorter side: width of the frame in which sky and noise are measured
LAGS = 12  # pixels over which noise is correlated at most
CLIPPED, ITERATIONS = 3, 10
NORMAL_QUARTILE = 0.6744897501960817  # half of a normal distribution lies within this many standard deviations
SMALLEST = 8  # pixels


@dataclass(frozen=True)
class Change:
    """What happens to the picture of one galaxy.

    Attributes:
        shrink: factor by which it appears smaller.
        dimming: factor of its surface brightness.
        psf_fwhm: of its picture, in pixels.
        new_psf_fwhm: of the new picture, in pixels of the same angle in the sky.
        depth: factor of the noise.
        pixels: factor by which pixels are wider.
        reduced: factor by which the picture's pixels are wider than those of the survey, whose details a new picture that shows less of the
            sky has again; 1: they are its own.
        profile: of the PSF.
        framing: "galaxy": the picture shows as much of the galaxy as before, which has fewer resolved details and blurred
            pixels; "sky": it shows as much of the sky as before, with a smaller galaxy in its centre.
    """

    shrink: float = 1.0
    dimming: float = 1.0
    psf_fwhm: float = 0.0
    new_psf_fwhm: float = 0.0
    depth: float = 1.0
    pixels: float = 1.0
    reduced: float = 1.0
    profile: Profile = "moffat"
    framing: Framing = "galaxy"

    @property
    def coarser(self) -> float:
        """Factor by which the smallest details of the new picture are larger than the pixels of the old one."""
        factor = self.shrink * self.pixels
        return max(1.0, factor / self.reduced) if self.framing == "galaxy" else factor

    @property
    def is_none(self) -> bool:
        """Whether the picture stays what it is."""
        return replace(self, profile="moffat", framing="galaxy", reduced=1.0) == Change(
            psf_fwhm=self.psf_fwhm, new_psf_fwhm=self.psf_fwhm
        )

    def check(self) -> None:
        """Refuse what no picture can become.

        Raises:
            BadInput: says why.
        """
        if self.shrink < 1 - 1e-9:
            raise BadInput(
                f"would appear {1 / self.shrink:.3g} times larger, with details that its picture does not have"
            )
        if self.pixels < 1:
            raise BadInput(
                f"would have pixels {1 / self.pixels:.3g} times smaller, with details that its picture does not have"
            )
        if self.shrink * self.new_psf_fwhm < self.psf_fwhm * (1 - 1e-6):
            raise BadInput(
                f"would need a sharper PSF than its {self.psf_fwhm:.3g} pixels, {self.shrink * self.new_psf_fwhm:.3g} pixels"
            )

    def transfer(self, wavenumber: np.ndarray) -> np.ndarray:
        """Factor of the Fourier transform of the picture at these wavenumbers, in radians per pixel: the kernel that makes its PSF, shrunk
        with the galaxy, that of the new picture."""
        of_new, of_own = (
            log_transfer(wavenumber * fwhm, self.profile) for fwhm in (self.shrink * self.new_psf_fwhm, self.psf_fwhm)
        )
        return np.exp(np.minimum(of_new - of_own, 0))


def log_transfer(scaled: np.ndarray, profile: Profile) -> np.ndarray:
    """Logarithm of the Fourier transform of a PSF.

    Args:
        scaled: wavenumber, in radians per unit of length, times the FWHM.
    """
    if profile == "gaussian":
        return -(scaled**2) / (16 * np.log(2))
    places, values = _moffat()
    slope = (values[-1] - values[-2]) / (places[-1] - places[-2])
    return np.interp(scaled, places, values) + slope * np.maximum(scaled - places[-1], 0)


@lru_cache(maxsize=1)
def _moffat() -> tuple[np.ndarray, np.ndarray]:
    """The transform of GalSim's Moffat profile with a FWHM of 1; beyond, its logarithm is a straight line."""
    import galsim

    psf = galsim.Moffat(beta=BETA, fwhm=1.0)
    places = np.linspace(0, 30, 1501)
    return places, np.log([psf.kValue(k, 0.0).real for k in places])


@dataclass(frozen=True)
class Background:
    """What is below a galaxy in its picture.

    Attributes:
        level: of the sky.
        noise: its standard deviation, of a pixel; 0: it cannot be measured.
        correlation: (LAGS + 1,) of noise in pixels this far apart, in a row or a column; 1 at first.
    """

    level: float
    noise: float
    correlation: np.ndarray

    @classmethod
    def of(cls, plane: np.ndarray) -> Self:
        """Measured at the border of a picture (H, W)."""
        width = max(2, round(BORDER * min(plane.shape)))
        strips = [plane[:width], plane[-width:], plane[width:-width, :width].T, plane[width:-width, -width:].T]
        values = np.concatenate([strip.ravel() for strip in strips]).astype(np.float64)
        level, noise = float(np.median(values)), np.inf
        for _ in range(ITERATIONS):
            near = values[np.abs(values - level) <= CLIPPED * noise]
            level = float(np.median(near))
            # Sources only add light, so that the fainter half shows the noise alone.
            below = level - near[near <= level]
            earlier, noise = noise, float(np.median(below)) / NORMAL_QUARTILE
            if not noise or noise == earlier:
                break
        return cls(level, noise, _correlation(strips, level, noise))

    def power(self, coefficients: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
        """(h, w) variance of the first coefficients of an orthonormal cosine transform of its noise, per variance of a pixel.

        Args:
            coefficients: h and w.
            shape: of the picture that is transformed.
        """
        rows, columns = (
            self._power(np.arange(few) / (2 * side)) for few, side in zip(coefficients, shape, strict=True)
        )
        return rows[:, None] * columns

    def _power(self, cycles: np.ndarray) -> np.ndarray:
        """In one direction, at these cycles per pixel, as the correlation has it; tapered, as that over many pixels is not well known."""
        lags = np.arange(1, LAGS + 1)
        waves = np.cos(2 * np.pi * cycles[:, None] * lags)
        return np.maximum(1 + 2 * waves @ (self.correlation[1:] * np.cos(np.pi / 2 * lags / (LAGS + 1)) ** 2), 0)


def _correlation(strips: list[np.ndarray], level: float, noise: float) -> np.ndarray:
    """(LAGS + 1,) along the longer side of strips, of pixels that show no source."""
    products, weights = np.zeros(LAGS + 1), np.zeros(LAGS + 1)
    for strip in strips:
        values = np.asarray(strip, np.float64) - level
        empty = (np.abs(values) <= CLIPPED * noise).astype(np.float64)
        values = (values - (values * empty).sum() / max(empty.sum(), 1)) * empty
        for lag in range(min(LAGS + 1, strip.shape[1])):
            ours, theirs = slice(None, strip.shape[1] - lag), slice(lag, None)
            products[lag] += (values[:, ours] * values[:, theirs]).sum()
            weights[lag] += (empty[:, ours] * empty[:, theirs]).sum()
    if not noise or not products[0]:
        return np.eye(1, LAGS + 1)[0]
    return np.clip(products / np.maximum(weights, 1) / (products[0] / weights[0]), -1, 1)


def degraded(planes: np.ndarray, change: Change, name: str, seed: int) -> np.ndarray:
    """(C, H', W') float32: the picture after a change.

    H' and W' are H and W divided by `change.pixels` with the framing "sky", where the galaxy's surroundings are empty sky with noise; else
    H and W.

    Args:
        planes: (C, H, W) finite surface brightness, linear.
        name: of the galaxy, from which its noise is drawn: the same at any place in any batch.

    Raises:
        BadInput: as `Change.check`, or too few pixels are left.
    """
    if change.is_none:
        return planes
    change.check()
    shape = planes.shape[1:]
    small = [max(1, round(side / change.coarser)) for side in shape]
    if min(small) < SMALLEST:
        raise BadInput(f"would have {small[1]} x {small[0]} pixels, fewer than {SMALLEST}")
    canvas = [round(side / change.pixels) for side in shape] if change.framing == "sky" else [0, 0]
    factors, bands = _factors(change, shape, small), len(planes)
    sizes = np.array([bands * np.prod(small), bands * np.prod(canvas)], int)
    draws = _normals(seed_for(f"noise of {change}", seed), name, int(sizes.sum()))
    own, around = (
        each.reshape(bands, *sides) for each, sides in zip(np.split(draws, sizes[:1]), (small, canvas), strict=True)
    )
    return np.stack([
        _degraded_plane(plane.astype(np.float32), change, factors, *noise) for plane, *noise in zip(planes, own, around, strict=True)
    ]).astype(np.float32)  # fmt: skip


def _factors(change: Change, shape: tuple[int, ...], small: list[int]) -> np.ndarray:
    """Of the coefficients that are left: the kernel of the PSF, and the shape of wider pixels."""
    cycles = [np.arange(few) / (2 * side) for few, side in zip(small, shape, strict=True)]
    factors = change.transfer(2 * np.pi * np.hypot(cycles[0][:, None], cycles[1]))
    if change.pixels > 1:
        width = change.shrink / (change.reduced if change.framing == "galaxy" else 1)  # of the survey's pixels
        rows, columns = (np.sinc(width * change.pixels * each) / np.sinc(width * each) for each in cycles)
        factors = factors * rows[:, None] * columns
    return factors.astype(np.float32)


def _degraded_plane(
    plane: np.ndarray, change: Change, factors: np.ndarray, own: np.ndarray, around: np.ndarray
) -> np.ndarray:
    """One band.

    Args:
        factors: (h, w) of `_factors`: the galaxy's picture has h and w of the new pixels.
        own, around: normal deviates (h, w), and (H', W') with the framing "sky", for the noise of its picture and around it: of coefficients,
            which are as independent as those of pixels.
    """
    sky, shape, small = Background.of(plane), plane.shape, factors.shape
    if not sky.noise:
        log_once(
            logger,
            "the sky of some pictures is one number at their border, so that their noise is not known, and none is added",
        )
    ratio = np.prod(small) / np.prod(shape)
    noise = sky.noise * change.depth * change.shrink / change.coarser
    left = (change.dimming * factors * sky.noise) ** 2 * sky.power(small, shape) * ratio
    lacking = (np.sqrt(np.maximum(noise**2 * sky.power(small, small) - left, 0)) * own).astype(np.float32)
    light = change.dimming * factors * fft.dctn(plane - sky.level, norm="ortho")[: small[0], : small[1]]
    if change.framing == "galaxy":
        whole = np.zeros(shape, np.float32)
        whole[: small[0], : small[1]] = light + lacking / ratio**0.5
        return sky.level + fft.idctn(whole, norm="ortho")
    canvas = noise * fft.idctn(np.sqrt(sky.power(around.shape, around.shape)) * around, norm="ortho")
    galaxy = fft.idctn(lacking, norm="ortho")
    factor = change.shrink * change.pixels
    waves = [_waves(few, side, own, factor) for few, side, own in zip(small, shape, canvas.shape, strict=True)]
    rows, columns = (slice(first, first + wave.shape[0]) for first, wave in waves)
    canvas[rows, columns] = waves[0][1] @ light @ waves[1][1].T + galaxy[: waves[0][1].shape[0], : waves[1][1].shape[0]]
    return sky.level + canvas


def _waves(few: int, side: int, canvas: int, factor: float) -> tuple[int, np.ndarray]:
    """The waves of an inverse orthonormal cosine transform in the pixels of a canvas that show the picture in its centre.

    Args:
        few: number of coefficients.
        side, canvas: of the picture and of the canvas.
        factor: by which pixels of the canvas are wider.

    Returns:
        The first of these pixels, and (pixels, few).
    """
    places = (np.arange(canvas) + 0.5 - canvas / 2) * factor + side / 2
    first = int((places < 0).sum())
    places = places[(places >= 0) & (places <= side)][:few]
    waves = np.cos(np.pi / side * places[:, None] * np.arange(few)) * (2 / side) ** 0.5
    waves[:, 0] /= 2**0.5
    return first, waves


def _normals(seed: int, name: str, count: int) -> np.ndarray:
    """Normal deviates that depend on the seed and the name alone."""
    return ndtri(np.clip(uniforms(seed, [key_of(name)], count)[0], 2.0**-54, None))
