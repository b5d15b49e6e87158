"""Where a catalogue keeps what we need: a JSON file, checked field by field when it is read."""

import string
from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.errors import BadInput

Dtype = Literal["string", "int32", "int64", "float32", "float64"]


@dataclass(frozen=True, config={"extra": "forbid"})
class Join:
    """A second file beside the catalogue, and which of its columns equals which of the catalogue's."""

    file: str
    on: Annotated[dict[str, str], Field(min_length=1)]


@dataclass(frozen=True, config={"extra": "forbid"})
class Fractions:
    """Vote fractions: our question -> {answer: its column}, and its column of the number of volunteers, if it has one."""

    questions: dict[str, dict[str, str]]
    volunteers: str | None


@dataclass(frozen=True, config={"extra": "forbid"})
class Classes:
    """Class labels: its column, and {its value: class name} in the order of the classes."""

    column: str
    names: Annotated[dict[str, str], Field(min_length=2)]


@dataclass(frozen=True, config={"extra": "forbid"})
class Metadata:
    """Its column, and what it holds."""

    column: str
    dtype: Dtype


@dataclass(frozen=True, config={"extra": "forbid"})
class ColumnMap:
    """Where a catalogue keeps what we need. Read from a JSON file with these keys.

    Attributes:
        id_str: the catalogue's column of unique names.
        image: its column of picture files, or a pattern such as "{asset_id}.jpg" or "{iauname:.4}/{iauname}.png" that
            makes them of its columns; relative to the picture folders or zips.
        join: a second file beside the catalogue, whose columns are added; galaxies that are not in it have empty cells.
        votes: our column -> its column, for every answer of the tree; left out where it has our columns.
        fractions: instead of votes, for a catalogue of vote fractions. Joint and conditional fractions both do
            (`fractions.conditional_fractions`). Questions that the tree lacks are kept as fractions only; those of which
            the catalogue has no column at all are left out.
        classes: our label column -> its classes; values with the same class name become one class.
        values: our column -> its column of numbers to predict; an empty cell is a missing value.
        metadata: our column -> its column and dtype; an empty cell is a missing value. `ra` and `dec` are degrees, and
            find galaxies that stand in the catalogue twice.
    """

    id_str: str = "id_str"
    image: str = "image"
    join: Join | None = None
    votes: dict[str, str] = field(default_factory=dict)
    fractions: Fractions | None = None
    classes: dict[str, Classes] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, Metadata] = field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self):
        if self.fractions and self.votes:
            raise ValueError("holds votes and fractions; give the votes alone")
        for name in {"ra", "dec"} & self.metadata.keys():
            if not self.metadata[name].dtype.startswith("float"):
                raise ValueError(f"metadata.{name} must be a float, in degrees")
        try:
            list(string.Formatter().parse(self.image))
        except ValueError as error:
            raise ValueError(f"image {self.image!r} is no pattern: {error}") from error
        return self

    @classmethod
    def load(cls, path: Path) -> "ColumnMap":
        """Read a map.

        Raises:
            BadInput: no such file, no JSON, an unknown key, or a value that cannot be.
        """
        try:
            return TypeAdapter(cls).validate_json(path.read_bytes())
        except OSError as error:
            raise BadInput(f"--columns {path}: cannot be read ({error.strerror})") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = "".join(f"{part}." for part in first["loc"]).rstrip(".")
            what = first["msg"].removeprefix("Value error, ")
            raise BadInput(f"--columns {path}: is no column map ({where + ': ' if where else ''}{what})") from error

    @property
    def class_names(self) -> dict[str, list[str]]:
        """Our label column -> its classes."""
        return {column: list(dict.fromkeys(entry.names.values())) for column, entry in self.classes.items()}

    @property
    def image_columns(self) -> list[str]:
        """The catalogue's columns that name the picture."""
        if "{" not in self.image:
            return [self.image]
        return list({name: None for _, name, _, _ in string.Formatter().parse(self.image) if name})

    def needed(self, tree: DecisionTree | None) -> set[str]:
        """Every column that is read."""
        fractions = self.fractions or Fractions({}, None)
        of_fractions = {column for answers in fractions.questions.values() for column in answers.values()}
        votes = () if self.fractions or not tree else (self.votes.get(column, column) for column in tree.columns)
        volunteers = {fractions.volunteers} - {None}
        labels = {entry.column for entry in (*self.classes.values(), *self.metadata.values())}
        joined = set(self.join.on) if self.join else set()
        return {
            self.id_str,
            *self.image_columns,
            *votes,
            *of_fractions,
            *volunteers,
            *labels,
            *self.values.values(),
            *joined,
        }
