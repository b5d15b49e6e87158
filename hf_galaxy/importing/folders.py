"""What lies in a folder or a zip: pictures, tables, files of rows."""

from __future__ import annotations

import os
import zipfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from hf_galaxy.data.picture_files import FLUX_SUFFIXES, SUFFIXES
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.guess import IMAGE_NAMES, named_like

METADATA = (
    "metadata.csv",
    "metadata.jsonl",
    "metadata.parquet",
)  # beside the pictures, as `imagefolder` of datasets reads them
SAVED = ("dataset_dict.json", "state.json")  # one of these is in a folder of `save_to_disk`
ROWS = (".parquet", ".arrow", ".tar")


@dataclass(frozen=True)
class Contents:
    """The files of a folder or a zip, sorted, apart from hidden ones.

    Attributes:
        path: of the folder or zip.
        files: their paths in it, with "/".
        folders: paths of the folders in it.
        hidden: number of pictures that are hidden, or in hidden folders such as .ipynb_checkpoints.
        suffixes: of the files that are pictures.
    """

    path: Path
    files: tuple[str, ...]
    folders: tuple[str, ...]
    hidden: int
    suffixes: tuple[str, ...] = SUFFIXES

    @classmethod
    def of(cls, path: Path, fluxes: bool = False) -> Contents:
        """List them.

        Args:
            fluxes: files that hold only fluxes, such as .npy, are pictures, too.

        Raises:
            BadInput: a zip is damaged, or a folder cannot be read.
        """
        try:
            files, folders = _in_zip(path) if path.is_file() else _in_folder(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise BadInput(f"--dataset {path}: cannot be listed ({error})") from error
        visible = sorted(file for file in files if not is_hidden(file))
        suffixes = (*SUFFIXES, *FLUX_SUFFIXES) if fluxes else SUFFIXES
        hidden = sum(is_hidden(file) and file.lower().endswith(suffixes) for file in files)
        shown = tuple(sorted(each for each in folders if not is_hidden(each)))
        return cls(path, tuple(visible), shown, hidden, suffixes)

    @cached_property
    def pictures(self) -> list[str]:
        """Those that are pictures by their names."""
        return [file for file in self.files if self.is_picture(file)]

    def is_picture(self, name: str) -> bool:
        """Whether a file is a picture by its name."""
        return name.lower().endswith(self.suffixes)

    @cached_property
    def metadata(self) -> list[str]:
        """Tables beside the pictures."""
        return [file for file in self.files if PurePosixPath(file).name in METADATA]

    @cached_property
    def rows(self) -> list[str]:
        """Files that may hold whole rows, with their pictures."""
        return [file for file in self.files if file.endswith(ROWS) and file not in self.metadata]

    @property
    def is_saved(self) -> bool:
        """Whether `save_to_disk` of the datasets library made it."""
        return any(name in self.files for name in SAVED)

    @property
    def holds_rows(self) -> bool:
        """Whether there are rows with their pictures, rather than files of pictures: predictions beside these do not count."""
        if self.is_saved or not self.rows:
            return self.is_saved
        return not self.pictures or _has_picture(self.path / self.rows[0])

    def others(self, used: Iterable[str] = ()) -> str:
        """How many files are neither pictures nor used, by their kind; empty if there are none."""
        known = {*self.pictures, *used}
        counts = Counter(PurePosixPath(file).suffix.lower() or file for file in self.files if file not in known)
        return ", ".join(f"{number:,} {kind}" for kind, number in counts.most_common(5))


def is_hidden(name: str) -> bool:
    """Whether a program keeps a file for itself: .ipynb_checkpoints/galaxy-checkpoint.png, __MACOSX/._galaxy.png."""
    return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)


def schema_of(file: Path) -> pa.Schema | None:
    """The columns of a Parquet file; None if it is none."""
    try:
        return pq.read_schema(file)
    except (OSError, pa.ArrowInvalid):
        return None


def stands_by_path(file: Path) -> bool:
    """Whether the pictures of a Parquet file are files elsewhere, so that it holds their paths alone."""
    footer = pq.read_metadata(file)
    if not footer.num_rows:
        return False
    group = footer.row_group(0)
    statistics = {(chunk := group.column(c)).path_in_schema: chunk.statistics for c in range(group.num_columns)}
    contents, paths = statistics.get("image.bytes"), statistics.get("image.path")
    if contents is None or paths is None or not (contents.has_null_count and paths.has_null_count):
        return False
    return bool(contents.null_count == group.num_rows > paths.null_count)


def is_published(file: Path) -> bool:
    """Whether a Parquet file has the columns of published datasets, with the pictures in it."""
    schema = schema_of(file)
    if schema is None or not {"id_str", "image"} <= set(schema.names):
        return False
    name, image = schema.field("id_str").type, schema.field("image").type
    is_text = pa.types.is_string(name) or pa.types.is_large_string(name)
    return is_text and pa.types.is_struct(image) and not stands_by_path(file)


def _has_picture(file: Path) -> bool:
    """Whether a file of rows has a column of pictures or of their paths."""
    if file.suffix != ".parquet":
        return True
    schema = schema_of(file)
    if schema is None:
        return False
    structs = any(pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0 for field in schema)
    return structs or named_like(schema.names, IMAGE_NAMES) is not None


def _in_folder(path: Path) -> tuple[list[str], list[str]]:
    files, folders = [], []

    def refuse(error: OSError) -> None:
        raise error

    for folder, within, names in os.walk(path, onerror=refuse, followlinks=True):  # a class folder may be a link
        above = {os.path.realpath(each) for each in (Path(folder), *Path(folder).parents)}
        within[:] = [name for name in within if os.path.realpath(f"{folder}/{name}") not in above]
        place = Path(folder).relative_to(path).as_posix()
        start = "" if place == "." else f"{place}/"
        files += [start + name for name in names]
        folders += [start + name for name in within]
    return files, folders


def _in_zip(path: Path) -> tuple[list[str], list[str]]:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    files = [name for name in names if not name.endswith("/")]
    folders = {str(parent) for name in names for parent in PurePosixPath(name).parents} - {"."}
    return files, sorted(folders | {name.rstrip("/") for name in names if name.endswith("/")})
