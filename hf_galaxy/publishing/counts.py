"""What a dataset holds, counted while its rows go by: the numbers of its card, and what the checker compares with them."""

from collections import Counter

import datasets
import numpy as np
import pyarrow as pa

from hf_galaxy.data.pictures import open_picture
from hf_galaxy.data.schema import class_name, votes_in
from hf_galaxy.decision_tree import DecisionTree

ENOUGH_VOTES = 20  # vote fractions of fewer are too noisy to measure errors on, as in GZ Evo


class Statistics:
    """Counts, added to batch by batch.

    Args:
        features: the schema of the rows.
        tree: whose votes they hold; None: no votes.
        values: columns of numbers to predict.
    """

    def __init__(self, features: datasets.Features, tree: DecisionTree | None, values: list[str]):
        self.tree, self.features = tree, features
        self.galaxies, self.sizes, self.picture_bytes = Counter(), Counter(), 0
        columns = tree.columns if tree else []
        self.votes = np.zeros(len(columns), np.int64)
        self.asked, self.enough = (np.zeros(len(tree.questions) if tree else 0, np.int64) for _ in range(2))
        self.broken_galaxies, self.broken_questions = 0, Counter()
        self.classes = {
            column: {name: Counter() for name in feature.names}
            for column, feature in features.items()
            if isinstance(feature, datasets.ClassLabel)
        }
        self.values = {column: [] for column in values}

    def add(self, split: str, table: pa.Table) -> None:
        """Count some rows of a split."""
        self.galaxies[split] += table.num_rows
        for content in table["image"].combine_chunks().field("bytes").to_pylist():
            self.picture_bytes += len(content or b"")
            self.sizes[_size(content)] += 1
        if self.tree:
            votes = votes_in(table, self.tree, errors="ignore")  # the checker names what is wrong, and goes on
            valid = (votes >= 0).all(axis=1)
            votes = votes.clip(min=0)
            self.votes += votes.sum(axis=0)
            totals = np.add.reduceat(votes, [where.start for where in self.tree.slices], axis=1)
            self.asked += (totals > 0).sum(axis=0)
            self.enough += (totals >= ENOUGH_VOTES).sum(axis=0)
            broken = self.tree.inconsistencies(votes[valid])
            self.broken_galaxies += len({i.row for i in broken})
            self.broken_questions.update(i.question for i in broken)
        for column, counts in self.classes.items():
            for index, n in Counter(table[column].to_pylist()).items():
                if (name := class_name(self.features[column], index)) is not None:
                    counts[name][split] += n
        for column, parts in self.values.items():
            parts.append(table[column].to_numpy())

    def to_dict(self) -> dict:
        """Plain data: `galaxies`, `pictures`, `votes`, `questions`, `inconsistent`, `classes` and `values`."""
        questions = self.tree.questions if self.tree else ()
        return {
            "galaxies": dict(self.galaxies),
            "pictures": {"bytes": self.picture_bytes, "sizes": dict(self.sizes.most_common())},
            "votes": dict(zip(self.tree.columns if self.tree else (), self.votes.tolist(), strict=True)),
            "questions": {
                question.name: {"galaxies_asked": int(self.asked[q]), "with_enough_votes": int(self.enough[q])}
                for q, question in enumerate(questions)
            },
            "inconsistent": {"galaxies": self.broken_galaxies, "questions": dict(self.broken_questions)},
            "classes": {c: {name: dict(n) for name, n in counts.items()} for c, counts in self.classes.items()},
            "values": {column: _summary(np.concatenate(parts)) for column, parts in self.values.items() if parts},
        }


def _size(content: bytes | None) -> str:
    """What the header of an encoded picture says."""
    try:
        picture = open_picture(content)
        return f"{picture.width} x {picture.height} {picture.mode} {picture.format}"
    except Exception:  # decoders raise many kinds
        return "no picture"


def _summary(values):
    known = np.sort(values.astype(np.float64))  # NaN last; sums of floats depend on their order
    known = known[np.isfinite(known)]
    if not len(known):
        return {"galaxies": 0, "missing": len(values)}
    return {
        "galaxies": len(known), "missing": len(values) - len(known), "mean": float(known.mean()),
        "standard_deviation": float(known.std()), "smallest": float(known.min()), "largest": float(known.max()),
    }  # fmt: skip
