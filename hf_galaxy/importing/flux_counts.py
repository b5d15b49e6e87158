"""Counts of the column `flux`: its bands, sizes, scale, and the pixels without a value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from safetensors.numpy import load

from hf_galaxy.data.fluxes import arcsec_per_pixel_of


class FluxCounts:
    """Counts of encoded fluxes, which are added in batches; pictures that cannot be read are not counted."""

    def __init__(self) -> None:
        self.bands: set[str] = set()
        self.sizes: Counter[str] = Counter()
        self.galaxies = self.pixels = self.pixels_without = self.galaxies_without = 0
        self.scales: list[float] = []  # the smallest and the largest

    def add(self, contents: Iterable[bytes | None]) -> None:
        """Count some galaxies."""
        for content in contents:
            try:
                planes = load(content or b"")
                known = np.all([np.isfinite(plane) for plane in planes.values()], axis=0)
                height, width = known.shape
                scale = arcsec_per_pixel_of(content or b"")
            except Exception:  # noqa: S112 (damaged in any way, which the checker reports)
                continue
            without = known.size - int(known.sum())
            self.bands.update(planes)
            self.sizes[f"{width} x {height}"] += 1
            self.galaxies += 1
            self.pixels += known.size
            self.pixels_without += without
            self.galaxies_without += without > 0
            self._add_scales([] if scale is None else [scale])

    def _add_scales(self, scales: list[float]) -> None:
        scales = [*self.scales, *scales]
        self.scales = [min(scales), max(scales)] if scales else []

    def update(self, other: FluxCounts) -> None:
        """Add the counts of other galaxies."""
        self.bands |= other.bands
        self.sizes.update(other.sizes)
        self.galaxies += other.galaxies
        self.pixels += other.pixels
        self.pixels_without += other.pixels_without
        self.galaxies_without += other.galaxies_without
        self._add_scales(other.scales)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "bands": sorted(self.bands), "galaxies": self.galaxies, "sizes": dict(self.sizes.most_common()),
            "arcsec_per_pixel": self.scales, "pixels": self.pixels, "pixels_without_value": self.pixels_without,
            "galaxies_with_such_pixels": self.galaxies_without,
        }  # fmt: skip


def sentence_on_missing(counts: dict[str, Any]) -> str:
    """How many pixels have no value.

    Args:
        counts: of `FluxCounts.to_dict`.
    """
    pixels, galaxies = counts["pixels_without_value"], counts["galaxies_with_such_pixels"]
    if not pixels:
        return "All pixels have a value in all bands."
    share = 100 * pixels / counts["pixels"]
    shown = f"{share:.1f}" if share >= 0.1 else "less than 0.1"
    return (
        f"{pixels:,} pixel{'' if pixels == 1 else 's'} ({shown} %) of {galaxies:,} galax{'y has' if galaxies == 1 else 'ies have'} no value in "
        "some band (NaN)."
    )
