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
from hf_galaxy.models.morphology import morphology
from hf_galaxy.models.vote_intervals import credible_intervals

TEXTS = ("name", "campaign", "description", "note")  # the columns of words; all others are float32
# Spreadsheets interpret a cell that begins with one of these, also in their wide forms, as a formula.
FORMULA = ("=", "+", "-", "@", "\N{FULLWIDTH EQUALS SIGN}", "\N{FULLWIDTH PLUS SIGN}", "\N{FULLWIDTH HYPHEN-MINUS}",
           "\N{FULLWIDTH COMMERCIAL AT}")  # fmt: skip


@dataclass(frozen=True, eq=False)
class Galaxy:
    """The prediction for one picture.

    Attributes:
        name: of the picture.
        fractions, concentrations, weights: of `galaxy_models.Prediction.votes`; None: the picture was rejected, or the model has none.
        unlikeness: distance from the training galaxies (`hf_galaxy.models.familiarity`); None: not measured.
        note: why it was rejected, or another remark.
    """

    name: str
    fractions: np.ndarray | None = None
    concentrations: np.ndarray | None = None
    weights: np.ndarray | None = None
    unlikeness: float | None = None
    note: str = ""


def table_of(
    galaxies: Iterable[Galaxy], tree: DecisionTree, campaign: str, credible: float = 0.9, mixed: bool = False
) -> pd.DataFrame:
    """One row for each picture, in order, with the expected votes of a campaign.

    The columns are `name`, `campaign`, `description`, `unlikeness`, `note`, and for each answer to the campaign's questions
    `_fraction`, `_low` and `_high`, the ends of the credible interval, and `_concentration`; of mixtures also `_concentration_2`, and for each question
    `_weight`, all as of hf-galaxy predict.
    Without a prediction the numbers are NaN and the description is None. A name that a spreadsheet would interpret as a
    formula gets an apostrophe in front, which marks text in spreadsheets.

    Args:
        tree: decision tree of the model, whose answers the fractions are of.
        credible: probability that a vote fraction is in its interval.
        mixed: the model predicts mixtures of two Dirichlet distributions.

    Raises:
        BadInput: the model has no such campaign, or `credible` is not a probability.
    """
    rows = [_row(galaxy, tree, campaign, credible) for galaxy in galaxies]
    kinds = ("fraction", "low", "high", "concentration", *(["concentration_2"] if mixed else []))
    questions = [tree.questions[q] for q in tree.campaigns.get(campaign, ())]
    names = ["name", "campaign", "description", "unlikeness", "note"]
    names += [f"{column}_{kind}" for question in questions for column in question.columns for kind in kinds]
    names += [f"{question.name}_weight" for question in questions if mixed]
    return pd.DataFrame(rows, columns=names).astype({name: object if name in TEXTS else np.float32 for name in names})


def write_tables(frame: pd.DataFrame, folder: str | Path) -> tuple[Path, Path]:
    """Write galaxies.csv and galaxies.parquet, with the same content, to a folder."""
    folder = Path(folder)
    schema = pa.schema([(name, pa.string() if name in TEXTS else pa.float32()) for name in frame.columns])
    table = pa.Table.from_pandas(frame, schema, preserve_index=False)  # NaN becomes null, in CSV an empty cell
    pa.csv.write_csv(table, folder / "galaxies.csv")
    pq.write_table(table, folder / "galaxies.parquet", compression="zstd")
    return folder / "galaxies.csv", folder / "galaxies.parquet"


def _row(galaxy: Galaxy, tree: DecisionTree, campaign: str, credible: float) -> dict[str, Any]:
    """Column -> value, as far as there is one, of all campaigns."""
    name = f"'{galaxy.name}" if galaxy.name.lstrip().startswith(FORMULA) else galaxy.name
    row = {
        "name": name,
        "campaign": campaign,
        "unlikeness": galaxy.unlikeness,
        "note": galaxy.note,
        "description": None,
    }
    if galaxy.fractions is None:
        return row
    [described] = morphology(galaxy.fractions, None, tree, credible=credible, campaign=campaign)
    row["description"] = described["description"]
    numbers = {"fraction": galaxy.fractions}
    if galaxy.concentrations is not None:
        ends = credible_intervals(galaxy.concentrations, tree, credible, galaxy.weights)
        both = np.atleast_2d(galaxy.concentrations)
        kinds = ("concentration", "concentration_2")[: len(both)]
        numbers |= {"low": ends[:, 0], "high": ends[:, 1], **dict(zip(kinds, both, strict=True))}
    if galaxy.weights is not None:
        row |= {f"{q.name}_weight": weight for q, weight in zip(tree.questions, galaxy.weights[0], strict=True)}
    return row | {
        f"{column}_{kind}": values[a] for kind, values in numbers.items() for a, column in enumerate(tree.columns)
    }
