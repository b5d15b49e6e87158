"""Predictions of a model for galaxies, as Parquet. Legend: B galaxies, D features.

Galaxies are assigned to parts by their number only, and any process may write a part: so the files do not depend on the number
of processes, and an interrupted command resumes with the missing parts. They are equal to the bit as far as PyTorch's results for a
batch do not depend on the number of threads. That was observed for batches of 16 and more, so short batches are padded.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader

from hf_galaxy.data.pictures import Rendering
from hf_galaxy.data.pixels import DEFAULT
from hf_galaxy.data.views import Framing, eval_view
from hf_galaxy.errors import BadInput
from hf_galaxy.files import Share, whole_file
from hf_galaxy.models.ensemble import Views, turned_views
from hf_galaxy.models.familiarity import looks_of
from hf_galaxy.models.model import GalaxyPreTrainedModel
from hf_galaxy.models.prediction_columns import NAMES, Column, PredictionColumns, unit_of
from hf_galaxy.models.prediction_inputs import DatasetSplit, Part, Reader, Source, parts_of
from hf_galaxy.progress import progress

KEY = b"hf_galaxy"  # of the schema's metadata: facts about the model, and the unreadable pictures
EMBEDDING = "embedding"
UNREADABLE = ("dataset", "split", "id_str", "reason")  # the columns of unreadable.csv
WHOLE = Share(1, 1)


def schema_of(
    models: Sequence[GalaxyPreTrainedModel],
    about: dict,
    columns: PredictionColumns | None,
    embeddings: pa.DataType | None = None,
) -> pa.Schema:
    """The columns of the predictions of some models that have the same ones.

    `dataset`, `split` (null for pictures in a folder) and `id_str` identify the galaxy; then follow the columns of numbers, and
    `embedding`, the D features.

    Args:
        about: facts for the metadata of the schema, which holds them as JSON beside the configuration of the models.
        columns: of numbers; None: there are only embeddings.
        embeddings: type of the features; None: without.
    """
    model = models[0]
    fields = [pa.field(column.name, column.type) for column in (*NAMES, *(columns.columns if columns else ()))]
    if embeddings is not None:
        fields.append(pa.field(EMBEDDING, pa.list_(embeddings, model.head.in_features)))
    config = model.config
    facts = ("architectures", "backbone", "image_size", "crop", *(["tree"] if columns else []))
    of_model = {name: getattr(config, name) for name in facts}
    of_model["backbone"] = one_or_all([each.config.backbone for each in models])
    if columns:  # predictions of another calibration are not resumed with this one
        of_model["calibration"] = one_or_all([each.config.calibration for each in models])
    return pa.schema(fields, {KEY: json.dumps(about | of_model | (columns.facts if columns else {}))})


def one_or_all(facts: Sequence[Any]) -> Any:
    """What metadata hold of one run, or of several."""
    return facts[0] if len(facts) == 1 else list(facts)


class Answer(NamedTuple):
    """What is computed of B galaxies; None: it is not asked for.

    Attributes:
        numbers: (M, B, N) float32 of the models, for each view.
        embedding: (B, D) float32.
        scores: (B,) how far they are from the training galaxies.
    """

    numbers: np.ndarray | None
    embedding: np.ndarray | None
    scores: np.ndarray | None


@dataclass(frozen=True)
class Predictor:
    """Models that predict galaxies.

    Attributes:
        models: one, or several with the same columns (`ensemble.check_members`), whose predictions are combined.
        columns: of numbers; None: there are only embeddings.
        schema: of its tables (`schema_of`); the columns that a source has joined follow.
        workers: processes that decode pictures; at most one for a dataset, since each would read all of it.
        rendering: how files and pictures in memory become pictures such as those of its training set.
        views: of each galaxy that are predicted (`ensemble.turned_views`).
        reader: what reads the pictures.
    """

    models: Sequence[GalaxyPreTrainedModel]
    accelerator: Accelerator
    columns: PredictionColumns | None
    schema: pa.Schema
    batch_size: int = 128
    workers: int = 1
    rendering: Rendering = DEFAULT
    views: Views = 1
    reader: Callable[[list[Source], list[Part], Framing, Rendering], Reader] = Reader

    def table_columns(self, sources: list[Source]) -> list[Column]:
        """All columns of the tables, in their order."""
        columns = [*NAMES, *(self.columns.columns if self.columns else ())]
        if EMBEDDING in self.schema.names:
            kind = self.schema.field(EMBEDDING).type
            columns.append(
                Column(EMBEDDING, kind, "features of the backbone: galaxies that look alike are near to each other")
            )
        beside = sources[0].joined.schema if sources[0].joined is not None else ()
        origin = {name: "column of the galaxies, as it was" for name in sources[0].kept}
        return columns + [
            Column(each.name, each.type, origin.get(each.name, "column of the joined table"), unit_of(each.name))
            for each in beside
        ]

    def write(self, sources: list[Source], folder: Path, share: Share = WHOLE) -> None:
        """Write those parts of this process that are not in the folder yet."""
        parts = [part for part in self.own_parts(sources, share) if not _is_whole(folder / part.file)]
        for part, table in self.tables(sources, parts):
            with whole_file(folder / part.file) as partial:
                pq.write_table(table, partial, compression="zstd", write_page_checksum=True)

    def own_parts(self, sources: list[Source], share: Share = WHOLE) -> list[Part]:
        """The parts of this process, of those in the share."""
        return share.among(parts_of(sources))[self.accelerator.process_index :: self.accelerator.num_processes]

    def tables(self, sources: list[Source], parts: list[Part]) -> Iterator[tuple[Part, pa.Table]]:
        """The predictions of some parts. The metadata of a table hold its unreadable pictures (`unreadable_in`)."""
        tasks = [
            (p, i, min(i + self.batch_size, part.end))
            for p, part in enumerate(parts)
            for i in range(part.first, part.end, self.batch_size)
        ]
        workers = min(self.workers, 1) if any(isinstance(source, DatasetSplit) for source in sources) else self.workers
        if len(tasks) < 2:  # nobody waits for the next batch
            workers = 0
        accelerator = self.accelerator
        reader = self.reader(sources, parts, self.models[0].config.framing, self.rendering)
        pinned = accelerator.device.type == "cuda"
        batches = DataLoader(reader, None, sampler=tasks, num_workers=workers, pin_memory=pinned)
        # One progress bar, of the first process, which has as many parts as the others, or one more.
        total, silent = sum(part.end - part.first for part in parts), not accelerator.is_main_process
        rows: list[pa.Table] = []
        unreadable: list[tuple[str, str]] = []
        for model in self.models:
            model.to(accelerator.device, memory_format=torch.channels_last).eval()  # in which convolutions are faster
        with progress(total=total, desc="predicting", disable=silent) as bar:
            for (p, first, end), batch in zip(tasks, batches, strict=True):
                unreadable += batch["unreadable"]
                if batch["ids"]:
                    rows.append(self._rows(sources[parts[p].source], batch, self._answer(batch["pixels"])))
                bar.update(end - first)
                if end == parts[p].end:
                    yield parts[p], self._table(sources[parts[p].source], rows, unreadable)
                    rows, unreadable = [], []

    @torch.inference_mode()
    def _answer(self, pixels: torch.Tensor) -> Answer:
        """The numbers of canvases, their features and their scores, as far as the schema has them."""
        columns, count = self.columns, len(pixels)
        pixels = pixels.to(self.accelerator.device, non_blocking=True)
        pixels = torch.cat([pixels, pixels[:1].expand(self.batch_size - count, -1, -1, -1)])
        view = eval_view(pixels, self.models[0].config.framing)
        numbers: list[np.ndarray] = []
        features: list[torch.Tensor] = []  # of each view by the first model, then by the second
        with self.accelerator.autocast():
            for model in self.models:
                for turned in turned_views(view, self.views):
                    if columns is None:
                        features.append(model.features(turned))
                        continue
                    with model.head.register_forward_pre_hook(lambda head, inputs: features.append(inputs[0])):
                        numbers.append(_numpy(model.predictions(turned)[:count]))
        embedding: np.ndarray | None = None
        scores: np.ndarray | None = None
        if EMBEDDING in self.schema.names:  # of one model, over its views
            of_views = np.stack([_numpy(each[:count]) for each in features])
            embedding = of_views.mean(axis=0, dtype=np.float64).astype(np.float32)
        if columns and columns.familiarity:
            scores = columns.familiarity.ood_score(_numpy(features[0][:count]), looks_of(view[:count].cpu().numpy()))
        return Answer(np.stack(numbers) if numbers else None, embedding, scores)

    def _rows(self, source: Source, batch: dict, answer: Answer) -> pa.Table:
        ids = batch["ids"]
        columns = [pa.array([name] * len(ids), pa.string()) for name in (source.name, source.split)]
        columns.append(pa.array(ids, pa.string()))
        if answer.numbers is not None and self.columns is not None:
            columns += self.columns.arrays(answer.numbers, answer.scores)
        if answer.embedding is not None:
            number = self.schema.field(EMBEDDING).type.value_type.to_pandas_dtype()
            if number == np.float16:
                _check_half(answer.embedding, ids)
            values = answer.embedding.astype(number)
            columns.append(pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1]))
        return _beside(pa.Table.from_arrays(columns, schema=self.schema), source, batch["rows"])

    def _table(self, source: Source, rows: list[pa.Table], unreadable: list[tuple[str, str]]) -> pa.Table:
        facts = json.loads(self.schema.metadata[KEY]) | {"unreadable": unreadable}
        table = pa.concat_tables(rows).combine_chunks() if rows else _beside(self.schema.empty_table(), source, [])
        return table.replace_schema_metadata(self.schema.metadata | {KEY: json.dumps(facts)})


def _numpy(numbers: torch.Tensor) -> np.ndarray:
    return numbers.float().cpu().numpy()


def _check_half(embedding: np.ndarray, ids: Sequence[str]) -> None:
    """Refuse features (B, D) that are too large for 16 bits."""
    largest = np.abs(embedding).max(axis=1)
    if (largest > np.finfo(np.float16).max).any():
        most = int(np.nanargmax(largest))
        raise BadInput(
            f"--embeddings-dtype float16: a feature of {ids[most]} is {largest[most]:.3g}, more than it can hold; take float32"
        )


def _is_whole(file: Path) -> bool:
    """Whether a part is there, from an interrupted command, and as it was written."""
    try:
        for _ in pq.ParquetFile(file, page_checksum_verification=True).iter_batches():
            pass
    except (OSError, pa.ArrowException):
        return False
    return True


def _beside(table: pa.Table, source: Source, rows: list[int]) -> pa.Table:
    """The table with what the source has beside its pictures, of these rows of it."""
    if source.joined is not None:
        joined = source.joined.take(pa.array(rows, pa.int64()))
        for name, values in zip(joined.column_names, joined.columns, strict=True):
            table = table.append_column(name, values)
    return table


def unreadable_in(metadata: dict[bytes, bytes], source: Source) -> list[tuple[str, str, str, str]]:
    """Dataset, split, name and reason of each picture of a part that cannot be read.

    Args:
        metadata: of its table.
        source: that it is a part of.
    """
    return [(source.name, source.split or "", *each) for each in json.loads(metadata[KEY])["unreadable"]]


def weights_digest(model: nn.Module) -> str:
    """SHA-256 of all weights."""
    digest = hashlib.sha256()
    for name, values in sorted(model.state_dict().items()):
        digest.update(name.encode() + values.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
