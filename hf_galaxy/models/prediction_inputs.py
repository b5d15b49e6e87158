"""The pictures to predict: folders and files of pictures, pictures in memory, and published datasets, divided into parts."""

import hashlib
import logging
import os
import re
import reprlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.csv
import torch
from PIL import Image
from torch.utils.data import Dataset

from hf_galaxy.data.band_pictures import fluxes_of
from hf_galaxy.data.dataset import rows_of
from hf_galaxy.data.fluxes import FLUX, decode_fluxes, filled
from hf_galaxy.data.galaxies import decode
from hf_galaxy.data.picture_files import FLUX_SUFFIXES, SUFFIXES
from hf_galaxy.data.pictures import Rendering, to_rgb
from hf_galaxy.data.pixels import DEFAULT, pixels_of
from hf_galaxy.data.schema import contents_of
from hf_galaxy.data.streaming import StreamedRows
from hf_galaxy.data.targets import tables_of
from hf_galaxy.data.views import Framing, to_canvases
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.dataset import open_dataset, reading_of_each
from hf_galaxy.importing.folders import Contents
from hf_galaxy.importing.joining import JoinedTable
from hf_galaxy.importing.keeping import kept_of_pictures, kept_of_splits
from hf_galaxy.importing.picture_folders import has_labels
from hf_galaxy.importing.reading import Reading
from hf_galaxy.importing.tables import is_table
from hf_galaxy.models.picture_digests import bytes_of, digest_of, digest_of_table

log = logging.getLogger(__name__)
URLS = ("http://", "https://")
JPEG_START = b"\xff\xd8\xff"
ROWS_PER_PART, MAX_PARTS = 1024, 2000  # parts of millions of galaxies have more rows
# What decoding raises; BadInput is a ValueError, and Pillow has a SyntaxError for a damaged PNG.
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
IN_MEMORY = (bytes, Image.Image, np.ndarray)
OF_BANDS = (Mapping, torch.Tensor)  # in memory, too, for models of fluxes: {band: (H, W)}, and (C, H, W)
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")  # of an object in memory, in a message; another one in each process


class PictureFolder:
    """The pictures in a folder and all its subfolders, apart from hidden ones, sorted by file name.

    Args:
        suffixes: of their files.
        bands: of fluxes: what the planes of a file without names are called, in their order; None: as the model calls its own.
        used: files that are read, though they are no pictures.

    Raises:
        BadInput: there are no pictures.
    """

    split = None
    joined: pa.Table | None = None
    kept: tuple[str, ...] = ()

    def __init__(
        self, name: str, suffixes: tuple[str, ...] = SUFFIXES, bands: tuple[str, ...] | None = None, used: Collection[str] = (),
    ) -> None:  # fmt: skip
        self.name, self.folder, self.bands = name, Path(name), bands
        files = sorted(file for file in self.folder.rglob("*") if not self._is_hidden(file) and file.is_file())
        self.files = [file for file in files if file.name.lower().endswith(suffixes)]
        if not self.files:
            raise BadInput(f"--dataset {name}: holds neither Parquet files nor pictures ({', '.join(suffixes)})")
        known = {*self.files, *(self.folder / file for file in used)}
        others = Counter(file.suffix.lower() or file.name for file in files if file not in known)
        if others:
            counts = ", ".join(f"{number} {suffix}" for suffix, number in others.most_common(5))
            log.warning("--dataset %s: files that are no pictures by their names are left out: %s", name, counts)
        # A name that is not UTF-8 is shown with the numbers of its bytes, such as gal\\xe1.jpg.
        names = (file.relative_to(self.folder).as_posix() for file in self.files)
        self.ids = [os.fsencode(name).decode("utf-8", "backslashreplace") for name in names]

    def _is_hidden(self, file: Path) -> bool:
        """Whether a program such as Jupyter keeps it for itself: .ipynb_checkpoints/galaxy-checkpoint.png."""
        return any(part.startswith(".") for part in file.relative_to(self.folder).parts)

    def __len__(self) -> int:
        return len(self.ids)

    def fingerprint(self) -> str:
        """A digest of the names and sizes of the files."""
        files = (f"{name} {file.stat().st_size}" for name, file in zip(self.ids, self.files, strict=True))
        return digest_of([*files, *(self.bands or ())])

    def read(self, first: int, end: int, later: int) -> Iterator[tuple[str, bytes | OSError]]:
        """Names and contents of files `first` to `end`, with the error instead of the content of an unreadable file."""
        for name, file in zip(self.ids[first:end], self.files[first:end], strict=True):
            try:
                yield name, file.read_bytes()
            except OSError as error:
                yield name, error


class PictureList:
    """Single pictures: files and URLs, whose `id_str` is their path or address, and pictures in memory, whose `id_str` is their number.

    Args:
        pictures: what `pixels.pixels_of` reads; those of a sequence that is no list are read when they are needed.
        bands: as of `PictureFolder`.

    Raises:
        BadInput: a file does not exist.
    """

    name, split = "pictures", None
    joined: pa.Table | None = None
    kept: tuple[str, ...] = ()

    def __init__(self, pictures: Sequence[Any], bands: tuple[str, ...] | None = None) -> None:
        self.pictures, self.bands = pictures, bands
        self.ids = list(map(str, range(len(pictures))))
        if isinstance(pictures, list | tuple):
            self.ids = [
                str(each) if isinstance(each, str | Path) else i for each, i in zip(pictures, self.ids, strict=True)
            ]
        for path in self._files():
            if not path.is_file():
                raise BadInput(f"--dataset {path}: there is no such file")

    def _files(self) -> list[Path]:
        return [Path(name) for i, name in enumerate(self.ids) if name != str(i) and not name.startswith(URLS)]

    def __len__(self) -> int:
        return len(self.ids)

    def fingerprint(self) -> str:
        """A digest of the names and sizes of the files, and of the pictures in memory."""
        files = [f"{path} {path.stat().st_size}" for path in self._files()]
        contents = (self._bytes_of(i) for i, name in enumerate(self.ids) if name == str(i))
        return digest_of(
            [*self.ids, *files, *(hashlib.sha256(content).hexdigest() for content in contents), *(self.bands or ())]
        )

    def read(self, first: int, end: int, later: int) -> Iterator[tuple[str, Any]]:
        """Names and contents of pictures `first` to `end`, with the error instead of the content of an unreadable one."""
        for i in range(first, end):
            try:
                picture = _with_arrays(self.pictures[i])  # a column of a dataset decodes it here
                if isinstance(picture, str | Path) and not str(picture).startswith(URLS):
                    picture = Path(picture).read_bytes()
            except UNREADABLE as error:
                picture = error
            yield self.ids[i], picture

    def _bytes_of(self, i: int) -> bytes:
        """What distinguishes a picture in memory; of a damaged one the error."""
        try:
            return bytes_of(_with_arrays(self.pictures[i]))
        except UNREADABLE as error:
            return ADDRESS.sub("", str(error)).encode()


def _with_arrays(picture: Any) -> Any:
    """A picture with arrays in place of tensors."""
    if isinstance(picture, Mapping):
        return {band: _with_arrays(plane) for band, plane in picture.items()}
    return picture.numpy(force=True) if isinstance(picture, torch.Tensor) else picture


class DatasetSplit:
    """One split of a published or an imported dataset, read in place: files were rendered when it was made.

    Args:
        joined: (N rows) columns that are written beside the predictions.
        kept: those of them that the dataset has itself.
        column: of the pictures.
    """

    def __init__(
        self, name: str, split: str, rows: StreamedRows, joined: pa.Table | None = None, kept: tuple[str, ...] = (),
        column: str = "image",
    ) -> None:  # fmt: skip
        self.name, self.split, self.rows = name, split, rows.select_columns(["id_str", column])
        self.joined, self.kept, self.column = joined, kept, column

    def __len__(self) -> int:
        return len(self.rows)

    def fingerprint(self) -> str:
        """A digest of the names of the galaxies."""
        return digest_of(name for table in tables_of(self.rows, ["id_str"]) for name in table["id_str"].to_pylist())

    def read(self, first: int, end: int, later: int) -> Iterator[tuple[str, bytes | None]]:
        """Names and encoded pictures of rows `first` to `end`; rows up to `later` will be read next."""
        self.rows.prefetch(np.arange(first, min(later, first + self.rows.window)))
        table = self.rows[list(range(first, end))]
        contents = contents_of(table[self.column])
        yield from zip(table["id_str"].to_pylist(), contents, strict=True)


# Each may have columns to write beside its predictions, `joined`, with a row for each picture: those of its own, `kept`, and those of a table.
Source = PictureFolder | PictureList | DatasetSplit


def fingerprint_of(source: Source) -> str:
    """Changes whenever the galaxies of a source, or what is joined to them, may change."""
    if source.joined is None:
        return source.fingerprint()
    return f"{source.fingerprint()} {digest_of_table(source.joined)} {source.kept}"


def sources_of(
    data: Sequence[Any],
    reading: Reading | None = None,
    split: str | None = None,
    table: JoinedTable | None = None,
    taken: Collection[str] = (),
    rendering: Rendering = DEFAULT,
    keep: Sequence[str] | None = None,
) -> list[Source]:
    """The galaxies of some data.

    Args:
        data: either all are pictures: paths, URLs, bytes, PIL images or arrays; or each is a folder of pictures, or a published
            dataset, by its folder or Hub id.
        reading: how datasets are read (`open_dataset`).
        split: of the datasets; None: all of them.
        table: whose columns all sources then have, that of `reading`.
        taken: names that these columns cannot have, those of the predictions.
        rendering: of what is imported.
        keep: columns of the galaxies that all sources then have (`keeping`).

    Raises:
        BadInput: there is no such dataset or split, or there are no pictures in it; or none of the galaxies is in the table; or they have
            no such columns to keep.
    """
    keep = tuple(dict.fromkeys(keep or ()))
    reading = (reading or Reading()).without_join()
    lazy = not isinstance(data, list | tuple)  # a column of a dataset, whose pictures are decoded when needed
    kinds = {True} if lazy else {_is_picture(each, reading.bands) for each in data}
    if not kinds or not len(data):
        raise BadInput("--dataset: there are no pictures")
    if kinds == {True}:
        if split or reading.config:
            raise BadInput("--dataset: single pictures have no splits and configurations")
        if keep:
            raise BadInput(f"--keep {' '.join(keep)}: single pictures have no columns; bring them with --join")
        return [_with_table(PictureList(data, reading.bands), table, taken)]
    if kinds == {True, False}:
        pictures = [_is_picture(each, reading.bands) for each in data]
        first, other = (reprlib.repr(data[pictures.index(kind)]) for kind in (True, False))
        raise BadInput(
            f"--dataset: {first} is a picture and {other} is none; give pictures alone, or folders and datasets"
        )
    named = [(str(name), own) for name, own in zip(data, reading_of_each([*map(str, data)], reading), strict=True)]
    sources = [source for name, own in named for source in _sources_in(name, own, split, table, taken, rendering, keep)]
    if not any(map(len, sources)):
        where = f": split {split}" if split else ""
        raise BadInput(f"--dataset {', '.join(map(str, data))}{where}: has no galaxies")
    _check_alike(sources, keep)
    return sources


def _check_alike(sources: Sequence[Source], keep: Sequence[str]) -> None:
    """Refuse columns that are of one type in one dataset and of another in the next: they would be no column of one table."""
    for column in keep:
        types = {
            source.joined.schema.field(column).type: source.name for source in sources if source.joined is not None
        }
        if len(types) > 1:
            (first, name), (second, other) = list(types.items())[:2]
            raise BadInput(f"--keep {column}: is {first} in {name} and {second} in {other}; predict them separately")


def _is_picture(data: Any, bands: Sequence[str] | None) -> bool:
    suffixes = (*SUFFIXES, *FLUX_SUFFIXES) if bands else SUFFIXES
    if isinstance(data, str | Path):
        name = str(data).lower()
        return name.startswith(URLS) or (
            name.endswith(suffixes) and not Path(data).is_dir() and not is_table(str(data))
        )
    if not isinstance(data, (*IN_MEMORY, *OF_BANDS) if bands else IN_MEMORY):
        raise BadInput(
            f"--dataset: a {type(data).__name__} is neither a picture nor the name of a dataset; give a folder, a Hub id, or pictures: "
            "paths, bytes, PIL images, arrays, or a column of them, such as dataset['image']"
        )
    return True


def _sources_in(
    name: str, reading: Reading, split: str | None, table: JoinedTable | None, taken: Collection[str],
    rendering: Rendering, keep: tuple[str, ...],
) -> list[Source]:  # fmt: skip
    """The galaxies of a folder of pictures, or of one or all splits of a dataset, with what a table has of them.

    Of a folder with labels only a split is a dataset: all of it are pictures, which may have subfolders for whatever reason.
    """
    if Path(name).is_dir():
        contents = Contents.of(Path(name), bool(reading.bands))
        if not contents.holds_rows and not (split and has_labels(contents)):
            if split or reading.config:
                raise BadInput(f"--dataset {name}: is a folder of pictures, which has no splits and configurations")
            pictures = PictureFolder(name, contents.suffixes, reading.bands, contents.metadata if keep else ())
            if keep:
                pictures.joined, pictures.kept = kept_of_pictures(contents, pictures.ids, keep, name, taken), keep
            return [_with_table(pictures, table, taken)]
    opened = open_dataset(name, reading, streaming=None, rendering=rendering)
    chosen = {split: rows_of(opened, split, name)} if split else opened
    joined = kept_of_splits(chosen, keep, name, taken) if keep else {}
    if table is not None:  # all splits are compared with it, whichever are predicted
        columns = table.bring_to_splits(opened, name).beside([*taken, *keep])
        firsts = np.cumsum([0, *map(len, opened.values())]).tolist()
        for (s, rows), first in zip(opened.items(), firsts, strict=False):
            joined[s] = _side_by_side(joined.get(s), columns.slice(first, len(rows)))
    column = FLUX if reading.bands else "image"
    return [
        DatasetSplit(name, split, cast(StreamedRows, rows), joined.get(split), keep, column)
        for split, rows in chosen.items()
    ]


def _with_table(
    pictures: PictureFolder | PictureList, table: JoinedTable | None, taken: Collection[str]
) -> PictureFolder | PictureList:
    """The same pictures, with what a table has of them."""
    if table is not None:
        brought = table.bring_to_files(pictures.ids, pictures.name).beside([*taken, *pictures.kept])
        pictures.joined = _side_by_side(pictures.joined, brought)
    return pictures


def _side_by_side(kept: pa.Table | None, brought: pa.Table) -> pa.Table:
    if kept is None:
        return brought
    return pa.table([*kept.columns, *brought.columns], [*kept.column_names, *brought.column_names])


class Part(NamedTuple):
    """A file of predictions, for the galaxies `first` to `end` of one source."""

    file: str
    source: int
    first: int
    end: int


def parts_of(sources: list[Source]) -> list[Part]:
    """The parts of all sources, in their order."""
    rows = max(ROWS_PER_PART, -(-sum(map(len, sources)) // MAX_PARTS))
    spans = [
        (s, i, min(i + rows, len(source))) for s, source in enumerate(sources) for i in range(0, len(source), rows)
    ]
    return [Part(f"part-{i:05}-of-{len(spans):05}.parquet", *span) for i, span in enumerate(spans)]


class Reader(Dataset):
    """Decoded pictures, one batch per call: `pixels` (B, 3, C, C) uint8 canvases, or (B, K, C, C) of fluxes, of the readable ones, their `ids` and their `rows` in
    the source, and `unreadable`, the names and errors of the others."""

    def __init__(self, sources: list[Source], parts: list[Part], framing: Framing, rendering: Rendering) -> None:
        self.sources, self.parts, self.framing, self.rendering = sources, parts, framing, rendering

    def __getitem__(self, batch: tuple[int, int, int]) -> dict:
        p, first, end = batch
        part = self.parts[p]
        ids, rows, pictures, unreadable = [], [], [], []
        source = self.sources[part.source]
        for row, (name, content) in enumerate(source.read(first, end, part.end), first):
            try:
                pictures.append(self.picture(source, row, name, content))
                ids.append(name)
                rows.append(row)
            except UNREADABLE as error:
                unreadable.append((name, ADDRESS.sub("", " ".join(str(error).split()))))
        pixels = to_canvases(pictures, self.framing) if pictures else None
        return {"ids": ids, "rows": rows, "pixels": pixels, "unreadable": unreadable}

    def picture(self, source: Source, row: int, name: str, content: Any) -> np.ndarray:
        """What is predicted of a galaxy: as `decoded`, or `published` if a dataset holds it."""
        return self.published(content) if isinstance(source, DatasetSplit) else self.decoded(content, source.bands)

    def published(self, content: bytes | None) -> np.ndarray:
        """As `decoded`, of what a dataset holds: it is rendered already."""
        bands = self.framing.bands
        return filled(decode_fluxes(content, bands)) if bands else decode(content)

    def decoded(self, content: Any, planes: tuple[str, ...] | None = None) -> np.ndarray:
        """(H, W, 3) uint8 of a file or a picture in memory, as `read` of a source gives it: the pixels that it has when it is published; or
        fluxes (K, H, W) float32, from a file with these planes (`fluxes_of`).

        Raises:
            OSError, ValueError, SyntaxError, DecompressionBombError: it cannot be read.
        """
        if isinstance(content, Exception):
            raise content
        if content is None:
            raise ValueError("there is no picture")
        if self.framing.bands:
            return fluxes_of(content, self.framing.bands, self.rendering, planes=planes)
        if not isinstance(content, bytes):
            return pixels_of(content, self.rendering)
        if content.startswith(JPEG_START) and self.rendering == self.rendering.whole:
            return decode(content)  # the same pixels, in half the time if simplejpeg is installed
        return np.asarray(to_rgb(self.rendering.open(content)))
