"""What the datasets library loads, from files or from the Hub, or has in memory, as rows. No code of a dataset is run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets

from hf_galaxy.data.picture_files import Pictures
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.dataset_rows import DatasetRows
from hf_galaxy.importing.folders import Contents
from hf_galaxy.importing.reading import Reading

WHOLE = "all"  # split of what has none
# The loaders of the datasets library for single files.
LOADERS = {".parquet": "parquet", ".arrow": "arrow", ".tar": "webdataset"}


def saved_rows(name: str, contents: Contents, reading: Reading) -> DatasetRows:
    """The rows of a folder of `save_to_disk`.

    Raises:
        BadInput: it cannot be loaded, or as `DatasetRows.read`.
    """
    if reading.config:
        raise BadInput(f"--dataset {name}: is a folder of save_to_disk, which has no configurations")
    try:
        loaded = datasets.load_from_disk(str(contents.path))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _not_loaded(name, error) from error
    return object_rows(name, loaded, reading, [contents.path])


def loaded_rows(name: str, path: Path | None, reading: Reading) -> DatasetRows:
    """The rows of a folder of Parquet, Arrow or WebDataset files, of one such file, or of a dataset on the Hub.

    Args:
        name: of the dataset, as it was given.
        path: of the folder or file; None: it is on the Hub.

    Raises:
        BadInput: it cannot be loaded, or as `DatasetRows.read`.
    """
    single = {} if path is None or path.is_dir() else {"data_files": str(path)}
    source = LOADERS[path.suffix] if single and path else name if path is None else str(path.resolve())
    try:
        loaded = datasets.load_dataset(source, reading.config, **single)
    except (OSError, ValueError, RuntimeError, KeyError, datasets.exceptions.DatasetsError) as error:
        raise _not_loaded(name, error) from error
    folder = None if path is None else path if path.is_dir() else path.parent
    return object_rows(name, loaded, reading, [folder] if folder else [])


def object_rows(name: str, loaded: Any, reading: Reading, folders: list[Path] | None = None) -> DatasetRows:
    """The rows of a `datasets.Dataset` or `DatasetDict`.

    Args:
        name: of the dataset, for messages.
        folders: where picture files may be, beside those of --images.

    Raises:
        BadInput: as `DatasetRows.read`.
    """
    splits: Mapping[str, datasets.Dataset] = loaded if isinstance(loaded, Mapping) else {WHOLE: loaded}
    places = [*(reading.images or ()), *(folders or ())]
    return DatasetRows.read(name, splits, reading, Pictures(places) if places else None)


def _not_loaded(name: str, error: Exception) -> BadInput:
    reason = " ".join(str(error.__cause__ or error).split())  # datasets keeps the reason behind its own error
    dots = "; in a .tar the name of a galaxy ends at its first dot: write others in place of those in names, as in J0004-00_5.jpg"
    return BadInput(f"--dataset {name}: cannot be loaded ({reason}){dots if 'WebDataset format' in reason else ''}")
