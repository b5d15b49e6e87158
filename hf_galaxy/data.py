"""Published datasets -> tensors: opening, what their columns hold, decoding.

Legend of shapes: B, N galaxies, A answers, K values, H and W of a picture, C side of the canvas.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import Dataset

from hf_galaxy.bootstrap import key_of
from hf_galaxy.copied import CopiedRows, open_copy
from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.errors import BadInput
from hf_galaxy.pictures import check_pixels, open_picture, to_rgb
from hf_galaxy.schema import InvalidVotes, class_name, hashed_place, vote_columns, votes_in
from hf_galaxy.streaming import StreamedRows, open_stream
from hf_galaxy.views import Framing, to_canvases

try:
    import simplejpeg
except ImportError:  # Pillow decodes to the same pixels, at half the speed
    simplejpeg = None

Rows = CopiedRows | StreamedRows | datasets.Dataset
MANY = 16  # columns of votes, of which it is faster to make one
VALIDATION_SHARE = 1 / 8  # of a train split that comes without a validation split: the shares are then those of ours


def open_dataset(name: str, config: str | None = None, streaming: bool = False) -> dict[str, Rows]:
    """The splits of a published dataset: ours, or any with the columns `id_str` and `image` such as mwalmsley/gz_evo.

    Where there is no validation split, an eighth of the train split, chosen by a hash of `id_str`, becomes one.

    Args:
        name: a folder or a Hub id.
        config: one of its configurations; None: its default.
        streaming: read Parquet files where they are, as far as they are needed, instead of copying them to a cache first.

    Raises:
        BadInput: there is no such dataset, or it lacks one of these columns.
    """
    if Path(name).exists() and not any(Path(name).rglob("*.parquet")):
        raise BadInput(f"--dataset {name}: holds no Parquet files; publish it first (scripts/publish_dataset.py)")
    opened = open_stream(name, config) if streaming else open_copy(name, config)
    for split, rows in opened.items():
        if missing := {"id_str", "image"} - set(rows.column_names):
            raise BadInput(f"--dataset {name}: split {split} has no column {', '.join(sorted(missing))}")
        if not is_text(rows.features["id_str"]):
            raise BadInput(f"--dataset {name}: split {split}: id_str holds {rows.features['id_str']}, but must be text")
    if "train" in opened and "validation" not in opened:
        ids = column_of(opened["train"], "id_str").to_pylist()
        chosen = np.array([hashed_place(f"validation of {id_str}") < VALIDATION_SHARE for id_str in ids])
        train = opened["train"]
        opened |= {
            part: train.select(np.flatnonzero(which)) for part, which in (("train", ~chosen), ("validation", chosen))
        }
    return opened


def is_text(feature):
    return isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string")


def column_of(rows, column):
    return rows.select_columns([column]).with_format("arrow")[:][column]


def rows_of(opened: dict[str, Rows], split: str, name: str) -> Rows:
    """One split of an opened dataset; `name` is for the message.

    Raises:
        BadInput: no such split.
    """
    if split not in opened:
        raise BadInput(f"--dataset {name}: has no split {split!r}, only {', '.join(opened)}")
    return opened[split]


def check_tree_columns(columns: Collection[str], tree: DecisionTree, name: str) -> None:
    """Refuse a dataset with these columns if it lacks votes for a question of the tree; `name` is for the message."""
    if missing := [column for column in tree.columns if column not in set(columns)]:
        raise BadInput(
            f"--dataset {name}: lacks {len(missing)} of the {len(tree.columns)} vote columns of tree {tree.name}: "
            f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}"
        )


@dataclass(frozen=True)
class Label:
    """A column of classes, and the names of the classes in the order of their indices.

    Attributes:
        one: the class of the column that is told from all others; None: all are told from each other.
    """

    column: str
    names: tuple[str, ...]
    one: str | None = None

    @classmethod
    def of(cls, said: str, names: Collection[str]) -> "Label":
        """What --label says: a column, or COLUMN=CLASS; `names` are those of the column's classes, or of a run's.

        One class is told from the rest by index 1, and the rest is called "not CLASS": so that two such heads have no name in
        common that means different things.
        """
        column, equals, one = said.partition("=")
        return cls(column, (f"not {one}", one), one) if equals else cls(column, tuple(names))

    def indices(self, table: pa.Table, feature) -> np.ndarray:
        """(N,) int64 class indices of some rows; -1 where a row has no label, or, of several to be told apart, another one.

        Args:
            feature: the type of the column in these rows.
        """
        values = table[self.column].to_pylist()
        if isinstance(feature, datasets.ClassLabel):
            values = [class_name(feature, v) for v in values]
        if self.one is not None:
            return np.array([int(v == self.one) if v else -1 for v in values], dtype=np.int64)
        places = {name: i for i, name in enumerate(self.names)}
        return np.array([places.get(v, -1) for v in values], dtype=np.int64)


def label_of(rows: Rows, said: str, name: str) -> Label:
    """The classes of a label column: those of a ClassLabel, or the different texts of a text column, sorted.

    Args:
        said: a column such as `summary` of mwalmsley/gz_evo, where an empty text is no label; or `summary=round`, to tell one
            class from the rest.
        name: of the dataset, for the message.

    Raises:
        BadInput: no such column, it holds no classes, fewer than two, or not the one that is named.
    """
    names = _classes_in(rows, Label.of(said, ()).column, name)
    label = Label.of(said, names)
    _check_one(label, names, f"--dataset {name}: ")
    return label


def _check_one(label, names, where=""):
    """Refuse a column with these classes if the label tells another one from the rest."""
    if label.one is not None and label.one not in names:
        raise BadInput(
            f"{where}{label.column!r} has no class {label.one!r} to be told from the rest, only {', '.join(names[:20])}"
            f"{', ...' if len(names) > 20 else ''}"
        )


def _classes_in(rows, column, name):
    feature = rows.features.get(column)
    if isinstance(feature, datasets.ClassLabel):
        return feature.names
    if not is_text(feature):
        labels = ", ".join(label_columns(rows)) or "none"
        raise BadInput(f"--dataset {name}: has no class label {column!r}; its label columns: {labels}")
    names = sorted({value for value in column_of(rows, column).unique().to_pylist() if value})
    if not 1 < len(names) <= 1000:
        raise BadInput(
            f"--dataset {name}: column {column!r} holds {len(names)} different texts; classes are 2 to 1,000"
        )
    return names


def label_columns(rows: Rows) -> list[str]:
    """The columns that hold classes by their type; texts may do, too."""
    return [column for column, feature in rows.features.items() if isinstance(feature, datasets.ClassLabel)]


@dataclass(frozen=True)
class Values:
    """Columns of numbers, one or several; null or NaN is a missing one.

    Attributes:
        unit_interval: the numbers are in [0, 1], such as fractions.
    """

    columns: tuple[str, ...]
    unit_interval: bool = False

    def numbers(self, table) -> np.ndarray:
        """(N, K) float64 values of some rows, NaN where missing."""
        return np.stack([table[column].cast(pa.float64(), safe=False).to_numpy() for column in self.columns], axis=1)


def values_of(rows: Rows, columns: Collection[str], name: str, unit_interval: bool = False) -> Values:
    """The values in these columns.

    Args:
        columns: of integers or floats.
        name: of the dataset, for the message.

    Raises:
        BadInput: none are given, or there is no such column, or it holds something else.
    """
    wrong = [column for column in columns if not _is_number(rows.features.get(column))]
    if wrong or not columns:
        having = [column for column, feature in rows.features.items() if _is_number(feature)]
        having.sort(key=lambda column: not rows.features[column].dtype.startswith("float"))  # integers are often votes
        raise BadInput(
            f"--dataset {name}: has no column of numbers {', '.join(map(repr, wrong)) or 'to learn without --values'}; those that "
            f"it has: {', '.join(having[:20]) or 'none'}{', ...' if len(having) > 20 else ''}"
        )
    return Values(tuple(columns), unit_interval)


def _is_number(feature):
    return type(feature) is datasets.Value and feature.dtype.startswith(("int", "uint", "float"))


def with_values(rows: Rows, values: Values, where: str) -> tuple[Rows, np.ndarray]:
    """The rows that have at least one of the values, and their values (N, K) float64; `where` is for the message.

    Raises:
        BadInput: none has, or a value is none that can be learnt; names its galaxy.
    """
    numbers = values.numbers(rows.select_columns(list(values.columns)).with_format("arrow")[:])
    # What is calculated is calculated in float32. NaN is greater than nothing.
    _refuse(
        np.abs(numbers) > np.finfo(np.float32).max,
        numbers,
        rows,
        values,
        where,
        "is too large; use another unit, or its logarithm",
    )
    if values.unit_interval:
        outside = (numbers < 0) | (numbers > 1)
        _refuse(outside, numbers, rows, values, where, "is not in [0, 1], as --unit-interval has it")
    having = np.flatnonzero(~np.isnan(numbers).all(axis=1))
    if not len(having):
        raise BadInput(f"{where}: none of its {len(rows):,} galaxies has {' or '.join(values.columns)}")
    return (rows if len(having) == len(rows) else rows.select(having)), numbers[having]


def _refuse(wrong: np.ndarray, numbers: np.ndarray, rows: Rows, values: Values, where: str, what: str) -> None:
    """BadInput with the first of some wrong numbers; the row's number would be that among the chosen rows."""
    for row, k in np.argwhere(wrong)[:1].tolist():
        name = rows.select_columns(["id_str"]).with_format("arrow")[[row]]["id_str"][0].as_py()
        raise BadInput(f"{where}, id_str {name}, column {values.columns[k]}: {numbers[row, k]:g} {what}")


def columns_of(rows: Rows, target: DecisionTree | Label | Values) -> list[str]:
    """The columns that hold the target.

    Raises:
        BadInput: the rows have no votes for the tree, only some answers of a question, or other classes.
    """
    if isinstance(target, DecisionTree):
        return vote_columns(rows.column_names, target)
    if isinstance(target, Values):
        return list(target.columns)
    feature = rows.features[target.column]
    if isinstance(feature, datasets.ClassLabel) and target.one is not None:
        _check_one(target, feature.names)
    elif isinstance(feature, datasets.ClassLabel) and tuple(feature.names) != target.names:
        raise BadInput(f"{target.column!r} has the classes {', '.join(feature.names)}, not {', '.join(target.names)}")
    return [target.column]


def vote_batches(rows: Rows, tree: DecisionTree) -> Iterator[np.ndarray]:
    """The votes of a whole split in its order, (n, A) int32 at a time."""
    for table in tables_of(rows, [], tree):
        yield votes_in(table, tree)


def labelled(rows: Rows, label: Label, name: str) -> tuple[Rows, np.ndarray]:
    """The rows that have a label, and their class indices; `name` is for the message.

    Raises:
        BadInput: none has.
    """
    table = rows.select_columns([label.column]).with_format("arrow")[:]
    indices = label.indices(table, rows.features[label.column])
    having = np.flatnonzero(indices >= 0)
    if not len(having):
        raise BadInput(f"--dataset {name}: none of its {len(rows):,} galaxies has a {label.column!r}")
    return (rows if len(having) == len(rows) else rows.select(having)), indices[having]


def decode(content: bytes | None, shorter: int | None = None, out: np.ndarray | None = None) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an encoded picture of 8 bits, as `pictures.to_rgb` makes it.

    Args:
        shorter: a JPEG may come at 1/2, 1/4 or 1/8 of its size, as long as its shorter side is no shorter than this: its
            cosine transform gives it so in less time. Pillow and simplejpeg give the same pixels, to the bit.
        out: where to, if it has the size of the picture.

    Raises:
        BadInput: there is none, it cannot be decoded completely, or it has more than 8 bits or too many pixels.
    """
    try:
        return _decoded(content, shorter, out)
    except BadInput:
        raise
    except Exception as error:  # decoders raise many kinds; each means that the picture is no good
        raise BadInput(" ".join(str(error).split()) or type(error).__name__) from error


def _decoded(content: bytes | None, shorter: int | None, out: np.ndarray | None) -> np.ndarray:
    if simplejpeg and content and simplejpeg.is_jpeg(content):
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
        check_pixels(width, height)
        if colours in ("YCbCr", "Gray", "RGB"):  # CMYK is Pillow's
            factor = _reduction(min(height, width), shorter)
            height, width = -(-height // factor), -(-width // factor)
            smaller = {"min_height": height, "min_width": width} if factor > 1 else {}
            buffer = out if out is not None and out.shape == (height, width, 3) else None
            return simplejpeg.decode_jpeg(content, "RGB", buffer=buffer, **smaller)
    picture = open_picture(content)
    factor = _reduction(min(picture.size), shorter)
    if factor > 1:
        picture.draft(picture.mode, tuple(side // factor for side in picture.size))
    pixels = np.asarray(to_rgb(picture))
    if out is not None and out.shape == pixels.shape:
        out[:] = pixels
    return pixels


def _reduction(side, shorter):
    return max((factor for factor in (1, 2, 4, 8) if shorter and side // factor >= shorter), default=1)


def decode_batch(contents: list[bytes], shorter: int | None = None) -> np.ndarray | list[np.ndarray]:
    """(B, H, W, 3) uint8 of pictures of one size, decoded where they stay; a list of arrays if they have several sizes."""
    first = decode(contents[0], shorter)
    batch = np.empty((len(contents), *first.shape), np.uint8)
    pictures = [decode(content, shorter, out) for content, out in zip(contents, batch, strict=True)]
    return batch if all(picture.shape == first.shape for picture in pictures) else pictures


def targets_in(
    table: pa.Table, target: DecisionTree | Label | Values, features: datasets.Features
) -> dict[str, torch.Tensor]:
    """What a model is to learn of some rows: `votes` (N, A) int32, or `labels`, (N,) int64 classes or (N, K) float32 values.

    Args:
        features: the schema of the rows.
    """
    if isinstance(target, Label):
        return {"labels": torch.from_numpy(target.indices(table, features[target.column]))}
    if isinstance(target, Values):
        return {"labels": torch.from_numpy(target.numbers(table)).float()}
    return {"votes": torch.from_numpy(votes_in(table, target))}


def tables_of(
    rows: Rows, columns: list[str], target: DecisionTree | Label | None = None, size: int = 5_000
) -> Iterator[pa.Table]:
    """Some columns of all rows in their order, `size` rows at a time, so that many are never in memory together.

    Args:
        target: also the columns that `targets_in` needs.

    Raises:
        BadInput: as `columns_of`, or a number is no number of votes.
    """
    chosen = with_target(rows, columns, target)
    for first in range(0, len(rows), size):
        table = chosen[first : first + size]
        if isinstance(target, DecisionTree):
            try:
                votes_in(table, target)
            except InvalidVotes as error:
                raise BadInput(f"{galaxy_of(rows, first + error.row)}, {error.reason}") from error
        yield table


def galaxy_of(rows: Rows, index: int) -> str:
    """What a message calls the galaxy in one of these rows: the dataset, if they know it, and `id_str`.

    The number of the row would mislead, as rows may have been chosen from those of a file.
    """
    name = f"row {index}"
    if "id_str" in rows.column_names:
        name = f"id_str {rows.select_columns(['id_str']).with_format('arrow')[[index]]['id_str'][0].as_py()}"
    dataset = getattr(rows, "name", "")
    return f"--dataset {dataset}, {name}" if dataset else name


def with_target(rows, columns, target):
    """The rows with some columns and those of a target; many of votes as one (`vote_matrix`), where the rows can give it."""
    held = [] if target is None else columns_of(rows, target)
    if isinstance(target, DecisionTree) and len(held) >= MANY and not isinstance(rows, datasets.Dataset):
        return rows.select_columns(columns, votes=held)
    return rows.select_columns([*columns, *held]).with_format("arrow")


class Galaxies(Dataset):
    """Rows as tensors, one batch a call: `pixels` (B, 3, C, C) uint8 canvases beside `votes` (B, A) or `labels`.

    Args:
        rows: a split of a published dataset.
        framing: how the canvases are cut.
        target: a tree (gives `votes`, none for questions of which the rows have no columns), a label (gives `labels` (B,) int64)
            or values (give `labels` (B, K) float32, NaN where missing).
        fast: large JPEGs are shrunk while they are decoded, if they are shrunk anyway. For training; without it pictures
            are what an image processor makes of them.
        keyed: also give `keys` (B,) int64, which stand for the galaxies' names (`bootstrap.key_of`), or for their rows
            if they have no `id_str`.

    Raises:
        BadInput: as `columns_of`.
    """

    def __init__(
        self,
        rows: Rows,
        framing: Framing,
        target: DecisionTree | Label | Values,
        fast: bool = False,
        keyed: bool = False,
    ):
        self.framing, self.target, self.shorter = framing, target, framing.scaled if fast else None
        self.keyed, self.named = keyed, keyed and "id_str" in rows.column_names
        names = ["id_str"] if self.named else []
        self.rows, self._whole = with_target(rows, ["image", *names], target), rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        table = self.rows[indices]
        contents = table["image"].combine_chunks().field("bytes").to_pylist()
        try:
            pictures = decode_batch(contents, self.shorter)
        except BadInput:
            self._name_undecodable(indices, contents)
            raise
        pixels = to_canvases(pictures, self.framing)
        try:
            batch = {"pixels": pixels, **targets_in(table, self.target, self.rows.features)}
        except InvalidVotes as error:
            raise BadInput(f"{galaxy_of(self._whole, indices[error.row])}, {error.reason}") from error
        if self.keyed:
            names = table["id_str"].to_pylist() if self.named else map(str, indices)
            batch["keys"] = torch.tensor([key_of(name) for name in names])
        return batch

    def _name_undecodable(self, indices: list[int], contents: list[bytes | None]) -> None:
        """Raise BadInput about the first picture that cannot be decoded."""
        for index, content in zip(indices, contents, strict=True):
            try:
                decode(content, self.shorter)
            except BadInput as error:
                raise BadInput(
                    f"{galaxy_of(self._whole, index)}: its picture cannot be decoded ({error}); "
                    "scripts/check_dataset.py lists all such pictures"
                ) from error
