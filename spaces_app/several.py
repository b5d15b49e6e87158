"""Predictions for several pictures as a table, in CSV and Parquet. Legend: A answers."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.models.morphology import credible_intervals, morphology

TEXTS = ("name", "campaign", "description", "note")  # the columns of words; all others are float32
# Spreadsheets interpret a cell that begins with one of these, also in their wide forms, as a formula.
FORMULA = ("=", "+", "-", "@", "\N{FULLWIDTH EQUALS SIGN}", "\N{FULLWIDTH PLUS SIGN}", "\N{FULLWIDTH HYPHEN-MINUS}",
           "\N{FULLWIDTH COMMERCIAL AT}")  # fmt: skip


@dataclass(frozen=True, eq=False)
class Galaxy:
    """The prediction for one picture.

    Attributes:
        name: of the picture.
        fractions, concentrations: (A,); None: the picture was rejected, or the model has no concentrations.
        unlikeness: distance from the training galaxies (`hf_galaxy.models.familiarity`); None: not measured.
        note: why it was rejected, or another remark.
    """

    name: str
    fractions: np.ndarray | None = None
    concentrations: np.ndarray | None = None
    unlikeness: float | None = None
    note: str = ""


def table_of(galaxies: Iterable[Galaxy], tree: DecisionTree, campaign: str, credible: float = 0.9) -> pd.DataFrame:
    """One row for each picture, in order, with the expected votes of a campaign.

    The columns are `name`, `campaign`, `description`, `unlikeness`, `note`, and for each answer to the campaign's questions
    `_fraction`, `_low` and `_high`, the ends of the credible interval, and `_concentration`, as of hf-galaxy predict.
    Without a prediction the numbers are NaN and the description is None. A name that a spreadsheet would interpret as a
    formula gets an apostrophe in front, which marks text in spreadsheets.

    Args:
        tree: decision tree of the model, whose answers the fractions are of.
        credible: probability that a vote fraction is in its interval.

    Raises:
        BadInput: the model has no such campaign, or `credible` is not a probability.
    """
    columns = [a for q in tree.campaigns.get(campaign, ()) for a in range(tree.slices[q].start, tree.slices[q].stop)]
    rows = [_row(galaxy, tree, campaign, credible, columns) for galaxy in galaxies]
    names = ["name", "campaign", "description", "unlikeness", "note"]
    kinds = ("fraction", "low", "high", "concentration")
    names += [f"{tree.columns[a]}_{kind}" for a in columns for kind in kinds]
    return pd.DataFrame(rows, columns=names).astype({name: object if name in TEXTS else np.float32 for name in names})


def write_tables(frame: pd.DataFrame, folder: str | Path) -> tuple[Path, Path]:
    """Write galaxies.csv and galaxies.parquet, with the same content, to a folder."""
    folder = Path(folder)
    schema = pa.schema([(name, pa.string() if name in TEXTS else pa.float32()) for name in frame.columns])
    table = pa.Table.from_pandas(frame, schema, preserve_index=False)  # NaN becomes null, in CSV an empty cell
    pa.csv.write_csv(table, folder / "galaxies.csv")
    pq.write_table(table, folder / "galaxies.parquet", compression="zstd")
    return folder / "galaxies.csv", folder / "galaxies.parquet"


def _row(galaxy: Galaxy, tree: DecisionTree, campaign: str, credible: float, columns: list[int]) -> list[Any]:
    name = f"'{galaxy.name}" if galaxy.name.lstrip().startswith(FORMULA) else galaxy.name
    description, unlikeness = None, np.nan if galaxy.unlikeness is None else galaxy.unlikeness
    numbers = np.full((len(tree.columns), 4), np.nan)
    if galaxy.fractions is not None:
        [described] = morphology(galaxy.fractions, None, tree, credible=credible, campaign=campaign)
        description = described["description"]
        numbers[:, 0] = galaxy.fractions
        if galaxy.concentrations is not None:
            numbers[:, 1:3] = credible_intervals(galaxy.concentrations, tree, credible)
            numbers[:, 3] = galaxy.concentrations
    return [name, campaign, description, unlikeness, galaxy.note, *numbers[columns].ravel()]
