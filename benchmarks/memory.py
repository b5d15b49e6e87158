"""How much memory training takes with few and with many galaxies.

    python benchmarks/memory.py [--rows 10000 200000]

Linux only: it reads /proc. See benchmarks/README.md.
"""

import io
import multiprocessing
import os
import sys
import tempfile
import threading
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from material import encoded, machine
from PIL import Image

from hf_galaxy import experiment
from hf_galaxy.command_line import run
from hf_galaxy.decision_tree import DecisionTree, load_tree
from hf_galaxy.errors import BadInput
from hf_galaxy.publish import ROWS_PER_GROUP
from hf_galaxy.schema import row_features
from hf_galaxy.settings import Settings as RunSettings

SIDE, PICTURES, BATCH, EVALUATED = 32, 50, 64, 256
INTERVAL = 0.02  # seconds between looks: a peak that is shorter may be missed
COUNTED = ("Pss_Anon", "Pss_Shmem")
PACKAGES = ["hf_galaxy", "torch", "datasets", "pyarrow"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Measure the peak memory of training runs that do the same number of steps on datasets of several sizes."""

    rows: tuple[int, ...] = (10_000, 200_000)
    """Training galaxies."""
    tree: str = "gz_evo"
    """Campaigns whose votes the dataset has and the model learns."""
    steps: int = 60
    """Training steps."""
    workers: int = 1
    """Processes that decode pictures."""


def write(rows: int, tree: DecisionTree, folder: Path) -> None:
    """A dataset laid out as a published one: small pictures that come again and again, and votes that do not."""
    pictures = []
    for jpeg in encoded(None, PICTURES):
        file = io.BytesIO()
        Image.open(io.BytesIO(jpeg)).resize((SIDE, SIDE)).save(file, "JPEG")
        pictures.append({"bytes": file.getvalue(), "path": None})
    schema, rng = row_features(tree).arrow_schema, np.random.default_rng(0)
    (folder / "data").mkdir(parents=True)
    for split, size in {"train": rows, "validation": EVALUATED, "test": EVALUATED}.items():
        with pq.ParquetWriter(folder / "data" / f"{split}-00000.parquet", schema) as file:
            for first in range(0, size, 5000):
                many = min(5000, size - first)
                votes = rng.integers(0, 20, (len(tree.columns), many), dtype=np.int32)
                columns = {
                    "id_str": [f"galaxy-{split}-{first + i}" for i in range(many)],
                    "image": [pictures[i % PICTURES] for i in range(many)],
                } | dict(zip(tree.columns, votes, strict=True))
                file.write_table(pa.table(columns, schema=schema), ROWS_PER_GROUP)


def held(process: psutil.Process) -> int:
    """Bytes of memory that a process cannot give back to its files, what several processes share divided among them.

    Anonymous and shared memory, as /proc/PID/smaps_rollup gives them. Pages of files, such as the memory-mapped Arrow
    files of a copied dataset, do not count: the system keeps them while nothing else needs the memory.
    """
    lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:]
    kilobytes = {name: int(value.split()[0]) for name, value in (line.split(":") for line in lines)}
    return 1024 * sum(kilobytes[name] for name in COUNTED)


class Watch(threading.Thread):
    """Looks at this process and its children over and over; `peaks` are bytes of this one, of the children, and of all."""

    def __init__(self):
        super().__init__(daemon=True)
        self.peaks, self.over = {"main process": 0, "workers": 0, "together": 0}, threading.Event()

    def run(self):
        main = psutil.Process()
        while not self.over.wait(INTERVAL):
            own, others = held(main), 0
            for child in main.children(recursive=True):
                try:
                    others += held(child)
                except (OSError, psutil.Error):  # it has ended meanwhile
                    continue
            for name, value in {"main process": own, "workers": others, "together": own + others}.items():
                self.peaks[name] = max(self.peaks[name], value)


def peaks_of(settings: Settings, dataset: Path, rows: int, streaming: bool) -> dict[str, int]:
    """Peak bytes of a whole run as scripts/pretrain.py makes it; for a process of its own."""
    multiprocessing.set_start_method(None, force=True)  # loaders start workers in the platform's own way
    sys.stdout = sys.stderr
    datasets.disable_progress_bars()
    watch = Watch()
    watch.start()
    experiment.carry_out(
        RunSettings(
            dataset=(str(dataset),),
            out=dataset / ("streamed" if streaming else "copied"),
            streaming=streaming,
            tree=(settings.tree,),
            backbone="test_convnext",
            image_size=SIDE,
            batch_size=BATCH,
            epochs=settings.steps * BATCH / rows,
            workers=settings.workers,
            cpu=True,
        )
    )
    watch.over.set()
    watch.join()
    return watch.peaks


def main(settings: Settings) -> None:
    if not Path("/proc/self/smaps_rollup").exists():
        raise BadInput("memory is read from /proc/PID/smaps_rollup, which only Linux has")
    if min(settings.rows) < BATCH or settings.steps < 1:
        raise BadInput(f"--rows must be at least {BATCH} each, --steps at least 1")
    peaks = {}
    for rows in settings.rows:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["HF_DATASETS_CACHE"] = f"{folder}/cache"  # of the processes to come
            print(f"writing {rows:,} galaxies ...", file=sys.stderr)
            write(rows, load_tree(settings.tree), Path(folder) / "dataset")
            for streaming in (False, True):
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
                    dataset = Path(folder) / "dataset"
                    peaks[rows, streaming] = fresh.submit(peaks_of, settings, dataset, rows, streaming).result()
    report(settings, peaks)


def report(settings: Settings, peaks: dict[tuple[int, bool], dict[str, int]]) -> None:
    """Print the table."""
    few, many = min(settings.rows), max(settings.rows)
    print(
        f"test_convnext, {SIDE} px, {settings.steps} steps of {BATCH}, {len(load_tree(settings.tree).columns)} answers, "
        f"{settings.workers} workers, {EVALUATED} galaxies each to validate and to test; peak MB, pages of files left out.\n\n"
        f"{machine(*PACKAGES)}\n"
    )
    print(f"| | {' | '.join(f'{rows:,} galaxies' for rows in settings.rows)} | growth |")
    print(f"|---|{'---:|' * (len(settings.rows) + 1)}")
    for streaming in (False, True):
        for who in peaks[few, streaming]:
            values = [peaks[rows, streaming][who] / 1e6 for rows in settings.rows]
            growth = (peaks[many, streaming][who] - peaks[few, streaming][who]) / 1e6
            name = f"{'streamed' if streaming else 'copied'}, {who}"
            print(f"| {name} | {' | '.join(f'{value:.0f}' for value in values)} | {growth:+.0f} MB |")


if __name__ == "__main__":
    run(Settings, main)
