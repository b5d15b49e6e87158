"""Neighbours on the sphere, by right ascension and declination in degrees. Legend: N and M rows, K pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from scipy.spatial import KDTree

# Rings around galaxies, in radii of a match, where the rows of another table that are there by chance are counted.
RING = (5.0, 20.0)
ROWS_OF_BAND = 50_000


def on_sphere(positions: np.ndarray) -> np.ndarray:
    """(N, 3) points of the unit sphere.

    Args:
        positions: (N, 2) right ascension and declination in degrees.
    """
    ra, dec = np.radians(positions).T
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)


def chord_of(arcsec: float) -> float:
    """How far two points of the unit sphere at this angle are apart. The smallest float beyond counts as within."""
    return 2 * float(np.sin(np.radians(min(arcsec / 3600, 180)) / 2)) * (1 + 1e-9)


def arcsec_of(chords: np.ndarray) -> np.ndarray:
    """The angles between points of the unit sphere that are so far apart."""
    return np.degrees(2 * np.arcsin(np.minimum(chords / 2, 1))) * 3600


def pairs_within(positions: np.ndarray, arcsec: float) -> np.ndarray:
    """(K, 2) pairs of rows within `arcsec` of each other, in bands of declination: a tree of all rows would need some 100 bytes for each.

    Args:
        positions: (N, 2) right ascension and declination in degrees; a row with NaN has no neighbour.
    """
    order = np.argsort(positions[:, 1]).astype(np.int32)
    order = order[(np.isfinite(positions[:, 0]) & np.isfinite(positions[:, 1]))[order]]
    pairs = [np.empty((0, 2), np.int64)]
    for first in range(0, len(order), ROWS_OF_BAND):
        end = last = min(first + ROWS_OF_BAND, len(order))
        # A margin for the rounding of chords, which near the poles tells more than that of declinations.
        beyond = positions[order[end - 1], 1] + arcsec / 3600 * (1 + 1e-6) + 1e-9
        while last < len(order) and positions[order[last], 1] <= beyond:
            last += int(np.searchsorted(positions[order[last : last + ROWS_OF_BAND], 1], beyond, side="right"))
        band = order[first:last]
        _, tree = _tree(positions[band])
        near = tree.query_pairs(chord_of(arcsec), output_type="ndarray")
        own = near.min(axis=1, initial=len(band)) < end - first  # other pairs are of the next band
        pairs.append(band[near[own]])
    return np.concatenate(pairs)


class Matches(NamedTuple):
    """The rows of another table that are the same objects as ours.

    Attributes:
        rows: (N,) the row of the other table for each of ours; -1: none.
        arcsec: (N,) how far it is; NaN where there is none.
        ambiguous: number of matched rows that had further candidates within the radius.
        nearer: number of rows whose nearest candidate is nearer to another of our rows, and which so have no match.
        by_chance: number of matches to expect if nothing in the other table were the same object.
    """

    rows: np.ndarray
    arcsec: np.ndarray
    ambiguous: int
    nearer: int
    by_chance: float


def match(ours: np.ndarray, theirs: np.ndarray, arcsec: float) -> Matches:
    """The nearest row within a radius, if ours is also the nearest to that: so no row of the other table is there twice.

    Args:
        ours, theirs: (N, 2) and (M, 2) right ascension and declination in degrees; a row with NaN has no match.
        arcsec: the radius.
    """
    rows, separations = np.full(len(ours), -1), np.full(len(ours), np.nan)
    known, tree = _tree(ours)
    others, other_tree = _tree(theirs)
    if not len(known) or not len(others):
        return Matches(rows, separations, 0, 0, 0.0)
    # Beyond the radius the distance is infinite, and the index the number of points.
    chords, nearest = other_tree.query(tree.data, k=2, distance_upper_bound=chord_of(arcsec))
    near = np.flatnonzero(np.isfinite(chords[:, 0]))
    back, _ = tree.query(other_tree.data[nearest[near, 0]])
    mutual = near[chords[near, 0] <= back * (1 + 1e-9)]
    # Of rows of ours at the same place the first has the match.
    _, firsts = np.unique(nearest[mutual, 0], return_index=True)
    matched = mutual[firsts]
    rows[known[matched]] = others[nearest[matched, 0]]
    separations[known[matched]] = arcsec_of(chords[matched, 0])
    ambiguous = int(np.isfinite(chords[matched, 1]).sum())
    return Matches(rows, separations, ambiguous, len(near) - len(matched), _by_chance(tree, other_tree, arcsec))


def nearest(ours: np.ndarray, theirs: np.ndarray) -> float | None:
    """The smallest separation in arcsec of a row of ours and one of theirs, as of `match`; None: one side has no positions."""
    known, tree = _tree(ours)
    others, other_tree = _tree(theirs)
    if not len(known) or not len(others):
        return None
    chords, _ = other_tree.query(tree.data)
    return float(arcsec_of(chords.min()))


def _by_chance(tree: KDTree, others: KDTree, arcsec: float) -> float:
    """How many of the points have one of the others within a radius by chance, by the density of the others in a ring around each."""
    inner, outer = (chord_of(arcsec * factor) for factor in RING)
    within, beyond = tree.count_neighbors(others, np.array([inner, outer]))
    area = outer**2 - inner**2  # of the sphere between two chords, as that of a cap is pi times its chord squared
    if not area:
        return float(tree.n)  # the ring is no smaller than the sky
    number = float(beyond - within) * chord_of(arcsec) ** 2 / area
    return float(tree.n * -np.expm1(-number / tree.n))  # a point with several of them has one match


def _tree(positions: np.ndarray) -> tuple[np.ndarray, KDTree]:
    """The rows whose positions are known, and their points."""
    from scipy.spatial import KDTree

    known = np.flatnonzero(np.isfinite(positions).all(axis=1))
    return known, KDTree(on_sphere(positions[known]))
