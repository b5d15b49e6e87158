"""Several published datasets as one, a configuration for each campaign, as Galaxy Zoo Evo joins the campaigns."""

import json
from collections import Counter
from pathlib import Path

import datasets
import numpy as np

from hf_galaxy.data.schema import SPLITS, InvalidVotes, class_name, row_features, votes_in
from hf_galaxy.data.streaming import StreamedRows, open_stream
from hf_galaxy.decision_tree import DecisionTree, tree_of_columns
from hf_galaxy.errors import BadInput
from hf_galaxy.publishing.plan import Row


class Combined:
    """Rows of several published datasets: a source for `writer.write_dataset`.

    A galaxy has 0 votes in the campaigns that it was never in, and nothing in columns that its dataset has not. Pictures
    keep their bytes. A name that stands in several datasets becomes `{dataset}/{name}`: the campaigns have pictures of
    their own, and their rows are kept in one split by their positions.

    Args:
        folders: of datasets with votes, as publish.py writes them.

    Attributes:
        tree: all their campaigns.
        license: that all of them have; "other" if they differ.
        others: as `plan.Source` has them.

    Raises:
        BadInput: one of them has no votes, or two have columns of one name and different kinds.
    """

    def __init__(self, folders: list[Path]):
        self.parts = [_Part(folder) for folder in folders]
        trees = {}
        for part in self.parts:
            for campaign, indices in part.tree.campaigns.items():
                questions = tuple(part.tree.questions[q] for q in indices)
                if trees.setdefault(campaign, questions) != questions:
                    raise BadInput(f"{part.folder}: holds other questions of {campaign} than a dataset named before it")
        names = "+".join(trees)
        self.tree = DecisionTree(names, tuple(question for questions in trees.values() for question in questions))
        self.features = self._features()
        counts = Counter(name for part in self.parts for name in part.ids)
        self.ids = [
            f"{part.folder.name}/{name}" if counts[name] > 1 else name for part in self.parts for name in part.ids
        ]
        if len(set(self.ids)) < len(self.ids):
            raise BadInput("datasets of one folder name hold galaxies of one name; rename a folder")
        # A name decides the split as it does in each dataset, and rows of one name stay together.
        self.split_names = [name for part in self.parts for name in part.ids]
        self.places = [(p, i) for p, part in enumerate(self.parts) for i in range(len(part.ids))]
        self.campaigns = [campaign for part in self.parts for campaign in part.campaigns]
        self.positions = np.concatenate([part.positions for part in self.parts])
        # To choose among duplicates by: how many votes there are, of whichever campaign.
        self.votes = np.concatenate([part.votes.sum(axis=1, keepdims=True) for part in self.parts])
        self.notes = [
            f"Joined from {', '.join(part.folder.name for part in self.parts)}; pictures are kept byte for byte."
        ]
        if several := sum(n > 1 for n in counts.values()):
            self.notes.append(f"{several:,} names stand in several of them; such rows are called `dataset/name`.")
        self.notes += [f"{part.folder.name}: {note}" for part in self.parts for note in part.said.get("notes", [])]
        if native := [part.folder.name for part in self.parts if (part.folder / "native").exists()]:
            self.notes.append(f"The configuration `native` of {', '.join(native)} is not joined.")
        licences = {part.said.get("license", "unknown") for part in self.parts}
        self.license = licences.pop() if len(licences) == 1 else "other"

    def _features(self):
        features, classes, metadata = {}, {}, {"dataset_name": "string"}
        for part in self.parts:
            for column, feature in part.rows.features.items():
                if column in ("id_str", "image") or column in self.tree.columns:
                    continue
                if features.setdefault(column, feature) != feature:
                    raise BadInput(
                        f"{part.folder}: column {column} is of another kind than in a dataset named before it"
                    )
                if isinstance(feature, datasets.ClassLabel):
                    classes[column] = feature.names
                elif isinstance(feature, datasets.Value):
                    metadata[column] = feature.dtype
                else:
                    raise BadInput(f"{part.folder}: column {column} holds {feature}; only single values can be joined")
        return row_features(self.tree, classes, metadata)

    def row(self, i: int) -> Row:
        """Galaxy i with its picture."""
        p, place = self.places[i]
        part = self.parts[p]
        row = part.rows[[place]].to_pylist()[0]
        for column, feature in part.rows.features.items():
            if isinstance(feature, datasets.ClassLabel):
                row[column] = class_name(feature, row[column])
        row |= dict(zip(part.tree.columns, part.votes[place].tolist(), strict=True))
        empty = dict.fromkeys(self.features) | dict.fromkeys(self.tree.columns, 0) | {"dataset_name": part.folder.name}
        return Row(empty | row | {"id_str": self.ids[i]})

    def fingerprint(self) -> str:
        """Of all that the rows are made of."""
        return repr([(part.folder.name, part.files, part.said) for part in self.parts])


class _Part:
    """One dataset: all its splits, one after the other."""

    def __init__(self, folder):
        self.folder = folder
        try:
            splits = open_stream(str(folder))
            self.rows = StreamedRows.concatenated([splits[split] for split in SPLITS if split in splits])
            self.tree = tree_of_columns(self.rows.column_names)
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:  # BadInput is a ValueError
            reason = " ".join(str(error).split())
            raise BadInput(f"{folder}: is no published dataset with votes ({reason})") from error
        own = folder / "statistics.json"
        self.said = json.loads(own.read_text()) if own.exists() else {}
        self.files = [
            (str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in sorted((folder / "data").rglob("*.parquet"))
        ]
        sky = [column for column in ("ra", "dec") if column in self.rows.features]
        table = self.rows.select_columns(["id_str", *sky, *self.tree.columns])[:]
        self.ids = table["id_str"].to_pylist()
        try:
            self.votes = votes_in(table, self.tree)
        except InvalidVotes as error:
            raise BadInput(f"{folder}, id_str {self.ids[error.row]}, {error.reason}") from error
        self.positions = np.full((len(self.ids), 2), np.nan)
        if len(sky) == 2:
            self.positions = np.stack([table[column].to_numpy() for column in sky], axis=1)
        # A galaxy belongs to the campaign in which it has the most votes.
        totals = np.stack([self._votes_in(indices) for indices in self.tree.campaigns.values()], axis=1)
        campaigns = list(self.tree.campaigns)
        self.campaigns = [campaigns[best] for best in totals.argmax(axis=1)]

    def _votes_in(self, questions):
        return sum(self.votes[:, self.tree.slices[q]].sum(axis=1) for q in questions)
