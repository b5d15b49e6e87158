"""Catalogues and picture folders -> rows of a dataset. Whatever is wrong with them is refused with file, row and column."""

import io
import json
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from hf_galaxy.data import hashed_place
from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.errors import BadInput
from hf_galaxy.progress import progress

FORMATS = ("JPEG", "PNG")
DTYPES = ("string", "int32", "int64", "float32", "float64")
EIGHT_BIT_MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"}


@dataclass(frozen=True)
class ColumnMap:
    """Where a catalogue keeps what we need. Read from a JSON file with these keys.

    Attributes:
        id_str: the catalogue's column of unique names.
        image: its column of picture files, relative to the picture folder or zip.
        votes: our column -> its column, for every answer of the tree; left out where it has our columns.
        classes: our label column -> {"column": its column, "names": {its value: class name}}, classes in this order;
            values with the same class name become one class.
        metadata: our column -> {"column": its column, "dtype": one of DTYPES}; an empty cell is a missing value.
        title, about: the data's name, and a sentence or two on what it is and where it comes from, for the card.
    """

    id_str: str = "id_str"
    image: str = "image"
    votes: dict[str, str] = field(default_factory=dict)
    classes: dict[str, dict] = field(default_factory=dict)
    metadata: dict[str, dict] = field(default_factory=dict)
    title: str = ""
    about: str = ""

    @classmethod
    def load(cls, path: Path) -> "ColumnMap":
        """Read a map.

        Raises:
            BadInput: no such file, no JSON, or an unknown key.
        """
        try:
            columns = cls(**json.loads(path.read_text()))
            for name, entry in columns.classes.items():
                if not (isinstance(entry, dict) and entry.keys() == {"column", "names"} and len(entry["names"]) > 1):
                    raise BadInput(f'--columns {path}: classes.{name} must hold "column" and two or more "names"')
            for name, entry in columns.metadata.items():
                if not (isinstance(entry, dict) and entry.keys() == {"column", "dtype"} and entry["dtype"] in DTYPES):
                    raise BadInput(
                        f'--columns {path}: metadata.{name} must hold "column" and "dtype" ({", ".join(DTYPES)})'
                    )
            return columns
        except (OSError, json.JSONDecodeError, TypeError, AttributeError) as error:
            raise BadInput(f"--columns {path}: is no column map ({error})") from error

    @property
    def class_names(self) -> dict[str, list[str]]:
        """Our label column -> its classes."""
        return {column: list(dict.fromkeys(entry["names"].values())) for column, entry in self.classes.items()}


class Pictures:
    """A folder or a zip file of pictures, read by name.

    Raises:
        BadInput: there is neither.
    """

    def __init__(self, source: Path):
        self.source = source
        if source.is_dir():
            self.zip = None
        elif zipfile.is_zipfile(source):
            self.zip = zipfile.ZipFile(source)
            self.names = set(self.zip.namelist())
        else:
            raise BadInput(f"--images {source}: is neither a folder nor a zip file")

    def __contains__(self, name: str) -> bool:
        return name in self.names if self.zip else (self.source / name).is_file()

    def read(self, name: str) -> bytes:
        """The picture's own bytes, once it has been decoded completely.

        Raises:
            BadInput: it cannot be decoded, or not without loss to 8-bit RGB.
        """
        try:
            content = self.zip.read(name) if self.zip else (self.source / name).read_bytes()
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                picture = Image.open(io.BytesIO(content), formats=FORMATS)
                picture.load()
        except Exception as error:  # zips and Pillow's decoders raise many kinds; each means that the file is no good
            reason = "is neither JPEG nor PNG" if isinstance(error, Image.UnidentifiedImageError) else str(error)
            raise BadInput(f"{self.source / name}: cannot be read as a picture ({reason})") from error
        if picture.mode not in EIGHT_BIT_MODES:
            raise BadInput(f"{self.source / name}: has mode {picture.mode}; convert it to 8 bits per band first")
        return content


class Catalogue:
    """A CSV catalogue whose every row has been checked, to be iterated as dataset rows with their pictures.

    Rows come in an order that looks shuffled and depends on `id_str` alone, so that a reader of the first thousand, or
    of a stream, gets a fair sample of a catalogue that was sorted.

    Raises:
        BadInput: the first thing that is wrong, and how many more of its kind there are.
    """

    def __init__(self, path: Path, pictures: Pictures, columns: ColumnMap, tree: DecisionTree | None):
        self.path, self.pictures, self.columns, self.tree = path, pictures, columns, tree
        self.table = self._read()
        ours = ["id_str", "image", *(tree.columns if tree else []), *columns.classes, *columns.metadata]
        if twice := sorted({column for column in ours if ours.count(column) > 1}):
            raise BadInput(f"--columns: {', '.join(twice)} would stand twice in the dataset; name the labels otherwise")
        self.ids = self._text(columns.id_str)
        self._refuse(self.ids == "", columns.id_str, "is empty")
        self._refuse(self.ids.duplicated(), columns.id_str, "stands in an earlier row too")
        self.files = self._text(columns.image)
        self._refuse(
            ~self.files.map(lambda name: name in pictures), columns.image, f"is no picture in {pictures.source}"
        )
        self.votes = self._votes() if tree else None
        self.labels = {column: self._labels(entry) for column, entry in columns.classes.items()}
        self.metadata = {column: self._metadata(entry) for column, entry in columns.metadata.items()}

    def __len__(self):
        return len(self.table)

    def __iter__(self) -> Iterator[dict]:
        order = sorted(range(len(self)), key=lambda i: hashed_place("order of " + self.ids[i]))
        for i in progress(order, desc="reading pictures", unit=" galaxies"):
            try:
                content = self.pictures.read(self.files[i])
            except BadInput as error:
                raise BadInput(f"{self.path}, row {i + 1} (id_str {self.ids[i]}): {error}") from error
            yield (
                {"id_str": self.ids[i], "image": {"bytes": content, "path": Path(self.files[i]).name}}
                | ({c: int(n) for c, n in zip(self.tree.columns, self.votes[i], strict=True)} if self.tree else {})
                | {column: labels[i] for column, labels in self.labels.items()}
                | {column: values[i] for column, values in self.metadata.items()}
            )

    def _read(self):
        try:
            table = pd.read_csv(self.path, dtype=str, keep_default_na=False)
        except FileNotFoundError as error:
            raise BadInput(f"--catalogue {self.path}: no such file") from error
        except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
            reason = " ".join(str(error).split())
            raise BadInput(f"--catalogue {self.path}: cannot be read as CSV ({reason})") from error
        if not len(table):
            raise BadInput(f"--catalogue {self.path}: has no rows")
        return table

    def _text(self, column):
        if column not in self.table:
            known = ", ".join(self.table.columns[:8])
            raise BadInput(f"{self.path}: has no column {column!r} (it begins {known}, ...); name it in --columns")
        return self.table[column]

    def _refuse(self, wrong, column, what):
        """Raise about the first row in which `wrong` is true."""
        rows = np.flatnonzero(wrong)
        if len(rows):
            more = f" (and {len(rows) - 1} more such rows)" if len(rows) > 1 else ""
            value = self.table[column].iloc[rows[0]]
            raise BadInput(f"{self.path}, row {rows[0] + 1}, column {column}: {value!r} {what}{more}")

    def _votes(self):
        """(N, A) int32 in the tree's order."""
        unknown = set(self.columns.votes) - set(self.tree.columns)
        if unknown:
            raise BadInput(f"--columns: {', '.join(sorted(unknown))} is no vote column of tree {self.tree.name}")
        votes = np.empty((len(self), len(self.tree.columns)), dtype=np.int32)
        for a, ours in enumerate(self.tree.columns):
            column = self.columns.votes.get(ours, ours)
            numbers = pd.to_numeric(self._text(column), errors="coerce").to_numpy(np.float64)
            good = (numbers >= 0) & (numbers == np.floor(numbers)) & (numbers < 2**31)
            self._refuse(~good, column, "is no number of votes: whole, and not negative")
            votes[:, a] = numbers
        return votes

    def inconsistencies(self) -> list[str]:
        """A line for each galaxy and question whose votes do not walk the tree (`DecisionTree.inconsistencies`)."""
        return [
            f"{self.path}, row {i.row + 1} (id_str {self.ids[i.row]}): {i.question} has {i.votes} votes, "
            f"but the answers it is asked after have {i.parent_votes}"
            for i in self.tree.inconsistencies(self.votes)
        ]

    def _labels(self, entry):
        column, names = entry["column"], entry["names"]
        values = self._text(column)
        self._refuse(~values.isin(names.keys()), column, f"is none of the classes {', '.join(names)}")
        return [names[value] for value in values]

    def _metadata(self, entry):
        column, dtype = entry["column"], entry["dtype"]
        values = self._text(column)
        if dtype == "string":
            return values.tolist()
        number = int if dtype.startswith("int") else float  # never through float: an SDSS objid has 18 digits
        numbers, wrong = [], np.zeros(len(values), dtype=bool)
        for i, value in enumerate(values):
            try:
                numbers.append(number(value) if value else None)
                wrong[i] = number is int and value and abs(numbers[-1]) >= 2 ** (int(dtype[3:]) - 1)
            except ValueError:
                numbers.append(None)
                wrong[i] = True
        self._refuse(wrong, column, f"is no {dtype}")
        return numbers
