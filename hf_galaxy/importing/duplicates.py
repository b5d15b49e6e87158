"""Rows of the same galaxy: by position in the sky, and by picture."""

import math
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
BANDS, BITS = 48, 16  # of up to 2^BITS pictures; see `_bands`
PLANES = BANDS * BITS
MORE_BANDS = 1.26  # times as many for each further bit
# Between two of MIN_SIMILARITY there are 0.177 of all planes on average, with a standard deviation of 0.014.
MAX_BETWEEN = 0.24
MAX_OF_64 = 25  # on average 11.3, with a standard deviation of 3.1
LARGEST = 700  # rows that are compared at once, each with each
MAX_PAIRS = 2_000_000  # pairs that are held, at least; more are replaced by those that connect the same rows
PROJECTED = 4096  # fine structures at once; a multiple of 8


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

    Comparing all pairs would take N^2 time. Only pairs on the same side of all planes of a band, in one of many bands of random planes,
    are compared: that includes a pair of correlation 0.86 with probability 0.916, one of 0.9 with 0.985, one of 0.95 with 0.9999
    (Charikar 2002, doi 10.1145/509907.509965). Bands grow with N, so that the time does little more than N (`_bands`).

    Args:
        structures: (N, SIDE * SIDE) of `fine_structure`, in memory or on the disk; rows of zeros are in no pair.

    Returns:
        Pairs that connect all copies: of many equal pictures each is paired with the first of them.
    """
    structures = np.asarray(structures)  # taking rows of a memmap would make a memmap each time
    filled = np.flatnonzero([structure.any() for structure in structures])
    hashes = np.fromiter((hash(structures[i].tobytes()) for i in filled), np.int64, len(filled))
    same = Groups.of_equal(hashes)
    equal = filled[same.pairs()]
    is_first = np.ones(len(filled), bool)
    is_first[same.pairs()[:, 1]] = False
    different = filled[is_first]
    del filled, hashes, same, is_first
    pairs = [np.empty((0, 2), np.int64)]  # of `different`
    most = max(MAX_PAIRS, 2 * len(different))
    with tempfile.TemporaryFile(prefix="hf_galaxy-") as file:
        codes, sides = _codes(structures, different, file)
        first_planes = codes[:, 0].copy()
        for band in _bands(len(different)):
            for groups in _of_one_code(_code(sides, band, len(different))):
                alike = _alike_in(_near(groups, first_planes), codes, structures, different)
                if len(alike):
                    pairs.append(alike)
                if sum(map(len, pairs)) > most:
                    pairs = [_once(np.concatenate(pairs), most // 2)]
    return np.concatenate([equal, different[_once(np.concatenate(pairs), most)]])


def _bands(rows: int) -> Iterator[np.ndarray]:
    """The planes of each band: BITS of them in BANDS bands for up to 2^BITS rows, then one more each time that rows double.

    So of N rows about N pairs share the code of a band by chance, however many rows there are, of N^2 / 2^BITS with codes of one length.
    A pair of correlation r is on one side of a plane with probability p = 1 - arccos(r) / pi, and shares a code of b bits with p^b:
    for each further bit 1 / p times as many bands find as many pairs, 1.215 times for MIN_SIMILARITY. So N^0.28 bands would do, if
    each had planes of its own. There are PLANES for all, which bands after the first BANDS share in other orders: as some
    pairs have more planes between them than others, that takes MORE_BANDS. A test computes what is found.
    """
    bits = max(BITS, (rows - 1).bit_length())
    rng, left = np.random.default_rng(1), math.ceil(BANDS * MORE_BANDS ** (bits - BITS))
    planes = np.arange(PLANES)
    while left > 0:
        yield from planes[: min(left, PLANES // bits) * bits].reshape(-1, bits)
        left -= PLANES // bits
        planes = rng.permutation(PLANES)


def _codes(structures: np.ndarray, rows: np.ndarray, file: IO[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """On which side of PLANES random planes each fine structure is, on the disk twice.

    Returns:
        (len(rows), PLANES / 64) uint64, one row after another, and (PLANES, len(rows) / 8 rounded up) uint8, one plane after another.
    """
    by_row, by_plane = (len(rows), PLANES // 8), (PLANES, -(-len(rows) // 8))
    if not len(rows):
        return np.empty((0, PLANES // 64), np.uint64), np.empty(by_plane, np.uint8)
    planes = np.random.default_rng(0).standard_normal((structures.shape[1], PLANES)).astype(np.float32)
    both = np.memmap(file, np.uint8, "w+", shape=math.prod(by_row) + math.prod(by_plane))
    codes, sides = both[: math.prod(by_row)].reshape(by_row), both[math.prod(by_row) :].reshape(by_plane)
    for i in range(0, len(rows), PROJECTED):
        above = structures[rows[i : i + PROJECTED]].astype(np.float32) @ planes > 0
        codes[i : i + PROJECTED] = np.packbits(above, axis=1)
        sides[:, i // 8 : (i + PROJECTED) // 8] = np.packbits(above, axis=0).T
    return np.asarray(codes).view(np.uint64), np.asarray(sides)


def _code(sides: np.ndarray, band: np.ndarray, rows: int) -> np.ndarray:
    """(rows,) uint32 of one band: a bit for each of its planes."""
    code = np.zeros(rows, np.uint32)
    for plane in band:
        code <<= 1
        code |= np.unpackbits(sides[plane], count=rows)
    return code


def _near(groups: np.ndarray, first_planes: np.ndarray) -> np.ndarray:
    """(M, 2) pairs within groups, (G, k), with few of the first 64 planes between them."""
    one, other = np.triu_indices(groups.shape[1], 1)
    sides = first_planes[groups]
    group, pair = np.nonzero(np.bitwise_count(sides[:, one] ^ sides[:, other]) <= MAX_OF_64)
    return np.stack([groups[group, one[pair]], groups[group, other[pair]]], axis=1)


def _alike_in(pairs: np.ndarray, codes: np.ndarray, structures: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(M, 2) those pairs that are alike, each in order: few of all planes are between them, and then their product is computed."""
    between = np.bitwise_count(codes[pairs[:, 0]] ^ codes[pairs[:, 1]]).sum(axis=1, dtype=np.uint16)
    pairs = pairs[between <= MAX_BETWEEN * PLANES]
    products = [
        np.einsum("ij,ij->i", *structures[rows[pairs[i : i + PROJECTED].T]].astype(np.float32))
        for i in range(0, len(pairs), PROJECTED)
    ]
    return np.sort(pairs[np.concatenate([np.empty(0), *products]) > MIN_SIMILARITY], axis=1)


def _once(pairs: np.ndarray, most: int) -> np.ndarray:
    """Each pair once, in order; if they are more, only as many as connect the same rows."""
    rows = pairs.max(initial=0) + 1
    pairs = np.stack(np.divmod(np.unique(pairs[:, 0] * rows + pairs[:, 1]), rows), axis=1)
    return Groups.of_pairs(pairs).pairs() if len(pairs) > most else pairs


def _of_one_code(codes: np.ndarray) -> Iterator[np.ndarray]:
    """Groups of rows that have one code, as (G, k) rows: G groups of the same size k > 1; a large one comes as all pairs of its pieces."""
    order = np.argsort(codes)
    ordered = codes[order]
    starts = np.concatenate([[0], 1 + np.flatnonzero(ordered[1:] != ordered[:-1])]) if len(codes) else order
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
