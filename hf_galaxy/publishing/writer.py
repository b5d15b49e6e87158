"""Rows -> a folder that `datasets.load_dataset` reads, and that is uploaded unchanged.

    README.md            the card; its YAML names the configurations
    statistics.json      what was counted: for the card, and for scripts/check_dataset.py
    croissant.json       the same description for catalogues of datasets
    data/...             Parquet files of each split; with several campaigns a folder for each
    tiny/, native/       a small sample; the pictures at their own size, if those in data/ were resized

The files are the same whatever the number of processes, and an interrupted publication goes on with the next file.
"""

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from threading import Thread

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hf_galaxy.data.schema import SPLITS
from hf_galaxy.files import whole_file
from hf_galaxy.progress import progress
from hf_galaxy.publishing.plan import Shard, Source

# Small row groups can be shuffled and shared out when the dataset is streamed; but footers describe every column of each, and
# with 300 columns that must be little beside the pictures.
GROUP_BYTES = 16 * 2**20  # of pictures in a row group, the last of them not counted
ROWS_PER_GROUP = 1000  # at most
ROWS_AT_ONCE = 200  # in memory, of those who go through a dataset
TINY_SHARE = 0.01  # as in mwalmsley/gz_evo
TINY_AT_LEAST = 16  # galaxies of each split and campaign
KINDS = b"kinds of pictures"


def write_dataset(source: Source, shards: list[Shard], folder: Path, processes: int = 1) -> None:
    """Write the planned files that are not there yet, and `tiny/`.

    Args:
        folder: an existing folder.
        processes: that make rows at the same time; their number does not change a byte.

    Raises:
        BadInput: a row could not be made; the files written so far are whole.
    """
    total = sum(len(shard.rows) for shard in shards)
    with ExitStack() as stack:
        show = stack.enter_context(progress(total=total, desc="writing galaxies", unit=" galaxies"))
        processes = min(processes, total // 100)  # for few galaxies, starting them takes longer than their work
        make = _in_processes(stack, source, processes) if processes > 1 else lambda rows: map(source.row, rows)
        for shard in shards:
            path = folder / shard.path
            if path.exists():
                show.update(len(shard.rows))
                show.initial += len(shard.rows)
            else:
                _write_shard(
                    make(shard.rows), source.features, path, folder / "native" / shard.path.relative_to("data"), show
                )
    _write_tiny(shards, source.features, folder)


def _in_processes(stack, source, processes):
    # Started afresh, not forked: libraries with threads do not survive a fork.
    pool = stack.enter_context(ProcessPoolExecutor(processes, get_context("spawn"), _keep, (source,)))
    stack.callback(pool.shutdown, cancel_futures=True)  # when a row is bad, do not make the others of its file
    return lambda rows: pool.map(_made, rows, chunksize=8)


def _keep(source):
    global kept_source
    kept_source = source
    Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()


def _end_with_parent(parent):
    """A process whose parent was killed would wait for work for ever."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _made(i):
    return kept_source.row(i)


def _write_shard(rows, features, path, native_path, show):
    """One file, and its twin of native pictures if the rows have them; the file itself comes last: it says that both are there."""
    with ExitStack() as stack:
        writer = stack.enter_context(_Writer(stack.enter_context(whole_file(path)), features))
        native = None
        for row in rows:
            show.update()
            if row is None:
                continue
            if row.native:
                if native is None:
                    native = stack.enter_context(_Writer(stack.enter_context(whole_file(native_path)), features))
                native.add(row.columns | {"image": row.native}, row.kind)
            writer.add(row.columns, row.kind)


class _Writer:
    """Collects rows and writes them in row groups."""

    def __init__(self, path: Path, features: datasets.Features):
        self.schema = features.arrow_schema  # carries the features in its metadata, as load_dataset expects
        self.labels = {c: f for c, f in features.items() if isinstance(f, datasets.ClassLabel)}
        self.pending, self.bytes, self.kinds = [], 0, set()
        # Pictures are compressed already, and hardly ever the same. Statistics of rows in random order say nothing, and
        # those of small pictures would be whole pictures in the footer.
        packed = [c for c, f in features.items() if not isinstance(f, datasets.Image)]
        self.writer = pq.ParquetWriter(
            path, self.schema, compression={c: "snappy" for c in packed} | {"image": "none"}, use_dictionary=packed,
            write_statistics=False, write_page_index=True, use_content_defined_chunking=True,
        )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, failed, *_):
        if not failed:
            self._flush()
            self.writer.add_key_value_metadata({KINDS: json.dumps(sorted(self.kinds))})
        self.writer.close()

    def add(self, row: dict, kind: str) -> None:
        self.kinds.add(kind)
        self.pending.append(row | {c: f.str2int(row[c]) for c, f in self.labels.items() if row[c] is not None})
        self.bytes += len(row["image"]["bytes"])
        if len(self.pending) == ROWS_PER_GROUP or self.bytes >= GROUP_BYTES:
            self._flush()

    def _flush(self):
        if self.pending:
            self.writer.write_table(pa.Table.from_pylist(self.pending, schema=self.schema))
            self.pending, self.bytes = [], 0


def _write_tiny(shards, features, folder):
    """`tiny/`: the first galaxies of each split and campaign, about 1 % of all."""
    for split in dict.fromkeys(shard.split for shard in shards):
        path = folder / "tiny" / f"{split}-00000.parquet"
        if path.exists():
            continue
        files = {}
        for shard in shards:
            if shard.split == split:
                files.setdefault(shard.campaign, []).append(shard)
        with whole_file(path) as partial, _Writer(partial, features) as writer:
            for parts in files.values():
                wanted = max(TINY_AT_LEAST, round(TINY_SHARE * sum(len(shard.rows) for shard in parts)))
                opened = (pq.ParquetFile(folder / shard.path) for shard in parts)
                groups = (file.read_row_group(g) for file in opened for g in range(file.num_row_groups))
                while wanted and (group := next(groups, None)):
                    writer.writer.write_table(group[:wanted])
                    wanted -= min(wanted, group.num_rows)


def batches_of(folder: Path) -> Iterator[tuple[str, pa.Table]]:
    """(split, some hundred rows) of all that stands in `data/`."""
    for file in sorted((folder / "data").rglob("*.parquet")):
        for batch in pq.ParquetFile(file).iter_batches(ROWS_AT_ONCE):
            yield file.name.rsplit("-", 1)[0], pa.Table.from_batches([batch])


def sample(folder: Path, columns: list[str], galaxies: int) -> list[dict]:
    """Some rows of all campaigns: from `tiny/`, evenly."""
    files = [file for split in SPLITS for file in sorted((folder / "tiny").glob(f"{split}-*.parquet"))]
    rows = pa.concat_tables(pq.read_table(file, columns=columns) for file in files)
    return rows.take(np.unique(np.linspace(0, rows.num_rows - 1, galaxies).round().astype(int))).to_pylist()


def kinds_of_pictures(folder: Path) -> set[str]:
    """What kinds of files the pictures in `data/` were made from."""
    files = (folder / "data").rglob("*.parquet")
    return {kind for file in files for kind in json.loads(pq.read_metadata(file).metadata[KINDS])}


@dataclass(frozen=True)
class Config:
    """A configuration of a published dataset.

    Attributes:
        files: split -> patterns of its Parquet files, relative to the folder.
        splits: split -> galaxies and bytes.
        download_size: bytes of the files.
        features: its schema.
    """

    files: dict[str, list[str]]
    splits: dict[str, datasets.SplitInfo]
    download_size: int
    features: datasets.Features


def configs_of(
    shards: list[Shard], features: datasets.Features, columns: dict[str, list[str]], folder: Path
) -> dict[str, Config]:
    """The configurations that a folder offers: `default` (everything), one for each of several campaigns, `tiny`, `native`.

    Args:
        columns: campaign -> the columns that its configuration has.
    """
    campaigns = [campaign for campaign in dict.fromkeys(shard.campaign for shard in shards) if campaign]
    folders = {"default": [f"data/{c}" for c in campaigns] or ["data"], "tiny": ["tiny"]}
    folders |= {campaign: [f"data/{campaign}"] for campaign in campaigns}
    if (folder / "native").exists():
        folders["native"] = [f"native/{c}" for c in campaigns] or ["native"]
    configs = {}
    for name, places in folders.items():
        wanted = columns.get(name, list(features))
        patterns, splits, size = {}, {}, 0
        for split in SPLITS:
            files = {p: sorted(folder.glob(p)) for p in (f"{place}/{split}-*.parquet" for place in places)}
            if not any(files.values()):
                continue
            patterns[split] = [pattern for pattern, found in files.items() if found]
            rows = nbytes = 0
            for file in (f for found in files.values() for f in found):
                size += file.stat().st_size
                metadata = pq.read_metadata(file)
                rows += metadata.num_rows
                nbytes += sum(_bytes(metadata.row_group(g), wanted) for g in range(metadata.num_row_groups))
            splits[split] = datasets.SplitInfo(split, num_bytes=nbytes, num_examples=rows)
        configs[name] = Config(patterns, splits, size, datasets.Features({c: features[c] for c in wanted}))
    return configs


def _bytes(group, columns):
    chunks = (group.column(c) for c in range(group.num_columns))
    return sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema.split(".")[0] in columns)
