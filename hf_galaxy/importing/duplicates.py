"""Rows of the same galaxy: by position in the sky, and by picture."""

import tempfile
from collections.abc import Iterator
from itertools import combinations
from typing import IO, Self

import numpy as np
from PIL import Image

from hf_galaxy.importing.groups import Groups
from hf_galaxy.importing.sky import pairs_within

# As in the data of huggingface.co/papers/2404.02973: rows closer than this are the same galaxy.
SAME_GALAXY_ARCSEC = 20.0
SIDE = 32  # pixels
MIN_SIMILARITY = 0.85  # of the fine structures of one picture
BANDS, BITS = 48, 16
# Of all planes: between two of MIN_SIMILARITY there are 0.177 on average, with a standard deviation of 0.014.
MAX_BETWEEN = 0.26
LARGEST = 700  # rows that are compared at once, each with each
PROJECTED = 4096  # fine structures at once


def pairs_on_the_sky(positions: np.ndarray, arcsec: float = SAME_GALAXY_ARCSEC) -> np.ndarray:
    """(M, 2) pairs of rows within `arcsec` of each other.

    Args:
        positions: (N, 2) right ascension and declination in degrees; a row with NaN has no neighbour.
    """
    return pairs_within(positions, arcsec)


def groups_on_the_sky(positions: np.ndarray, arcsec: float = SAME_GALAXY_ARCSEC) -> Groups:
    """Rows within `arcsec` of each other, directly or through others."""
    return Groups.of_pairs(pairs_on_the_sky(positions, arcsec))


def fine_structure(picture: Image.Image) -> np.ndarray:
    """(SIDE * SIDE,) float16 of unit length: noise and small details, in which any two different pictures differ.

    The grey picture at SIDE x SIDE pixels, minus its own blur, which removes what galaxies have in common; asinh limits the
    weight of bright cores. The correlation of two is the sum of their products. Of 1,500 pictures each of six sets (SDSS,
    DECaLS, JWST; 128 to 424 px) no two correlated by more than 0.76, while a picture and its copy correlated by at least 0.957
    (JPEG of quality 75), 0.84 (quality 50) or 0.86 (half the size, quality 90). Smaller pictures have fewer details and
    correlate less with lossy copies. All zeros for a picture of one brightness.
    """
    from scipy.ndimage import uniform_filter

    grey = Image.fromarray(np.asarray(picture.convert("L"), dtype=np.float32))
    small = np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX))
    detail = np.arcsinh(small - uniform_filter(small, 3, mode="nearest"))
    detail -= detail.mean()
    length = np.linalg.norm(detail)
    return (detail / length if length else detail).ravel().astype(np.float16)


class FineStructures:
    """The fine structures of pictures, on the disk until the block ends: those of a million take 2 GB."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile(prefix="hf_galaxy-")  # noqa: SIM115  # closed at the end of the block
        self.number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def append(self, structure: np.ndarray) -> None:
        self.file.write(structure.tobytes())
        self.number += 1

    def all(self) -> np.ndarray:
        """(N, SIDE * SIDE) float16."""
        shape = (self.number, SIDE * SIDE)
        self.file.flush()
        return np.memmap(self.file, np.float16, "r", shape=shape) if self.number else np.empty(shape, np.float16)


def pictures_alike(structures: np.ndarray) -> np.ndarray:
    """(M, 2) pairs of rows whose fine structures correlate by more than MIN_SIMILARITY: copies of one picture.

    Comparing all pairs would take N^2 time. Only pairs on the same side of BITS random planes, in one of BANDS draws, are
    compared: that includes a pair of correlation 0.9 with probability 0.98, one of 0.95 with 0.9999 (Charikar 2002,
    doi 10.1145/509907.509965).

    Args:
        structures: (N, SIDE * SIDE) of `fine_structure`, in memory or on the disk; rows of zeros are in no pair.

    Returns:
        Pairs that connect all copies: of many equal pictures each is paired with the first of them.
    """
    structures = np.asarray(structures)  # taking rows of a memmap would make a memmap each time
    filled = np.flatnonzero([structure.any() for structure in structures])
    hashes = np.fromiter((hash(structures[i].tobytes()) for i in filled), np.int64, len(filled))
    same = Groups.of_equal(hashes)
    equal, alike = filled[same.pairs()], [np.empty((0, 2), np.int64)]
    is_first = np.ones(len(filled), bool)
    is_first[same.pairs()[:, 1]] = False
    different = filled[is_first]
    del filled, hashes, same, is_first
    with tempfile.TemporaryFile(prefix="hf_galaxy-") as file:
        codes = _codes(structures, different, file)
        for band in codes.T:
            for groups in _of_one_code(band):
                alike.append(different[_alike_in(groups, codes.view(np.uint64), structures, different)])
    return np.concatenate([equal, np.unique(np.concatenate(alike), axis=0)])


def _codes(structures: np.ndarray, rows: np.ndarray, file: IO[bytes]) -> np.ndarray:
    """(len(rows), BANDS) uint16 on the disk: on which side of BITS random planes each fine structure is."""
    shape = (len(rows), BANDS)
    planes = np.random.default_rng(0).standard_normal((structures.shape[1], BANDS * BITS)).astype(np.float32)
    codes = np.memmap(file, np.uint16, "w+", shape=shape) if len(rows) else np.empty(shape, np.uint16)
    for i in range(0, len(rows), PROJECTED):
        sides = structures[rows[i : i + PROJECTED]].astype(np.float32) @ planes > 0
        codes[i : i + PROJECTED] = np.packbits(sides, axis=1).view(np.uint16)
    return np.asarray(codes)


def _alike_in(groups: np.ndarray, codes: np.ndarray, structures: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(M, 2) pairs within groups (G, k) that are alike: few planes are between them, and then their product is computed."""
    one, other = np.triu_indices(groups.shape[1], 1)
    near = codes[groups]
    between = np.bitwise_count(near[:, one] ^ near[:, other]).sum(axis=2, dtype=np.uint16)
    group, pair = np.nonzero(between <= MAX_BETWEEN * BANDS * BITS)
    pairs = np.stack([groups[group, one[pair]], groups[group, other[pair]]], axis=1)
    products = [
        np.einsum("ij,ij->i", *structures[rows[pairs[i : i + PROJECTED].T]].astype(np.float32))
        for i in range(0, len(pairs), PROJECTED)
    ]
    return np.sort(pairs[np.concatenate([np.empty(0), *products]) > MIN_SIMILARITY], axis=1)


def _of_one_code(codes: np.ndarray) -> Iterator[np.ndarray]:
    """Groups of rows that have one code, as (G, k) rows: G groups of the same size k > 1; a large one comes as all pairs of its pieces."""
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    sizes = np.diff(starts, append=len(order))
    for size in np.unique(sizes[sizes > 1]):
        first = starts[sizes == size]
        if size > LARGEST:
            for start in first:
                pieces = np.array_split(order[start : start + size], 2 * size // LARGEST)
                yield from (np.concatenate(two)[None] for two in combinations(pieces, 2))
            continue
        many = max(1, LARGEST**2 // size**2)
        for i in range(0, len(first), many):
            yield order[first[i : i + many, None] + np.arange(size)]
