"""A drawn survey in four bands: FITS files of fluxes, and a table of what was drawn. Nothing in it is real.

    nice python results/bands/draw.py --out data/bands                # 3,000 galaxies; 80 s of one core

Writes data/bands/survey.csv and data/bands/fits/*.fits: 64 x 64 pixels of 0.262 arcsec in the extensions g, r, i and z, float32 nanomaggies
(magnitude 22.5), sky subtracted, NaN where there is no value. Galaxy i depends on the seed and i alone.

A galaxy is a de Vaucouleurs bulge with an inclined exponential disk with spiral arms. Its light is that of the templates of
Coleman, Wu and Weedman (1980) that come with GalSim, redshifted, without evolution: E in the bulge, and in the disk anything from
Im to E, by the age of its stars. The throughputs are GalSim's of LSST. Depths, seeing and sky are chosen; they are the same for all
galaxies. There is no error of calibration, no residual sky, and no dust.
"""

import argparse
import csv
import math
import os
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path

import galsim
import numpy as np
from astropy.cosmology import FlatLambdaCDM
from astropy.io import fits

BANDS = ("g", "r", "i", "z")
R = BANDS.index("r")
PIXELS, SCALE = 64, 0.262  # arcsec
FRAME = PIXELS * SCALE  # arcsec
DEPTH = np.array([24.7, 24.0, 23.7, 23.0])  # magnitude of a point source of 5 sigma
SEEING = np.array([1.5, 1.4, 1.3, 1.3])  # FWHM of the Moffat PSF, arcsec
SKY = np.array([22.0, 21.0, 20.2, 19.0])  # magnitude of a square arcsecond of the sky that was subtracted
BRIGHTEST, FAINTEST = 17.0, 21.3  # r
SMALLEST, LARGEST = 0.8, 3.2  # half-light radius in arcsec, so that a picture shows the whole galaxy
REDSHIFTS = np.linspace(0.02, 0.6, 117)
TEMPLATES = ("Im", "Scd", "Sbc", "E")  # from young to old stars
KINDS = {"elliptical": 0.3, "blue spiral": 0.3, "red spiral": 0.2, "tidal tail": 0.2}
COSMOLOGY = FlatLambdaCDM(H0=70, Om0=0.3)
FINE, MAP = 192, 1.5 * FRAME  # pixels and arcsec on a side of the maps of disks and tails, before the PSF blurs them
# Errors of a per cent are below the noise, and a galaxy is drawn several times faster.
GS_PARAMS = galsim.GSParams(folding_threshold=1e-2, maxk_threshold=5e-3, kvalue_accuracy=1e-4, maximum_fft_size=8192)


@dataclass(frozen=True)
class Galaxy:
    """What is drawn.

    Attributes:
        kind: one of KINDS. A galaxy with a tidal tail is otherwise like one of the others.
        bulge_fraction: share of the bulge in the r flux of bulge and disk.
        fluxes: of the bulge and of the disk, (2, 4) nanomaggies.
        radius: half-light radius along the major axis, arcsec; of the bulge in an elliptical, else of the disk.
        axis_ratio: of the bulge in an elliptical, else of the disk.
    """

    kind: str
    redshift: float
    bulge_fraction: float
    fluxes: np.ndarray
    radius: float
    axis_ratio: float
    elliptical: bool


def magnitudes(wavelengths: np.ndarray, density: np.ndarray, redshift: float) -> np.ndarray:
    """(4,) AB magnitudes, but for a constant, of light at a redshift, without the dimming by distance.

    Args:
        wavelengths: at rest, nm, rising.
        density: luminosity for each nm, in any unit.
    """
    result = []
    for band in BANDS:
        throughput = galsim.Bandpass(f"LSST_{band}.dat", "nm")
        observed = np.linspace(throughput.blue_limit, throughput.red_limit, 800)
        weight = throughput(observed)
        light = np.interp(observed / (1 + redshift), wavelengths, density) / (1 + redshift)
        # Detectors count photons, whose energy falls as 1 / wavelength; AB is a flux density constant in frequency.
        result.append(-2.5 * math.log10((light * weight * observed).sum() / (weight / observed).sum()))
    return np.array(result)


@cache
def template_magnitudes() -> np.ndarray:
    """(4 templates, redshifts, 4 bands) magnitudes relative to r at rest: colours and K corrections."""
    result = []
    for name in TEMPLATES:
        table = np.loadtxt(Path(galsim.meta_data.share_dir) / f"SEDs/CWW_{name}_ext.sed")
        shown = np.array([magnitudes(table[:, 0] / 10, table[:, 1], z) for z in (0, *REDSHIFTS)])
        result.append(shown[1:] - shown[0, R])
    return np.array(result)


def light_of(age: float) -> np.ndarray:
    """(redshifts, 4) magnitudes relative to r at rest of stars between the templates: 0 is Im, 1 is E."""
    place = age * (len(TEMPLATES) - 1)
    younger = min(int(place), len(TEMPLATES) - 2)
    share = place - younger
    return (1 - share) * template_magnitudes()[younger] + share * template_magnitudes()[younger + 1]


@cache
def volumes() -> np.ndarray:
    """(redshifts,) comoving volume in a step of redshift, in any unit."""
    return COSMOLOGY.differential_comoving_volume(REDSHIFTS).value


@cache
def distances() -> np.ndarray:
    """(redshifts,) distance moduli."""
    return COSMOLOGY.distmod(REDSHIFTS).value


def draw_galaxy(rng: np.random.Generator) -> Galaxy:
    """A random galaxy, neither too large nor too small for a picture of it.

    Magnitudes are spread evenly. At its magnitude a galaxy has the redshift that it would have in a volume filled by the same
    Schechter function everywhere.
    """
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    body = kind if kind != "tidal tail" else str(rng.choice(["elliptical", "blue spiral", "red spiral"]))
    elliptical = body == "elliptical"
    while True:
        bulge_fraction = rng.uniform(0.75, 1) if elliptical else 0.65 * rng.beta(1.3, 2.2)
        age = rng.uniform(0, 0.4) if body == "blue spiral" else rng.uniform(0.65, 1)
        magnitude = rng.uniform(BRIGHTEST, FAINTEST)
        shares = np.array([bulge_fraction, 1 - bulge_fraction])
        lights = np.stack([light_of(1.0), light_of(age)])
        # As r is that of the picture, and so are the shares of bulge and disk in it, those at rest follow.
        corrections = 2.5 * np.log10(shares @ 10 ** (0.4 * lights[..., R]))
        absolute = magnitude - distances() - corrections
        luminosity = 10 ** (-0.4 * (absolute + 21.2))
        chances = volumes() * luminosity**-0.1 * np.exp(-luminosity)
        z = rng.choice(len(REDSHIFTS), p=chances / chances.sum())
        slope, size = (-0.2, 4.0) if elliptical else (-0.15, 5.5)  # kpc at absolute magnitude -21
        arcsec = COSMOLOGY.arcsec_per_kpc_proper(REDSHIFTS[z]).value
        radius = arcsec * size * 10 ** (slope * (absolute[z] + 21) + rng.normal(0, 0.13))
        if SMALLEST < radius < LARGEST:
            break
    # Stars differ by more than one number: the colours of each component lie around those of the templates.
    colours = lights[:, z] - lights[:, z, [R]] + rng.normal(0, 0.03, (2, len(BANDS))) * (np.arange(len(BANDS)) != R)
    axis_ratio = rng.uniform(0.45, 1) if elliptical else math.hypot(0.15, 0.99 * rng.uniform(0.15, 1))
    fluxes = flux(magnitude) * shares[:, None] * 10 ** (-0.4 * colours)
    return Galaxy(kind, float(REDSHIFTS[z]), bulge_fraction, fluxes, radius, axis_ratio, elliptical)


class Exposure:
    """Four bands to which light is added, each blurred by its PSF.

    Attributes:
        bands: (4, 64, 64) nanomaggies in each pixel.
    """

    def __init__(self) -> None:
        self.bands = np.zeros((len(BANDS), PIXELS, PIXELS))
        self.psfs = [galsim.Moffat(beta=3.5, fwhm=each, gsparams=GS_PARAMS) for each in SEEING]

    def add(self, profile: galsim.GSObject | None, fluxes: np.ndarray, position: tuple[float, float] = (0, 0)) -> None:
        """A profile, or a point source, with these fluxes in the bands."""
        for band, psf, light in zip(self.bands, self.psfs, fluxes, strict=True):
            seen = psf if profile is None else galsim.Convolve(profile, psf, gsparams=GS_PARAMS)
            band += (
                seen.withFlux(light).shift(*position).drawImage(nx=PIXELS, ny=PIXELS, scale=SCALE, dtype=float).array
            )

    def add_map(self, light: np.ndarray, fluxes: np.ndarray) -> None:
        """(FINE, FINE) surface brightness, in any unit."""
        image = galsim.Image(np.ascontiguousarray(light / light.sum()), scale=MAP / FINE)
        self.add(galsim.InterpolatedImage(image, x_interpolant="linear", gsparams=GS_PARAMS), fluxes)

    def observed(self, rng: np.random.Generator) -> np.ndarray:
        """(4, 64, 64) float32 with the noise of the sky and of the sources, and with pixels that have no value."""
        noise, sky = pixel_noise()[:, None, None], (flux(SKY) * SCALE**2)[:, None, None]
        noisy = self.bands + noise * np.sqrt(1 + self.bands.clip(0) / sky) * rng.normal(size=self.bands.shape)
        if rng.random() < 0.1:  # a column of the detector that is dead
            noisy[rng.integers(len(BANDS)), :, rng.integers(PIXELS)] = np.nan
        if rng.random() < 0.1:  # a cosmic ray that was masked
            y, x = rng.integers(PIXELS - 3, size=2)
            noisy[rng.integers(len(BANDS)), y : y + 3, x : x + 3] = np.nan
        return noisy.astype(np.float32)


@cache
def pixel_noise() -> np.ndarray:
    """(4,) standard deviation of the sky in a pixel, nanomaggies, from the depth: that of a point source whose profile is fitted."""
    stamps = [galsim.Moffat(beta=3.5, fwhm=each).drawImage(nx=129, ny=129, scale=SCALE).array for each in SEEING]
    return flux(DEPTH) / 5 * np.array([math.sqrt((stamp**2).sum()) for stamp in stamps])


def expose(galaxy: Galaxy, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The picture (4, 64, 64), and the fluxes (4,) of the galaxy with its tail."""
    exposure = Exposure()
    bulge, disk = galaxy.fluxes
    turn = rng.uniform(0, math.pi)
    if galaxy.elliptical:
        exposure.add(ellipse(4, galaxy.radius, galaxy.axis_ratio, turn), bulge)
        exposure.add(ellipse(1, 1.7 * galaxy.radius, galaxy.axis_ratio, turn), disk)
    else:
        exposure.add(ellipse(4, galaxy.radius * rng.uniform(0.2, 0.4), max(galaxy.axis_ratio, 0.7), turn), bulge)
        exposure.add_map(spiral(galaxy, turn, rng), disk)
    total = bulge + disk
    if galaxy.kind == "tidal tail":
        # 3 to 15 per cent of the light, spread out over several times the area of the galaxy.
        tail = (bulge if galaxy.elliptical else disk) / (bulge if galaxy.elliptical else disk)[R]
        tail = tail * total[R] * math.exp(rng.uniform(math.log(0.03), math.log(0.15)))
        exposure.add_map(tidal_tail(galaxy.radius, rng), tail)
        total = total + tail
    add_neighbours(exposure, galaxy, rng)
    return exposure.observed(rng), total


def spiral(galaxy: Galaxy, turn: float, rng: np.random.Generator) -> np.ndarray:
    """(FINE, FINE) light of an inclined exponential disk with logarithmic spiral arms and star-forming knots."""
    x, y = map_grid()
    along, across = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    across = across / galaxy.axis_ratio
    length = galaxy.radius / 1.678  # scale length of the disk
    distance, angle = np.maximum(np.hypot(along, across), 0.5 * MAP / FINE), np.arctan2(across, along)
    arms, pitch = rng.choice([2, 2, 3, 4]), math.radians(rng.uniform(10, 30))
    phase = arms * (angle - rng.choice([-1, 1]) * np.log(distance / length) / math.tan(pitch)) + rng.uniform(0, 6.28)
    ridge = np.exp((1.6 + 4 / arms) * (np.cos(phase) - 1)) / (1 + np.exp((0.6 * length - distance) / (0.1 * length)))
    light = np.exp(-distance / length) * (1 + rng.uniform(0.5, 3) * ridge)
    knots = rng.choice(light.size, 30, p=(light / light.sum()).ravel())
    np.add.at(light.ravel(), knots, rng.pareto(2.0, 30).clip(0, 6) * rng.uniform(0, 0.1) / 30 * light.sum())
    return light


def tidal_tail(radius: float, rng: np.random.Generator) -> np.ndarray:
    """(FINE, FINE) light of one arc that leads away from the galaxy and grows wider and fainter."""
    x, y = map_grid()
    size, start, sense = max(radius, 1.0), rng.uniform(0, 2 * math.pi), rng.choice([-1, 1])
    curl, reach = rng.uniform(0.7, 1.7), rng.uniform(1.6, 2.8)
    light = np.zeros((FINE, FINE))
    for step in np.linspace(0, 1, 16):
        angle, distance, width = start + sense * curl * step, size * (1.2 + reach * step), size * (0.2 + 0.2 * step)
        squared = (x - distance * math.cos(angle)) ** 2 + (y - distance * math.sin(angle)) ** 2
        light += (1 - 0.6 * step) / width * np.exp(-0.5 * squared / width**2)
    return light


def add_neighbours(exposure: Exposure, galaxy: Galaxy, rng: np.random.Generator) -> None:
    """Other galaxies, one on average, and stars, one in five pictures; none on the galaxy itself."""
    for star in [False] * rng.poisson(1.0) + [True] * rng.poisson(0.2):
        position = rng.uniform(-0.5, 0.5, 2) * FRAME
        magnitude = 23.5 + math.log10(rng.uniform(0.01, 1)) / 0.4  # counts grow by 10^0.4 for each magnitude
        shape = rng.uniform(0.4, 1.0), rng.uniform(0.3, 1), rng.uniform(0, math.pi)
        if star:
            shown, magnitude = star_light(rng.uniform(3500, 7500)), rng.uniform(17.5, 22.5)
        else:
            shown = light_of(rng.uniform(0, 1))[rng.integers(16, len(REDSHIFTS))]
        if math.hypot(*position) > 2.5 * galaxy.radius + 0.5:
            exposure.add(None if star else ellipse(1, *shape), flux(magnitude + shown - shown[R]), tuple(position))


def star_light(kelvin: float) -> np.ndarray:
    """(4,) magnitudes of a black body, but for a constant."""
    wavelengths = np.linspace(300, 1200, 400)  # nm
    return magnitudes(wavelengths, wavelengths**-5 / np.expm1(1.4388e7 / (wavelengths * kelvin)), 0)


def ellipse(sersic: float, radius: float, axis_ratio: float, turn: float) -> galsim.GSObject:
    """A Sersic profile with this half-light radius along its major axis, arcsec."""
    profile = galsim.Sersic(float(sersic), half_light_radius=radius, gsparams=GS_PARAMS)
    return profile.transform(1, 0, 0, axis_ratio).rotate(turn * galsim.radians)


def map_grid() -> list[np.ndarray]:
    """(FINE, FINE) coordinates x and y of a map, arcsec from its centre."""
    steps = ((np.arange(FINE) + 0.5) / FINE - 0.5) * MAP
    return np.meshgrid(steps, steps)


def flux(magnitude: np.ndarray | float) -> np.ndarray | float:
    """Nanomaggies."""
    return 10 ** (-0.4 * (magnitude - 22.5))


def write_fits(path: Path, picture: np.ndarray, ra: float, dec: float) -> None:
    """The four bands as extensions of one file, with the coordinates of the sky."""
    hdus = fits.HDUList([fits.PrimaryHDU()])
    for band, plane in zip(BANDS, picture, strict=True):
        hdu = fits.ImageHDU(plane, name=band)
        middle = (PIXELS + 1) / 2
        hdu.header.update(
            BUNIT="nanomaggy", CTYPE1="RA---TAN", CTYPE2="DEC--TAN", CUNIT1="deg", CUNIT2="deg", CRPIX1=middle, CRPIX2=middle,
            CRVAL1=ra, CRVAL2=dec, CD1_1=-SCALE / 3600, CD1_2=0.0, CD2_1=0.0, CD2_2=SCALE / 3600,
        )  # fmt: skip
        hdus.append(hdu)
    hdus.writeto(path, overwrite=True)


def row(i: int, seed: int, out: Path) -> dict[str, str | float]:
    """Write the file of galaxy i; its row of the table."""
    rng = np.random.default_rng([seed, i])
    galaxy = draw_galaxy(rng)
    picture, total = expose(galaxy, rng)
    name, ra, dec = f"drawn-{seed}-{i:05d}", rng.uniform(0, 360), math.degrees(math.asin(rng.uniform(-0.9, 0.9)))
    write_fits(out / "fits" / f"{name}.fits", picture, ra, dec)
    return {
        "id": name, "file": f"fits/{name}.fits", "ra": round(ra, 6), "dec": round(dec, 6), "kind": galaxy.kind,
        "redshift": round(galaxy.redshift, 5), "bulge_fraction": round(galaxy.bulge_fraction, 5), "radius_arcsec": round(galaxy.radius, 4),
        **{f"mag_{band}": round(22.5 - 2.5 * math.log10(light), 4) for band, light in zip(BANDS, total, strict=True)},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--galaxies", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    (options.out / "fits").mkdir(parents=True, exist_ok=True)
    template_magnitudes()  # once, before processes are forked
    with get_context("fork").Pool(len(os.sched_getaffinity(0))) as pool:
        work = partial(row, seed=options.seed, out=options.out)
        rows = pool.map(work, range(options.galaxies), chunksize=16)
    with (options.out / "survey.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
