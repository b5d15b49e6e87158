"""The Parquet files of a dataset, as `datasets.load_dataset` reads them.

    data/...             the files of each split; with several campaigns a folder for each
    tiny/                a small sample
    native/...           the pictures at their original size, if those in data/ were resized

The files are the same for any number of processes. After an interruption, publication resumes with the next file.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from hf_galaxy.data.fluxes import FLUX
from hf_galaxy.data.schema import NATIVE, SPLITS, has_fluxes
from hf_galaxy.errors import BadInput
from hf_galaxy.files import whole_file
from hf_galaxy.fresh_processes import end_with_parent, fresh_context
from hf_galaxy.importing.counts import Statistics
from hf_galaxy.importing.plan import Batch, Shard, Source
from hf_galaxy.progress import progress

# Streams shuffle and share out row groups, which should be small; but footers describe each column of each group, and with
# 300 columns that must be little compared with the pictures.
GROUP_BYTES = 16 * 2**20  # of pictures in a row group, without the last of them
ROWS_PER_GROUP = 1000  # at most
ROWS_READ = 200  # in memory, when files are read back
ROWS_PER_BATCH = 100  # that a process makes at once
FLUXES_PER_BATCH = 10  # the same, with fluxes, of which a galaxy may have many megabytes
BATCHES_AHEAD = 2  # for each process, that wait to be written
TINY_SHARE = 0.01  # as in mwalmsley/gz_evo
TINY_MIN_ROWS = 16  # of each split and campaign
KINDS = b"kinds of pictures"  # key in the metadata of a Parquet file


def write_dataset(source: Source, shards: list[Shard], folder: Path, processes: int = 1) -> Statistics:
    """Write the planned files that are missing, and `tiny/`; the rest as of `write_shards`."""
    counts = write_shards(source, shards, folder, processes)
    _write_tiny(shards, source.features, folder)
    return counts


def write_shards(source: Source, shards: list[Shard], folder: Path, processes: int = 1) -> Statistics:
    """Write the planned files that are missing.

    Args:
        folder: an existing folder.
        processes: number of processes that make rows; it does not change a byte.

    Returns:
        The counts of all rows.

    Raises:
        BadInput: a row cannot be made; the files written so far are complete.
    """
    total = sum(len(shard.rows) for shard in shards)
    counts = {shard.path: Statistics(source.features, source.tree, source.values) for shard in shards}
    with ExitStack() as stack:
        show = stack.enter_context(progress(total=total, desc="writing galaxies", unit=" galaxies"))
        processes = min(processes, total // 100)  # for few galaxies, starting them takes longer than their work
        make = _in_processes(stack, source, processes) if processes > 1 else lambda parts: map(source.batch, parts)
        for shard in shards:
            if (folder / shard.path).exists():  # by an interrupted publication
                _count_file(folder / shard.path, shard.split, counts[shard.path])
                show.update(len(shard.rows))
                if not show.disable:
                    show.initial += len(shard.rows)  # does not count for the speed
            else:
                _write_shard(make, shard, folder, counts[shard.path], show)
    result = Statistics(source.features, source.tree, source.values)
    for path in sorted(counts):  # not in the order of writing: the card lists what it meets first
        result.update(counts[path])
    return result


Make: TypeAlias = Callable[[list[list[int]]], Iterable[Batch]]  # rows of a source -> their batches, in the same order


def _in_processes(stack: ExitStack, source: Source, processes: int) -> Make:
    context = fresh_context(
        __name__, type(source).__module__
    )  # libraries with threads do not survive a fork of this one
    pool = stack.enter_context(ProcessPoolExecutor(processes, context, _init_worker, (source,)))
    stack.callback(pool.shutdown, cancel_futures=True)  # when a row is bad, do not make the others of its file

    def make(parts: list[list[int]]) -> Iterator[Batch]:
        waiting: deque[Future[Batch]] = deque()
        for part in parts:  # not `pool.map`, which makes all that it can while the first is written
            if len(waiting) == processes * BATCHES_AHEAD:
                yield waiting.popleft().result()
            waiting.append(pool.submit(_make_batch, part))
        while waiting:
            yield waiting.popleft().result()

    return make


worker_source: Source  # of a process that makes rows


def _init_worker(source: Source) -> None:
    global worker_source
    worker_source = source
    end_with_parent(lambda: os._exit(1))  # else it would wait for work for ever


def _make_batch(rows: list[int]) -> Batch:
    return worker_source.batch(rows)


def _write_shard(make: Make, shard: Shard, folder: Path, counts: Statistics, show: tqdm) -> None:
    """Write a file, and its twin of native pictures if the rows have them. The file comes last: it marks both as complete."""
    path, native_path = folder / shard.path, folder / NATIVE / shard.path.relative_to("data")
    features = counts.features
    with ExitStack() as stack:
        partial = stack.enter_context(whole_file(path))
        writer = stack.enter_context(_Writer(partial, features, lambda table: counts.add(shard.split, table)))
        native = None
        size = FLUXES_PER_BATCH if has_fluxes(features) else ROWS_PER_BATCH
        parts = [shard.rows[i : i + size].tolist() for i in range(0, len(shard.rows), size)]
        for rows, batch in zip(parts, make(parts), strict=True):
            show.update(len(rows))
            if batch.native is not None:
                if native is None:
                    native = stack.enter_context(_Writer(stack.enter_context(whole_file(native_path)), features))
                place = batch.table.schema.get_field_index("image")
                field = batch.table.schema.field(place)
                whole = batch.table.set_column(place, field, batch.native).filter(batch.native.is_valid())
                native.add(whole, batch.kinds)
            writer.add(batch.table, batch.kinds)


def _count_file(path: Path, split: str, counts: Statistics) -> None:
    try:
        for batch in pq.ParquetFile(path, page_checksum_verification=True).iter_batches(ROWS_READ):
            counts.add(split, pa.Table.from_batches([batch]))
    except (OSError, pa.ArrowException) as error:
        raise BadInput(
            f"{path}: has been damaged since it was written ({error}); remove it, and the same command writes it again"
        ) from error


class _Writer:
    """Collects rows and writes them in row groups.

    Args:
        on_write: called with each row group.
    """

    def __init__(
        self, path: Path, features: datasets.Features, on_write: Callable[[pa.Table], None] = lambda table: None
    ) -> None:
        self.schema = features.arrow_schema  # has the features in its metadata, as load_dataset expects
        self.on_write = on_write
        self.pending: list[pa.Table] = []
        self.rows = self.bytes = 0  # pending
        self.kinds: set[str] = set()
        # Pictures are compressed already, and rarely equal. Statistics of rows in random order are useless, and those of small
        # pictures would be whole pictures in the footer.
        self.pictures = ["image", FLUX] if has_fluxes(features) else ["image"]
        packed = [c for c in features if c not in self.pictures]
        compression = dict.fromkeys(packed, "snappy") | dict.fromkeys(self.pictures, "none")
        self.writer = pq.ParquetWriter(
            path, self.schema, compression=compression, use_dictionary=packed,
            write_statistics=False, write_page_index=True, write_page_checksum=True, use_content_defined_chunking=True,
        )  # fmt: skip

    def __enter__(self) -> _Writer:
        return self

    def __exit__(
        self, failed: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not failed:
            self._flush()
            self.writer.add_key_value_metadata({KINDS: json.dumps(sorted(self.kinds))})
        self.writer.close()

    def add(self, table: pa.Table, kinds: set[str]) -> None:
        """Add rows; a row group ends behind the row that makes it large enough."""
        self.kinds |= kinds
        first = 0
        sizes = [pc.binary_length(pc.struct_field(table[name], "bytes")).to_pylist() for name in self.pictures]
        for i, of_row in enumerate(zip(*sizes, strict=True)):
            self.rows, self.bytes = self.rows + 1, self.bytes + sum(size or 0 for size in of_row)
            if self.rows == ROWS_PER_GROUP or self.bytes >= GROUP_BYTES:
                self.pending.append(table[first : i + 1])
                self._flush()
                first = i + 1
        self.pending.append(table[first:])

    def write(self, group: pa.Table) -> None:
        """Write rows as a row group of their own."""
        self.writer.write_table(group)
        self.on_write(group)

    def _flush(self) -> None:
        if self.rows:
            self.write(pa.concat_tables(self.pending).combine_chunks().cast(self.schema))
            self.pending, self.rows, self.bytes = [], 0, 0


def _write_tiny(shards: list[Shard], features: datasets.Features, folder: Path) -> None:
    """`tiny/`: the first galaxies of each split and campaign, about 1 % of all."""
    for split in dict.fromkeys(shard.split for shard in shards):
        path = folder / "tiny" / f"{split}-00000.parquet"
        if path.exists():
            continue
        files: dict[str | None, list[Shard]] = {}
        for shard in shards:
            if shard.split == split:
                files.setdefault(shard.campaign, []).append(shard)
        with whole_file(path) as partial, _Writer(partial, features) as writer:
            for parts in files.values():
                wanted = max(TINY_MIN_ROWS, round(TINY_SHARE * sum(len(shard.rows) for shard in parts)))
                opened = (pq.ParquetFile(folder / shard.path) for shard in parts)
                groups = (file.read_row_group(g) for file in opened for g in range(file.num_row_groups))
                while wanted and (group := next(groups, None)):
                    writer.write(group[:wanted])
                    wanted -= min(wanted, group.num_rows)


def sample(folder: Path, columns: list[str], galaxies: int) -> list[dict[str, Any]]:
    """Rows of all campaigns at equal distances in `tiny/`."""
    files = [file for split in SPLITS for file in sorted((folder / "tiny").glob(f"{split}-*.parquet"))]
    total = sum(pq.read_metadata(file).num_rows for file in files)
    wanted = np.unique(np.linspace(0, total - 1, galaxies).round().astype(int))
    rows, first = [], 0
    for file in files:
        for batch in pq.ParquetFile(file).iter_batches(ROWS_READ, columns=columns):
            here = wanted[(wanted >= first) & (wanted < first + len(batch))] - first
            rows += batch.take(pa.array(here)).to_pylist()
            first += len(batch)
    return rows


def kinds_of_pictures(folder: Path) -> set[str]:
    """Kinds of the files that the pictures in `data/` were made from."""
    files = (folder / "data").rglob("*.parquet")
    return {kind for file in files for kind in json.loads(pq.read_metadata(file).metadata[KINDS])}


@dataclass(frozen=True)
class Config:
    """A configuration of a published dataset.

    Attributes:
        files: split -> patterns of its Parquet files, relative to the folder.
        splits: split -> galaxies and bytes.
        download_size: bytes of the files.
        features: schema.
    """

    files: dict[str, list[str]]
    splits: dict[str, datasets.SplitInfo]
    download_size: int
    features: datasets.Features


def campaigns_of(shards: list[Shard]) -> list[str]:
    """The campaigns in the order of their first files; none if there is only one."""
    return [campaign for campaign in dict.fromkeys(shard.campaign for shard in shards) if campaign]


def configs_of(
    folder: Path, campaigns: Sequence[str], columns: dict[str, list[str]] | None = None
) -> dict[str, Config]:
    """The configurations of a folder: `default` (everything), one for each of several campaigns, `tiny`, `native`.

    Args:
        campaigns: as of `campaigns_of`; the rows of `default` are in this order.
        columns: campaign -> columns of its configuration; campaigns without an entry have all columns.
    """
    columns = columns or {}
    folders = {"default": [f"data/{c}" for c in campaigns] or ["data"], "tiny": ["tiny"]}
    folders |= {campaign: [f"data/{campaign}"] for campaign in campaigns}
    if (folder / NATIVE).exists():
        folders[NATIVE] = [f"{NATIVE}/{c}" for c in campaigns] or [NATIVE]
    features = features_of(folder)
    return {
        name: _config(folder, places, features, columns.get(name, list(features))) for name, places in folders.items()
    }


def features_of(folder: Path) -> datasets.Features:
    """The schema of the rows."""
    schema = pq.read_schema(next((folder / "tiny").glob("*.parquet")))
    return datasets.Features.from_arrow_schema(schema)


def _config(folder: Path, places: list[str], features: datasets.Features, columns: list[str]) -> Config:
    patterns, splits, size = {}, {}, 0
    for split in SPLITS:
        files = {
            pattern: sorted(folder.glob(pattern)) for pattern in (f"{place}/{split}-*.parquet" for place in places)
        }
        if not any(files.values()):
            continue
        patterns[split] = [pattern for pattern, of_pattern in files.items() if of_pattern]
        rows = nbytes = 0
        for file in (file for of_pattern in files.values() for file in of_pattern):
            size += file.stat().st_size
            metadata = pq.read_metadata(file)
            rows += metadata.num_rows
            nbytes += sum(_bytes(metadata.row_group(g), columns) for g in range(metadata.num_row_groups))
        splits[split] = datasets.SplitInfo(split, num_bytes=nbytes, num_examples=rows)
    return Config(patterns, splits, size, datasets.Features({c: features[c] for c in columns}))


def _bytes(group: pq.RowGroupMetaData, columns: list[str]) -> int:
    chunks: Iterator[pq.ColumnChunkMetaData] = (group.column(c) for c in range(group.num_columns))
    return sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema.split(".")[0] in columns)
