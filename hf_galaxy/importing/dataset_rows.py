"""Rows of the datasets library, with columns of any names, as rows of a published dataset."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple

import datasets
import numpy as np
import pyarrow as pa
from datasets.utils.file_utils import xopen

from hf_galaxy.data.band_cells import encoded_cell
from hf_galaxy.data.band_files import read_bands
from hf_galaxy.data.band_pictures import described_bands, flux_columns
from hf_galaxy.data.fluxes import FLUX
from hf_galaxy.data.picture_files import Pictures, stem_of
from hf_galaxy.data.pictures import Rendering, reading
from hf_galaxy.data.schema import class_name, flux_feature
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.given_splits import described, given_splits
from hf_galaxy.importing.left_out import reason
from hf_galaxy.importing.plan import Batch, LeftOut, Row, batch_of
from hf_galaxy.importing.reading import Reading
from hf_galaxy.importing.row_columns import Kept, columns_of, holds_arrays, id_columns, image_column, kept_columns
from hf_galaxy.importing.row_positions import position_columns, positions_in
from hf_galaxy.importing.row_values import arrays_of, files_in, values_of

NAMES_OF = {"file": "file name", "path": "path of the file", "content": "digest of the picture"}


class Names(NamedTuple):
    """Where the names of the galaxies come from: a column, the names or the paths of picture files, or the pictures themselves."""

    source: Literal["column", "file", "path", "content"]
    column: str = ""

    def __str__(self) -> str:
        return NAMES_OF.get(self.source, self.column)


@dataclass(frozen=True, eq=False)
class DatasetRows:
    """The rows of some splits: a `plan.Source`. `DatasetRows.read` makes one.

    Attributes:
        name: of the dataset, for messages.
        parts: the rows of each split in Arrow format, by its name in the dataset.
        pictures: where the files are that a column names; None: nowhere.
        image: the column of the pictures, or of their paths.
        names: where `ids` come from.
        known_ids: None: they are digests of the pictures, not made yet.
        given: split of ours for each split; None: a hash of the names decides.
        kept: the further columns.
        notes: sentences on how the rows are read.
        positions: as of `plan.Source`, by the columns that are named like right ascension and declination.
        missing: rows without a picture, which are not among these.
        skip_bad: leave out galaxies whose picture cannot be read.
        bands: of the fluxes that are read; None: pictures are.
        rendering: how files become pictures.
    """

    name: str
    parts: dict[str, datasets.Dataset]
    pictures: Pictures | None
    image: str
    names: Names
    known_ids: list[str] | None
    given: dict[str, str] | None
    kept: dict[str, Kept]
    notes: list[str]
    positions: np.ndarray | None = None
    missing: Sequence[LeftOut] = ()
    skip_bad: bool = False
    bands: tuple[str, ...] | None = None
    rendering: Rendering = field(default_factory=Rendering)
    tree: ClassVar[None] = None
    values: ClassVar[tuple[str, ...]] = ()
    caption: ClassVar[str] = "id_str"
    campaigns: ClassVar[None] = None
    total_votes: ClassVar[None] = None

    @classmethod
    def read(
        cls, name: str, splits: Mapping[str, datasets.Dataset], reading: Reading, pictures: Pictures | None = None,
        notes: Sequence[str] = (), missing: Sequence[LeftOut] = (),
    ) -> DatasetRows:  # fmt: skip
        """The rows of a dataset; of the pictures only the names of their files are read.

        Args:
            name: of the dataset, for messages.
            splits: by their names.
            reading: which columns are the picture and the name.
            pictures: where the files are that a column names.
            notes: sentences on the rows, for the log.
            missing: rows without a picture, which are not in `splits`.

        Raises:
            BadInput: there are no rows; no column holds pictures; a name is empty or there twice.
        """
        parts = {split: rows.with_format("arrow") for split, rows in splits.items() if len(rows)}
        if not parts:
            raise BadInput(f"--dataset {name}: has no rows")
        given = given_splits(parts, name)
        first = next(iter(parts.values()))
        common = {c: f for c, f in first.features.items() if all(part.features.get(c) == f for part in parts.values())}
        fluxes = reading.bands is not None
        image = image_column(common, reading.image_column, lambda column: first[0][column][0].as_py(), name, fluxes)
        columns = columns_of({c: f for c, f in common.items() if c != image or not holds_arrays(f)})
        names, ids = _names(name, parts, columns, image, reading.id_column, pictures)
        kept, left_out = kept_columns(columns, {image, names.column}, fluxes)
        left_out += [
            f"{c} (not alike in all splits)" for part in parts.values() for c in part.features if c not in common
        ]
        if left_out:
            notes = [*notes, f"columns left out: {', '.join(dict.fromkeys(left_out))}"]
        positions = None
        if sky := position_columns(kept):
            positions = positions_in(parts.values(), sky)
            if unknown := int(np.isnan(positions[:, 0]).sum()):
                where = " and ".join(".".join(each.path) for each in sky)
                notes = [*notes, f"{unknown:,} of {len(positions):,} rows have no position in the sky in {where}"]
        if reading.bands:
            notes = [*notes, described_bands(reading.bands)]
            if holds_arrays(common[image]) and "mask" in str(common[image]):
                notes.append(f"masks in the cells of {image} are not used, as it cannot be told what they mark")
        return cls(
            name, parts, pictures, image, names, ids, given, kept, list(notes), positions, missing,
            reading.skip_bad_pictures, reading.bands,
        )  # fmt: skip

    def rendered(self, rendering: Rendering) -> DatasetRows:
        """The same rows, whose files become pictures so; of those of a published dataset, nothing is cropped or reduced a second time."""
        return replace(self, rendering=rendering.whole if self._are_published else rendering)

    @property
    def _are_published(self) -> bool:
        """Whether they have the form of a published dataset, which `open_published` would read as it is."""
        if self.image not in ("image", FLUX) or self.names.column != "id_str":
            return False
        first = next(self._values())
        return isinstance(first, dict) and first.get("bytes") is not None

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __str__(self) -> str:
        """One line: how many galaxies there are, and how they are read."""
        classes = next(
            ((c, k.feature) for c, k in self.kept.items() if isinstance(k.feature, datasets.ClassLabel)), None
        )
        in_classes = f" in {len(classes[1].names)} classes ({classes[0]})" if classes else ""
        return (
            f"{self.name}: {len(self):,} galaxies{in_classes}; picture: {self.image}, name: {self.names}; "
            f"splits: {described(self.given)}; change it with --image-column, --id-column"
        )

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.cumsum([0, *map(len, self.parts.values())])

    @property
    def splits(self) -> list[str] | None:
        """The split of each row; None: a hash of its name decides."""
        if self.given is None:
            return None
        return [self.given[split] for split, part in self.parts.items() for _ in range(len(part))]

    @property
    def features(self) -> datasets.Features:
        """Schema of the rows."""
        kept = {column: each.feature for column, each in self.kept.items()}
        flux = {FLUX: flux_feature()} if self.bands else {}
        return datasets.Features({"id_str": datasets.Value("string"), "image": datasets.Image()} | flux | kept)

    @cached_property
    def ids(self) -> list[str]:
        """Unique names; a digest that is there twice is numbered."""
        if self.known_ids is not None:
            return self.known_ids
        before: Counter[str] = Counter()
        ids = []
        for digest in self._digests:
            before[digest] += 1
            ids.append(digest if before[digest] == 1 else f"{digest}-{before[digest]}")
        return ids

    @property
    def split_names(self) -> list[str] | None:
        """The pictures, where they are the names, may be in several classes, or where the splits are given and may share some."""
        decide = self.known_ids is None or self.names.source == "path" or self.given is not None
        return self._digests if decide else None

    @cached_property
    def _digests(self) -> list[str]:
        """A digest of each picture; of one that cannot be read, of its row."""
        digests = []
        for i, value in enumerate(self._values()):
            try:
                content, _ = self._content(value)
            except BadInput:
                content = f"row {i}".encode()
            digests.append(hashlib.sha256(content).hexdigest()[:16])
        return digests

    def _values(self) -> Iterator[Any]:
        for part in self.parts.values():
            yield from values_of(part, self.image)

    def batch(self, rows: Sequence[int]) -> Batch:
        """These galaxies with their pictures, without those whose picture cannot be read, if these are to be left out.

        Raises:
            BadInput: a picture cannot be read, or a class is none of the column's.
        """
        wanted = np.asarray(rows, np.int64)
        owners = np.searchsorted(self._starts, wanted, side="right") - 1
        needed = list(dict.fromkeys([self.image, *(kept.path[0] for kept in self.kept.values())]))
        values: dict[int, tuple[str, dict[str, Any]]] = {}
        for p, (split, part) in enumerate(self.parts.items()):
            own = wanted[owners == p]
            if len(own):
                table = part[(own - self._starts[p]).tolist()].select(needed).to_pylist()
                values |= {i: (split, row) for i, row in zip(own.tolist(), table, strict=True)}
        return batch_of(self.features, (self._row(i, *values[i]) for i in wanted.tolist()))

    def _row(self, i: int, split: str, values: dict[str, Any]) -> Row | None:
        """Galaxy i with its picture; None: the picture cannot be read, and is to be left out.

        Args:
            values: of its row, by column.
        """
        try:
            content, file = self._content(values[self.image])
            made, kinds = self._pictures(content, stem_of(file or self.ids[i]))
        except BadInput as error:
            if self.skip_bad:
                return None
            where = values[self.image] if self.names.source in ("file", "path") else f"split {split}, {self.ids[i]}"
            where = where if isinstance(where, str) else self.ids[i]
            raise BadInput(f"--dataset {self.name}: {where}: {error}; --skip-bad-pictures leaves out such") from error
        columns: dict[str, Any] = {"id_str": self.ids[i]} | made
        for column, kept in self.kept.items():
            value = _inner(values, kept.path)
            columns[column] = (
                class_name(kept.feature, value) if isinstance(kept.feature, datasets.ClassLabel) else value
            )
        return Row(columns, kinds=kinds)

    def _pictures(self, content: bytes, stem: str) -> tuple[dict[str, Any], set[str]]:
        """The columns that are made of a picture, and the kinds of its file.

        Raises:
            BadInput: it cannot be read.
        """
        if self.bands:
            return flux_columns(read_bands(content, "", self.bands), self.rendering, stem)
        decoded = self.rendering.decode(content)
        encoded, suffix = self.rendering.encode(decoded)
        return {"image": {"bytes": encoded, "path": stem + suffix}}, decoded.kinds

    def _content(self, value: Any) -> tuple[bytes, str]:
        """The bytes of a picture, and the name of its file, if it has one.

        Raises:
            BadInput: it cannot be read.
        """
        if isinstance(value, bytes):
            return value, ""
        if isinstance(value, list) or (isinstance(value, dict) and "bytes" not in value):
            return encoded_cell(value), ""
        path = value if isinstance(value, str) else (value or {}).get("path")
        if isinstance(value, dict) and value["bytes"] is not None:
            return value["bytes"], path or ""
        if not path:
            raise BadInput("there is no picture")
        if self.pictures and path in self.pictures:
            return self.pictures.read(path), path
        if isinstance(value, str):
            raise BadInput(f"{path} is not in {self.pictures or 'any folder; name one with --images'}")
        with reading(path), xopen(path, "rb") as file:  # where the datasets library has it, such as in a zip
            return file.read(), path

    def left_out(self, unread: Sequence[int]) -> list[LeftOut]:
        """The rows of which the picture is missing, or cannot be read."""
        strict = replace(self, skip_bad=False, known_ids=self.ids)
        lost = []
        for i in unread:
            split, first = self._part_of(i)
            value = self.parts[split][i - first][self.image][0].as_py()
            file = value.get("path") if isinstance(value, dict) else value
            lost.append(LeftOut(self.ids[i], i - first + 1, file if isinstance(file, str) else "", reason(strict, i)))
        return [*self.missing, *lost]

    def _part_of(self, i: int) -> tuple[str, int]:
        """The split of galaxy i, and the first galaxy in it."""
        owner = int(np.searchsorted(self._starts, i, side="right")) - 1
        return list(self.parts)[owner], int(self._starts[owner])

    def fingerprint(self) -> str:
        """Changes whenever the rows may change; of picture files it holds paths, sizes and times."""
        ours, stamps = [], []
        for path in self._files():
            if self.pictures and path in self.pictures:
                ours.append(path)
            elif os.path.isfile(path):
                status = os.stat(path)
                stamps.append((path, status.st_size, status.st_mtime_ns))
        if self.pictures:
            stamps += self.pictures.stamps(ours)
        parts = [(split, len(part), part._fingerprint) for split, part in self.parts.items()]
        made_of: tuple = (
            parts, stamps, self.image, self.names, self.known_ids, self.kept, self.skip_bad, self.rendering,
            self.positions is None,
        )  # fmt: skip
        if self.bands:
            made_of = (*made_of, self.bands)
        return hashlib.sha256(repr(made_of).encode()).hexdigest()

    def _files(self) -> Iterator[str]:
        """The path of each picture that is a file."""
        for part in self.parts.values():
            for array in arrays_of(part, self.image):
                yield from filter(None, files_in(array))


def _names(
    name: str, parts: Mapping[str, datasets.Dataset], columns: Mapping[str, Kept], image: str, asked: str | None,
    pictures: Pictures | None,
) -> tuple[Names, list[str] | None]:  # fmt: skip
    """Where the names of the galaxies come from, and the names; None: they are digests of the pictures.

    Raises:
        BadInput: the column that is asked for has a name twice, or an empty one.
    """
    for column in id_columns(columns, asked, image, name):
        values = [value for rows in parts.values() for value in values_of(rows, *columns[column].path)]
        ids = ["" if value is None else str(value) for value in values]
        if asked is not None:
            _refuse(ids, parts, column, name)
        if _are_names(ids):
            return Names("column", column), ids
    paths = [path for rows in parts.values() for array in arrays_of(rows, image) for path in _paths_in(array)]
    if all(paths):
        stems = [stem_of(path) for path in paths]
        if _are_names(stems):
            return Names("file"), stems
        if pictures is not None and _are_names(paths):
            return Names("path"), paths
    return Names("content"), None


def _paths_in(array: pa.Array) -> list[str]:
    """The path of each picture, "" where it has none."""
    if pa.types.is_struct(array.type) and "path" in {field.name for field in array.type}:
        array = array.field("path")
    is_path = pa.types.is_string(array.type) or pa.types.is_large_string(array.type)
    return [value or "" for value in array.to_pylist()] if is_path else [""] * len(array)


def _are_names(ids: Sequence[str]) -> bool:
    return all(map(str.strip, ids)) and len(set(ids)) == len(ids)


def _refuse(ids: Sequence[str], parts: Mapping[str, datasets.Dataset], column: str, name: str) -> None:
    places = ((split, row) for split, rows in parts.items() for row in range(1, len(rows) + 1))
    first: dict[str, str] = {}
    for value, (split, row) in zip(ids, places, strict=True):
        where = f"split {split}, row {row}"
        if not value.strip():
            raise BadInput(f"--dataset {name}, {where}: column {column} is empty; each galaxy needs a name")
        if value in first:
            raise BadInput(
                f"--dataset {name}, {where}: {column} {value} is in {first[value]} too; each galaxy needs a name of its own: name "
                "another --id-column, or leave it out"
            )
        first[value] = where


def _inner(values: dict[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = values
    for part in path:
        value = None if value is None else value[part]
    return value
