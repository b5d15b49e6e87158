"""The stretch of fluxes, measured on the training galaxies of a run."""

import logging
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from hf_galaxy.data.band_stretch import BandStretch
from hf_galaxy.data.fluxes import FLUX, decode_fluxes
from hf_galaxy.data.schema import contents_of
from hf_galaxy.data.targets import Rows, galaxy_of
from hf_galaxy.errors import BadInput

GALAXIES = 500  # of all datasets together, at equal distances; datasets are in an order that looks shuffled
AT_ONCE = 16  # galaxies in memory, whose pictures may be large
PIXELS = 2**13  # of each galaxy, at most, so that large pictures take no more memory than small ones
FAR = 3.0  # factor between noises of two surveys, or noises between their skies, from which on a stretch of one is wrong for the other

logger = logging.getLogger(__name__)


def measured_fields(parts: Sequence[Rows], bands: Sequence[str]) -> dict:
    """The fields of a GalaxyConfig that describe the fluxes of some datasets: `band_stretch`, `pixel_mean` and `pixel_std`.

    Args:
        parts: the training rows of each.

    Raises:
        BadInput: a picture cannot be read, or a band has no values or shows no sources.
    """
    planes = _sample(parts, bands)
    try:
        stretch = BandStretch.of(planes, bands)
    except BadInput as error:
        raise BadInput(f"{error}; leave it out of --bands") from error
    shown = [
        stretch.of_band(c).brightness(torch.from_numpy(plane[np.isfinite(plane)]).view(1, 1, -1)).double()
        for c, plane in enumerate(planes)
    ]
    return {
        "band_stretch": stretch.to_dict(),
        "pixel_mean": [float(each.mean()) for each in shown],
        "pixel_std": [float(each.std()) for each in shown],
    }


def warn_if_far(kept: dict, parts: Sequence[Rows], bands: Sequence[str]) -> None:
    """Log where the sky or the noise of some datasets is another than that of a stretch which is kept with the weights.

    Args:
        kept: `BandStretch` as a dictionary.
    """
    theirs, far = BandStretch.from_dict(kept), []
    for c, (band, plane) in enumerate(zip(bands, _sample(parts, bands), strict=True)):
        try:
            our, their = BandStretch.of([plane], [band]), theirs.of_band(c)
        except BadInput as error:  # the stretch is not needed
            logger.warning("%s; the stretch of --start is kept for it", error)
            continue
        ratio, shift = our.noise[0] / their.noise[0], (our.sky[0] - their.sky[0]) / their.noise[0]
        if not 1 / FAR < ratio < FAR:
            far.append(f"the noise in {band} by a factor of {ratio:.3g}")
        elif abs(shift) > FAR:
            far.append(f"the sky in {band} by {shift:.3g} times the noise")
    if far:
        logger.warning(
            "these galaxies differ from those on which --start was trained: %s; convert their fluxes to the same unit and take off the sky "
            "alike, or add --measure-stretch, which takes the sky, noise and saturation of these galaxies",
            ", ".join(far),
        )


def sampled_fluxes(parts: Sequence[Rows]) -> Iterator[tuple[Rows, int, bytes | None]]:
    """The encoded fluxes of some galaxies of every dataset, with the rows and the index at which they are."""
    total = sum(map(len, parts))
    for rows in parts:
        wanted = min(len(rows), max(1, round(GALAXIES * len(rows) / total)))
        chosen = np.unique(np.linspace(0, len(rows) - 1, wanted).round().astype(int)).tolist()
        fluxes = rows.select_columns([FLUX]).with_format("arrow")
        for first in range(0, len(chosen), AT_ONCE):
            some = chosen[first : first + AT_ONCE]
            for index, content in zip(some, contents_of(fluxes[some][FLUX]), strict=True):
                yield rows, index, content


def _sample(parts: Sequence[Rows], bands: Sequence[str]) -> list[np.ndarray]:
    """(N,) for each band: fluxes of pixels of some galaxies."""
    pixels: list[np.ndarray] = []
    for rows, index, content in sampled_fluxes(parts):
        try:
            planes = decode_fluxes(content, bands).reshape(len(bands), -1)
        except BadInput as error:
            raise BadInput(f"{galaxy_of(rows, index)}: {error}") from error
        pixels.append(planes[:, :: -(-planes.shape[1] // PIXELS)].copy())
    return list(np.concatenate(pixels, axis=1))
