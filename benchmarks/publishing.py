"""How much memory and time publishing, checking, combining and opening a dataset take with few and with many galaxies.

    python benchmarks/publishing.py [--rows 50000 200000 840000]

Linux only: it reads /proc. See benchmarks/README.md.
"""

import io
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from material import encoded, machine
from memory import Watch
from PIL import Image

from hf_galaxy.command_line import Command
from hf_galaxy.decision_tree import DecisionTree, load_tree
from hf_galaxy.errors import BadInput

SIDE, PICTURES, PIECE = 32, 50, 20_000
PACKAGES = ["hf_galaxy", "datasets", "pyarrow", "pandas"]
STEPS = ("publish", "check", "combine", "open")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Measure peak memory and seconds of the steps that a dataset goes through before training, at several sizes."""

    rows: tuple[int, ...] = (50_000, 200_000, 840_000)
    """Galaxies in the catalogue."""
    tree: str = "gz_evo"
    """Campaigns whose votes the catalogue has: gz_evo has 281 columns."""
    metadata: int = 16
    """Further columns of numbers, beside the position."""
    table: Literal["parquet", "csv"] = "parquet"
    """Format of the catalogue."""
    steps: tuple[Literal["publish", "check", "combine", "open"], ...] = STEPS
    """Steps to measure; each needs the first."""
    processes: int = 1
    """Processes that make rows."""


def write(settings: Settings, rows: int, folder: Path) -> None:
    """A catalogue of votes, positions and numbers, and a few small pictures that its rows share."""
    (folder / "pictures").mkdir(parents=True)
    for i, jpeg in enumerate(encoded(None, PICTURES)):
        file = io.BytesIO()
        Image.open(io.BytesIO(jpeg)).resize((SIDE, SIDE)).save(file, "JPEG")
        (folder / f"pictures/{i}.jpg").write_bytes(file.getvalue())
    tree, rng = load_tree(settings.tree), np.random.default_rng(0)
    writer = None
    for first in range(0, rows, PIECE):
        many = min(PIECE, rows - first)
        columns = {
            "id_str": pa.array([f"J{first + i:012d}" for i in range(many)]),
            "image": pa.array([f"{(first + i) % PICTURES}.jpg" for i in range(many)]),
            "ra": pa.array(rng.uniform(0, 360, many).round(6)),
            "dec": pa.array(np.degrees(np.arcsin(rng.uniform(-1, 1, many))).round(6)),
        }
        columns |= {f"number_{k}": pa.array(rng.normal(size=many).astype(np.float32)) for k in range(settings.metadata)}
        columns |= dict(zip(tree.columns, walked(tree, many, rng).T, strict=True))
        table = pa.table(columns)
        if writer is None:
            kind = pq.ParquetWriter if settings.table == "parquet" else pyarrow.csv.CSVWriter
            writer = kind(folder / f"catalogue.{settings.table}", table.schema)
        writer.write_table(table)
    writer.close()


def walked(tree: DecisionTree, galaxies: int, rng: np.random.Generator) -> np.ndarray:
    """(N, A) votes of 5 to 40 volunteers, who walk the tree at random."""
    votes = np.zeros((galaxies, len(tree.columns)), np.int32)
    for q in tree.order:
        asked = votes[:, tree.parents[q]].sum(axis=1) if tree.parents[q] else rng.integers(5, 41, galaxies)
        answers = len(tree.questions[q].answers)
        votes[:, tree.slices[q]] = rng.multinomial(asked, np.ones(answers) / answers)
    return votes


def publish(settings: Settings, folder: Path) -> None:
    from pydantic import TypeAdapter

    from hf_galaxy.commands import publish
    from hf_galaxy.importing.column_map import ColumnMap, Metadata

    numbers = {f"number_{k}": Metadata(f"number_{k}", "float32") for k in range(settings.metadata)}
    sky = {name: Metadata(name, "float64") for name in ("ra", "dec")}
    columns = folder / "columns.json"
    columns.write_bytes(TypeAdapter(ColumnMap).dump_json(ColumnMap(metadata=sky | numbers)))
    publish.main(
        publish.Catalogue(
            images=(folder / "pictures",), catalogue=folder / f"catalogue.{settings.table}", columns=columns,
            tree=settings.tree, out=folder / "dataset", num_proc=settings.processes,
        )
    )  # fmt: skip


def check(settings: Settings, folder: Path) -> None:
    from hf_galaxy.publishing.check_published import check_published

    check_published(str(folder / "dataset"), "default", 1.0, settings.processes)


def combine(settings: Settings, folder: Path) -> None:
    from hf_galaxy.commands import publish

    publish.main(publish.Combine(parts=(folder / "dataset",), out=folder / "combined", num_proc=settings.processes))


def opened(settings: Settings, folder: Path) -> None:
    from hf_galaxy.importing.dataset import open_dataset

    open_dataset(str(folder / "dataset"))


WORK = {"publish": publish, "check": check, "combine": combine, "open": opened}


def measured(settings: Settings, folder: Path, step: str) -> tuple[float, int]:
    """Seconds and peak bytes of a step and its processes; for a process of its own."""
    multiprocessing.set_start_method(None, force=True)
    sys.stdout = sys.stderr
    datasets.disable_progress_bars()
    watch, start = Watch(), time.monotonic()
    watch.start()
    WORK[step](settings, folder)
    seconds = time.monotonic() - start
    watch.over.set()
    watch.join()
    return seconds, watch.peaks["together"]


def main(settings: Settings) -> None:
    if not Path("/proc/self/smaps_rollup").exists():
        raise BadInput("memory is read from /proc/PID/smaps_rollup, which only Linux has")
    if min(settings.rows) < 100:
        raise BadInput("--rows must be at least 100 each")
    found = {}
    for rows in settings.rows:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            os.environ["HF_DATASETS_CACHE"] = f"{folder}/cache"  # of the processes to come
            print(f"writing a catalogue of {rows:,} galaxies ...", file=sys.stderr)
            write(settings, rows, folder)
            for step in settings.steps:
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
                    found[rows, step] = fresh.submit(measured, settings, folder, step).result()
                print(
                    f"{rows:,} {step}: {found[rows, step][0]:.0f} s, {found[rows, step][1] / 1e6:.0f} MB",
                    file=sys.stderr,
                )
    columns = len(load_tree(settings.tree).columns) + settings.metadata + 4
    print(
        f"{columns} columns, {SIDE} px pictures, a catalogue in {settings.table}, {settings.processes} processes that make "
        f"rows; pages of files left out.\n\n{machine(*PACKAGES)}\n"
    )
    print(f"| | {' | '.join(f'{rows:,} galaxies' for rows in settings.rows)} |")
    print(f"|---|{'---:|' * len(settings.rows)}")
    for step in settings.steps:
        cells = [f"{found[rows, step][0]:.0f} s, {found[rows, step][1] / 1e6:,.0f} MB" for rows in settings.rows]
        print(f"| {step} | {' | '.join(cells)} |")


if __name__ == "__main__":
    Command(Settings, main)()
