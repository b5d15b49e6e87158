"""Pictures of mock galaxies, drawn with GalSim: light in three bands, blurred, noisy, stretched to a JPEG.

Lengths are in arcseconds, fluxes in nanomaggies (magnitude 22.5), surface brightness in nanomaggies per square arcsecond.
Bands are g, r, i in that order; a colour is (g-r, r-i) in magnitudes.
"""

import io
import math
from dataclasses import dataclass

import galsim
import numpy as np
from PIL import Image

OLD, YOUNG = np.array([0.80, 0.39]), np.array([0.18, 0.08])  # colours of old and of young stars
PITCH = {"tight": (9, 13), "medium": (17, 23), "loose": (29, 40)}  # degrees, of the spiral arms
BULGE_SHARE = {"none": 0.0, "small": 0.09, "moderate": 0.24, "large": 0.44, "dominant": 0.65}
BAR_STRENGTH = {"no": 0.0, "weak": 0.45, "strong": 0.95}
TAILS = {"minor-disturbance": 0.1, "major-disturbance": 0.28, "merger": 0.3}  # share of the light
FINE = 128  # pixels on a side of the maps of disk light, before the PSF blurs them
WHITE = 40.0  # surface brightness that is displayed white
# Errors of a per cent are below the noise, and a galaxy is drawn ten times faster.
GS_PARAMS = galsim.GSParams(folding_threshold=2e-2, maxk_threshold=1e-2, kvalue_accuracy=1e-4, maximum_fft_size=8192)


@dataclass(frozen=True)
class Imaging:
    """Imaging of a mock campaign.

    Attributes:
        psf_fwhm_arcsec: of the Moffat PSF.
        sky_noise: of the surface brightness in g, r and i, in one square arcsecond.
        native_scale_arcsec: of the detector's pixels.
        saturation: of the displayed colours; 1 keeps the ratios of the bands.
        sky_level: brightness of empty sky, from 0 (black) to 1.
        frame: side of the picture in units of the galaxy's half-light radius; Galaxy Zoo scales pictures by size.
    """

    psf_fwhm_arcsec: float
    sky_noise: tuple[float, float, float]
    native_scale_arcsec: float = 0.396
    saturation: float = 1.1
    sky_level: float = 0.03
    frame: float = 8.0

    def pixel_scale(self, half_light_radius: float, size: int) -> float:
        """Arcseconds per pixel of a picture of `size` pixels."""
        return self.frame * half_light_radius / size


@dataclass(frozen=True)
class Morphology:
    """The true morphology of a mock galaxy; fields that do not apply to its kind keep their defaults.

    Attributes:
        kind: "smooth", "featured" or "artifact".
        half_light_radius_arcsec: along the major axis.
        axis_ratio: apparent, of a smooth galaxy or a face-on disk.
        arms: number of spiral arms; 0 = none, 5 = more than 4.
        disturbance: "none", "minor-disturbance", "major-disturbance" or "merger".
    """

    kind: str
    magnitude: float
    half_light_radius_arcsec: float
    axis_ratio: float = 0.9
    edge_on: bool = False
    edge_on_bulge: str = "none"
    bar: str = "no"
    arms: int = 0
    winding: str = "medium"
    bulge_size: str = "none"
    disturbance: str = "none"
    artifact: str = "star"


def draw(galaxy: Morphology, imaging: Imaging, size: int, rng: np.random.Generator) -> bytes:
    """JPEG of (size, size) pixels."""
    frame = imaging.frame * galaxy.half_light_radius_arcsec
    # Like Galaxy Zoo: small galaxies are enlarged from the detector's pixels, and the noise with them.
    pixels = min(math.ceil(frame / imaging.native_scale_arcsec), size)
    exposure = Exposure(frame, pixels, imaging.psf_fwhm_arcsec)
    turn = rng.uniform(0, math.pi)
    if galaxy.kind == "featured":
        (_edge_on if galaxy.edge_on else _face_on)(exposure, galaxy, turn, rng)
    elif galaxy.kind == "smooth" or galaxy.artifact != "star":
        # Steps of a half, because galsim computes a table for each Sersic index.
        n = rng.choice([2.5, 3.0] if galaxy.axis_ratio < 0.45 else [2.5, 3.0, 3.5, 4.0, 4.5])
        body = _ellipse(n, galaxy.half_light_radius_arcsec, galaxy.axis_ratio, turn)
        exposure.add(body, _flux(galaxy.magnitude), OLD + rng.normal(0, 0.07) * np.array([1, 0.5]))
    if galaxy.disturbance != "none":
        _disturb(exposure, galaxy, turn, rng)
    _add_neighbours(exposure, galaxy, rng)
    if galaxy.kind == "artifact" and galaxy.artifact == "star":
        _add_bright_star(exposure, rng)
    if galaxy.kind == "artifact" and galaxy.artifact == "trail":
        _add_satellite_trail(exposure, rng)
    sky_noise = np.array(imaging.sky_noise)[:, None, None] / exposure.scale
    bands = exposure.bands + rng.normal(size=exposure.bands.shape) * sky_noise
    if galaxy.kind == "artifact" and galaxy.artifact == "lost-band":
        _lose_band(bands, rng)
    bands = np.stack(
        [np.asarray(Image.fromarray(b.astype("f4")).resize((size, size), Image.Resampling.BICUBIC)) for b in bands]
    )
    return _jpeg(_stretch(bands, imaging))


class Exposure:
    """Three bands to which components are added, each blurred by the PSF once.

    Attributes:
        bands: (3, pixels, pixels) surface brightness.
        x, y: (pixels, pixels) arcseconds from the centre.
        scale: arcseconds per pixel.
    """

    def __init__(self, frame: float, pixels: int, psf_fwhm: float) -> None:
        self.frame, self.pixels, self.psf_fwhm, self.scale = frame, pixels, psf_fwhm, frame / pixels
        self.psf = galsim.Moffat(beta=3.5, fwhm=psf_fwhm, gsparams=GS_PARAMS)
        self.bands = np.zeros((3, pixels, pixels))
        self.x, self.y = _grid(pixels, frame)

    def add(self, profile: galsim.GSObject, flux: float, colour: np.ndarray) -> None:
        """A GalSim profile, scaled to `flux` in r."""
        self._expose(galsim.Convolve(profile, self.psf, gsparams=GS_PARAMS).withFlux(flux), colour)

    def add_star(self, flux: float, colour: np.ndarray, position: np.ndarray) -> None:
        """A point source at `position` (x, y)."""
        self._expose(self.psf.withFlux(flux).shift(*position), colour)

    def add_map(self, light: np.ndarray, flux: float, colour: np.ndarray) -> None:
        """(FINE, FINE) surface brightness of this frame, in any unit, scaled to `flux` in r."""
        image = galsim.Image(np.ascontiguousarray(light), scale=self.frame / FINE)
        self.add(galsim.InterpolatedImage(image, x_interpolant="linear", gsparams=GS_PARAMS), flux, colour)

    def _expose(self, profile: galsim.GSObject, colour: np.ndarray) -> None:
        drawn = profile.drawImage(nx=self.pixels, ny=self.pixels, scale=self.scale, method="no_pixel", dtype=float)
        self.bands += _per_band(colour) * drawn.array / self.scale**2


def _edge_on(exposure: Exposure, galaxy: Morphology, turn: float, rng: np.random.Generator) -> None:
    flux, radius = _flux(galaxy.magnitude), galaxy.half_light_radius_arcsec
    height = rng.uniform(0.06, 0.13)  # of the disk, in scale lengths
    bulge = 0.0 if galaxy.edge_on_bulge == "none" else rng.uniform(0.25, 0.42)
    young = rng.uniform(0.2, 0.7) * (1 - bulge)
    old_colour = OLD + rng.normal(0, 0.05)
    parts = [(1 - bulge - young, old_colour, height), (young, YOUNG + rng.normal(0, 0.06), 0.7 * height)]
    for share, colour, scale_height in parts:
        disk = galsim.InclinedExponential(
            88 * galsim.degrees, radius / 1.678, scale_h_over_r=scale_height, gsparams=GS_PARAMS
        )
        exposure.add(disk.rotate(turn * galsim.radians), share * flux, colour)
    if galaxy.edge_on_bulge == "rounded":
        exposure.add(_ellipse(2.0, 0.33 * radius, 0.85, turn), bulge * flux, old_colour)
    elif galaxy.edge_on_bulge == "boxy":
        along, up = _turned(*_grid(FINE, exposure.frame), turn)
        box = (np.abs(along / 1.4) ** 4 + np.abs(up) ** 4) ** 0.25 / (0.36 * radius)
        exposure.add_map(np.exp(-(box**3)), bulge * flux, old_colour)
    if rng.random() < 0.5:
        _add_dust_lane(exposure, radius, turn, rng)


def _add_dust_lane(exposure: Exposure, radius: float, turn: float, rng: np.random.Generator) -> None:
    along, up = _turned(exposure.x, exposure.y, turn)
    thickness = math.hypot(0.012 * radius, 0.3 * exposure.psf_fwhm)
    off = rng.choice([-1, 1]) * 0.4 * thickness
    depth = rng.uniform(0.35, 0.6) * np.exp(-0.5 * ((up - off) / thickness) ** 2 - (along / (2 * radius)) ** 2)
    exposure.bands *= 1 - np.array([1.2, 1.0, 0.75])[:, None, None] * depth  # dust reddens: it takes most from g


def _face_on(exposure: Exposure, galaxy: Morphology, turn: float, rng: np.random.Generator) -> None:
    flux, radius, bulge = _flux(galaxy.magnitude), galaxy.half_light_radius_arcsec, BULGE_SHARE[galaxy.bulge_size]
    old_colour = OLD + rng.normal(0, 0.05)
    old, young = _disk_maps(exposure, galaxy, turn, rng)
    young_share = (0.42 if galaxy.arms else 0.2) * (1 - bulge) * rng.uniform(0.7, 1.15)
    exposure.add_map(old, (1 - bulge - young_share) * flux, old_colour - [0.12, 0.05])
    exposure.add_map(young, young_share * flux, YOUNG + rng.normal(0, 0.06))
    if bulge:
        body = _ellipse(2.0, (0.13 + 0.5 * bulge) * radius, max(galaxy.axis_ratio, 0.75), turn)
        exposure.add(body, bulge * flux, old_colour)


def _disk_maps(
    exposure: Exposure, galaxy: Morphology, turn: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(FINE, FINE) light of old and of young stars, each adding up to one."""
    along, across = _turned(*_grid(FINE, exposure.frame), turn)
    across = across / galaxy.axis_ratio
    distance = np.maximum(np.hypot(along, across), 0.5 * exposure.frame / FINE)
    angle = np.arctan2(across, along)
    length = galaxy.half_light_radius_arcsec / 1.678
    edge = 1 / (1 + np.exp((distance / length - 4.2) / 0.35))
    old, young = np.exp(-distance / length) * edge, np.exp(-distance / (1.5 * length)) * edge
    bar = BAR_STRENGTH[galaxy.bar]
    bar_angle, bar_length = rng.uniform(0, math.pi), (0.9 + 0.6 * bar) * length
    if galaxy.arms:
        # Logarithmic spirals from the ends of the bar, or from near the centre where there is none.
        arms = int(rng.integers(5, 8)) if galaxy.arms == 5 else galaxy.arms
        start = bar_length if bar else 0.5 * length
        pitch = math.radians(rng.uniform(*PITCH[galaxy.winding]))
        swing = rng.choice([-1, 1]) * np.log(distance / start) / math.tan(pitch)
        ridge = np.exp((1.6 + 4 / arms) * (np.cos(arms * (angle - bar_angle - swing)) - 1))
        uneven = 1 + 0.25 * np.cos(angle - rng.uniform(0, 2 * math.pi))
        arm = ridge * uneven / (1 + np.exp((0.85 * start - distance) / (0.12 * start)))
        contrast = rng.uniform(0.75, 1.0)
        old *= 1 - 0.6 * contrast + 1.6 * contrast * arm
        young *= 1 - 0.95 * contrast + 2.0 * contrast * arm
    patches = Image.fromarray(rng.normal(0, 0.3, (20, 20)).astype("f4")).resize((FINE, FINE), Image.Resampling.BICUBIC)
    young *= np.exp(np.asarray(patches))
    young /= young.sum()
    # Star-forming knots are where the young light is.
    knots = rng.choice(young.size, 40, p=young.ravel())
    np.add.at(young.ravel(), knots, rng.pareto(2.0, 40).clip(0, 6) * 0.15 / 40)
    old /= old.sum()
    if bar:
        # Flat light with sharp ends, in a long box.
        a, b = _turned(along, across, bar_angle)
        box = (np.abs(a / bar_length) ** 3 + np.abs(b / ((0.42 - 0.14 * bar) * bar_length)) ** 3) ** (1 / 3)
        light = np.exp(-(box**4) - box)
        old += (0.1 + 0.3 * bar) * light / light.sum()
    return old / old.sum(), young / young.sum()


def _disturb(exposure: Exposure, galaxy: Morphology, turn: float, rng: np.random.Generator) -> None:
    """Tidal tails, and in a merger the second galaxy."""
    flux, radius = _flux(galaxy.magnitude), galaxy.half_light_radius_arcsec
    colour = (OLD if galaxy.kind == "smooth" else 0.5 * (OLD + YOUNG)) + rng.normal(0, 0.05)
    x, y = _grid(FINE, exposure.frame)
    side, sense = rng.uniform(0, 2 * math.pi), rng.choice([-1, 1])
    light = np.zeros((FINE, FINE))
    # One tail only unless there are two galaxies: two around one galaxy would pass for spiral arms.
    for tail in range(2 if galaxy.disturbance == "merger" else 1):
        curl, reach = rng.uniform(0.9, 1.7), rng.uniform(2.2, 3.0)
        for step in np.linspace(0, 1, 16):
            angle = side + math.pi * tail + sense * curl * step
            distance, width = radius * (0.8 + reach * step), radius * (0.25 + 0.3 * step)
            squared = (x - distance * math.cos(angle)) ** 2 + (y - distance * math.sin(angle)) ** 2
            light += (1 - 0.75 * step) / width * np.exp(-0.5 * squared / width**2)
    exposure.add_map(light, flux * TAILS[galaxy.disturbance], colour)
    if galaxy.disturbance == "merger":
        apart = radius * rng.uniform(1.4, 2.2)
        other = _ellipse(rng.choice([1.0, 2.0]), radius * rng.uniform(0.5, 0.8), rng.uniform(0.5, 0.9), turn + 1)
        other = other.shift(apart * math.cos(side), apart * math.sin(side))
        exposure.add(other, flux * rng.uniform(0.4, 0.8), colour)


def _add_neighbours(exposure: Exposure, galaxy: Morphology, rng: np.random.Generator) -> None:
    """Stars and small galaxies elsewhere in the frame: six in a square arcminute, none on the galaxy."""
    for _ in range(min(rng.poisson(6 * (exposure.frame / 60) ** 2), 12)):
        flux = _flux(20.5 + np.log10(rng.uniform(0.03, 1)) / 0.5)
        position = rng.uniform(-0.5, 0.5, 2) * exposure.frame
        star, colour, shape = rng.random() < 0.5, rng.uniform(YOUNG, OLD + 0.2), rng.uniform([0.5, 0.3], [1.3, 1])
        if np.hypot(*position) < 2.5 * galaxy.half_light_radius_arcsec:
            continue
        if star:
            exposure.add_star(flux, rng.choice([0.2, 0.6, 1.2]) * np.array([1.0, 0.6]), position)
        else:
            radius, axis_ratio = shape
            small = _ellipse(1.0, radius, axis_ratio, rng.uniform(0, math.pi))
            exposure.add(small.shift(*position), flux, colour)


def _add_bright_star(exposure: Exposure, rng: np.random.Generator) -> None:
    """A saturated star, with the spikes of the mirror's supports."""
    flux, position = _flux(rng.uniform(11.0, 12.5)), rng.uniform(-0.1, 0.1, 2) * exposure.frame
    colour = rng.choice([0.15, 0.5, 1.0]) * np.array([1.0, 0.6])
    exposure.add_star(flux, colour, position)
    a, b = _turned(exposure.x - position[0], exposure.y - position[1], rng.uniform(0, math.pi))
    width, reach = 0.3 * exposure.psf_fwhm, 0.09 * exposure.frame
    spikes = sum(np.exp(-np.abs(v) / width - np.abs(u) / reach) for u, v in ((a, b), (b, a)))
    halo = np.exp(-np.hypot(a, b) / reach)
    exposure.bands += _per_band(colour) * flux * (0.003 * spikes + 0.0004 * halo)


def _add_satellite_trail(exposure: Exposure, rng: np.random.Generator) -> None:
    _, across = _turned(exposure.x, exposure.y, rng.uniform(0, math.pi))
    off = rng.uniform(-0.1, 0.1) * exposure.frame
    # The bands are exposed one after another: a satellite is brightest in one of them.
    trail = np.exp(-0.5 * ((across - off) / (0.6 * exposure.psf_fwhm)) ** 2)
    share = np.where(np.arange(3) == rng.integers(3), 1.0, 0.3)[:, None, None]
    exposure.bands += rng.uniform(4, 15) * share * trail


def _lose_band(bands: np.ndarray, rng: np.random.Generator) -> None:
    """One band is overexposed or missing, and a part of the frame is empty."""
    lost = rng.integers(3)
    bands[lost] = 0.0 if rng.random() < 0.5 else 5 * np.abs(bands[lost]) + 2
    bands[:, : rng.integers(bands.shape[1] // 5, bands.shape[1] // 2)] = 0.0


def _stretch(bands: np.ndarray, imaging: Imaging) -> np.ndarray:
    """(3, S, S) surface brightness -> (S, S, 3) in [0, 1], red = i and blue = g: asinh of the mean, colours kept.

    huggingface.co/papers/astro-ph/0312483 (Lupton et al. 2004).
    """
    colour = bands[::-1] * np.array([0.76, 1.0, 1.7])[:, None, None]  # a galaxy of average colour is white
    mean = colour.mean(axis=0)
    colour = mean + imaging.saturation * (colour - mean)
    soft = 0.9
    # Below the softening asinh is linear; so is the display of the noise, where ratios have no meaning.
    faint = np.maximum(mean, 0.05 * soft)
    rgb = colour * np.arcsinh(faint / soft) / faint / np.arcsinh(WHITE / soft)
    rgb = imaging.sky_level + (1 - imaging.sky_level) * rgb / np.maximum(
        rgb.max(axis=0), 1
    )  # saturated pixels keep their hue
    return np.clip(rgb, 0, 1).transpose(1, 2, 0)


def _jpeg(rgb: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray((rgb * 255).round().astype(np.uint8)).save(file, "JPEG", quality=92)
    return file.getvalue()


def _ellipse(sersic: float, radius: float, axis_ratio: float, turn: float) -> galsim.GSObject:
    """A Sersic profile with this half-light radius along its major axis."""
    profile = galsim.Sersic(float(sersic), half_light_radius=radius, gsparams=GS_PARAMS)
    return profile.transform(1, 0, 0, axis_ratio).rotate(turn * galsim.radians)


def _grid(pixels: int, frame: float) -> tuple[np.ndarray, np.ndarray]:
    """(pixels, pixels) coordinates x and y, arcseconds from the centre."""
    steps = ((np.arange(pixels) + 0.5) / pixels - 0.5) * frame
    return np.meshgrid(steps, steps)


def _turned(x: np.ndarray, y: np.ndarray, turn: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates along and across an axis at this angle."""
    return x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)


def _flux(magnitude: float) -> float:
    return 10 ** (-0.4 * (magnitude - 22.5))


def _per_band(colour: np.ndarray) -> np.ndarray:
    """(3, 1, 1) flux in g, r and i per flux in r."""
    return 10 ** (0.4 * np.array([-colour[0], 0.0, colour[1]]))[:, None, None]
