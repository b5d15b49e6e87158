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
import time
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

from hf_galaxy.command_line import Command
from hf_galaxy.data.copied import open_copy
from hf_galaxy.data.schema import row_features
from hf_galaxy.decision_tree import DecisionTree, load_tree
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.plan import ROWS_PER_FILE
from hf_galaxy.importing.writer import ROWS_PER_GROUP
from hf_galaxy.training import run as experiment
from hf_galaxy.training.settings import Settings as RunSettings

SIDE, PICTURES, BATCH, EVALUATED = 32, 50, 64, 256
WAYS = ("copying", "copied", "streamed")  # the copy is made in a process of its own, before one trains on it
INTERVAL = 0.02  # seconds between looks: a peak that is shorter may be missed
SHARE = 0.05  # of a core that looks may take: one at a process of a gigabyte takes 10 ms, in which it gets no memory
COUNTED = ("Pss_Anon", "Pss_Shmem")
PACKAGES = ["hf_galaxy", "torch", "datasets", "pyarrow"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Measure the peak memory of training runs that do the same number of steps on datasets of several sizes."""

    rows: tuple[int, ...] = (10_000, 200_000)
    """Training galaxies."""
    rows_per_group: int = ROWS_PER_GROUP
    """Galaxies in a row group of the Parquet files; as many as in a published dataset of pictures of up to 16 kB."""
    tree: str = "gz_evo"
    """Campaigns whose votes the dataset has and the model learns."""
    steps: int = 60
    """Training steps."""
    workers: int = 1
    """Processes that decode pictures."""


def write(rows: int, rows_per_group: int, tree: DecisionTree, folder: Path) -> None:
    """A dataset laid out as a published one: small pictures that come again and again, and votes that do not."""
    pictures = []
    for jpeg in encoded(None, PICTURES):
        file = io.BytesIO()
        Image.open(io.BytesIO(jpeg)).resize((SIDE, SIDE)).save(file, "JPEG")
        pictures.append({"bytes": file.getvalue(), "path": None})
    schema, rng = row_features(tree).arrow_schema, np.random.default_rng(0)
    (folder / "data").mkdir(parents=True)
    for split, size in {"train": rows, "validation": EVALUATED, "test": EVALUATED}.items():
        for number, first in enumerate(range(0, size, ROWS_PER_FILE)):
            many = min(ROWS_PER_FILE, size - first)
            votes = rng.integers(0, 20, (len(tree.columns), many), dtype=np.int32)
            columns = {
                "id_str": [f"galaxy-{split}-{first + i}" for i in range(many)],
                "image": [pictures[i % PICTURES] for i in range(many)],
            } | dict(zip(tree.columns, votes, strict=True))
            table = pa.table(columns, schema=schema)
            file = folder / f"data/{split}-{number:05d}.parquet"
            pq.write_table(table, file, row_group_size=rows_per_group, write_statistics=False, write_page_index=True)


def held(process: psutil.Process) -> int:
    """Bytes of memory that a process cannot give back to its files, what several processes share divided among them.

    Anonymous and shared memory, as /proc/PID/smaps_rollup gives them. Pages of files, such as the memory-mapped Arrow
    files of a copied dataset, do not count: the system keeps them while nothing else needs the memory.
    """
    lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:]
    kilobytes = {name: int(value.split()[0]) for name, value in (line.split(":") for line in lines)}
    return 1024 * sum(kilobytes[name] for name in COUNTED)


class Watch(threading.Thread):
    """Looks at this process and its children over and over.

    Attributes:
        peaks: bytes of this one, of the children, and of all.
        seconds: of CPU that the looks took.
    """

    def __init__(self):
        super().__init__(daemon=True)
        self.seconds = 0.0
        self.peaks, self.over = {"main process": 0, "workers": 0, "together": 0}, threading.Event()

    def run(self):
        main, took = psutil.Process(), 0.0
        while not self.over.wait(max(INTERVAL, took / SHARE)):
            own, others = held(main), 0
            for child in main.children(recursive=True):
                try:
                    others += held(child)
                except (OSError, psutil.Error):  # it has ended meanwhile
                    continue
            together = min(own, held(main)) + others  # a worker that started meanwhile shares what was this one's alone
            for name, value in {"main process": own, "workers": others, "together": together}.items():
                self.peaks[name] = max(self.peaks[name], value)
            took, self.seconds = time.thread_time() - self.seconds, time.thread_time()


def peaks_of(settings: Settings, dataset: Path, rows: int, way: str) -> dict[str, int]:
    """Peak bytes of making the copy, or of a whole run as scripts/pretrain.py makes it; for a process of its own."""
    multiprocessing.set_start_method(None, force=True)  # loaders start workers in the platform's own way
    sys.stdout = sys.stderr
    datasets.disable_progress_bars()
    watch = Watch()
    watch.start()
    if way == "copying":
        open_copy(str(dataset))
    else:
        run_settings = RunSettings(
            dataset=(str(dataset),),
            out=dataset / way,
            streaming=way == "streamed",
            tree=(settings.tree,),
            backbone="test_convnext",
            image_size=SIDE,
            batch_size=BATCH,
            epochs=settings.steps * BATCH / rows,
            workers=settings.workers,
            cpu=True,
        )
        experiment.run_training(run_settings)
    watch.over.set()
    watch.join()
    return watch.peaks


def main(settings: Settings) -> None:
    if not Path("/proc/self/smaps_rollup").exists():
        raise BadInput("memory is read from /proc/PID/smaps_rollup, which only Linux has")
    if min(settings.rows) < BATCH or min(settings.steps, settings.rows_per_group) < 1:
        raise BadInput(f"--rows must be at least {BATCH} each, --steps and --rows-per-group at least 1")
    peaks = {}
    for rows in settings.rows:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["HF_DATASETS_CACHE"] = f"{folder}/cache"  # of the processes to come
            print(f"writing {rows:,} galaxies ...", file=sys.stderr)
            dataset = Path(folder) / "dataset"
            write(rows, settings.rows_per_group, load_tree(settings.tree), dataset)
            for way in WAYS:
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
                    peaks[rows, way] = fresh.submit(peaks_of, settings, dataset, rows, way).result()
    report(settings, peaks)


def report(settings: Settings, peaks: dict[tuple[int, str], dict[str, int]]) -> None:
    """Print the table."""
    few, many = min(settings.rows), max(settings.rows)
    print(
        f"test_convnext, {SIDE} px, {settings.steps} steps of {BATCH}, {len(load_tree(settings.tree).columns)} answers, "
        f"{settings.rows_per_group} galaxies a row group, {settings.workers} workers, {EVALUATED} galaxies each to validate "
        "and to test; peak MB, pages of files left out.\n\n"
        f"{machine(*PACKAGES)}\n"
    )
    print(f"| | {' | '.join(f'{rows:,} galaxies' for rows in settings.rows)} | growth |")
    print(f"|---|{'---:|' * (len(settings.rows) + 1)}")
    for way in WAYS:
        for who in ("main process",) if way == "copying" else peaks[few, way]:
            values = [peaks[rows, way][who] / 1e6 for rows in settings.rows]
            growth = (peaks[many, way][who] - peaks[few, way][who]) / 1e6
            print(f"| {way}, {who} | {' | '.join(f'{value:.0f}' for value in values)} | {growth:+.0f} MB |")


if __name__ == "__main__":
    Command(Settings, main)()
