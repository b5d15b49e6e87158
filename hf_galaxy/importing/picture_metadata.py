"""Tables beside pictures, metadata.csv, .jsonl or .parquet, as `imagefolder` of the datasets library reads them."""

from __future__ import annotations

import io
from collections.abc import Mapping

import datasets
import pandas as pd
import pyarrow as pa

from hf_galaxy.data.picture_files import Pictures
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.folders import Contents
from hf_galaxy.importing.guess import ID_NAMES, plain
from hf_galaxy.importing.plan import LeftOut

FILE = "file_name"  # column of the pictures' paths, relative to the table


def read_metadata(
    name: str, contents: Contents, pictures: Pictures, starts: Mapping[str, str], skip_missing: bool
) -> tuple[dict[str, datasets.Dataset], int, list[LeftOut]]:
    """The rows of all tables, by split, the number of pictures that are in none, and the rows without a picture.

    Args:
        name: of the dataset, for messages.
        starts: how the paths of the pictures in each split begin, and its name.
        skip_missing: leave out rows without a picture.

    Raises:
        BadInput: a table cannot be read, or a row has no picture.
    """
    known = set(contents.pictures)
    tables, lost = [], []
    for file in contents.metadata:
        table = _table(name, file, pictures)
        folder = file.rpartition("/")[0]
        paths = table[FILE].astype(str).str.replace("\\", "/")
        table[FILE] = f"{folder}/" + paths if folder else paths
        missing = ~table[FILE].isin(known)
        if missing.any() and not skip_missing:
            row = int(missing.argmax())
            raise BadInput(
                f"--dataset {name}: {file}, row {row + 1}: there is no picture {table[FILE][row]}; --skip-missing leaves such rows out"
            )
        reason = f"{file}: there is no such picture"
        lost += [LeftOut("", int(row) + 1, table[FILE][row], reason) for row in missing.to_numpy().nonzero()[0]]
        tables.append(table[~missing])
    rows = pd.concat(tables, ignore_index=True)
    try:
        whole = datasets.Dataset(pa.Table.from_pandas(rows, preserve_index=False))
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        reason = " ".join(map(str, error.args))
        raise BadInput(
            f"--dataset {name}: {contents.metadata[0]}: a column holds values of several types ({reason})"
        ) from error
    places = {split: rows[FILE].str.startswith(start).to_numpy().nonzero()[0] for start, split in starts.items()}
    return {split: whole.select(chosen) for split, chosen in places.items()}, len(known - {*rows[FILE]}), lost


def _table(name: str, file: str, pictures: Pictures) -> pd.DataFrame:
    """One table; names of galaxies keep the zeros that they begin with.

    Raises:
        BadInput: it cannot be read, or has no column of the pictures' paths.
    """
    content = pictures.read(file)
    try:
        if file.endswith(".csv"):
            columns = pd.read_csv(io.BytesIO(content), nrows=0).columns
            texts = dict.fromkeys((c for c in columns if plain(c) in ID_NAMES), "str")
            table = pd.read_csv(io.BytesIO(content), dtype=texts)
        elif file.endswith(".jsonl"):
            table = pd.read_json(io.BytesIO(content), lines=True, dtype=False)
        else:
            table = pd.read_parquet(io.BytesIO(content))
    except (OSError, ValueError) as error:
        raise BadInput(f"--dataset {name}: {file}: cannot be read ({' '.join(str(error).split())})") from error
    if FILE not in table:
        has = ", ".join(map(str, table.columns[:20]))
        raise BadInput(f"--dataset {name}: {file}: has no column {FILE}, with the paths of the pictures, only {has}")
    return table.reset_index(drop=True)
