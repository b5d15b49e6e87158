"""A share of a split, for runs on fewer galaxies: the smaller shares are inside the larger, all kinds of galaxies in each.

Legend of shapes: N rows.
"""

import numpy as np

from hf_galaxy.data import Label, Rows, tables_of
from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.errors import BadInput
from hf_galaxy.schema import hashed_place, votes_in


def strata_of(rows: Rows, target: DecisionTree | Label) -> np.ndarray:
    """(N,) int64: what kind each galaxy is of. Pictures are not read, and of the votes some rows at a time.

    Returns:
        For a label the index of the class, -1 without one. For a tree the campaigns in which the galaxy has any votes:
        bit c is set for campaign c of `tree.campaigns`.

    Raises:
        BadInput: as `data.columns_of`.
    """
    kinds = [np.empty(0, np.int64)]
    for table in tables_of(rows, [], target):
        if isinstance(target, Label):
            kinds.append(target.indices(table, rows.features[target.column]))
        else:
            asked = votes_in(table, target) > 0
            answers = [
                [a for a, q in enumerate(target.question_of_answer) if q in qs] for qs in target.campaigns.values()
            ]
            kinds.append(sum(asked[:, of].any(axis=1).astype(np.int64) << c for c, of in enumerate(answers)))
    return np.concatenate(kinds)


def subset(rows: Rows, strata: np.ndarray, share: float, seed: int) -> np.ndarray:
    """(n,) growing indices of round(share * N) galaxies, which for a smaller share are some of those for a larger.

    A galaxy has a place in [0, 1) of its stratum: of n galaxies, the one with the r-th smallest hash of seed and `id_str`,
    from r = 0, has the place (r + u) / n, where u in [0, 1) is a hash of seed and stratum. Chosen are the galaxies with the
    first places. So each stratum gives its share of galaxies, give or take one (the largest make up for what is left over
    by many small ones); strata of one galaxy together give theirs, where rounding for each would give none; and any
    galaxy is as likely as any other.

    The choice depends on names, strata and seed alone, not on the order of the rows, nor does it know the splits.

    Args:
        strata: (N,) any integers, such as `strata_of` gives.
        share: of the galaxies, in (0, 1].

    Raises:
        BadInput: the share is none, or leaves no galaxy.
    """
    count = round(share * len(rows)) if 0 < share <= 1 else 0
    if not count:
        raise BadInput(f"a share of {share} of {len(rows):,} galaxies: must be in (0, 1] and leave at least one")
    names = (name for table in tables_of(rows, ["id_str"]) for name in table["id_str"].to_pylist())
    hashes = np.fromiter((hashed_place(f"subset {seed} of {name}") for name in names), float, len(rows))
    order = np.lexsort((hashes, strata))
    kinds, sizes = np.unique(strata, return_counts=True)
    offsets = np.array([hashed_place(f"stratum {kind} of subset {seed}") for kind in kinds])
    ranks = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    places = (ranks + np.repeat(offsets, sizes)) / np.repeat(sizes, sizes)
    return np.sort(order[np.lexsort((hashes[order], places))[:count]])
