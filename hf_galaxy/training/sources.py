"""What a run learns from: its datasets, opened and checked, their target, and which of their galaxies it takes."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hf_galaxy.data.card_facts import DatasetFacts
from hf_galaxy.data.dataset import open_dataset, rows_of
from hf_galaxy.data.splits import in_fold, strata_of, subset
from hf_galaxy.data.targets import (
    Label,
    Rows,
    Values,
    check_tree_columns,
    label_of,
    labelled,
    tables_of,
    values_of,
    with_values,
)
from hf_galaxy.decision_tree import DecisionTree, load_tree, tree_of_columns
from hf_galaxy.errors import BadInput
from hf_galaxy.training.settings import Settings

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Sources:
    """Some datasets with one target.

    Attributes:
        said: what their cards say of them.
        splits: of each split the rows of every dataset.
        target: the tree, the label or the values of all of them.
        strata: of every dataset the kinds of its training rows (`splits.strata_of`; for values, which of them a galaxy has);
            None if nobody asked.
    """

    said: list[DatasetFacts]
    splits: dict[str, list[Rows]]
    target: DecisionTree | Label | Values
    strata: list[np.ndarray] | None

    def count(self, split: str) -> int:
        """Galaxies in a split of all datasets together."""
        return sum(map(len, self.splits[split]))


def open_sources(settings: Settings, say: Callable[[str], None]) -> Sources:
    """Open the datasets of a run, and take of them what its settings ask for.

    Args:
        say: tells the user what is left out.

    Raises:
        BadInput: one cannot be opened, lacks a split or the target, or they do not go together.
    """
    opened = [open_dataset(name, settings.config, settings.streaming) for name in settings.dataset]
    if settings.fold is not None:
        opened = [in_fold(each, settings.fold, name) for each, name in zip(opened, settings.dataset, strict=True)]
    named = list(zip(settings.dataset, opened, strict=True))
    splits = {split: [rows_of(each, split, name) for name, each in named] for split in SPLITS}
    if settings.leave_out is not None:
        _leave_out(settings, splits, say)
    said = [DatasetFacts.by(name) for name in settings.dataset]
    if settings.task == "votes":
        target, strata = _tree_of(settings, splits["train"], say), None
        if settings.subset < 1 or settings.balance:
            strata = [strata_of(rows, target) for rows in splits["train"]]
        if settings.balance:
            voted = [np.flatnonzero(kinds) for kinds in strata]  # to be in no campaign is no campaign
            if left_out := sum(map(len, strata)) - sum(map(len, voted)):
                say(f"{left_out:,} training galaxies without votes are left out")
            splits["train"] = [rows.select(where) for rows, where in zip(splits["train"], voted, strict=True)]
            strata = [kinds[where] for kinds, where in zip(strata, voted, strict=True)]
    else:
        if settings.task == "classes":
            target = _label_of(settings, splits["train"])
            lacking = repr(target.column)
        else:
            target = _values_of(settings, splits)
            lacking = " or ".join(map(repr, target.columns))
        strata = []
        for split, parts in splits.items():
            for i, (name, rows) in enumerate(zip(settings.dataset, parts, strict=True)):
                if isinstance(target, Label):
                    parts[i], kinds = labelled(rows, target, name)
                else:
                    parts[i], numbers = with_values(rows, target, f"--dataset {name}: split {split}")
                    kinds = ~np.isnan(numbers) @ (1 << np.arange(len(target.columns)))
                if left_out := len(rows) - len(parts[i]):
                    say(
                        f"{left_out:,} of the {len(rows):,} galaxies of split {split} of {name} have no {lacking}; "
                        "they are left out"
                    )
                if split == "train":
                    strata.append(kinds)
    if settings.subset < 1:
        chosen = [
            subset(rows, kinds, settings.subset, settings.seed)
            for rows, kinds in zip(splits["train"], strata, strict=True)
        ]
        strata = [kinds[where] for kinds, where in zip(strata, chosen, strict=True)]
        splits["train"] = [rows.select(where) for rows, where in zip(splits["train"], chosen, strict=True)]
    return Sources(said, splits, target, strata)


def _leave_out(settings, splits, say):
    """Take the galaxies of --leave-out out of what is learnt from and validated with."""
    try:  # text: names may begin with zeros, and be "NA"
        table = pd.read_csv(settings.leave_out, usecols=["id_str"], dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise BadInput(f"--leave-out {settings.leave_out}: is no CSV file with a column id_str ({error})") from error
    names = table["id_str"].to_numpy()
    for split in ("train", "validation"):
        for i, (name, rows) in enumerate(zip(settings.dataset, splits[split], strict=True)):
            ids = np.concatenate(
                [np.empty(0, object), *(table["id_str"].to_numpy() for table in tables_of(rows, ["id_str"]))]
            )
            kept = np.flatnonzero(~np.isin(ids, names))
            if not len(kept):
                raise BadInput(f"--leave-out {settings.leave_out}: leaves none of split {split} of {name}")
            say(f"{len(ids) - len(kept):,} of the {len(ids):,} galaxies of split {split} of {name} are left out")
            splits[split][i] = rows.select(kept)


def _tree_of(settings, train, say):
    columns = list(dict.fromkeys(column for rows in train for column in rows.column_names))
    tree = load_tree(list(settings.tree)) if settings.tree else tree_of_columns(columns)
    whole = load_tree(list(tree.campaigns)).questions if not settings.tree else tree.questions
    missing = ", ".join(q.name for q in whole if q.name not in {held.name for held in tree.questions})
    without = f"; there are no votes for {missing}" if missing else ""
    say(f"learning {len(tree.questions)} questions of {tree.name}{without}")
    check_tree_columns(columns, tree, " ".join(settings.dataset))
    return tree


def _label_of(settings, train):
    first, *others = [
        label_of(rows, settings.label or "", name) for rows, name in zip(train, settings.dataset, strict=True)
    ]
    for name, other in zip(settings.dataset[1:], others, strict=True):
        if other.names != first.names:
            raise BadInput(
                f"--dataset {name}: has the classes {', '.join(other.names)}, {settings.dataset[0]} has "
                f"{', '.join(first.names)}"
            )
    return first


def _values_of(settings, splits):
    of_rows = [
        values_of(rows, settings.values or (), name, settings.unit_interval)
        for parts in splits.values()
        for rows, name in zip(parts, settings.dataset, strict=True)
    ]
    return of_rows[0]
