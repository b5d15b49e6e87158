"""Pictures of mock galaxies, drawn with GalSim: light in three bands, blurred, noisy, stretched to a JPEG.

Lengths are in arcseconds, fluxes in nanomaggies (magnitude 22.5), surface brightness in nanomaggies per square arcsecond.
"""

import io
from dataclasses import dataclass

import galsim
import numpy as np
from PIL import Image

OVERSAMPLING = 2  # of the grid on which disks are painted, before the PSF blurs them
RED, BLUE, YOUNG = (0.55, 1.0, 1.35), (0.85, 1.0, 1.08), (1.1, 1.0, 0.92)  # flux in g, r and i per flux in r
PITCH = {"tight": 11.0, "medium": 19.0, "loose": 32.0}  # degrees
BULGE_SHARE = {"none": 0.0, "small": 0.07, "moderate": 0.18, "large": 0.34, "dominant": 0.6}


@dataclass(frozen=True)
class Imaging:
    """How a mock campaign takes its pictures.

    Attributes:
        psf_fwhm_arcsec: of the Moffat PSF.
        sky_noise: of the surface brightness in g, r and i, in one square arcsecond.
        frame: side of the picture in units of the galaxy's half-light radius; Galaxy Zoo scales pictures by size.
    """

    psf_fwhm_arcsec: float
    sky_noise: tuple[float, float, float]
    frame: float = 7.5

    def pixel_scale(self, half_light_radius: float, size: int) -> float:
        """Arcseconds per pixel of a picture of `size` pixels."""
        return self.frame * half_light_radius / size


@dataclass(frozen=True)
class Morphology:
    """What a mock galaxy really is; fields that its kind does not have keep their defaults.

    Attributes:
        kind: "smooth", "featured" or "artifact".
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
    scale = imaging.pixel_scale(galaxy.half_light_radius_arcsec, size)
    psf = galsim.Moffat(beta=3.5, fwhm=imaging.psf_fwhm_arcsec)
    sky = galsim.PositionD(*rng.normal(0, 0.25 * scale, 2))
    parts = _parts(galaxy, size, scale, rng) if galaxy.kind != "artifact" else []
    parts = [(part.shift(sky), colour) for part, colour in parts] + _field(size * scale, imaging, rng)
    bands = np.zeros((3, size, size))
    for band in range(3):
        light = galsim.Sum([part * colour[band] for part, colour in parts])
        image = galsim.Convolve(light, psf, gsparams=galsim.GSParams(folding_threshold=0.02, maximum_fft_size=8192))
        bands[band] = image.drawImage(nx=size, ny=size, scale=scale, method="no_pixel").array / scale**2
    if galaxy.kind == "artifact":
        _spoil(bands, galaxy, imaging, scale, rng)
    noise = np.array(imaging.sky_noise)[:, None, None] / scale
    photons = 0.02 * np.sqrt(np.maximum(bands, 0)) / scale
    bands += rng.normal(size=bands.shape) * np.hypot(noise, photons)
    if galaxy.kind == "artifact" and galaxy.artifact == "lost-band":
        bands[rng.integers(3)] = bands.max()
    return _jpeg(_stretch(bands, imaging))


def _grid(size, scale):
    half = np.arange(size * OVERSAMPLING) - (size * OVERSAMPLING - 1) / 2
    return np.meshgrid(half * scale / OVERSAMPLING, half * scale / OVERSAMPLING)


def _painted(light, scale, flux):
    """Surface brightness painted on the grid, as a GalSim object of a given flux."""
    image = galsim.Image(np.ascontiguousarray(light), scale=scale / OVERSAMPLING)
    return galsim.InterpolatedImage(image, x_interpolant="linear", flux=flux, normalization="flux")


def _parts(galaxy, size, scale, rng):
    """The galaxy's components, each with its colour."""
    flux = 10 ** (-0.4 * (galaxy.magnitude - 22.5))
    radius = galaxy.half_light_radius_arcsec
    turn = rng.uniform(0, np.pi)
    disk_colour = _between(RED, BLUE, rng.uniform(0.3, 1.0))
    if galaxy.kind == "smooth":
        n = rng.choice([2.0, 3.0, 4.0])
        body = galsim.Sersic(n, half_light_radius=radius, flux=flux, trunc=4.5 * radius)
        parts = [(body.shear(q=galaxy.axis_ratio, beta=turn * galsim.radians), _between(RED, BLUE, rng.beta(1, 3)))]
    elif galaxy.edge_on:
        parts = _edge_on(galaxy, flux, radius, turn, disk_colour, size, scale, rng)
    else:
        parts = _face_on(galaxy, flux, radius, turn, disk_colour, size, scale, rng)
    return parts + _disturbance(galaxy, flux, radius, size, scale, rng)


def _edge_on(galaxy, flux, radius, turn, colour, size, scale, rng):
    x, y = _grid(size, scale)
    along, up = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    length, height = 0.75 * radius, rng.uniform(0.06, 0.12) * radius
    disk = np.exp(-np.abs(along) / length) / np.cosh(up / height) ** 2
    if rng.random() < 0.5:  # a dust lane
        disk *= 1 - 0.65 * np.exp(-((up / (0.35 * height)) ** 2) - (along / (1.6 * length)) ** 2)
    share = {"none": 0.0, "rounded": 0.3, "boxy": 0.33}[galaxy.edge_on_bulge]
    parts = [(_painted(disk, scale, flux * (1 - share)), colour)]
    if galaxy.edge_on_bulge == "rounded":
        bulge = galsim.Sersic(2, half_light_radius=0.28 * radius, flux=flux * share)
        parts.append((bulge.shear(q=0.85, beta=turn * galsim.radians), RED))
    elif galaxy.edge_on_bulge == "boxy":
        box = (np.abs(along / 0.42) ** 4 + np.abs(up / 0.3) ** 4) ** 0.25 / radius
        parts.append((_painted(np.exp(-((box / 1.0) ** 2.5)), scale, flux * share), RED))
    return parts


def _face_on(galaxy, flux, radius, turn, colour, size, scale, rng):
    x, y = _grid(size, scale)
    along, across = x * np.cos(turn) + y * np.sin(turn), (y * np.cos(turn) - x * np.sin(turn)) / galaxy.axis_ratio
    distance, angle = np.hypot(along, across), np.arctan2(across, along)
    length = radius / 1.5
    disk = np.exp(-distance / length)
    bar_share = {"no": 0.0, "weak": 0.08, "strong": 0.2}[galaxy.bar]
    bar_length = {"no": 0.0, "weak": 0.6, "strong": 0.9}[galaxy.bar] * radius
    bulge_share = BULGE_SHARE[galaxy.bulge_size]
    arm_share = 0.42 if galaxy.arms else 0.0
    disk_share = 1 - bulge_share - (1 - bulge_share) * (arm_share + bar_share)
    parts = [(_painted(disk, scale, flux * disk_share), colour)]
    bar_angle = rng.uniform(0, np.pi)
    if galaxy.arms:
        arms = 5 + int(rng.integers(2)) if galaxy.arms == 5 else galaxy.arms
        start = max(bar_length, 0.35 * radius)
        swing = np.log(np.maximum(distance, 1e-3) / start) / np.tan(np.radians(PITCH[galaxy.winding]))
        phase = arms * (angle - bar_angle - rng.choice([-1, 1]) * swing)
        width = {1: 2.5, 2: 3.5}.get(arms, 3.0)
        ridge = np.exp(width * (np.cos(phase) - 1))
        inside = 1 / (1 + np.exp(-(distance - 0.85 * start) / (0.06 * radius)))
        outer = np.exp(-distance / (1.25 * length)) / (1 + np.exp((distance - 2.6 * radius) / (0.15 * radius)))
        light = ridge * inside * outer
        young = _between(colour, YOUNG, 0.7)
        parts.append((_painted(light, scale, flux * (1 - bulge_share) * arm_share * 0.85), young))
        parts.append((_knots(light, scale, flux * (1 - bulge_share) * arm_share * 0.15, rng), YOUNG))
    if bar_share:
        cos, sin = np.cos(bar_angle), np.sin(bar_angle)
        a, b = (along * cos + across * sin) / bar_length, (across * cos - along * sin) / (0.26 * bar_length)
        bar = np.maximum(1 - a**2 - b**2, 0) ** 0.7
        parts.append((_painted(bar, scale, flux * (1 - bulge_share) * bar_share), RED))
    if bulge_share:
        bulge_radius = (0.1 + 0.45 * bulge_share) * radius
        parts.append((galsim.Sersic(2, half_light_radius=bulge_radius, flux=flux * bulge_share), RED))
    return parts


def _between(one, other, share):
    return tuple((1 - share) * a + share * b for a, b in zip(one, other, strict=True))


def _knots(light, scale, flux, rng):
    """Star-forming regions: points scattered where the arms are bright."""
    where = rng.choice(light.size, 30, p=(light / light.sum()).ravel())
    knots = np.zeros(light.size)
    np.add.at(knots, where, rng.exponential(size=30))
    return _painted(knots.reshape(light.shape), scale, flux)


def _disturbance(galaxy, flux, radius, size, scale, rng):
    """Tidal tails, and in a merger the second galaxy."""
    if galaxy.disturbance == "none":
        return []
    x, y = _grid(size, scale)
    side = rng.uniform(0, 2 * np.pi)
    distance, angle = np.hypot(x, y), np.arctan2(y, x)
    parts = []
    strength = {"minor-disturbance": 0.12, "major-disturbance": 0.3, "merger": 0.25}[galaxy.disturbance]
    for tail in range(1 if galaxy.disturbance == "minor-disturbance" else 2):
        way = angle - side - tail * rng.uniform(2.4, 3.6) - 0.9 * np.log(np.maximum(distance, 1e-3) / radius)
        ridge = np.exp(9 * (np.cos(way) - 1))
        reach = np.exp(-(((distance - 1.7 * radius) / (0.8 * radius)) ** 2))
        parts.append((_painted(ridge * reach, scale, flux * strength / (1 + tail)), BLUE))
    if galaxy.disturbance == "merger":
        apart = rng.uniform(1.0, 1.5) * radius
        other = galsim.Sersic(2, half_light_radius=rng.uniform(0.4, 0.6) * radius, flux=flux * rng.uniform(0.5, 0.9))
        other = other.shear(q=rng.uniform(0.5, 0.9), beta=rng.uniform(0, np.pi) * galsim.radians)
        parts.append((other.shift(apart * np.cos(side), apart * np.sin(side)), RED))
    return parts


def _field(frame, imaging, rng):
    """Stars and small galaxies that happen to stand in the frame."""
    parts = [(galsim.Gaussian(sigma=0.01, flux=1e-6), RED)]  # so that an empty frame is drawn too
    for _ in range(rng.poisson(frame**2 / 1500)):
        star = galsim.Gaussian(sigma=0.02, flux=10 ** (-0.4 * (rng.uniform(17.5, 21.5) - 22.5)))
        parts.append((star.shift(*_off_centre(frame, rng)), tuple(rng.uniform([0.4, 1, 1], [1.1, 1.01, 1.5]))))
    for _ in range(rng.poisson(frame**2 / 900)):
        flux = 10 ** (-0.4 * (rng.uniform(18.5, 21.5) - 22.5))
        small = galsim.Exponential(half_light_radius=rng.uniform(0.5, 1.2), flux=flux)
        small = small.shear(q=rng.uniform(0.4, 1), beta=rng.uniform(0, np.pi) * galsim.radians)
        parts.append((small.shift(*_off_centre(frame, rng)), RED))
    return parts


def _off_centre(frame, rng):
    distance, angle = frame * rng.uniform(0.28, 0.6), rng.uniform(0, 2 * np.pi)
    return distance * np.cos(angle), distance * np.sin(angle)


def _spoil(bands, galaxy, imaging, scale, rng):
    """Paint what is no galaxy over the frame: a bright star with diffraction spikes, or a satellite's trail."""
    size = bands.shape[1]
    y, x = np.mgrid[0:size, 0:size] - (size - 1) / 2
    bright = 60 * max(imaging.sky_noise) / scale
    if galaxy.artifact == "trail":
        turn, off = rng.uniform(0, np.pi), rng.uniform(-0.15, 0.15) * size
        distance = x * np.sin(turn) - y * np.cos(turn) - off
        colour = np.array([[1.0, 1.0, 1.0], [1.2, 0.3, 0.3], [0.3, 1.2, 0.4]])[rng.integers(3)]
        bands += bright * colour[:, None, None] * np.exp(-((distance / (0.02 * size)) ** 2))
    else:
        turn = rng.uniform(-0.1, 0.1) + (np.pi / 4 if rng.random() < 0.5 else 0)
        a, b = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
        radius = np.hypot(x, y) / size
        halo = 25 / (1 + (radius / 0.05) ** 2) ** 1.6
        spikes = sum(np.exp(-((u / (0.012 * size)) ** 2) - np.abs(v) / (0.22 * size)) for u, v in ((a, b), (b, a)))
        colour = rng.uniform([0.6, 0.9, 0.7], [1.2, 1.0, 1.3])
        bands += bright * colour[:, None, None] * (halo + 2.5 * spikes)


def _stretch(bands, imaging):
    """(3, S, S) surface brightness -> (S, S, 3) in [0, 1], red = i and blue = g: asinh of the mean, colours kept.

    huggingface.co/papers/astro-ph/0312483 (Lupton et al. 2004).
    """
    colour = bands[::-1] * np.array([0.85, 1.0, 1.25])[:, None, None]
    soft = 3.0 * imaging.sky_noise[1] / 0.35
    mean = np.maximum(colour.mean(axis=0), 1e-9)
    rgb = colour * (np.arcsinh(mean / soft) / 3.6 / mean) + 0.045
    brightest = np.maximum(rgb.max(axis=0), 1)  # too bright keeps its hue
    return np.clip(rgb / brightest, 0, 1).transpose(1, 2, 0)


def _jpeg(rgb):
    file = io.BytesIO()
    Image.fromarray((rgb * 255).round().astype(np.uint8)).save(file, "JPEG", quality=92)
    return file.getvalue()
