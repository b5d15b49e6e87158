"""Open a published dataset: a folder or a Hub id -> its splits, copied or streamed."""

from pathlib import Path

import datasets

from hf_galaxy.data.copied import open_copy
from hf_galaxy.data.schema import is_text
from hf_galaxy.data.streaming import open_stream
from hf_galaxy.data.targets import Rows
from hf_galaxy.errors import BadInput, NotPublished

VALIDATION_SHARE = 1 / 8  # of a train split without a validation split: 70 % and 10 % of all, as in `schema.SPLITS`


def open_published(name: str, config: str | None = None, streaming: bool = False) -> dict[str, Rows]:
    """The splits of a published dataset: ours, or any with the columns `id_str` and `image`, such as mwalmsley/gz_evo.

    Args:
        name: a folder or a Hub id.
        config: one of its configurations; None: its default.
        streaming: read Parquet files in place, as far as they are needed, instead of copying them to a cache first.

    Raises:
        NotPublished: it lacks one of these columns.
        BadInput: there is no such dataset.
    """
    if Path(name).exists() and not holds_parquet(Path(name)):
        raise BadInput(
            f"--dataset {name}: holds no galaxies: it is neither a folder of pictures, of Parquet files or of save_to_disk, nor a zip of "
            "pictures, nor a table (CSV, Parquet, FITS, VOTable, ECSV)"
        )
    if Path(name).is_dir():  # the datasets library finds no name in "." and ".."
        name = name if Path(name).name.strip(".") else str(Path(name).resolve())
    try:
        opened: dict[str, Rows] = {**(open_stream(name, config) if streaming else open_copy(name, config))}
    except BadInput as error:
        if not Path(name).exists():
            raise type(error)(f"{error}; nor is there a folder {name} here") from error
        raise
    for split, rows in opened.items():
        if missing := {"id_str", "image"} - set(rows.column_names):
            raise NotPublished(f"--dataset {name}: split {split} has no column {', '.join(sorted(missing))}")
        if not is_text(rows.features["id_str"]):
            raise NotPublished(
                f"--dataset {name}: split {split}: id_str holds {rows.features['id_str']}, but must hold text"
            )
        kind = rows.features["image"]
        if not isinstance(kind, datasets.Image) and not (isinstance(kind, dict) and "bytes" in kind):
            raise NotPublished(f"--dataset {name}: split {split}: column image holds {kind}, not pictures")
    return opened


def holds_parquet(folder: Path) -> bool:
    """Whether there are Parquet files in a folder, apart from hidden ones, which a command may be writing there."""
    files = (file.relative_to(folder) for file in folder.rglob("*.parquet"))
    return any(not any(part.startswith(".") for part in file.parts) for file in files)


def rows_of(opened: dict[str, Rows], split: str, name: str) -> Rows:
    """One split of an opened dataset.

    Args:
        name: of the dataset, for the message.

    Raises:
        BadInput: there is no such split.
    """
    if split not in opened:
        raise BadInput(f"--dataset {name}: has no split {split!r}, only {', '.join(opened)}")
    return opened[split]
