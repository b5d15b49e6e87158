"""Galaxies for tests of publications: pictures, votes, and whole datasets of them."""

import io
import json

import numpy as np
from PIL import Image

from hf_galaxy import load_tree
from hf_galaxy.data.schema import row_features
from hf_galaxy.importing import plan, writer
from hf_galaxy.importing.plan import Row
from hf_galaxy.publishing.dataset_card import Prose, write_card
from hf_galaxy.training.targets.votes import vote_batches


def votes_of(rows, tree):
    """(N, A): the votes of a whole split."""
    return np.concatenate([np.empty((0, len(tree.columns)), np.int32), *vote_batches(rows, tree)])


def jpeg_bytes(seed=0, mode="RGB"):
    pixels = np.random.default_rng(seed).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, "JPEG")
    return file.getvalue()


class Rows:
    """Galaxies to publish: a ring question, a class and a position; no picture of a survey."""

    tree = load_tree("gz_rings")
    features = row_features(tree, {"kind": ["a", "b"]}, {"ra": "float64", "dec": "float64"})
    values, caption, rendering = ("ra",), "kind", None

    def __init__(self, galaxies, campaigns=None, positions=None):
        self.ids = [f"galaxy-{i}" for i in range(galaxies)]
        self.campaigns, self.positions, self.split_names, self.notes = campaigns, positions, None, []
        self.votes = np.array([[i, 2 * i] for i in range(galaxies)])

    @property
    def total_votes(self):
        return self.votes.sum(axis=1)

    def batch(self, rows):
        return plan.batch_of(self.features, map(self.row, rows))

    def row(self, i):
        ra, dec = (i / 7, -i / 9) if self.positions is None else map(float, self.positions[i])
        columns = {
            "id_str": self.ids[i], "image": {"bytes": jpeg_bytes(i), "path": f"{i}.jpg"}, "ring_yes": i,
            "ring_no": 2 * i, "kind": "ab"[i % 2], "ra": ra, "dec": dec,
        }  # fmt: skip
        return Row(columns)

    def left_out(self, unread):
        return []

    def fingerprint(self):
        return f"{len(self.ids)} rows"


def rows_of(source):
    """All rows of a source, with the names of their classes."""
    labels = {column: each for column, each in source.features.items() if hasattr(each, "int2str")}
    rows = source.batch(range(len(source.ids))).table.to_pylist()
    return [row | {c: each.int2str(row[c]) for c, each in labels.items() if row[c] is not None} for row in rows]


def published(source, folder, processes=1):
    """Fill the folder with a dataset and its card; returns files, duplicates, statistics and configurations."""
    shards, duplicates = plan.plan(source)
    statistics = writer.write_dataset(source, shards, folder, processes).to_dict()
    configs = writer.configs_of(folder, writer.campaigns_of(shards))
    (folder / "statistics.json").write_text(json.dumps(statistics))
    write_card(folder, Prose(title="Rings", license="mit"), source.tree, statistics, configs)
    return shards, duplicates, statistics, configs
