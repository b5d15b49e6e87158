"""Galaxies in memory, a `datasets.Dataset` or a pandas DataFrame, as a dataset with a name: the folder of their import."""

from __future__ import annotations

from typing import Any

import datasets
import pandas as pd

from hf_galaxy.data.band_names import check_bands
from hf_galaxy.data.pictures import Rendering
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.frames import NAME, open_frame
from hf_galaxy.importing.imported import import_source
from hf_galaxy.importing.loaded import object_rows
from hf_galaxy.importing.raw import Raw
from hf_galaxy.importing.reading import Reading

STREAMS = datasets.IterableDataset | datasets.IterableDatasetDict


def is_galaxies(data: Any) -> bool:
    """Whether `name_of` gives a name to these data."""
    return isinstance(data, pd.DataFrame | datasets.Dataset | datasets.DatasetDict | STREAMS)


def name_of(data: Any, reading: Reading, rendering: Rendering | None = None) -> str:
    """The folder of the dataset that is made of galaxies in memory, once; whoever is given it later opens the same galaxies.

    Args:
        data: as of `is_galaxies`.
        reading: which of its columns are the picture and the name, and where the pictures are.
        rendering: as of `open_dataset`.

    Raises:
        BadInput: as `check_bands`, `open_frame`, `object_rows` and `import_source`; or the data are a stream.
    """
    if reading.bands is not None:
        check_bands(reading.bands)
    rendering = reading.rendering(rendering)
    if isinstance(data, pd.DataFrame):
        catalogue = open_frame(data, reading).rendered(rendering)
        return str(import_source(catalogue, NAME, arcsec=reading.same_galaxy_arcsec))
    if isinstance(data, STREAMS):
        raise BadInput(f"data: a {type(data).__name__} is a stream; load the dataset without streaming=True")
    raw = Raw.of_rows(object_rows(type(data).__name__, data, reading)).rendered(rendering)
    return str(import_source(raw.source, type(data).__name__, raw.splits, reading.same_galaxy_arcsec))
