"""Pictures to predict as if they were farther away, or observed worse (`data.degrading`): a step of all galaxies, or of a sample of them."""

import heapq
import math
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from hf_galaxy.data.band_pictures import BandPicture, fluxes_of, reduced
from hf_galaxy.data.degrading import Change, Framing, Profile, degraded
from hf_galaxy.data.degrading_steps import DIMMING, Facts, Step
from hf_galaxy.data.fluxes import filled
from hf_galaxy.data.galaxies import decode
from hf_galaxy.data.light import PictureStretch
from hf_galaxy.data.pictures import Rendering, linear_values, to_rgb
from hf_galaxy.data.pixels import pixels_of
from hf_galaxy.data.targets import tables_of
from hf_galaxy.data.views import Framing as View
from hf_galaxy.errors import BadInput
from hf_galaxy.models.prediction_inputs import DatasetSplit, Part, PictureFolder, Reader, Source
from hf_galaxy.randomness import key_of
from hf_galaxy.safe_text import code

STEP = "step"  # the column that names it


@dataclass(frozen=True)
class Degrading:
    """How the pictures of a survey are degraded.

    Attributes:
        redshift, psf_fwhm, arcsec_per_pixel, survey_pixel: of each galaxy: a number, or the column that has it; None: it is not known.
        stretch: of its pictures of 8 bits.
        exponent: surface brightness dims by (1 + z) to the power of minus this.
        profile: of the PSF.
        framing: what the new pictures show, as of `Change`.
        seed: of the noise.
    """

    redshift: float | str | None
    psf_fwhm: float | str
    arcsec_per_pixel: float | str = 1.0
    survey_pixel: float | str | None = None
    stretch: PictureStretch = field(default_factory=PictureStretch)
    exponent: float = DIMMING
    profile: Profile = "moffat"
    framing: Framing = "galaxy"
    seed: int = 0

    @property
    def columns_by_option(self) -> dict[str, str]:
        """Those of the galaxies that are needed, by the names of the options that say so."""
        given = {"redshift": self.redshift, "psf-fwhm": self.psf_fwhm, "arcsec-per-pixel": self.arcsec_per_pixel, "survey-pixel": self.survey_pixel}  # fmt: skip
        return {option: each for option, each in given.items() if isinstance(each, str)}

    @property
    def columns(self) -> list[str]:
        """Those of the galaxies that are needed."""
        return [*self.columns_by_option.values()]

    def in_words(self, unit: str, bands: bool) -> dict[str, str]:
        """For a page: what was assumed.

        Args:
            unit: of FWHMs.
            bands: whether the model sees fluxes.
        """
        shown = {"galaxy": "as much of the galaxy as before", "sky": "as much of the sky as before"}[self.framing]
        words = {
            "PSF": f"{self.profile}, FWHM of the pictures {code(str(self.psf_fwhm))} ({unit})",
            "framing": f"the new pictures show {shown}",
            "noise": "that of the survey, as measured at the border of each picture",
        }
        if self.redshift is not None:
            words["dimming"] = (
                f"surface brightness by (1 + z)^-{self.exponent:g}, angles by Planck 2018, from redshift {code(str(self.redshift))}; "
                "no K correction, no evolution"
            )
        stretch = self.stretch
        limits = {"fixed": "the same for all", "file": f"percentiles {stretch.low:g} and {stretch.high:g} of each"}
        words["light"] = (
            "fluxes, exact"
            if bands
            else f"of FITS files exact; of 8-bit pictures by the inverse of the stretch {stretch.curve} with softening {stretch.softening:g}, black and "
            f"white {limits[stretch.limits]}, which is an assumption"
        )
        return words

    def reference(self, axis: str, sources: Sequence[Source], first: float) -> float:
        """The value of what changes from step to step for the original pictures; where galaxies differ, the median of those that can make
        the first step.

        Args:
            first: its value at the first step.
        """
        given = {"redshift": self.redshift, "psf_fwhm": self.psf_fwhm, "distance": 1.0, "pixels": 1.0}.get(axis, 0.0)
        if not isinstance(given, str):
            return float(given or 0.0)
        return float(np.median([value for value in numbers_of(given, sources) if 0 < value <= first]))

    def change(self, step: Step, beside: pa.Table | None, row: int) -> Change:
        """What happens to the picture of a galaxy at a step; raises as `facts` and `Step.change`.

        Args:
            beside, row: as of `facts`.
        """
        return step.change(self.facts(beside, row), self.exponent, self.profile, self.framing)

    def reasons(self, step: Step, sources: Sequence[Source]) -> Iterator[str | None]:
        """For each galaxy why it cannot make a step, as far as its numbers tell; None: it can."""
        for source in sources:
            for row in range(len(source)):
                try:
                    self.change(step, source.joined, row)
                    yield None
                except BadInput as error:
                    yield str(error)

    def facts(self, beside: pa.Table | None, row: int) -> Facts:
        """What is known of a galaxy.

        Args:
            beside: the columns of its source; None: there are none.

        Raises:
            BadInput: a number is missing, or is none.
        """

        def of(name: str, given: float | str | None, least: float) -> float | None:
            if not isinstance(given, str):
                return given
            assert beside is not None
            value = beside[given][row].as_py()
            try:
                number = float(value)
            except (TypeError, ValueError):
                number = math.nan
            if not least <= number < math.inf:
                raise BadInput(f"--{name} {given}: is {value!r} for it; a plain number is needed")
            return number

        redshift = of("redshift", self.redshift, 1e-6)
        fwhm, scale = of("psf-fwhm", self.psf_fwhm, 0.0), of("arcsec-per-pixel", self.arcsec_per_pixel, 1e-9)
        assert fwhm is not None
        assert scale is not None
        return Facts(redshift, fwhm, scale, of("survey-pixel", self.survey_pixel, 1e-9))


class DegradedReader(Reader):
    """As `Reader`, of a step. Galaxies that cannot make it are among the unreadable ones, with the reason.

    Files are degraded before they are cropped, reduced and stretched.
    """

    def __init__(
        self, sources: list[Source], parts: list[Part], framing: View, rendering: Rendering, degrading: Degrading, step: Step,
    ) -> None:  # fmt: skip
        super().__init__(sources, parts, framing, rendering)
        self.degrading, self.step = degrading, step

    def picture(self, source: Source, row: int, name: str, content: Any) -> np.ndarray:
        """As of `Reader`, degraded."""
        if self.step.is_original:
            return super().picture(source, row, name, content)
        change = self.degrading.change(self.step, source.joined, row)
        if change.is_none:
            return super().picture(source, row, name, content)
        if isinstance(content, Exception):
            raise content
        if isinstance(source, DatasetSplit):
            if self.framing.bands:
                return self._fluxes(super().picture(source, row, name, content), change, name)
            return self._eight_bits(decode(content), change, name)
        if self.framing.bands:
            planes = fluxes_of(content, self.framing.bands, self.rendering.whole, planes=source.bands)
            new = dict(zip(self.framing.bands, self._fluxes(planes, change, name), strict=True))
            return np.stack([*reduced(BandPicture(new), self.rendering).planes.values()])
        values = linear_values(content) if isinstance(content, bytes) else None
        if values is None:
            picture = Image.fromarray(self._eight_bits(pixels_of(content, self.rendering.whole), change, name))
        else:
            picture = self.rendering.stretched(self._fluxes(filled(values), change, name))
        return np.asarray(to_rgb(self.rendering.shown(picture)))

    def _eight_bits(self, pixels: np.ndarray, change: Change, name: str) -> np.ndarray:
        """(H', W', 3) of a picture (H, W, 3), uint8."""
        stretch = self.degrading.stretch
        return stretch.pixels(degraded(stretch.light(pixels), change, name, self.degrading.seed))

    def _fluxes(self, planes: np.ndarray, change: Change, name: str) -> np.ndarray:
        """(C, H', W') of fluxes (C, H, W); a band without any value stays so."""
        empty = np.isnan(planes).all(axis=(1, 2))
        result = degraded(np.where(np.isnan(planes), 0, planes), change, name, self.degrading.seed)
        result[empty] = np.nan
        return result


def numbers_of(column: str, sources: Sequence[Source]) -> list[float]:
    """The numbers in a column of the galaxies, without those that are missing."""
    values = (each for source in sources if source.joined is not None for each in source.joined[column].to_pylist())
    return [float(value) for value in values if isinstance(value, int | float) and math.isfinite(value)]


def sampled(sources: Sequence[Source], galaxies: int) -> list[Source]:
    """The sources with at most this number of galaxies, drawn at random by their names alone; 0: all of them."""
    if not galaxies or sum(map(len, sources)) <= galaxies:
        return list(sources)
    places = ((key_of(f"degraded {name}"), s, row) for s, source in enumerate(sources) for row, name in _names(source))
    chosen = heapq.nsmallest(galaxies, places)
    rows = [sorted(row for _, s, row in chosen if s == own) for own in range(len(sources))]
    return [_selected(source, own) for source, own in zip(sources, rows, strict=True) if own]


def _names(source: Source) -> Iterator[tuple[int, str]]:
    if not isinstance(source, DatasetSplit):
        yield from enumerate(source.ids)
        return
    names = (name for table in tables_of(source.rows, ["id_str"]) for name in table["id_str"].to_pylist())
    yield from enumerate(names)


def _selected(source: Source, rows: list[int]) -> Source:
    """Some galaxies of a source, in its order."""
    chosen = copy(source)
    if isinstance(chosen, DatasetSplit):
        chosen.rows = chosen.rows.select(np.array(rows))
    else:
        chosen.ids = [chosen.ids[row] for row in rows]
        if isinstance(chosen, PictureFolder):
            chosen.files = [chosen.files[row] for row in rows]
        else:
            chosen.pictures = [chosen.pictures[row] for row in rows]
    if source.joined is not None:
        chosen.joined = source.joined.take(pa.array(rows, pa.int64()))
    return chosen


def in_step(source: Source, step: Step) -> Source:
    """The galaxies of a source with a column that names the step."""
    named = copy(source)
    names = pa.array([step.name] * len(source), pa.string())
    named.joined = pa.table({STEP: names}) if source.joined is None else source.joined.append_column(STEP, names)
    return named
