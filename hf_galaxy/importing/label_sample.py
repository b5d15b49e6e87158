"""The labels of some galaxies of a survey, in somebody's table: yes or no, a class, a fraction or a value for each. Legend: n galaxies."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from hf_galaxy.errors import BadInput
from hf_galaxy.importing.column_types import without_missing
from hf_galaxy.importing.guess import ID_NAMES, check_named, named_like
from hf_galaxy.importing.join_keys import Keys, names_in
from hf_galaxy.importing.tables import read_table

if TYPE_CHECKING:
    from hf_galaxy.importing.catalogue_table import CatalogueTable

Kind = Literal["yes/no", "fraction", "value"]
OPTION, KEY = "--labels", "id_str"
LARGEST, MOST_UNEQUAL = 1e30, 1e6  # labels, whose squares are added; the ratio of two weights
GAPS = ("nan", "null", "<na>")
YES, NO = ("yes", "true", "y"), ("no", "false", "n")
LEFT_OUT = "galaxies that are left out because they are hard to label make the share wrong"


@dataclass(frozen=True, eq=False)
class LabelSample:
    """Labelled galaxies.

    Attributes:
        table: their rows.
        keys: the columns of the names, here and in the survey.
        names: (n,), each once.
        column: of the labels.
        labels: (n,) 0 or 1, fractions, or values.
        kind: "yes/no", "fraction" or "value".
        weights: (n,) the weights of a column; None: there is none.
    """

    table: CatalogueTable
    keys: Keys
    names: pd.Series
    column: str
    labels: np.ndarray
    kind: Kind
    weights: np.ndarray | None

    def __len__(self) -> int:
        return len(self.labels)


def read_labels(
    path: Path, on: str | None = None, label: str | None = None, count: str | None = None, weight: str | None = None
) -> LabelSample:
    """Read labels.

    Args:
        on: the column of the names, or OURS=THEIRS, with that of the survey first; by default id_str, or in the table a usual name.
        label: their column; by default the only one beside those of names and weights.
        count: the text, such as a class, that is counted.
        weight: a column of weights.

    Raises:
        BadInput: the table cannot be read, or has no such column; or a cell is empty, or holds something else; or a name is there twice.
    """
    table = read_table(path, OPTION)
    columns = list(table.cells.columns)
    check_named("--label", label, columns, f"{OPTION} {path}")
    check_named("--weight", weight, columns, f"{OPTION} {path}")
    keys = Keys.parse(on) if on else Keys(KEY, KEY if KEY in columns else named_like(columns, ID_NAMES) or KEY)
    names = names_in(table, keys)
    table.refuse(names == "", keys.theirs, "is no name of a galaxy", remedy="name each labelled galaxy")
    if label is None:
        others = [name for name in columns if name not in (keys.theirs, weight)]
        if not others:
            raise BadInput(f"{OPTION} {path}: has no column of labels beside {keys.theirs}")
        if len(others) > 1:
            raise BadInput(
                f"{OPTION} {path}: which column holds the labels? Name one of {', '.join(others[:20])} with --label"
            )
        label = others[0]
    cells = table[label].str.strip()
    # Where classes are counted, one may be called none.
    cells = without_missing(cells) if count is None else cells.where(~cells.str.lower().isin(GAPS), "")
    table.refuse(cells == "", label, "is no label", remedy=f"label the galaxy: {LEFT_OUT}")
    labels, kind = _counted(table, label, cells, count) if count is not None else _read(table, label, cells)
    return LabelSample(table, keys, names, label, labels, kind, _weights(table, weight))


def _counted(table: CatalogueTable, column: str, cells: pd.Series, count: str) -> tuple[np.ndarray, Kind]:
    found = _plain(cells) == _plain(pd.Series([count]))[0]
    near = difflib.get_close_matches(count.lower(), set(cells.str.lower()), 1, 0.8)
    if not found.any() and near:
        meant = next(cell for cell in cells if cell.lower() == near[0])
        raise BadInput(f"--count {count}: no label in {table.path}, column {column}, is so; did you mean {meant}?")
    return found.to_numpy(float), "yes/no"


def _plain(cells: pd.Series) -> pd.Series:
    """As they are compared: 1.0, which programs make of a 1, is 1."""
    return cells.str.strip().str.replace(r"^(-?\d+)\.0+$", r"\1", regex=True)


def _read(table: CatalogueTable, column: str, cells: pd.Series) -> tuple[np.ndarray, Kind]:
    lower = cells.str.lower()
    if lower.isin([*YES, *NO]).all():
        return lower.isin(YES).to_numpy(float), "yes/no"
    numbers = pd.to_numeric(cells, errors="coerce").to_numpy(np.float64)
    classes = list(dict.fromkeys(cells[~np.isfinite(numbers)]))
    few = ", ".join(classes[:8]) + (", ..." if len(classes) > 8 else "")
    table.refuse(
        ~np.isfinite(numbers), column, "is neither yes nor no, nor a number",
        remedy=f"say which label is counted with --count (such as {few})",
    )  # fmt: skip
    table.refuse(np.abs(numbers) > LARGEST, column, "is too large a number", remedy="give it in other units")
    if np.isin(numbers, (0, 1)).all():
        return numbers, "yes/no"
    return numbers, "fraction" if ((numbers >= 0) & (numbers <= 1)).all() else "value"


def _weights(table: CatalogueTable, column: str | None) -> np.ndarray | None:
    if column is None:
        return None
    cells = without_missing(table[column])
    numbers = pd.to_numeric(cells, errors="coerce").to_numpy(np.float64)
    wrong = ~(np.isfinite(numbers) & (numbers > 0))
    table.refuse(
        wrong, column, "is no weight above 0", remedy="a weight says how many galaxies the labelled one stands for"
    )
    if numbers.max() > MOST_UNEQUAL * numbers.min():
        raise BadInput(
            f"--weight {column}: is from {numbers.min():g} to {numbers.max():g}; of such a sample the least likely galaxy says everything"
        )
    return numbers


def prediction_column(columns: Sequence[str], label: str, count: str | None, table: str) -> str:
    """The column of the predictions for a label.

    Args:
        columns: those with numbers.
        label, count: as of `read_labels`.
        table: for the message.

    Raises:
        BadInput: it cannot be told; the message names those that there are.
    """
    kinds = ("probability", "fraction")
    candidates = [name for name in columns if name.endswith(tuple(f"_{kind}" for kind in kinds))]
    wanted = [count] if count is not None else []
    wanted += [f"{label}_{name}" for name in wanted] + (
        [label, "1", f"{label}_1", f"{label}_yes"] if count is None else []
    )
    for name in [*(f"{name}_{kind}" for name in wanted for kind in kinds), *([label] if count is None else [])]:
        if name in columns:
            return name
    ending = [
        name for name in candidates if count is not None and name.endswith(tuple(f"_{count}_{kind}" for kind in kinds))
    ]
    if len(found := ending or candidates) == 1:
        return found[0]
    asked = f"--count {count}" if count is not None else f"the label {label}"
    there = ", ".join((ending or candidates or list(columns))[:20]) or "no column of numbers"
    raise BadInput(f"{table}: which column predicts {asked}? Name one with --prediction: {there}")
