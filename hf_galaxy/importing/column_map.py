"""The columns of a catalogue: a JSON file, checked field by field when it is read."""

import re
import string
from collections.abc import Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from hf_galaxy.data.picture_files import FILES
from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.errors import BadInput

FORM = re.compile(r"(.?[<>^])?0?\d{0,2}(\.\d{1,2})?s?")  # of a cell in a name: its length
BAND = "{band}"  # in the name of a picture file
Dtype = Literal["string", "bool", "int32", "int64", "float32", "float64"]


@dataclass(frozen=True, config={"extra": "forbid"})
class Join:
    """A second file beside the catalogue, and its key: the catalogue's column -> the equal column of the file."""

    file: str
    on: Annotated[dict[str, str], Field(min_length=1)]


@dataclass(frozen=True, config={"extra": "forbid"})
class Fractions:
    """Vote fractions: question -> {answer: column}, and the column of the number of volunteers; None: there is no such column."""

    questions: dict[str, dict[str, str]]
    volunteers: str | None


@dataclass(frozen=True, config={"extra": "forbid"})
class Classes:
    """Class labels: a column, and {value: class name} in the order of the classes."""

    column: str
    names: Annotated[dict[str, str], Field(min_length=2)]


@dataclass(frozen=True, config={"extra": "forbid"})
class Metadata:
    """A column, and its type."""

    column: str
    dtype: Dtype


@dataclass(frozen=True, config={"extra": "forbid"})
class ColumnMap:
    """The columns of a catalogue, by the columns of the dataset. The keys of the JSON file are these attributes.

    Attributes:
        id_str: column of unique names; None (null in JSON): they are the names of the picture files without suffix.
        image: column of picture files, relative to the picture folders or zips; or a pattern that makes them from columns,
            such as "{asset_id}.jpg" or "{iauname:.4}/{iauname}.png". For fluxes in a file of each band: "{asset_id}_{band}.fits", or
            a pattern for each of the bands, with line breaks between them.
        join: a second file beside the catalogue, whose columns are added; galaxies that are not in it have empty cells.
        votes: column of the dataset -> column of the catalogue, for every answer of the tree whose columns differ.
        fractions: instead of votes, for a catalogue of vote fractions, joint or conditional
            (`fractions.conditional_fractions`). Questions that are not in the tree become fractions without votes; those of
            which the catalogue has no column are left out.
        classes: label column of the dataset -> classes; values with the same class name become one class.
        values: column of the dataset -> column of numbers to predict; an empty cell is a missing value.
        metadata: column of the dataset -> column and type; an empty cell is a missing value. `ra` and `dec` are in degrees;
            they are used to find duplicates.
    """

    id_str: str | None = "id_str"
    image: str = "image"
    join: Join | None = None
    votes: dict[str, str] = field(default_factory=dict)
    fractions: Fractions | None = None
    classes: dict[str, Classes] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, Metadata] = field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> "ColumnMap":
        if self.fractions and self.votes:
            raise ValueError("has votes and fractions; leave out the fractions")
        for name in {"ra", "dec"} & self.metadata.keys():
            if not self.metadata[name].dtype.startswith("float"):
                raise ValueError(f"metadata.{name} must be a float, in degrees")
        try:
            fields = [field for field in string.Formatter().parse(self.image) if field[1] is not None]
        except ValueError as error:
            raise ValueError(f"image {self.image!r} is not a pattern: {error}") from error
        for _, name, form, conversion in fields:
            if {".", "["} & {*str(name)} or conversion or not FORM.fullmatch(form or ""):
                raise ValueError(
                    f"image {self.image!r} is not a pattern: in braces are the name of a column and perhaps a length, such as {{name:.4}}"
                )
        return self

    @classmethod
    def load(cls, path: Path) -> "ColumnMap":
        """Read a column map.

        Raises:
            BadInput: the file cannot be read, is not JSON, or has an unknown key or an invalid value.
        """
        try:
            return TypeAdapter(cls).validate_json(path.read_bytes())
        except OSError as error:
            raise BadInput(f"--columns {path}: cannot be read ({error.strerror})") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = "".join(f"{part}." for part in first["loc"]).rstrip(".")
            what = first["msg"].removeprefix("Value error, ")
            raise BadInput(f"--columns {path}: is not a column map ({where + ': ' if where else ''}{what})") from error

    def of_bands(self, bands: Sequence[str] | None) -> "ColumnMap":
        """The map with a pattern for each of the bands, if each has files of its own.

        Raises:
            BadInput: the bands are not known, or not as many as there are patterns.
        """
        if BAND in self.image and not bands:
            raise BadInput(
                f"--columns: image {self.image!r} is files of several bands; name these, such as --bands g r i z"
            )
        if not bands:
            return self
        image = FILES.join(self.image.replace(BAND, band) for band in bands) if BAND in self.image else self.image
        if FILES in image and image.count(FILES) + 1 != len(bands):
            raise BadInput(f"--columns: image has {image.count(FILES) + 1} lines, but there are {len(bands)} --bands")
        return replace(self, image=image)

    @property
    def class_names(self) -> dict[str, list[str]]:
        """Label column of the dataset -> classes."""
        return {column: list(dict.fromkeys(entry.names.values())) for column, entry in self.classes.items()}

    @property
    def image_columns(self) -> list[str]:
        """The columns that the picture file is made from."""
        if "{" not in self.image:
            return [self.image]
        return list({name: None for _, name, _, _ in string.Formatter().parse(self.image) if name})

    @property
    def name_columns(self) -> set[str]:
        """The columns that names and picture files are made from."""
        return {*self.image_columns, *([] if self.id_str is None else [self.id_str])}

    def needed(self, tree: DecisionTree | None) -> set[str]:
        """All columns that are read."""
        columns = {*self.name_columns, *self.values.values(), *(self.join.on if self.join else ())}
        columns |= {entry.column for entry in self.classes.values()} | {
            entry.column for entry in self.metadata.values()
        }
        if self.fractions:
            columns |= {column for answers in self.fractions.questions.values() for column in answers.values()}
            return columns | ({self.fractions.volunteers} if self.fractions.volunteers else set())
        return columns | {self.votes.get(column, column) for column in (tree.columns if tree else ())}
