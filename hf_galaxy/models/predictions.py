"""Predictions of a model for all galaxies of a dataset or a folder of pictures, as Parquet. Legend: B galaxies, D features.

Galaxies are assigned to parts by their number only, and any process may write a part: so the files do not depend on the number
of processes, and an interrupted command resumes with the missing parts. They are equal to the bit as far as PyTorch's results for a
batch do not depend on the number of threads. That was observed for batches of 16 and more, so short batches are padded.
"""

import csv
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Dataset

from hf_galaxy.data.dataset import open_dataset, rows_of
from hf_galaxy.data.galaxies import decode
from hf_galaxy.data.pictures import Rendering, to_rgb
from hf_galaxy.data.streaming import StreamedRows
from hf_galaxy.data.targets import tables_of
from hf_galaxy.data.views import Framing, eval_view, to_canvases
from hf_galaxy.errors import BadInput
from hf_galaxy.files import whole_file
from hf_galaxy.models.model import GalaxyPreTrainedModel
from hf_galaxy.progress import progress

SUFFIXES = (".jpg", ".jpeg", ".png", ".fits", ".fit", ".fits.gz")
JPEG_START = b"\xff\xd8\xff"
ROWS_PER_PART, MAX_PARTS = 1024, 2000  # parts of millions of galaxies have more rows
KEY = b"hf_galaxy"  # of the schema's metadata: facts about the model, and the unreadable pictures


class PictureFolder:
    """The pictures in a folder and all its subfolders, sorted by file name.

    Raises:
        BadInput: there are no pictures.
    """

    split = None

    def __init__(self, name: str) -> None:
        self.name, self.folder = name, Path(name)
        files = (file for file in self.folder.rglob("*") if file.name.lower().endswith(SUFFIXES) and file.is_file())
        self.ids = sorted(file.relative_to(self.folder).as_posix() for file in files if not file.name.startswith("."))
        if not self.ids:
            raise BadInput(f"--dataset {name}: holds neither Parquet files nor pictures ({', '.join(SUFFIXES)})")

    def __len__(self) -> int:
        return len(self.ids)

    def fingerprint(self) -> str:
        """A digest of the names and sizes of the files."""
        return _digest(f"{name} {(self.folder / name).stat().st_size}" for name in self.ids)

    def read(self, first: int, end: int, later: int) -> Iterator[tuple[str, bytes | OSError]]:
        """Names and contents of files `first` to `end`, with the error instead of the content of an unreadable file."""
        for name in self.ids[first:end]:
            try:
                yield name, (self.folder / name).read_bytes()
            except OSError as error:
                yield name, error


class DatasetSplit:
    """One split of a published dataset, read in place."""

    def __init__(self, name: str, split: str, rows: StreamedRows) -> None:
        self.name, self.split, self.rows = name, split, rows.select_columns(["id_str", "image"])

    def __len__(self) -> int:
        return len(self.rows)

    def fingerprint(self) -> str:
        """A digest of the names of the galaxies."""
        return _digest(name for table in tables_of(self.rows, ["id_str"]) for name in table["id_str"].to_pylist())

    def read(self, first: int, end: int, later: int) -> Iterator[tuple[str, bytes | None]]:
        """Names and encoded pictures of rows `first` to `end`; rows up to `later` will be read next."""
        self.rows.prefetch(np.arange(first, min(later, first + self.rows.window)))
        table = self.rows[list(range(first, end))]
        contents = table["image"].combine_chunks().field("bytes").to_pylist()
        yield from zip(table["id_str"].to_pylist(), contents, strict=True)


Source = PictureFolder | DatasetSplit


def sources_of(name: str, config: str | None = None, split: str | None = None) -> list[Source]:
    """The galaxies of a folder of pictures, or of one or all splits of a published dataset.

    Raises:
        BadInput: there is no such dataset or split, or there are no pictures.
    """
    if Path(name).is_dir() and not any(Path(name).rglob("*.parquet")):
        if split or config:
            raise BadInput(f"--dataset {name}: is a folder of pictures, which has no splits and configurations")
        return [PictureFolder(name)]
    opened = open_dataset(name, config, streaming=True)
    chosen = {split: rows_of(opened, split, name)} if split else opened
    return [DatasetSplit(name, split, cast(StreamedRows, rows)) for split, rows in chosen.items()]


class Part(NamedTuple):
    """A file of predictions, for the galaxies `first` to `end` of one source."""

    file: str
    source: int
    first: int
    end: int


def parts_of(sources: list[Source]) -> list[Part]:
    """The parts of all sources, in their order."""
    rows = max(ROWS_PER_PART, -(-sum(map(len, sources)) // MAX_PARTS))
    spans = [
        (s, i, min(i + rows, len(source))) for s, source in enumerate(sources) for i in range(0, len(source), rows)
    ]
    return [Part(f"part-{i:05}-of-{len(spans):05}.parquet", *span) for i, span in enumerate(spans)]


def schema_of(model: GalaxyPreTrainedModel, about: dict, embeddings: bool = False) -> pa.Schema:
    """The columns of the predictions of a model.

    `dataset`, `split` (null for pictures in a folder) and `id_str` identify the galaxy. For votes, each answer has an expected
    `_fraction`, and with the Dirichlet-multinomial likelihood a `_concentration`; each class has a `_probability`; values have
    their names. All these are float32, and so is `embedding`, the D features.

    Args:
        about: facts for the metadata of the schema, which holds them as JSON beside the model's configuration.
    """
    columns = [pa.field(name, pa.string()) for name in ("dataset", "split", "id_str")]
    columns += [pa.field(name, pa.float32()) for name in model.prediction_columns]
    if embeddings:
        columns.append(pa.field("embedding", pa.list_(pa.float32(), model.head.in_features)))
    config = model.config
    of_model = {name: getattr(config, name) for name in ("architectures", "backbone", "image_size", "crop", "tree")}
    return pa.schema(columns, {KEY: json.dumps(about | of_model)})


def predict(
    model: GalaxyPreTrainedModel, sources: list[Source], schema: pa.Schema, folder: Path, batch_size: int, workers: int,
    accelerator: Accelerator, rendering: Rendering,
) -> None:  # fmt: skip
    """Write those parts of this process that are not in the folder yet.

    Args:
        workers: processes that decode pictures; at most one for a dataset, since each would read all of it.
        rendering: of FITS files and 16-bit PNGs.
    """
    mine = parts_of(sources)[accelerator.process_index :: accelerator.num_processes]
    mine = [part for part in mine if not (folder / part.file).exists()]
    tasks = [
        (p, i, min(i + batch_size, part.end))
        for p, part in enumerate(mine)
        for i in range(part.first, part.end, batch_size)
    ]
    if any(isinstance(source, DatasetSplit) for source in sources):
        workers = min(workers, 1)
    reader = _Reader(sources, mine, model.config.framing, rendering)
    batches = DataLoader(reader, None, sampler=tasks, num_workers=workers, pin_memory=accelerator.device.type == "cuda")
    # One progress bar, of the first process, which has as many parts as the others, or one more.
    bar = progress(
        total=sum(part.end - part.first for part in mine), desc="predicting", disable=not accelerator.is_main_process
    )
    features: list[torch.Tensor] = []
    hook = model.head.register_forward_pre_hook(lambda head, inputs: features.append(inputs[0]))
    model = model.to(accelerator.device).eval()
    rows: list[pa.Table] = []
    unreadable: list[tuple[str, str]] = []
    with hook, bar, torch.inference_mode(), accelerator.autocast():
        for (p, first, end), batch in zip(tasks, batches, strict=True):
            unreadable += batch["unreadable"]
            if batch["ids"]:
                pixels, count = batch["pixels"].to(accelerator.device, non_blocking=True), len(batch["ids"])
                pixels = torch.cat([pixels, pixels[:1].expand(batch_size - count, -1, -1, -1)])
                numbers = model.predictions(eval_view(pixels, model.config.framing))[:count]
                embedding = features.pop()[:count] if "embedding" in schema.names else None
                rows.append(_rows(schema, sources[mine[p].source], batch["ids"], numbers, embedding))
            features.clear()
            bar.update(end - first)
            if end == mine[p].end:
                _write(folder / mine[p].file, schema, rows, unreadable)
                rows, unreadable = [], []


def _rows(
    schema: pa.Schema, source: Source, ids: list[str], numbers: torch.Tensor, embedding: torch.Tensor | None
) -> pa.Table:
    names = [pa.array([name] * len(ids), pa.string()) for name in (source.name, source.split)]
    columns = [*names, pa.array(ids, pa.string()), *numbers.float().cpu().numpy().T.copy()]
    if embedding is not None:
        flat = pa.array(embedding.float().cpu().numpy().ravel())
        columns.append(pa.FixedSizeListArray.from_arrays(flat, embedding.shape[1]))
    return pa.Table.from_arrays([pa.array(column) for column in columns], schema=schema)


def _write(file: Path, schema: pa.Schema, rows: list[pa.Table], unreadable: list[tuple[str, str]]) -> None:
    metadata = schema.metadata | {KEY: json.dumps(json.loads(schema.metadata[KEY]) | {"unreadable": unreadable})}
    table = pa.concat_tables(rows).combine_chunks() if rows else schema.empty_table()
    with whole_file(file) as partial:
        pq.write_table(table.replace_schema_metadata(metadata), partial, compression="zstd")


def finish(folder: Path, sources: list[Source], as_csv: bool) -> tuple[int, int]:
    """Write unreadable.csv beside the parts, if there are unreadable pictures, and predictions.csv, without embeddings.

    Args:
        as_csv: write predictions.csv.

    Returns:
        The numbers of predicted galaxies and of unreadable pictures.
    """
    parts, predicted = parts_of(sources), 0
    unreadable: list[tuple[str, str, str, str]] = []
    for part in parts:
        footer = pq.read_metadata(folder / part.file)
        predicted += footer.num_rows
        source = sources[part.source]
        of_part = json.loads(footer.metadata[KEY])["unreadable"]
        unreadable += [(source.name, source.split or "", name, reason) for name, reason in of_part]
    if unreadable:
        with whole_file(folder / "unreadable.csv") as partial, open(partial, "w", newline="") as file:
            csv.writer(file).writerows([("dataset", "split", "id_str", "reason"), *unreadable])
    if as_csv:
        names = [name for name in pq.read_schema(folder / parts[0].file).names if name != "embedding"]
        schema = pa.schema([pq.read_schema(folder / parts[0].file).field(name) for name in names])
        with whole_file(folder / "predictions.csv") as partial, pyarrow.csv.CSVWriter(partial, schema) as writer:
            for part in parts:
                writer.write_table(pq.read_table(folder / part.file, columns=names).cast(schema))
    return predicted, len(unreadable)


def weights_digest(model: GalaxyPreTrainedModel) -> str:
    """SHA-256 of all weights."""
    digest = hashlib.sha256()
    for name, values in sorted(model.state_dict().items()):
        digest.update(name.encode() + values.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _digest(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()


class _Reader(Dataset):
    """Decoded pictures, one batch per call: `pixels` (B, 3, C, C) uint8 canvases of the readable ones, their `ids`, and
    `unreadable`, the names and errors of the others."""

    def __init__(self, sources: list[Source], parts: list[Part], framing: Framing, rendering: Rendering) -> None:
        self.sources, self.parts, self.framing, self.rendering = sources, parts, framing, rendering

    def __getitem__(self, batch: tuple[int, int, int]) -> dict:
        p, first, end = batch
        part = self.parts[p]
        ids, pictures, unreadable = [], [], []
        for name, content in self.sources[part.source].read(first, end, part.end):
            try:
                pictures.append(self._decoded(content))
                ids.append(name)
            except (OSError, ValueError) as error:  # BadInput is a ValueError
                unreadable.append((name, " ".join(str(error).split())))
        pixels = to_canvases(pictures, self.framing) if pictures else None
        return {"ids": ids, "pixels": pixels, "unreadable": unreadable}

    def _decoded(self, content: bytes | OSError | None) -> np.ndarray:
        if isinstance(content, OSError):
            raise content
        if content is None:
            raise ValueError("there is no picture")
        if content.startswith(JPEG_START) and self.rendering.size is None and self.rendering.crop == 1:
            return decode(content)  # the same pixels, in half the time if simplejpeg is installed
        return np.asarray(to_rgb(self.rendering.open(content)))
