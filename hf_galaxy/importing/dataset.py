"""Open a dataset: published ones as they are, and whatever else holds galaxies once it is imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from hf_galaxy.data.band_names import check_bands
from hf_galaxy.data.dataset import VALIDATION_SHARE, open_published
from hf_galaxy.data.fluxes import FLUX, decode_fluxes
from hf_galaxy.data.pictures import Rendering
from hf_galaxy.data.schema import has_fluxes
from hf_galaxy.data.targets import column_of
from hf_galaxy.errors import BadInput, NotPublished
from hf_galaxy.importing.imported import is_lost, open_imported
from hf_galaxy.importing.joining import JoinedTable, with_joined
from hf_galaxy.importing.loaded import loaded_rows
from hf_galaxy.importing.raw import Raw, holds_its_pictures, raw_galaxies
from hf_galaxy.importing.reading import Reading
from hf_galaxy.randomness import hashed_place

if TYPE_CHECKING:
    from hf_galaxy.data.targets import Rows


def open_dataset(
    name: str, reading: Reading | None = None, streaming: bool | None = False, rendering: Rendering | None = None
) -> dict[str, Rows]:
    """The splits of a dataset.

    If there is no validation split, an eighth of the train split becomes one, selected by a hash of `id_str`.

    Args:
        name: a folder, a file, or a Hub id.
        reading: how it is read; None: as a published dataset in its default configuration, or by what its columns are called.
        streaming: read Parquet files in place, as far as they are needed, instead of copying them to a cache first; None: those
            that can be read so. What is imported is read from the files of its import.
        rendering: how files become pictures, as far as `reading` does not say so: that of a model which is to see them; None: the
            default one. The pictures of a published dataset have been rendered, and are as they are.

    Raises:
        BadInput: as `open_published`, `raw_galaxies`, `open_imported`, `JoinedTable.of` and `with_joined`; or a dataset of the Hub
            cannot be streamed.
    """
    reading = reading or Reading()
    if reading.bands is not None:
        check_bands(reading.bands)
    table = JoinedTable.of(reading)  # whatever is wrong with it is refused before anything is imported
    opened = _with_validation(_opened(name, reading, streaming, reading.rendering(rendering)))
    return with_joined(opened, table, name) if table else opened


R = TypeVar("R", bound=Reading)


def reading_of_each(names: Sequence[str], reading: R) -> list[R]:
    """How each of several datasets is read: --images are for those that need them, if there are such, and the others have their pictures."""
    held = [reading.images is not None and holds_its_pictures(name) for name in names]
    return [reading if all(held) or not each else replace(reading, images=None) for each in held]


def _opened(name: str, reading: Reading, streaming: bool | None, rendering: Rendering) -> dict[str, Rows]:
    if raw := raw_galaxies(name, reading):
        raw = raw.rendered(rendering)
        return open_imported(raw.source, name, raw.splits, streaming is not False, reading.same_galaxy_arcsec)
    if is_lost(name):
        raise BadInput(
            f"--dataset {name}: was made of galaxies in memory, and is not in the cache of the datasets library any more; make it again by a "
            "call with the same galaxies, or name another dataset"
        )
    asked = reading.image_column or reading.id_column
    try:
        if not asked or Path(name).exists():
            opened = open_published(name, reading.config, streaming is not False)
            if reading.images:
                raise BadInput(
                    f"--images {' '.join(map(str, reading.images))}: is for a table of galaxies; {name} is a published dataset, which "
                    "holds its pictures: leave --images out"
                )
            if given := next(iter(reading.rendering_options), None):
                raise BadInput(
                    f"--{given.replace('_', '-')}: is for files that become pictures; {name} is a published dataset, whose pictures stay as "
                    "they are: leave it out"
                )
            if reading.bands:
                _check_fluxes(opened, reading.bands, name)
            return opened
        why = f"is not read as it is, with {'--image-column' if reading.image_column else '--id-column'}"
    except NotPublished as error:
        why = str(error).removeprefix(f"--dataset {name}: ")
    if streaming:
        raise BadInput(
            f"--dataset {name}: {why}, so it cannot be streamed; leave out --streaming, and it is downloaded and imported"
        )
    raw = Raw.of_rows(loaded_rows(name, None, reading)).rendered(rendering)
    return open_imported(raw.source, name, raw.splits, streaming is not False, reading.same_galaxy_arcsec)


def _check_fluxes(opened: dict[str, Rows], bands: Sequence[str], name: str) -> None:
    """Refuse a dataset without fluxes, or without some of the bands, by its first row."""
    rows = next((rows for rows in opened.values() if len(rows)), None)
    if rows is None:
        return
    asked = f"--bands {' '.join(bands)}"
    if not has_fluxes(rows.features):
        raise BadInput(
            f"{asked}: {name} has no column {FLUX} with fluxes, but pictures; publish it with {asked} from the files of fluxes, or name a "
            "column of such files or of arrays with --image-column"
        )
    first = rows.select_columns([FLUX])[[0]][FLUX].combine_chunks().field("bytes")[0].as_py()
    try:
        decode_fluxes(first, bands)
    except BadInput as error:
        raise BadInput(f"{asked}: the first row of {name} {error}") from error


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
