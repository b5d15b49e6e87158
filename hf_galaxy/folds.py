"""Cross-validation: a small dataset divided anew, so that the tests of all folds together are of every galaxy, each once.

Splits stay those that were published wherever they are large enough to test on: results on them can be compared.
"""

import numpy as np

from hf_galaxy.data import VALIDATION_SHARE, Rows, tables_of
from hf_galaxy.errors import BadInput
from hf_galaxy.schema import SPLITS, hashed_place

FOLDS = 5  # a fifth is tested: with an eighth of the rest for validation the shares are those of published splits


def in_fold(opened: dict[str, Rows], fold: int, name: str) -> dict[str, Rows]:
    """The galaxies of all published splits of a dataset, in the splits of one fold: 70, 10 and 20 % of them.

    A galaxy is tested in the fold that a hash of its `id_str` says, and only there. In each other fold another hash, which is
    of the fold too, chooses those that validate: so no galaxy validates in all of them and is never learnt from, and the folds
    choose their best epochs by different galaxies.

    Args:
        opened: as `data.open_dataset` gives it; of the three splits it may lack some.
        fold: 1 to FOLDS.
        name: of the dataset, for the message.

    Raises:
        BadInput: there is no such split, their columns differ, or one of the fold's would be empty.
    """
    if not (parts := [opened[split] for split in SPLITS if split in opened]):
        raise BadInput(f"--dataset {name}: has none of the splits {', '.join(SPLITS)}, only {', '.join(opened)}")
    if any(part.features != parts[0].features for part in parts):
        raise BadInput(f"--dataset {name}: --fold needs splits with the same columns, of the same types")
    rows = type(parts[0]).concatenated(parts)
    ids = [id_str for table in tables_of(rows, ["id_str"]) for id_str in table["id_str"].to_pylist()]
    tested = np.array([int(FOLDS * hashed_place(f"fold of {id_str}")) == fold - 1 for id_str in ids], bool)
    validating = np.array(
        [hashed_place(f"validation in fold {fold} of {id_str}") < VALIDATION_SHARE for id_str in ids], bool
    )
    chosen = {"train": ~tested & ~validating, "validation": ~tested & validating, "test": tested}
    if empty := [split for split, which in chosen.items() if not which.any()]:
        raise BadInput(f"--dataset {name}: --fold {fold} leaves none of its {len(rows):,} galaxies for {empty[0]}")
    return {split: rows.select(np.flatnonzero(which)) for split, which in chosen.items()}
