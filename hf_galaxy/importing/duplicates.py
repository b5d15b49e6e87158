"""Rows of the same galaxy: by position in the sky, and by picture."""

import tempfile
from typing import Self

import numpy as np
from PIL import Image

from hf_galaxy.importing.sky import pairs_within

# As in the data of huggingface.co/papers/2404.02973: rows closer than this are the same galaxy.
SAME_GALAXY_ARCSEC = 20.0
SIDE = 32  # pixels
MIN_SIMILARITY = 0.85  # of the fine structures of one picture
BANDS, BITS = 48, 16


def pairs_on_the_sky(positions: np.ndarray, arcsec: float = SAME_GALAXY_ARCSEC) -> np.ndarray:
    """(M, 2) pairs of rows within `arcsec` of each other.

    Args:
        positions: (N, 2) right ascension and declination in degrees; a row with NaN has no neighbour.
    """
    return pairs_within(positions, arcsec)


def groups_on_the_sky(positions: np.ndarray, arcsec: float = SAME_GALAXY_ARCSEC) -> np.ndarray:
    """(N,) group number of each row, from 0: groups are rows within `arcsec` of each other, directly or through others."""
    return groups_of_pairs(pairs_on_the_sky(positions, arcsec), len(positions))


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
    filled = np.array([i for i, structure in enumerate(structures) if structure.any()], int)
    hashes = np.array([hash(structures[i].tobytes()) for i in filled], np.int64)
    _, firsts, same = np.unique(hashes, return_index=True, return_inverse=True)
    earlier = filled[firsts[same]]
    equal = np.stack([earlier, filled], axis=1)[earlier != filled]
    different = filled[np.sort(firsts)]
    planes = np.random.default_rng(0).standard_normal((structures.shape[1], BANDS * BITS)).astype(np.float32)
    codes = np.concatenate(
        [
            np.packbits(structures[different[i : i + 4096]].astype(np.float32) @ planes > 0, axis=1)
            for i in range(0, len(different), 4096)
        ]
        or [np.empty((0, BANDS * BITS // 8), np.uint8)]
    ).view(np.uint16)  # BITS bits each
    pairs = [equal]
    for band in codes.T:
        order = np.argsort(band, kind="stable")
        for group in np.split(order, np.flatnonzero(np.diff(band[order])) + 1):
            if len(group) > 1:
                near = structures[different[group]].astype(np.float32)
                alike = different[group[np.argwhere(np.triu(near @ near.T > MIN_SIMILARITY, 1))]]
                pairs.append(np.sort(alike, axis=1))
    return np.unique(np.concatenate(pairs), axis=0)


def groups_of_pairs(pairs: np.ndarray, rows: int) -> np.ndarray:
    """(rows,) group number of each row, from 0: groups are rows that pairs connect, directly or through others."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(rows, rows))
    return connected_components(links, directed=False)[1]
