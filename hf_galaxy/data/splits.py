"""Rows of a split, chosen by a hash of their names: folds of a small dataset, and nested subsets of a training split."""

import numpy as np

from hf_galaxy.data.dataset import VALIDATION_SHARE
from hf_galaxy.data.schema import SPLITS
from hf_galaxy.data.targets import Rows, Target, tables_of
from hf_galaxy.errors import BadInput
from hf_galaxy.randomness import hashed_place

FOLDS = 5  # a fifth is tested: with an eighth of the rest for validation the shares are those of published splits


def in_fold(opened: dict[str, Rows], fold: int, name: str) -> dict[str, Rows]:
    """The galaxies of all published splits of a dataset, in the splits of one fold: 70, 10 and 20 % of them.

    A hash of its `id_str` chooses the one fold in which a galaxy is in the test split. In each other fold another hash, which
    depends on the fold, chooses the validation split: so each galaxy is in the training split of some fold, and folds choose their
    best epochs by different galaxies.

    Args:
        opened: as `dataset.open_dataset` returns it; some of the three splits may be missing.
        fold: 1 to FOLDS.
        name: of the dataset, for the message.

    Raises:
        BadInput: there is no such split, their columns differ, or one of the fold's would be empty.
    """
    if not (parts := [opened[split] for split in SPLITS if split in opened]):
        raise BadInput(f"--dataset {name}: has none of the splits {', '.join(SPLITS)}, only {', '.join(opened)}")
    if any(part.features != parts[0].features for part in parts):
        raise BadInput(f"--dataset {name}: --fold needs splits with the same columns, of the same types")
    rows = type(parts[0]).concatenated(parts)  # type: ignore[arg-type]  # all parts have the type of the first
    ids = [id_str for table in tables_of(rows, ["id_str"]) for id_str in table["id_str"].to_pylist()]
    tested = np.array([int(FOLDS * hashed_place(f"fold of {id_str}")) == fold - 1 for id_str in ids], bool)
    validating = np.array(
        [hashed_place(f"validation in fold {fold} of {id_str}") < VALIDATION_SHARE for id_str in ids], bool
    )
    chosen = {"train": ~tested & ~validating, "validation": ~tested & validating, "test": tested}
    if empty := [split for split, which in chosen.items() if not which.any()]:
        raise BadInput(f"--dataset {name}: --fold {fold} leaves none of its {len(rows):,} galaxies for {empty[0]}")
    return {split: rows.select(np.flatnonzero(which)) for split, which in chosen.items()}


def strata_of(rows: Rows, target: Target) -> np.ndarray:
    """(N,) int64: the stratum of each galaxy, as `Target.strata` gives it. Pictures are not read, and some rows at a time.

    Raises:
        BadInput: as `targets.tables_of`.
    """
    parts = [target.strata(table, rows.features) for table in tables_of(rows, [], target)]
    return np.concatenate([np.empty(0, np.int64), *parts])


def subset(rows: Rows, strata: np.ndarray, share: float, seed: int) -> np.ndarray:
    """(n,) growing indices of round(share * N) galaxies, which for a smaller share are some of those for a larger.

    A galaxy has a place in [0, 1) of its stratum: of n galaxies, the one with the r-th smallest hash of seed and `id_str`,
    from r = 0, has the place (r + u) / n, where u in [0, 1) is a hash of seed and stratum. Chosen are the galaxies with the
    first places. So each stratum gives its share of galaxies, give or take one (the largest make up for what is left over
    by many small ones); strata of one galaxy together give theirs, where rounding for each would give none; and any
    galaxy is as likely as any other.

    The choice depends on names, strata and seed alone, not on the order of the rows or on the splits.

    Args:
        strata: (N,) any integers, such as `strata_of` gives.
        share: of the galaxies, in (0, 1].

    Raises:
        BadInput: the share is not in (0, 1], or leaves no galaxy.
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
