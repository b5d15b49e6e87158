"""Which pixels of a file of fluxes have no value, by the masks and weights beside them. Legend: C bands, H and W of a picture."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from hf_galaxy.data.band_layers import Layer
from hf_galaxy.data.band_names import best_named, names_band
from hf_galaxy.data.pictures import NOT_SCIENCE

Kind = Literal["science", "weight", "mask", "other"]
WEIGHT = re.compile(r".*(WEIGHT|IVAR|INVVAR).*|WHT|WGT", re.IGNORECASE)
MASK = re.compile(r".*MASK.*|MSK|DQ|BPM|FLAGS?", re.IGNORECASE)


class Place(NamedTuple):
    """Where a band is: a plane of a layer."""

    layer: Layer
    plane: int


def kind_of_layer(layer: Layer, bands: Sequence[str]) -> Kind:
    """What a layer holds by its name, unless that is the name of a band."""
    if any(names_band(layer.name, band) >= 3 for band in bands):
        return "science"
    words = [layer.name, *re.split(r"[^A-Za-z0-9]+", layer.name)]
    for kind, pattern in (("weight", WEIGHT), ("mask", MASK), ("other", NOT_SCIENCE)):
        if any(map(pattern.fullmatch, words)):
            return kind  # type: ignore[return-value]  # one of the three
    return "science"


def bad_pixels(
    layers: Sequence[Layer], bands: Sequence[str], places: Sequence[Place]
) -> tuple[list[np.ndarray | None], list[str]]:
    """The pixels of each band (H, W) that have no value by masks and weights, or None; and sentences on those that are not used.

    A pixel with a weight or inverse variance of 0 or less, or NaN, has no value. A mask is used if its bits are known (`Layer.bits`), or if it holds only 0 and 1,
    which is bad: bits of unknown meaning may mark the galaxies.

    Args:
        layers: all of the file.
        places: of the bands.
    """
    bad: list[np.ndarray | None] = [None] * len(bands)
    remarks: list[str] = []
    science = [layer for layer in layers if layer.number == 1 and kind_of_layer(layer, bands) == "science"]
    for kind in ("weight", "mask"):
        of_kind = [layer for layer in layers if kind_of_layer(layer, bands) == kind]
        for c, (layer, plane) in _of_bands(of_kind, bands, places, science, remarks).items():
            marked = ~(layer.values[plane] > 0) if kind == "weight" else _marked(layer, plane, remarks)
            if marked is not None:
                known = bad[c]
                bad[c] = marked if known is None else known | marked
    return bad, list(dict.fromkeys(remarks))


def _of_bands(
    layers: list[Layer], bands: Sequence[str], places: Sequence[Place], science: list[Layer], remarks: list[str]
) -> dict[int, Place]:
    """Where the mask or weight of each band is: by its name, by the order of the planes, or one for all bands.

    Args:
        science: the pictures of one band.
    """
    fitting = [layer for layer in layers if layer.size == places[0].layer.size]
    remarks += [
        f"{_named(layer)} is not used: it has another size than the bands" for layer in layers if layer not in fitting
    ]
    cubes = [layer for layer in fitting if layer.number > 1]
    single = [layer for layer in fitting if layer.number == 1]
    if len({place.layer for place in places}) == 1 and places[0].layer.number > 1:
        alike = [cube for cube in cubes if cube.number == places[0].layer.number]
        if alike:
            return {c: Place(alike[0], place.plane) for c, place in enumerate(places)}
    texts = [(layer.name, *layer.filters) for layer in single]
    named = {
        c: Place(single[found[0]], 0) for c, band in enumerate(bands) if len(found := best_named(band, texts)) == 1
    }
    if named:
        return named
    if len(single) == 1:
        return dict.fromkeys(range(len(bands)), Place(single[0], 0))
    if single and len(single) == len(science) and all(place.layer in science for place in places):
        return {c: Place(single[science.index(place.layer)], 0) for c, place in enumerate(places)}
    remarks += [f"{_named(layer)} is not used: it cannot be told to which bands it belongs" for layer in fitting]
    return {}


def _marked(layer: Layer, plane: int, remarks: list[str]) -> np.ndarray | None:
    values = layer.values[plane]
    if layer.bits is not None:
        return (values.astype(np.int64) & layer.bits) != 0
    if np.isin(values, (0, 1)).all():
        return values != 0
    remarks.append(
        f"{_named(layer)} is not used, as the meaning of its bits is unknown, and some may mark the galaxies; set bad pixels to NaN"
    )
    return None


def _named(layer: Layer) -> str:
    return f"mask {layer.name or 'without name'}" if MASK.search(layer.name) else layer.name or "a layer without name"
