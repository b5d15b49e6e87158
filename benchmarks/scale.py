"""How much memory, time and disk the commands take with few and with many galaxies, from a catalogue to embeddings.

    python benchmarks/scale.py [--rows 10000 100000 1000000]

Linux only: it reads /proc. See benchmarks/README.md.
"""

import multiprocessing
import os
import resource
import sys
import tempfile
import time
import typing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from material import machine
from memory import Watch
from PIL import Image
from pydantic import TypeAdapter

from hf_galaxy.command_line import Command
from hf_galaxy.commands.main import module_of
from hf_galaxy.decision_tree import DecisionTree, load_tree
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.column_map import ColumnMap, Metadata
from hf_galaxy.importing.dataset import open_dataset

SIDE, PATCHES, PER_FOLDER, PIECE = 32, 6, 1_000, 20_000
PACKAGES = ["hf_galaxy", "torch", "datasets", "pyarrow", "pandas"]
SURVEYS = {"GZ DESI": 8_700_000, "Euclid": 1_500_000_000}  # galaxies, for which the table is continued
Step = Literal["publish", "check", "combine", "open", "train", "predict", "embed"]
STEPS = typing.get_args(Step)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Measure seconds, peak memory and bytes on disk of what is done with a survey, at several sizes."""

    rows: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    """Galaxies in the catalogue."""
    tree: str = "gz_desi_dr8"
    """Campaign whose votes the catalogue has; gz_evo, all of them, has 281 columns."""
    metadata: int = 16
    """Further columns of numbers, beside the position."""
    table: Literal["parquet", "csv"] = "parquet"
    """Format of the catalogue."""
    steps: tuple[Step, ...] = STEPS
    """Steps to measure; each needs `publish`, and the last two need `train`."""
    processes: int = 1
    """Processes that make rows, and threads that decode pictures in the check."""
    folder: Path | None = None
    """Where the galaxies are written, and deleted; by default in the folder for temporary files."""


@dataclass(frozen=True)
class Cost:
    """What a step took: seconds, CPU seconds of all its processes without those of the looks at their memory, peak bytes of memory, bytes that it left on the disk."""

    seconds: float
    cpu: float
    memory: int
    disk: int


def write(settings: Settings, rows: int, folder: Path) -> None:
    """A catalogue of votes, positions and numbers, and a small picture of each galaxy: random patches of colour."""
    pixels = np.random.default_rng(1)
    for i in range(rows):
        if i % PER_FOLDER == 0:
            (folder / f"pictures/{i // PER_FOLDER}").mkdir(parents=True)
        patches = Image.fromarray(pixels.integers(0, 256, (PATCHES, PATCHES, 3), dtype=np.uint8))
        patches.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(folder / f"pictures/{i // PER_FOLDER}/{i}.jpg")
    tree, rng = load_tree(settings.tree), np.random.default_rng(0)
    writer = None
    for first in range(0, rows, PIECE):
        many = min(PIECE, rows - first)
        columns = {
            "id_str": pa.array([f"J{first + i:012d}" for i in range(many)]),
            "image": pa.array([f"{i // PER_FOLDER}/{i}.jpg" for i in range(first, first + many)]),
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


def write_columns(settings: Settings, folder: Path) -> None:
    """The map of the columns of numbers; votes and the rest have the names that they will have."""
    columns = {f"number_{k}": Metadata(f"number_{k}", "float32") for k in range(settings.metadata)}
    columns |= {name: Metadata(name, "float64") for name in ("ra", "dec")}
    (folder / "columns.json").write_bytes(TypeAdapter(ColumnMap).dump_json(ColumnMap(metadata=columns)))


def words(settings: Settings, folder: Path, step: str) -> list[object]:
    """The words of the command that a step is."""
    data, run = ("--dataset", folder / "dataset"), folder / "run"
    cpu = ("--cpu", "--precision", "no", "--workers", 0)
    return {
        "publish": [
            *("publish", "catalogue", "--images", folder / "pictures", "--catalogue", folder / f"catalogue.{settings.table}"),
            *("--columns", folder / "columns.json", "--tree", settings.tree, "--out", folder / "dataset"),
            *("--num-proc", settings.processes),
        ],
        "check": ["check", folder / "dataset", "--threads", settings.processes],
        "combine": [
            *("publish", "combine", "--parts", folder / "dataset", "--out", folder / "combined"),
            *("--num-proc", settings.processes),
        ],
        "train": [
            *("pretrain", *data, *cpu, "--backbone", "test_resnet", "--image-size", SIDE, "--epochs", 1, "--out", run),
        ],
        "predict": ["predict", *data, *cpu, "--run", run, "--out", folder / "predictions"],
        "embed": ["embed", *data, *cpu, "--model", run, "--out", folder / "embeddings"],
    }[step]  # fmt: skip


def work(settings: Settings, folder: Path, step: str) -> None:
    """Do a step as its command does it; there is none that only opens a dataset."""
    if step == "open":
        open_dataset(str(folder / "dataset"))
        return
    name, *rest = map(str, words(settings, folder, step))
    try:
        module_of(name).command(rest)
    except SystemExit as end:
        alike = step == "check" and end.code == 1  # pictures in different splits, by chance: of a million some are
        if end.code and not alike:
            raise RuntimeError(f"{step} ended with {end.code}") from None


def measured(settings: Settings, folder: Path, step: str) -> tuple[float, float, int, int]:
    """The numbers of the `Cost` of a step; for a process of its own."""
    multiprocessing.set_start_method(None, force=True)
    sys.stdout = sys.stderr
    datasets.disable_progress_bars()
    before, watch, start, cpu = written(folder), Watch(), time.monotonic(), time.process_time()
    watch.start()
    work(settings, folder, step)
    seconds = time.monotonic() - start
    watch.over.set()
    watch.join()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = time.process_time() - cpu - watch.seconds + children.ru_utime + children.ru_stime
    return seconds, cpu, watch.peaks["together"], written(folder) - before


def written(folder: Path) -> int:
    """Bytes on the disk in a folder."""
    return sum(file.lstat().st_blocks for file in folder.rglob("*")) * 512


def main(settings: Settings) -> None:
    if not Path("/proc/self/smaps_rollup").exists():
        raise BadInput("memory is read from /proc/PID/smaps_rollup, which only Linux has")
    if min(settings.rows) < 1_000:
        raise BadInput("--rows must be at least 1000 each")
    costs = {}
    for rows in settings.rows:
        with tempfile.TemporaryDirectory(dir=settings.folder) as name:
            folder = Path(name)
            os.environ["HF_DATASETS_CACHE"] = f"{folder}/cache"  # of the processes to come
            print(f"writing a catalogue of {rows:,} galaxies ...", file=sys.stderr)
            write(settings, rows, folder)
            write_columns(settings, folder)
            for step in settings.steps:
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
                    costs[rows, step] = Cost(*fresh.submit(measured, settings, folder, step).result())
                print(f"{rows:,} {step}: {costs[rows, step]}", file=sys.stderr)
    report(settings, costs)


def report(settings: Settings, costs: dict[tuple[int, str], Cost]) -> None:
    """Print what was measured, and, if there are two sizes, the straight line through the two largest, continued."""
    columns = len(load_tree(settings.tree).columns) + settings.metadata + 4
    print(
        f"{columns} columns, {SIDE} px pictures, a catalogue in {settings.table}, test_resnet for 1 epoch, {settings.processes} "
        f"processes that make rows; seconds, CPU seconds, peak MB (pages of files left out), MB on the disk.\n\n{machine(*PACKAGES)}\n"
    )
    print(f"| | {' | '.join(f'{rows:,} galaxies' for rows in settings.rows)} |")
    print(f"|---|{'---:|' * len(settings.rows)}")
    for step in settings.steps:
        each = (costs[rows, step] for rows in settings.rows)
        cells = [f"{c.seconds:.0f} s, {c.cpu:.0f} s, {c.memory / 1e6:,.0f} MB, {c.disk / 1e6:,.0f} MB" for c in each]
        print(f"| {step} | {' | '.join(cells)} |")
    if len(settings.rows) > 1:
        few, many = sorted(settings.rows)[-2:]
        print("\n| | CPU s, bytes of memory, bytes of disk for each further galaxy |", end="")
        print("".join(f" {name}, {galaxies:,} galaxies |" for name, galaxies in SURVEYS.items()))
        print(f"|---|---:|{'---:|' * len(SURVEYS)}")
        for step in settings.steps:
            less, more = costs[few, step], costs[many, step]
            slope = [(getattr(more, name) - getattr(less, name)) / (many - few) for name in ("cpu", "memory", "disk")]
            cells = [f"{slope[0]:.2g} s, {slope[1]:.0f}, {slope[2]:,.0f}"]
            for galaxies in SURVEYS.values():
                at = [
                    getattr(more, name) + each * (galaxies - many)
                    for name, each in zip(("cpu", "memory", "disk"), slope, strict=True)
                ]
                cells.append(f"{at[0] / 3600:,.1f} h, {at[1] / 1e9:,.1f} GB, {at[2] / 1e9:,.0f} GB")
            print(f"| {step} | {' | '.join(cells)} |")


if __name__ == "__main__":
    Command(Settings, main)()
