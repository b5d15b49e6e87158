"""Galaxies in memory, such as a pandas DataFrame, as a dataset with a name: the folder of their import."""

from __future__ import annotations

from typing import Any

import pandas as pd

from hf_galaxy.importing.frames import NAME, open_frame
from hf_galaxy.importing.imported import import_source
from hf_galaxy.importing.reading import Reading


def is_galaxies(data: Any) -> bool:
    """Whether `name_of` gives a name to these data."""
    return isinstance(data, pd.DataFrame)


def name_of(data: Any, reading: Reading) -> str:
    """The folder of the dataset that is made of galaxies in memory, once; whoever is given it later opens the same galaxies.

    Args:
        data: as of `is_galaxies`.
        reading: which of its columns are the picture and the name, and where the pictures are.

    Raises:
        BadInput: as `open_frame` and `import_source`.
    """
    return str(import_source(open_frame(data, reading), NAME))
