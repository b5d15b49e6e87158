"""Rows -> a folder that `datasets.load_dataset` reads, and that is uploaded unchanged.

    README.md            the card; its YAML names the configurations
    statistics.json      what was counted: for the card, and for scripts/check_dataset.py
    croissant.json       the same description for catalogues of datasets
    data/...             Parquet files of each split; with several campaigns a folder for each
    tiny/, native/       a small sample; the pictures at their own size, if those in data/ were resized

Which file a galaxy is in, and where in it, depends on its name alone (and on those of its duplicates in the sky), so that
the files are the same whatever the number of processes, and an interrupted publication goes on with the next file.
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
from typing import Protocol

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import HfApi
from huggingface_hub.errors import HTTPError
from huggingface_hub.utils import validate_repo_id

from hf_galaxy.atomic import whole_file, write_json
from hf_galaxy.duplicates import SAME_GALAXY_ARCSEC, groups_of_pairs, pairs_on_the_sky
from hf_galaxy.errors import BadInput
from hf_galaxy.progress import progress
from hf_galaxy.schema import SPLITS, Row, place_in_order, split_of

ROWS_PER_GROUP = 200  # small row groups can be shuffled and shared out when the dataset is streamed
ROWS_PER_FILE = 5000
# Chains of neighbours longer than both are no duplicates but a crowded field.
MOST_IN_A_GROUP, MOST_OF_ALL = 10, 0.01
TINY_SHARE = 0.01  # as in mwalmsley/gz_evo
TINY_AT_LEAST = 16  # galaxies of each split and campaign
KINDS = b"kinds of pictures"
STATISTICS, CROISSANT = "statistics.json", "croissant.json"


class Source(Protocol):
    """What can be published: a `catalogues.Catalogue`, a `simulate.MockSurvey`. Copies of it work in other processes.

    Attributes:
        ids: unique names of the galaxies.
        features: the schema of the rows.
        split_names: what decides the split, where that is not the name: rows with the same are the same galaxy.
        campaigns: which campaign each galaxy is from; None: there is only one.
        positions: (N, 2) right ascension and declination in degrees; None: not known.
        votes: (N, A) votes; None: there are none.
        notes: sentences for the card: what was done to the data.
    """

    ids: list[str]
    split_names: list[str] | None
    notes: list[str]
    features: datasets.Features
    campaigns: list[str] | None
    positions: np.ndarray | None
    votes: np.ndarray | None

    def row(self, i: int) -> Row | None:
        """Galaxy i with its picture; None: it has none that can be read, and is to be left out."""

    def fingerprint(self) -> str:
        """Of all that the rows are made of."""


@dataclass(frozen=True)
class Duplicates:
    """Galaxies that stand in several rows, by their positions or (in joined datasets) by their names.

    Attributes:
        arcsec: how near counts as the same.
        groups: how many galaxies have several rows.
        rows: how many rows these are.
        moved: how many of them are in another split than their own name says, to be in one with the others.
        dropped: how many were left out.
    """

    arcsec: float = SAME_GALAXY_ARCSEC
    groups: int = 0
    rows: int = 0
    moved: int = 0
    dropped: int = 0

    def __str__(self):
        if not self.groups:
            return f"No two galaxies are within {self.arcsec:g} arcsec of each other."
        dropped = f"{self.dropped:,} that have a neighbour with more votes are left out; " if self.dropped else ""
        return (
            f"{self.rows:,} galaxies are within {self.arcsec:g} arcsec of another or have its name, in {self.groups:,} groups: "
            f"{dropped}each group is in one split ({self.moved:,} were moved for that)."
        )


@dataclass(frozen=True)
class Shard:
    """One Parquet file: its path in the folder, and its rows in order."""

    path: Path
    campaign: str | None
    split: str
    rows: list[int]


def plan(
    source: Source, drop_duplicates: bool = False, arcsec: float = SAME_GALAXY_ARCSEC
) -> tuple[list[Shard], Duplicates]:
    """Which rows go into which file; all rows that are one galaxy, or next to it, into one split.

    Args:
        drop_duplicates: of rows within `arcsec` of each other keep those with the most votes, so that none are left that near.

    Raises:
        BadInput: the galaxies stand so densely that chains of neighbours hold much of the field together.
    """
    names = source.split_names or source.ids
    splits, kept = [split_of(name) for name in names], np.ones(len(names), bool)
    # What belongs together: what is near in the sky, and what has one name.
    sky = np.empty((0, 2), int) if source.positions is None else pairs_on_the_sky(source.positions, arcsec)
    first = {}
    same_name = [(first.setdefault(name, i), i) for i, name in enumerate(names)]
    same_name = np.array([pair for pair in same_name if pair[0] != pair[1]], dtype=int).reshape(-1, 2)
    group = groups_of_pairs(np.concatenate([sky, same_name]), len(names))
    sizes = np.bincount(group)
    if sizes.max() > max(MOST_IN_A_GROUP, len(names) * MOST_OF_ALL):
        raise BadInput(
            f"{sizes.max():,} of {len(names):,} galaxies hang together by steps of up to {arcsec:g} arcsec and would all be in one "
            "split: the field is too crowded for that; give a smaller --same-galaxy-arcsec, such as 1"
        )
    members = {}
    for i in np.flatnonzero(sizes[group] > 1).tolist():
        members.setdefault(int(group[i]), []).append(i)
    moved = 0
    for rows in members.values():
        # Not the least `hashed_place`, which decides the split: of several numbers the least is nearly always train's.
        leader = min(rows, key=lambda i: place_in_order(names[i]))
        moved += sum(splits[i] != splits[leader] for i in rows)
        for i in rows:
            splits[i] = splits[leader]
    if drop_duplicates:
        kept = _apart(sky, len(names), None if source.votes is None else source.votes.sum(axis=1))
    rows = sum(map(len, members.values()))
    duplicates = Duplicates(arcsec, len(members), rows, moved, int((~kept).sum()))
    parts = {}
    for i in sorted(np.flatnonzero(kept).tolist(), key=lambda i: place_in_order(source.ids[i])):
        parts.setdefault((source.campaigns[i] if source.campaigns else None, splits[i]), []).append(i)
    shards = [
        Shard(Path("data", campaign or "", f"{split}-{first // ROWS_PER_FILE:05d}.parquet"), campaign, split, rows[first : first + ROWS_PER_FILE])
        for split in SPLITS
        for campaign in (dict.fromkeys(source.campaigns) if source.campaigns else [None])
        for rows in [parts.get((campaign, split), [])]
        for first in range(0, len(rows), ROWS_PER_FILE)
    ]  # fmt: skip
    return shards, duplicates


def _apart(pairs, rows, votes):
    """Which rows to keep so that no pair is left: the one with the most votes first, then whichever is near none kept."""
    near = {}
    for i, j in pairs.tolist():
        near.setdefault(i, []).append(j)
        near.setdefault(j, []).append(i)
    kept = np.ones(rows, bool)
    for i in sorted(near, key=lambda i: (0 if votes is None else -votes[i], i)):
        if kept[i]:
            kept[near[i]] = False
    return kept


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
        self.features, self.schema = (
            features,
            features.arrow_schema,
        )  # which carries the features, as load_dataset expects
        self.labels = {c: f for c, f in features.items() if isinstance(f, datasets.ClassLabel)}
        self.pending, self.kinds = [], set()
        # Pictures are compressed already.
        packed = [c for c, f in features.items() if not isinstance(f, datasets.Image)]
        self.writer = pq.ParquetWriter(
            path, self.schema, compression={c: "snappy" for c in packed} | {"image": "none"},
            write_page_index=True, use_content_defined_chunking=True,
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
        if len(self.pending) == ROWS_PER_GROUP:
            self._flush()

    def _flush(self):
        if self.pending:
            self.writer.write_table(pa.Table.from_pylist(self.pending, schema=self.schema))
            self.pending = []


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
                batches = (
                    b for shard in parts for b in pq.ParquetFile(folder / shard.path).iter_batches(ROWS_PER_GROUP)
                )
                while wanted and (batch := next(batches, None)):
                    writer.writer.write_table(pa.Table.from_batches([batch[:wanted]], schema=writer.schema))
                    wanted -= min(wanted, batch.num_rows)


def batches_of(folder: Path) -> Iterator[tuple[str, pa.Table]]:
    """(split, some hundred rows) of all that stands in `data/`."""
    for file in sorted((folder / "data").rglob("*.parquet")):
        for batch in pq.ParquetFile(file).iter_batches(ROWS_PER_GROUP):
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


def rename(folder: Path, repo: str, command: str) -> None:
    """Let a published folder call itself by its name on the Hub.

    Raises:
        BadInput: another command published it.
    """
    said = json.loads((folder / STATISTICS).read_text())
    if said["command"] != command:
        raise BadInput(
            f"{folder} was published by another command ({said['command']}); push it with that, or remove it"
        )
    if said["name"] != repo:
        card = folder / "README.md"
        text = card.read_text()
        for quoted in ('load_dataset("{}"', "--dataset {} "):
            text = text.replace(quoted.format(said["name"]), quoted.format(repo))
        with whole_file(card) as partial:
            partial.write_text(text)
        described = json.loads((folder / CROISSANT).read_text())
        write_json(folder / CROISSANT, described | {"url": f"https://huggingface.co/datasets/{repo}"})
        write_json(folder / STATISTICS, said | {"name": repo})


def push(folder: Path, repo: str) -> str:
    """Upload a published folder to the Hub, byte for byte; what an interrupted upload has sent is not sent again.

    Returns:
        Its address.

    Raises:
        BadInput: the Hub refused, or cannot be reached.
    """
    api, upload = HfApi(), {"folder_path": folder, "repo_id": repo, "repo_type": "dataset"}
    try:
        api.create_repo(repo, repo_type="dataset", exist_ok=True)
        # The card comes last: with it the dataset appears, and a large upload is more than one commit. What an earlier
        # version of the dataset has left in its folders goes with that.
        api.upload_folder(**upload, ignore_patterns="README.md", commit_message=f"Publish {folder.name}: data")
        stale = ["data/*", "tiny/*", "native/*"]
        commit = api.upload_folder(**upload, delete_patterns=stale, commit_message=f"Publish {folder.name}")
        return str(commit.repo_url)
    except (HTTPError, RuntimeError, OSError, ValueError) as error:  # a file that could not be sent: RuntimeError
        reason = " ".join(str(error.__cause__ or error).split())
        raise BadInput(
            f"--push {repo}: {reason} (the dataset is whole in {folder}; the same command pushes what is missing)"
        ) from error


def check_repo_name(repo: str) -> None:
    """Refuse what is no ORG/NAME, before anything is made for it."""
    try:
        validate_repo_id(repo)
    except ValueError as error:
        raise BadInput(f"--push {repo}: is no ORG/NAME ({error})") from error
