"""The same galaxy in several rows: found by its position in the sky, and by its picture."""

import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

# As in the data of huggingface.co/papers/2404.02973: closer than this, two rows are about the same galaxy.
SAME_GALAXY_ARCSEC = 20.0


def groups_on_the_sky(positions: np.ndarray, arcsec: float = SAME_GALAXY_ARCSEC) -> np.ndarray:
    """Which rows are within `arcsec` of each other, directly or through others.

    Args:
        positions: (N, 2) right ascension and declination in degrees; a row with NaN is alone.

    Returns:
        (N,) the number of each row's group, counted from 0.
    """
    known = np.flatnonzero(np.isfinite(positions).all(axis=1))
    ra, dec = np.radians(positions[known]).T
    points = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)
    # Two points of the unit sphere at an angle a are 2 sin(a / 2) apart. The smallest float beyond counts as within.
    chord = 2 * np.sin(np.radians(arcsec / 3600) / 2) * (1 + 1e-9)
    near = known[KDTree(points).query_pairs(chord, output_type="ndarray")] if len(known) else np.empty((0, 2), int)
    links = coo_array((np.ones(len(near), bool), (near[:, 0], near[:, 1])), shape=(len(positions),) * 2)
    return connected_components(links, directed=False)[1]


def picture_hash(picture: Image.Image) -> bytes:
    """256 bits of what a picture shows: equal for the same picture encoded again or scaled, hardly ever for two galaxies.

    A difference hash: the grey picture at 17 x 16 pixels, a bit for each pair of neighbours saying which is brighter.
    """
    small = np.asarray(picture.convert("L").resize((17, 16), Image.Resampling.BOX)).astype(np.int16)
    return np.packbits(small[:, 1:] > small[:, :-1]).tobytes()
