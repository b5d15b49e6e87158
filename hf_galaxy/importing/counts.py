"""Counts of a dataset: the numbers of its card, which the checker compares with the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from hf_galaxy.data.fluxes import FLUX
from hf_galaxy.data.pictures import open_picture
from hf_galaxy.data.schema import class_name, contents_of, has_fluxes, votes_in
from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.importing.flux_counts import FluxCounts

ENOUGH_VOTES = 20  # vote fractions of fewer are too noisy to measure errors on, as in GZ Evo


class Statistics:
    """Counts of rows, which are added in batches.

    Args:
        features: schema of the rows.
        tree: decision tree of their votes; None: there are no votes.
        values: columns of numbers to summarise.
    """

    def __init__(self, features: datasets.Features, tree: DecisionTree | None, values: Sequence[str] = ()) -> None:
        self.features, self.tree = features, tree
        self.galaxies: Counter[str] = Counter()
        self.sizes: Counter[str] = Counter()
        self.picture_bytes = 0
        self.votes = np.zeros(len(tree.columns) if tree else 0, np.int64)
        self.asked, self.enough = (np.zeros(len(tree.questions) if tree else 0, np.int64) for _ in range(2))
        self.inconsistent_galaxies = 0
        self.inconsistent_questions: Counter[str] = Counter()
        self.classes: dict[str, dict[str, Counter[str]]] = {
            column: {name: Counter() for name in feature.names}
            for column, feature in features.items()
            if isinstance(feature, datasets.ClassLabel)
        }
        self.values: dict[str, list[np.ndarray]] = {column: [] for column in values}
        self.fluxes = FluxCounts() if has_fluxes(features) else None

    def add(self, split: str, table: pa.Table) -> None:
        """Count some rows of a split."""
        self.galaxies[split] += table.num_rows
        for content in contents_of(table["image"]):
            self.picture_bytes += len(content or b"")
            self.sizes[_size(content)] += 1
        if self.fluxes is not None:
            self.fluxes.add(contents_of(table[FLUX]))
        if self.tree:
            self._add_votes(votes_in(table, self.tree, errors="ignore"), self.tree)  # the checker reports invalid ones
        for column, counts in self.classes.items():
            for index, n in Counter(table[column].to_pylist()).items():
                if (name := class_name(self.features[column], index)) is not None:
                    counts[name][split] += n
        for column, parts in self.values.items():
            parts.append(table[column].to_numpy())

    def _add_votes(self, votes: np.ndarray, tree: DecisionTree) -> None:
        """Count votes; negative ones, which stand for invalid numbers, count as 0."""
        valid = (votes >= 0).all(axis=1)
        votes = votes.clip(min=0)
        self.votes += votes.sum(axis=0)
        totals = np.add.reduceat(votes, [where.start for where in tree.slices], axis=1)
        self.asked += (totals > 0).sum(axis=0)
        self.enough += (totals >= ENOUGH_VOTES).sum(axis=0)
        inconsistencies = tree.inconsistencies(votes[valid])
        self.inconsistent_galaxies += len({i.row for i in inconsistencies})
        self.inconsistent_questions.update(i.question for i in inconsistencies)

    def update(self, other: Statistics) -> None:
        """Add the counts of other rows with the same features, tree and values."""
        self.galaxies.update(other.galaxies)
        self.sizes.update(other.sizes)
        self.picture_bytes += other.picture_bytes
        self.votes += other.votes
        self.asked += other.asked
        self.enough += other.enough
        self.inconsistent_galaxies += other.inconsistent_galaxies
        self.inconsistent_questions.update(other.inconsistent_questions)
        for column, counts in self.classes.items():
            for name, of_splits in counts.items():
                of_splits.update(other.classes[column][name])
        for column, parts in self.values.items():
            parts += other.values[column]
        if self.fluxes is not None and other.fluxes is not None:
            self.fluxes.update(other.fluxes)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: `galaxies`, `pictures`, `votes`, `questions`, `inconsistent`, `classes`, `values`, and `fluxes` if there are some."""
        questions = self.tree.questions if self.tree else ()
        return {
            "galaxies": dict(self.galaxies),
            "pictures": {"bytes": self.picture_bytes, "sizes": dict(self.sizes.most_common())},
            "votes": dict(zip(self.tree.columns if self.tree else (), self.votes.tolist(), strict=True)),
            "questions": {
                question.name: {"galaxies_asked": int(self.asked[q]), "with_enough_votes": int(self.enough[q])}
                for q, question in enumerate(questions)
            },
            "inconsistent": {"galaxies": self.inconsistent_galaxies, "questions": dict(self.inconsistent_questions)},
            "classes": {c: {name: dict(n) for name, n in counts.items()} for c, counts in self.classes.items()},
            "values": {column: _summary(np.concatenate(parts)) for column, parts in self.values.items() if parts},
        } | ({} if self.fluxes is None else {"fluxes": self.fluxes.to_dict()})


def _size(content: bytes | None) -> str:
    """Size, mode and format by the header of an encoded picture."""
    try:
        picture = open_picture(content)
        return f"{picture.width} x {picture.height} {picture.mode} {picture.format}"
    except Exception:  # decoders raise many kinds
        return "no picture"


def _summary(values: np.ndarray) -> dict[str, float]:
    finite = np.sort(values.astype(np.float64))  # NaN last; sums of floats depend on their order
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return {"galaxies": 0, "missing": len(values)}
    return {
        "galaxies": len(finite), "missing": len(values) - len(finite), "mean": float(finite.mean()),
        "standard_deviation": float(finite.std()), "smallest": float(finite.min()), "largest": float(finite.max()),
    }  # fmt: skip
