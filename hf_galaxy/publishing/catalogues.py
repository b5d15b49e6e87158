"""Catalogues and their pictures -> rows of a dataset. Whatever is wrong with them is refused with file, row and column."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hf_galaxy.data.pictures import Pictures, Rendering, kind_of
from hf_galaxy.data.schema import row_features
from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.errors import BadInput
from hf_galaxy.publishing.column_map import ColumnMap, Metadata
from hf_galaxy.publishing.fractions import conditional_fractions, votes_of_fractions
from hf_galaxy.publishing.plan import Row


class Catalogue:
    """A catalogue (CSV, also gzipped, or Parquet) whose every row has been checked: a `plan.Source`.

    Args:
        path, pictures, columns: the catalogue, its pictures, and where it keeps what.
        tree: whose votes it holds, if it holds any.
        rendering: what becomes of its pictures.
        native: keep the picture at its own size too.
        assumed_volunteers: how many looked at each galaxy, for a catalogue of fractions that does not say.
        skip_missing: leave out galaxies without a picture instead of refusing them.
        skip_bad: leave out galaxies whose picture cannot be read.

    Attributes:
        ids: names of the galaxies.
        positions: (N, 2) right ascension and declination in degrees, NaN where not known; None if it has no such columns.
        votes: (N, A) in the tree's order; None if it holds none.
        notes: sentences for the card: what was done to what the catalogue says.

    Raises:
        BadInput: the first thing that is wrong, and how many more of its kind there are.
    """

    def __init__(
        self, path: Path, pictures: Pictures, columns: ColumnMap, tree: DecisionTree | None,
        rendering: Rendering | None = None, native: bool = False, assumed_volunteers: int | None = None,
        skip_missing: bool = False, skip_bad: bool = False,
    ):  # fmt: skip
        self.path, self.pictures, self.columns = path, pictures, _present(columns, path)
        columns = self.columns
        self.rendering, self.native, self.notes = rendering or Rendering(), native, []
        self.campaigns = self.split_names = None
        self.skip_bad = skip_bad
        table = self._read(tree)
        self.rows = np.arange(1, len(table) + 1)  # as the messages count them
        files = self._files(table)
        missing = ~files.map(lambda name: name in pictures).to_numpy(bool)
        if skip_missing and missing.any():
            self.notes.append(
                f"{missing.sum():,} of the catalogue's {len(table):,} rows have no picture and are left out."
            )
            self.rows, files = self.rows[~missing], files[~missing].reset_index(drop=True)
            table = table[~missing].reset_index(drop=True)
            if not len(table):
                raise BadInput(f"{path}: no row has a picture in {pictures}")
        self.files, self.table = files.tolist(), table
        if not skip_missing:
            self._refuse(missing, columns.image, f"is no picture in {pictures}", files)
        ids = self.table[columns.id_str]
        self._refuse(ids == "", columns.id_str, "is empty")
        self._refuse(ids.duplicated(), columns.id_str, "stands in an earlier row too")
        self.ids = ids.tolist()

        # Our column -> its values, all but id_str and image.
        self.data, self.metadata = {}, {}
        self.tree = self._read_votes(tree, assumed_volunteers) if tree else None
        self.data |= {column: self._labels(entry) for column, entry in columns.classes.items()}
        entries = {ours: Metadata(column, "float32") for ours, column in columns.values.items()}
        for ours, entry in (entries | columns.metadata).items():
            self.metadata[ours] = entry.dtype
            self.data[ours] = self._metadata(entry)
        self.positions = self._positions() if {"ra", "dec"} <= self.data.keys() else None
        # The votes and fractions are kept; the text of the whole catalogue is not needed any more.
        self.row_count, self.table = len(self.table), None
        votes = self.tree.columns if self.tree else []
        ours = ["id_str", "image", *votes, *columns.classes, *columns.values, *columns.metadata]
        if twice := sorted({column for column in ours if ours.count(column) > 1}):
            raise BadInput(f"--columns: {', '.join(twice)} would stand twice in the dataset; name the labels otherwise")

    def __len__(self):
        return self.row_count

    @property
    def features(self) -> datasets.Features:
        """The schema of the rows."""
        return row_features(self.tree, self.columns.class_names, self.metadata)

    @property
    def votes(self) -> np.ndarray | None:
        """(N, A) votes, if there are any."""
        return np.stack([self.data[c] for c in self.tree.columns], axis=1) if self.tree else None

    def row(self, i: int) -> Row | None:
        """Galaxy i with its picture; None if that is no good and to be left out.

        Raises:
            BadInput: the picture is no good.
        """
        try:
            content = self.pictures.read(self.files[i])
            kind = kind_of(content, self.files[i])
            image = self._picture(self.rendering, content, i)
            native = self._picture(replace(self.rendering, size=None, crop=1.0), content, i) if self.native else None
        except BadInput as error:
            if self.skip_bad:
                return None
            raise BadInput(f"{self.path}, row {self.rows[i]} (id_str {self.ids[i]}): {error}") from error
        columns = {column: values[i] for column, values in self.data.items()}
        return Row({"id_str": self.ids[i], "image": image} | columns, native, kind)

    def _picture(self, rendering, content, i):
        picture, suffix = rendering.render(content, self.files[i])
        return {"bytes": picture, "path": Path(self.files[i]).stem + suffix}

    def fingerprint(self) -> str:
        """Differs if anything differs that the rows are made of; of pictures, where they are, their sizes and times."""
        said = hashlib.sha256(
            repr(
                (
                    self.pictures.stamps(self.files),
                    self.ids,
                    self.files,
                    self.columns,
                    self.rendering,
                    self.native,
                    self.features,
                )
            ).encode()
        )
        for values in self.data.values():
            said.update(repr(values.tolist() if isinstance(values, np.ndarray) else values).encode())
        return said.hexdigest()

    def inconsistencies(self) -> Iterator[str]:
        """A line for each galaxy and question whose votes do not walk the tree (`DecisionTree.inconsistencies`)."""
        votes = self.votes
        for first in range(0, len(votes), 10_000):  # a wrong column map breaks every galaxy
            for i in self.tree.inconsistencies(votes[first : first + 10_000]):
                row = first + i.row
                yield (
                    f"{self.path}, row {self.rows[row]} (id_str {self.ids[row]}): {i.question} has {i.votes} votes, "
                    f"but the answers it is asked after have {i.parent_votes}"
                )

    def _read(self, tree):
        needed, join = self.columns.needed(tree), self.columns.join
        table = _read_text(self.path, "--catalogue", needed)
        if join:
            theirs, path = list(join.on.values()), self.path.parent / join.file
            second = _read_text(path, "join", needed | set(theirs))
            for column, held, file in [(c, table, self.path) for c in join.on] + [(c, second, path) for c in theirs]:
                if column not in held:
                    raise BadInput(f"{file}: has no column {column!r}, which join.on names")
            if (twice := second.duplicated(theirs)).any():
                row = second.loc[twice, theirs].iloc[0].to_dict()
                raise BadInput(f"{path}: {row} stands there more than once; name a further column in join.on")
            second = second.set_index(theirs)
            table = table.join(second[second.columns.difference(table.columns)], on=list(join.on)).fillna("")
        if not len(table):
            raise BadInput(f"--catalogue {self.path}: has no rows")
        for column in sorted(needed):
            if column not in table:
                known = ", ".join(_column_names(self.path)[:8])
                raise BadInput(f"{self.path}: has no column {column!r} (it begins {known}, ...); name it in --columns")
        return table

    def _files(self, table):
        if "{" not in self.columns.image:
            return table[self.columns.image]
        rows = table[self.columns.image_columns].to_dict("records")
        try:
            return pd.Series([self.columns.image.format(**row) for row in rows], dtype=str)
        except (KeyError, IndexError, ValueError) as error:
            raise BadInput(f"--columns: image pattern {self.columns.image!r} makes no file name ({error})") from error

    def _refuse(self, wrong, column, what, values=None):
        """Raise about the first row in which `wrong` is true."""
        rows = np.flatnonzero(wrong)
        if len(rows):
            more = f" (and {len(rows) - 1} more such rows)" if len(rows) > 1 else ""
            value = (self.table[column] if values is None else values).iloc[rows[0]]
            raise BadInput(f"{self.path}, row {self.rows[rows[0]]}, column {column}: {value!r} {what}{more}")

    def _numbers(self, column, what, empty=np.nan, whole=False):
        """(N,) float64, none negative."""
        text = self.table[column]
        numbers = pd.to_numeric(text.where(text != "", str(empty)), errors="coerce").to_numpy(np.float64)
        good = (numbers >= 0) & (numbers < 2**31) & ((numbers == np.floor(numbers)) | (not whole))
        self._refuse(~good, column, what)
        return numbers

    def _read_votes(self, tree, assumed_volunteers):
        """Put the votes, or the fractions, into `data`; returns the tree if there are votes."""
        if self.columns.fractions:
            return self._read_fractions(tree, assumed_volunteers)
        if unknown := set(self.columns.votes) - set(tree.columns):
            raise BadInput(f"--columns: {', '.join(sorted(unknown))} is no vote column of tree {tree.name}")
        for ours in tree.columns:
            column = self.columns.votes.get(ours, ours)
            self.data[ours] = self._numbers(
                column, "is no number of votes: whole, and not negative", whole=True
            ).astype(np.int32)
        return tree

    def _read_fractions(self, tree, assumed_volunteers):
        questions = self.columns.fractions.questions
        names = [f"{question}_{answer}" for question, answers in questions.items() for answer in answers]
        if lacking := [column for column in tree.columns if column not in names]:
            held = tree.held_by(names)
            if held is None:
                raise BadInput(f"--columns: fractions hold no {lacking[0]}, nor any first question of tree {tree.name}")
            tree = held
        ends = np.cumsum([len(answers) for answers in questions.values()])
        slices = [slice(e - len(answers), e) for e, answers in zip(ends, questions.values(), strict=True)]
        what = "is no fraction between 0 and 1"
        columns = [column for answers in questions.values() for column in answers.values()]
        published = np.stack([self._numbers(column, what, empty=0) for column in columns], axis=1)
        for column, values in zip(columns, published.T, strict=True):
            self._refuse(values > 1.001, column, what)  # a little more than 1 by rounding
        conditional = conditional_fractions(published, slices)
        for name, values in zip(names, conditional.T, strict=True):
            self.metadata[f"{name}_fraction"] = "float32"
            self.data[f"{name}_fraction"] = [None if np.isnan(v) else float(v) for v in values]
        self.notes.append(
            "The catalogue publishes vote fractions, not votes. Columns `{question}_{answer}_fraction` hold them among those who "
            "were asked the question (divided by the sum of the question's fractions), and are null where nobody was."
        )
        column = self.columns.fractions.volunteers
        if column is None and assumed_volunteers is None:
            self.notes.append(
                "It does not say how many volunteers looked at a galaxy: **there are no vote counts here**."
            )
            return None
        if column is None:
            volunteers = np.full(len(self.table), assumed_volunteers)
            source = f"**Nobody counted these votes**: {assumed_volunteers} volunteers were assumed for every galaxy"
        else:
            volunteers = self._numbers(column, "is no number of volunteers", whole=True)
            source = f"The number of volunteers of each galaxy is the catalogue's `{column}`"
        ours = conditional[:, [names.index(c) for c in tree.columns]]
        votes = votes_of_fractions(ours, volunteers.astype(np.int64), tree)
        self.data |= dict(zip(tree.columns, votes.T, strict=True))
        self.notes.append(
            f"{source}, and the vote columns are the whole votes nearest to the published fractions that walk the decision tree. "
            "They stand for the fractions in a likelihood; they are not the clicks that were made."
        )
        return tree

    def _labels(self, entry):
        column, names = entry.column, entry.names
        values = self.table[column]
        self._refuse(~values.isin(names.keys()), column, f"is none of the classes {', '.join(names)}")
        return [names[value] for value in values]

    def _metadata(self, entry):
        column, dtype = entry.column, entry.dtype
        values = self.table[column]
        if dtype == "string":
            return values.tolist()
        number = int if dtype.startswith("int") else float  # never through float: an SDSS objid has 18 digits
        numbers, wrong = [], np.zeros(len(values), dtype=bool)
        for i, value in enumerate(values):
            try:
                if number is int:
                    value = value.removesuffix(".0")  # what pandas makes of whole numbers with gaps
                numbers.append(number(value) if value else None)
                wrong[i] = number is int and value and abs(numbers[-1]) >= 2 ** (int(dtype[3:]) - 1)
            except ValueError:
                numbers.append(None)
                wrong[i] = True
        self._refuse(wrong, column, f"is no {dtype}")
        return numbers

    def _positions(self):
        positions = np.array([self.data["ra"], self.data["dec"]], dtype=np.float64).T  # None becomes NaN
        for axis, (name, low, high) in enumerate((("ra", 0, 360), ("dec", -90, 90))):
            wrong = (positions[:, axis] < low) | (positions[:, axis] > high)
            self._refuse(wrong, self.columns.metadata[name].column, f"is no {name} in degrees, {low} to {high}")
        return positions


def _present(columns, path):
    """The map without the questions of which the catalogue has no fractions."""
    if not columns.fractions:
        return columns
    try:
        held = set(_column_names(path))
    except (OSError, ValueError):
        return columns  # which is said when it is read
    questions = {q: a for q, a in columns.fractions.questions.items() if held & set(a.values())}
    return replace(columns, fractions=replace(columns.fractions, questions=questions))


def _read_text(path, name, wanted):
    """The wanted columns of a table as strings: no digit of them is lost, and an empty cell is ""."""
    try:
        if path.suffix == ".parquet":
            table = pq.read_table(path, columns=[c for c in _column_names(path) if c in wanted])
            # Not through pandas, which makes floats of whole numbers beside an empty cell.
            texts = {c: table[c].cast(pa.string()).fill_null("").to_pandas() for c in table.column_names}
            return pd.DataFrame(texts, dtype=str)
        # index_col: a comma too many at the end of the rows would shift all columns by one
        return pd.read_csv(
            path, dtype=str, keep_default_na=False, usecols=lambda column: column in wanted, index_col=False
        )
    except FileNotFoundError as error:
        raise BadInput(f"{name} {path}: no such file") from error
    except (OSError, ValueError) as error:  # pandas' and Arrow's parser errors are ValueErrors
        reason = " ".join(str(error).split())
        raise BadInput(f"{name} {path}: cannot be read as a table ({reason})") from error


def _column_names(path):
    if path.suffix == ".parquet":
        return pq.read_schema(path).names
    return list(pd.read_csv(path, nrows=0).columns)
