"""Galaxies as rows of a Hugging Face dataset: their schema, their splits, and the batches made of them.

A row holds `id_str`, `image` (the original bytes), one int32 column per answer of the tree, ClassLabel columns and metadata.
Legend of shapes: B galaxies, A answers, C side of the canvas.
"""

import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from huggingface_hub import DatasetCard
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.errors import BadInput
from hf_galaxy.views import Framing, draw_affine, to_canvas

# 20 % test as in GZ Evo; validation is taken from the rest.
SPLITS = {"train": 0.7, "validation": 0.1, "test": 0.2}
ROWS_PER_GROUP = 200  # small row groups can be shuffled and shared out when the dataset is streamed
ROWS_PER_FILE = 5000


def hashed_place(id_str: str) -> float:
    """A number in [0, 1) that looks random but depends on nothing but the galaxy's name."""
    return int.from_bytes(hashlib.sha256(id_str.encode()).digest()[:8], "big") / 2**64


def split_of(id_str: str) -> str:
    """The split a galaxy belongs to, for ever: adding or removing other galaxies does not move it."""
    place = hashed_place(id_str)
    for split, share in SPLITS.items():
        if place < share:
            return split
        place -= share
    return split  # the shares add up to 1 only to rounding


def row_features(
    tree: DecisionTree | None = None,
    classes: dict[str, list[str]] | None = None,
    metadata: dict[str, str] | None = None,
) -> datasets.Features:
    """The schema of a dataset.

    Args:
        tree: one int32 column of votes per answer.
        classes: label column -> names of its classes.
        metadata: further column -> dtype ("string", "float32", ...).
    """
    return datasets.Features(
        {"id_str": datasets.Value("string"), "image": datasets.Image()}
        | {column: datasets.Value("int32") for column in (tree.columns if tree else [])}
        | {column: datasets.ClassLabel(names=names) for column, names in (classes or {}).items()}
        | {column: datasets.Value(dtype) for column, dtype in (metadata or {}).items()}
    )


@dataclass
class Published:
    """What was written: for the dataset's card."""

    features: datasets.Features
    splits: dict[str, datasets.SplitInfo]
    download_size: int
    sums: dict[str, int]
    class_counts: dict[str, dict[str, int]]


def write_dataset(rows: Iterable[dict], features: datasets.Features, folder: Path) -> Published:
    """Write rows as Parquet files `data/{split}-NNNNN.parquet`, each row in the split that its `id_str` decides.

    Args:
        rows: `id_str`, `image` as {"bytes", "path"} (the bytes are kept as they are), and every other column.
        folder: an existing folder.

    Returns:
        Counts and sizes, and for integer columns their sum, for label columns the galaxies in each class.
    """
    (folder / "data").mkdir()
    writers = {split: _SplitWriter(split, features, folder / "data") for split in SPLITS}
    sums = {column: 0 for column, f in features.items() if getattr(f, "dtype", None) == "int32"}
    class_counts = {
        column: dict.fromkeys(feature.names, 0)
        for column, feature in features.items()
        if isinstance(feature, datasets.ClassLabel)
    }
    for row in rows:
        writers[split_of(row["id_str"])].add(row)
        for column in sums:
            sums[column] += row[column] or 0
        for column, counts in class_counts.items():
            counts[row[column]] += 1
    for writer in writers.values():
        writer.close()
    written = {split: writer for split, writer in writers.items() if writer.rows}
    return Published(
        features=features,
        splits={s: datasets.SplitInfo(s, num_bytes=w.bytes, num_examples=w.rows) for s, w in written.items()},
        download_size=sum(file.stat().st_size for file in (folder / "data").iterdir()),
        sums=sums,
        class_counts=class_counts,
    )


class _SplitWriter:
    """Collects the rows of one split and writes them in row groups, to files of a limited number of rows."""

    def __init__(self, split: str, features: datasets.Features, folder: Path):
        self.split, self.features, self.folder = split, features, folder
        self.schema = features.arrow_schema  # carries the features in its metadata, as load_dataset expects
        self.pending, self.rows, self.bytes, self.writer = [], 0, 0, None

    def add(self, row: dict) -> None:
        self.pending.append(self.features.encode_example(row))
        if len(self.pending) == ROWS_PER_GROUP:
            self._flush()

    def _flush(self):
        if not self.pending:
            return
        if self.rows % ROWS_PER_FILE == 0:
            self._close_file()
            path = self.folder / f"{self.split}-{self.rows // ROWS_PER_FILE:05d}.parquet"
            # Pictures are compressed already.
            packed = [c for c, f in self.features.items() if not isinstance(f, datasets.Image)]
            self.writer = pq.ParquetWriter(
                path, self.schema, compression={c: "snappy" for c in packed} | {"image": "none"},
                write_page_index=True, use_content_defined_chunking=True,
            )  # fmt: skip
        table = pa.Table.from_pylist(self.pending, schema=self.schema)
        self.writer.write_table(table)
        self.rows += table.num_rows
        self.bytes += table.nbytes
        self.pending = []

    def _close_file(self):
        if self.writer:
            self.writer.close()

    def close(self) -> None:
        self._flush()
        self._close_file()


def open_dataset(name: str, config: str | None = None) -> datasets.DatasetDict:
    """A published dataset: a folder or a Hub id.

    Raises:
        BadInput: there is no such dataset, or it lacks the columns `id_str` and `image`.
    """
    if Path(name).exists() and not any(Path(name).rglob("*.parquet")):
        raise BadInput(f"--dataset {name}: holds no Parquet files; publish it first (scripts/publish_dataset.py)")
    try:
        opened = datasets.load_dataset(name, config)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise BadInput(f"--dataset {name}: cannot be loaded ({' '.join(str(error).split())})") from error
    for split, rows in opened.items():
        if missing := {"id_str", "image"} - set(rows.column_names):
            raise BadInput(f"--dataset {name}: split {split} has no column {', '.join(sorted(missing))}")
    return opened


def title_of(name: str) -> str:
    """What a dataset's card calls it, so that a model trained on it can say so; its name if it has no card."""
    try:
        card = DatasetCard.load(Path(name) / "README.md" if Path(name).exists() else name)
    except (OSError, ValueError):  # no card, or one without a header
        return name
    return card.data.pretty_name or name


def rows_of(opened: datasets.DatasetDict, split: str, name: str) -> datasets.Dataset:
    """One split of an opened dataset; `name` is for the message.

    Raises:
        BadInput: no such split.
    """
    if split not in opened:
        raise BadInput(f"--dataset {name}: has no split {split!r}, only {', '.join(opened)}")
    return opened[split]


def check_tree_columns(rows: datasets.Dataset, tree: DecisionTree, name: str) -> None:
    """Refuse a dataset that lacks votes for a question of the tree; `name` is for the message."""
    if missing := [column for column in tree.columns if column not in rows.features]:
        raise BadInput(
            f"--dataset {name}: lacks {len(missing)} of the {len(tree.columns)} vote columns of tree {tree.name}: "
            f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}"
        )


def class_names(rows: datasets.Dataset, label: str, name: str) -> list[str]:
    """The classes of a label column; `name` is for the message.

    Raises:
        BadInput: no such column, or it holds no classes.
    """
    labels = [column for column, f in rows.features.items() if isinstance(f, datasets.ClassLabel)]
    if label not in labels:
        raise BadInput(
            f"--dataset {name}: has no class label {label!r}; its label columns: {', '.join(labels) or 'none'}"
        )
    return rows.features[label].names


def votes_of(rows: datasets.Dataset, tree: DecisionTree) -> np.ndarray:
    """(N, A) int32: the votes of a whole split."""
    return _votes(rows.select_columns(tree.columns).with_format("arrow")[:], tree)


def _votes(table, tree):
    # A galaxy that was never in a campaign may have null there: no votes, which is the mask of the likelihood.
    return np.stack([table[column].fill_null(0).to_numpy() for column in tree.columns], axis=1).astype(np.int32)


def labels_of(rows: datasets.Dataset, label: str, name: str) -> np.ndarray:
    """(N,) class indices of a whole split; `name` is for the message.

    Raises:
        BadInput: some galaxies have no label.
    """
    column = rows.select_columns([label]).with_format("arrow")[:][label]
    labels = column.fill_null(-1).to_numpy().copy()  # Arrow's own is read-only
    if missing := int((labels < 0).sum()):
        raise BadInput(f"--dataset {name}: {missing} galaxies have no {label!r}; publish it without them")
    return labels


class Galaxies(Dataset):
    """Rows as tensors, one batch a call: `pixels` (B, 3, C, C) uint8 canvases beside `votes` (B, A) or `labels` (B,).

    Args:
        rows: a split of a published dataset.
        framing: how the canvases are cut.
        target: a tree (gives `votes`) or a label column (gives `labels`).
    """

    def __init__(self, rows: datasets.Dataset, framing: Framing, target: DecisionTree | str):
        self.framing, self.target = framing, target
        columns = target.columns if isinstance(target, DecisionTree) else [target]
        self.rows = rows.select_columns(["image", *columns]).with_format("arrow")

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        table = self.rows[indices]
        pictures = (Image.open(io.BytesIO(image["bytes"])) for image in table["image"].to_pylist())
        pixels = torch.stack([to_canvas(picture, self.framing) for picture in pictures])
        if isinstance(self.target, str):
            return {"pixels": pixels, "labels": torch.tensor(table[self.target].to_numpy())}
        return {"pixels": pixels, "votes": torch.from_numpy(_votes(table, self.target))}


class TrainingSequence(Dataset):
    """The endless sequence of galaxies that training walks through: shuffle after shuffle of the same rows.

    Position p fixes the row and the random view (`affine`, (B, 2, 3)), by the seed alone. So a run is the same however
    the positions are dealt out to processes, accumulation steps and loader workers, and goes on exactly where it stopped.
    """

    def __init__(self, galaxies: Galaxies, seed: int, flip: bool = True):
        self.galaxies, self.seed, self.flip = galaxies, seed, flip
        self.shuffles: dict[int, np.ndarray] = {}

    def __getitem__(self, positions: list[int]) -> dict[str, torch.Tensor]:
        batch = self.galaxies[[self.row(p) for p in positions]]
        views = [
            draw_affine(np.random.default_rng([self.seed, 1, p]), self.galaxies.framing, self.flip) for p in positions
        ]
        return batch | {"affine": torch.from_numpy(np.stack(views))}

    def row(self, position: int) -> int:
        """The row that stands at a position."""
        epoch, place = divmod(position, len(self.galaxies))
        if epoch not in self.shuffles:
            shuffle = np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.galaxies))
            self.shuffles = {e: s for e, s in self.shuffles.items() if e == epoch - 1} | {epoch: shuffle}
        return int(self.shuffles[epoch][place])


@dataclass(frozen=True)
class Share:
    """Which part of each batch this process computes: its rank, of so many, in so many micro-batches a step."""

    rank: int = 0
    processes: int = 1
    accumulate: int = 1

    def micro_batch(self, batch_size: int) -> int:
        """Galaxies at once, of a batch of `batch_size` over all processes and micro-batches.

        Raises:
            BadInput: the batch cannot be shared out evenly.
        """
        parts = self.processes * self.accumulate
        if batch_size % parts:
            raise BadInput(f"--batch-size {batch_size} is not divisible by {parts} (processes x accumulation steps)")
        return batch_size // parts


def training_batches(
    sequence: TrainingSequence, batch_size: int, steps: range, share: Share, workers: int
) -> Iterator[dict[str, torch.Tensor]]:
    """This process's micro-batches, `share.accumulate` of them for each step.

    Args:
        batch_size: galaxies per step over all processes and micro-batches.
        steps: the steps to go; step s covers positions s * batch_size to (s + 1) * batch_size.
    """
    parts, micro = share.processes * share.accumulate, share.micro_batch(batch_size)

    def positions():
        for step in steps:
            for part in range(share.rank, parts, share.processes):
                first = step * batch_size + part * micro
                yield list(range(first, first + micro))

    return iter(_loader(sequence, positions(), workers))


def evaluation_batches(
    galaxies: Galaxies, batch_size: int, share: Share, workers: int
) -> Iterable[dict[str, torch.Tensor]]:
    """This process's galaxies in batches of up to `batch_size`: every galaxy of the split in exactly one process, once."""
    mine = range(share.rank, len(galaxies), share.processes)
    batches = [list(mine[first : first + batch_size]) for first in range(0, len(mine), batch_size)]
    return _loader(galaxies, batches, workers)


def _loader(dataset, batches, workers):
    # batch_size=None: the "sampler" gives whole batches of indices, and the dataset answers with whole batches.
    return DataLoader(dataset, None, sampler=batches, num_workers=workers, pin_memory=torch.cuda.is_available())
