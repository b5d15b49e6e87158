"""Check of the column `flux`: every picture of fluxes can be read, all have the same bands, and each its bands one size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from safetensors.numpy import load

from hf_galaxy.data.fluxes import decode_fluxes
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.first_of import EXAMPLES, Examples
from hf_galaxy.importing.flux_counts import sentence_on_missing

Level = Literal["ok", "note", "problem"]


class FluxChecks:
    """Collects what is wrong with the fluxes of rows."""

    def __init__(self) -> None:
        self.bands: dict[tuple[str, ...], Examples] = {}  # -> names of the galaxies
        self.unreadable, self.empty = Examples(), Examples()
        self.lacking: Counter[str] = Counter()  # galaxies without any value in a band

    def add(self, names: Sequence[str], contents: Sequence[bytes | None]) -> None:
        """Read some galaxies.

        Args:
            names: of the galaxies.
        """
        for name, content in zip(names, contents, strict=True):
            try:
                bands = tuple(sorted(load(content))) if content else ()
                planes = decode_fluxes(content, bands or ("",))
            except (BadInput, ValueError) as error:
                self.unreadable.add(f"{name} ({error})")
                continue
            except Exception as error:  # safetensors raises kinds of its own
                self.unreadable.add(f"{name} ({' '.join(str(error).split())})")
                continue
            self.bands.setdefault(bands, Examples()).add(name)
            without = np.isnan(planes).all(axis=(1, 2))
            if without.all():
                self.empty.add(name)
            else:
                self.lacking.update(band for band, missing in zip(bands, without, strict=True) if missing)

    def findings(self, counts: dict[str, Any]) -> Iterator[tuple[Level, str]]:
        """What was found.

        Args:
            counts: of `flux_counts.FluxCounts.to_dict`, of the same rows.
        """
        if n := self.unreadable.number:
            yield "problem", f"{n:,} cannot be read: {self.unreadable}"
        if n := self.empty.number:
            yield "problem", f"{n:,} have no value in any band: {self.empty}"
        usual = max(self.bands, key=lambda bands: self.bands[bands].number, default=())
        for bands, names in self.bands.items():
            if bands != usual:
                text = f"{names.number:,} have the bands {' '.join(bands)}, most {' '.join(usual)}: {names}"
                yield "problem", text
        for band, galaxies in sorted(self.lacking.items()):
            yield "note", f"{galaxies:,} have no value in band {band}"
        if usual:
            sizes = list(counts["sizes"].items())
            most = ", ".join(f"{number:,} of {size} pixels" for size, number in sizes[:EXAMPLES])
            more = f" and {len(sizes) - EXAMPLES} further sizes" if len(sizes) > EXAMPLES else ""
            missing = sentence_on_missing(counts)
            yield "ok", f"{' '.join(usual)}: {most}{more}; {missing[0].lower()}{missing[1:-1]}"
