"""The steps in which pictures are degraded, in units of astronomers, and what each makes of a galaxy."""

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

from hf_galaxy.data.degrading import Change, Framing, Profile
from hf_galaxy.errors import BadInput

DIMMING = 3.0  # exponent of (1 + z)
FARTHEST = 20.0  # redshift


class Facts(NamedTuple):
    """What is known of the picture of a galaxy.

    Attributes:
        redshift: None: unknown.
        psf_fwhm: of its PSF.
        arcsec_per_pixel: side of its pixels; 1 where lengths are in pixels.
        survey_pixel: side of those of the survey, if the picture was reduced from them; None: unknown.
    """

    redshift: float | None
    psf_fwhm: float
    arcsec_per_pixel: float
    survey_pixel: float | None = None


@dataclass(frozen=True)
class Step:
    """One step; without values the original picture.

    Attributes:
        distance: factor by which galaxies are farther away, near enough that redshift does not matter.
        redshift: to which they are moved.
        psf_fwhm: of the new pictures; None: as it is.
        magnitudes: by which the survey is shallower.
        pixels: factor by which pixels are wider.
    """

    distance: float = 1.0
    redshift: float | None = None
    psf_fwhm: float | None = None
    magnitudes: float = 0.0
    pixels: float = 1.0

    @property
    def is_original(self) -> bool:
        """Whether pictures stay what they are, to the bit."""
        return self == Step()

    @property
    def name(self) -> str:
        """For tables and figures."""
        changed = {name: value for name, value in asdict(self).items() if value != getattr(Step, name)}
        parts = [f"{NAMES[name]} {value:g}" for name, value in changed.items()]
        return ", ".join(parts) or "original"

    def change(self, facts: Facts, exponent: float, profile: Profile, framing: Framing) -> Change:
        """What happens to the picture of a galaxy.

        Args:
            exponent: surface brightness dims by (1 + z) to the power of minus this.

        Raises:
            BadInput: its redshift is not known, or it is farther away already.
        """
        shrink, dimming = self.distance, 1.0
        if self.redshift is not None:
            shrink, dimming = moved(facts.redshift, self.redshift, exponent)
        reduced = max(1.0, facts.arcsec_per_pixel / (facts.survey_pixel or facts.arcsec_per_pixel))
        new = facts.psf_fwhm if self.psf_fwhm is None else self.psf_fwhm
        change = Change(
            shrink, dimming, facts.psf_fwhm / facts.arcsec_per_pixel, new / facts.arcsec_per_pixel, 10 ** (0.4 * self.magnitudes), self.pixels, reduced,
            profile, framing,
        )  # fmt: skip
        change.check()
        return change


# How steps are called; of lengths and factors so that both are told apart.
NAMES = {
    "distance": "distance x", "redshift": "redshift", "psf_fwhm": "PSF", "magnitudes": "shallower by", "pixels": "pixels x",
}  # fmt: skip


def moved(redshift: float | None, to: float, exponent: float) -> tuple[float, float]:
    """The factors by which a galaxy appears smaller, and of its surface brightness, if it is moved to another redshift.

    Its angle is its size over the angular diameter distance, in the cosmology of Planck 2018
    (https://huggingface.co/papers/1807.06209).

    Raises:
        BadInput: its redshift is not known, or it is farther away already.
    """
    if redshift is None:
        raise BadInput("has no redshift above 0")
    if redshift > to:
        raise BadInput(f"is at redshift {redshift:.4g}, farther away than {to:g}")
    if redshift == to:
        return 1.0, 1.0
    from astropy.cosmology import FlatLambdaCDM

    cosmology = FlatLambdaCDM(H0=67.66, Om0=0.30966)  # radiation would change ratios of distances by less than 0.001
    near, far = (float(cosmology.angular_diameter_distance(z).value) for z in (redshift, to))
    return far / near, ((1 + redshift) / (1 + to)) ** exponent


def steps_of(
    distance: Sequence[float] | None, redshift: Sequence[float] | None, psf_fwhm: Sequence[float] | None,
    magnitudes: Sequence[float] | None, pixels: Sequence[float] | None,
) -> list[Step]:  # fmt: skip
    """The original, then the steps in increasing order: of options with one value each has it, of others each its own.

    Raises:
        BadInput: there are none, their numbers differ, or a value is none.
    """
    given = dict(zip(OPTIONS, (distance, redshift, psf_fwhm, magnitudes, pixels), strict=True))
    given = {option: values for option, values in given.items() if values}
    if not given:
        raise BadInput(f"nothing would change; give steps with {', '.join(OPTIONS)}")
    if "--distance" in given and "--to-redshift" in given:
        raise BadInput("--distance and --to-redshift: are two ways to say how far galaxies are moved; give one of them")
    number = max(map(len, given.values()))
    for option, values in given.items():
        if len(values) not in (1, number):
            longest = next(other for other, each in given.items() if len(each) == number)
            raise BadInput(
                f"{option}: has {len(values)} values and {longest} {number}; give one for all steps, or one for each"
            )
        low, high, meaning = RANGES[option]
        for value in values:
            if not low <= value <= high:
                raise BadInput(f"{option} {value:g}: {meaning}")
    whole = {option: values if len(values) == number else [*values] * number for option, values in given.items()}
    fields = dict(zip(OPTIONS, Step.__dataclass_fields__, strict=True))
    steps = [Step(**{fields[option]: values[i] for option, values in whole.items()}) for i in range(number)]
    if len(set(steps)) < len(steps):
        raise BadInput(f"{next(iter(given))}: gives the same step twice")
    changed = sorted((step for step in steps if not step.is_original), key=lambda step: [*asdict(step).values()])
    if not changed:
        raise BadInput(f"{' '.join(given)}: nothing would change; give a step that is worse than the pictures are")
    return [Step(), *changed]


OPTIONS = ("--distance", "--to-redshift", "--new-psf-fwhm", "--shallower", "--pixels")
RANGES = {
    "--distance": (1, 100, "is a factor by which galaxies are farther away, from 1 to 100"),
    "--to-redshift": (1e-6, FARTHEST, f"is a redshift, above 0 and at most {FARTHEST:g}"),
    "--new-psf-fwhm": (0, 1e4, "is the FWHM of the new pictures, from 0"),
    "--shallower": (0, 10, "is in magnitudes by which the survey is less deep, from 0 to 10"),
    "--pixels": (1, 100, "is a factor by which pixels are wider, from 1 to 100"),
}


def axis_of(steps: Sequence[Step]) -> tuple[str, list[float]]:
    """What changes from step to step, for figures and for interpolation: its name, and its value at each."""
    values = {name: [getattr(step, name) for step in steps] for name in NAMES}
    for name, own in values.items():
        if own[0] is None or own == [getattr(Step, name)]:
            continue
        if all(b is not None and a < b for a, b in itertools.pairwise(own)):
            return name, own
    return "step_number", [float(i) for i in range(1, len(steps) + 1)]
