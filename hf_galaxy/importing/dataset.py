"""Open a dataset: published ones as they are, and whatever else holds galaxies once it is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hf_galaxy.data.dataset import VALIDATION_SHARE, open_published
from hf_galaxy.data.targets import column_of
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.imported import open_imported
from hf_galaxy.importing.raw import raw_galaxies
from hf_galaxy.importing.reading import Reading
from hf_galaxy.randomness import hashed_place

if TYPE_CHECKING:
    from hf_galaxy.data.targets import Rows


def open_dataset(name: str, reading: Reading | None = None, streaming: bool = False) -> dict[str, Rows]:
    """The splits of a dataset.

    If there is no validation split, an eighth of the train split becomes one, selected by a hash of `id_str`.

    Args:
        name: a folder or a Hub id.
        reading: how it is read; None: a published dataset, in its default configuration.
        streaming: read Parquet files in place, as far as they are needed, instead of copying them to a cache first.

    Raises:
        BadInput: as `open_published`, `raw_galaxies` and `open_imported`.
    """
    reading = reading or Reading()
    raw = raw_galaxies(name, reading)
    if raw is None and reading.images:
        raise BadInput(
            f"--images {' '.join(map(str, reading.images))}: is for a table of galaxies; {name} is a published dataset, which holds its "
            "pictures: leave --images out"
        )
    opened = (
        open_imported(raw.source, name, raw.splits, streaming)
        if raw
        else open_published(name, reading.config, streaming)
    )
    return _with_validation(opened)


def _with_validation(opened: dict[str, Rows]) -> dict[str, Rows]:
    if "train" not in opened or "validation" in opened:
        return opened
    train = opened["train"]
    ids = column_of(train, "id_str").to_pylist()
    in_validation = np.array([hashed_place(f"validation of {id_str}") < VALIDATION_SHARE for id_str in ids])
    return opened | {
        "train": train.select(np.flatnonzero(~in_validation)),
        "validation": train.select(np.flatnonzero(in_validation)),
    }
