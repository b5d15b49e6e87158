"""The long jobs: how each is started, and what of its outcome is the same each time.

A job works in a folder of its own, its place, in which all that it makes lies: so that after a fault the whole place can be compared
with that of an undisturbed run, and a temporary file or a lock that is left over is seen.
"""

import json
import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest import mock

from filelock import FileLock

from tests.faults import processes
from tests.faults.points import keep_states
from tests.forks import SHARED

# In records: how long something took, and the digest of the card, which says so, too.
TIMES = {"hours", "seconds", "galaxies_per_second", "validation_seconds", "card"}


@dataclass(frozen=True)
class Job:
    """A command that takes long.

    Attributes:
        words: as typed in its place; {data} and other names in braces are of `Materials`.
        copied: what it changes of the materials, which stands in its place under the same name.
        has_cache: whether the cache of the datasets library is part of what it makes.
        kept: patterns of what takes long to make, and is not made again once it is finished.
        state: a pattern of names, in what it makes, of logs and locks of the processes that it starts.
    """

    words: tuple
    copied: tuple[str, ...] = ()
    has_cache: bool = False
    kept: tuple[str, ...] = ()
    state: str = "^$"


def _trees(tree, *_) -> dict[str, bytes]:
    return dict.fromkeys(tree.campaigns, b"tree")


def without_drawing() -> None:
    """Drawings are one point each, but take longer to make than all the rest."""
    drawn = {"figures/loss.png": b"loss", "figures/calibration.png": b"calibration"}
    mock.patch("hf_galaxy.reports.run_figures.figures", return_value=drawn).start()
    mock.patch("hf_galaxy.publishing.dataset_card.draw_trees", _trees).start()
    mock.patch("hf_galaxy.reports.charts.png", return_value=b"chart").start()


OF_DATASET = ("--dataset", "{data}", "--workers", 0, "--cpu")
TRAINING = (
    *OF_DATASET, "--image-size", 32, "--batch-size", 16, "--min-votes", 3, "--precision", "no", "--checkpoint-minutes", 0,
)  # fmt: skip
OUT = ("--out", "out")
PARQUET = (".out.partial/data/**/*.parquet", "out/data/**/*.parquet")
PARTS = (".out.partial/part-*.parquet", "out/part-*.parquet")
JOBS = {
    "publish simulate": Job(
        ("publish", "simulate", "--galaxies", 20, "--size", 16, "--num-proc", 1, *OUT),
        kept=PARQUET,
    ),
    "publish catalogue": Job(
        (
            *("publish", "catalogue", "--images", "{catalogue}/pictures", "--catalogue", "{catalogue}/votes.csv"),
            *("--columns", "{catalogue}/map.json", "--tree", "gz_rings", "--allow-inconsistent-votes"),
            *("--size", 32, "--native", "--num-proc", 1, *OUT),
        ),
        kept=PARQUET,
    ),
    "combine": Job(("combine", "--parts", "{data}", "--num-proc", 1, *OUT), kept=PARQUET),
    "pretrain": Job(
        ("pretrain", *TRAINING, "--backbone", "test_convnext", "--epochs", 2, "--keep-at", 1, *OUT),
    ),
    "finetune": Job(
        ("finetune", "--start", "{run}", *TRAINING, "--label", "mock_class", "--epochs", 2, *OUT),
    ),
    "finetune a head": Job(
        ("finetune", "--start", "{run}", *TRAINING, "--label", "mock_class", "--train", "head", "--epochs", 2, *OUT),
    ),
    "predict": Job(("predict", "--run", "{run}", *OF_DATASET, "--csv", "--embeddings", "--batch-size", 16, *OUT), kept=PARTS),
    "embed": Job(("embed", "--model", "{run}", *OF_DATASET, "--batch-size", 16, *OUT), kept=PARTS),
    "degrade": Job(
        ("degrade", "--run", "{run}", *OF_DATASET, "--shallower", 1, "--batch-size", 16, *OUT),
        kept=(".out.partial/predictions/*/part-*.parquet", "out/predictions/*/part-*.parquet"),
    ),
    "evaluate": Job(
        ("evaluate", "--run", "run", "--dataset", "{data}", "--workers", 0, "--cpu"),
        copied=("run",),
    ),
    "calibrate": Job(("calibrate", "--run", "{run}", "--dataset", "{other}", "--workers", 0, "--cpu", *OUT)),
    "familiarity": Job(("familiarity", "--run", "run", "--cpu", "--level", 0.5), copied=("run",)),
    "export encoder": Job(("export", "encoder", "--run", "{run}", *OUT)),
    "export onnx": Job(("export", "onnx", "--run", "{run}", "--out", "out.onnx")),
    "push": Job(("push", "--run", "run", "--license", "mit"), copied=("run",)),
    "fit": Job(("fit", "--runs", "{records}", *OUT)),
    "budget": Job(
        ("budget", "--runs", "{records}", "--backbone", "test_resnet", "--measure", "excess", "--target", 0.9, *OUT)
    ),
    "overlap": Job(("overlap", "--datasets", "{data}", "--against", "{rings}", "--out", "out.csv")),
    "cutouts": Job(
        (
            *("cutouts", "{catalogue}/positions.csv", "--survey", "files:{catalogue}/tiles", "--bands", "g", "r", "z"),
            *("--fov-arcsec", 12, "--size", 24, *OUT),
        ),
    ),
    "pack": Job(("pack", "--study", "records"), copied=("records",)),
    "import": Job(
        (
            *("embed", "--model", "{run}", "--dataset", "{catalogue}/votes.csv", "--images", "{catalogue}/pictures"),
            *("--image-column", "file", "--id-column", "name", "--workers", 0, "--cpu", *OUT),
        ),
        has_cache=True,
        state=r"^cache/(?!hf_galaxy)",  # of the datasets library
    ),
}  # fmt: skip


FEW = (
    "publish catalogue",
    "pretrain",
    "predict",
    "import",
    "cutouts",
    "push",
)  # of which `make test` tries some faults
# What a command says of what is finished.
COMPLETE = ("exists already; remove it or choose another --out", "holds a finished run")


@dataclass(frozen=True)
class Undisturbed:
    """A job that nobody disturbs: its outcome, the seconds that it takes, and what a kill at each of its points would have left."""

    outcome: dict
    seconds: float
    states: Path


# Jobs that start others, which go on when the job is killed: so what a kill leaves is not known from one run.
OF_OTHERS = {
    "sweep": Job(
        (
            *("sweep", "--launch", f"{sys.executable} -m tests.launch", "--vary", "seed=1,2", "--out", "{place}/out", "--"),
            *("pretrain", *TRAINING, "--backbone", "test_convnext", "--epochs", 1),
        ),
        state=r"^out/\.cells",
    ),
    "benchmark": Job(
        (
            *("benchmark", "--tasks", "{tasks}", "--starts", "random", "run={run}", "--reference", "random"),
            *("--backbone", "test_resnet", "--image-size", 32, "--modes", "linear", "--shares", 1, "--seeds", 1, 2),
            *("--out", "out"),
        ),
        state=r"^out/\.cells|points.parquet",
    ),
    "demo": Job(("demo", "--quick", "--num-proc", 1, *OUT)),
}  # fmt: skip
ALL = JOBS | OF_OTHERS


class Materials:
    """What jobs work with, made once for all processes of pytest-xdist: {name} in the words of a job is a path in `folder`."""

    def __init__(self, mock_dataset: Path) -> None:
        self.folder = SHARED / "materials"
        with FileLock(f"{self.folder}.lock"):
            if not self.folder.exists():
                partial = self.folder.with_name("materials.partial")
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir()
                self._make(partial, mock_dataset)
                partial.rename(self.folder)

    def _make(self, folder: Path, mock_dataset: Path) -> None:
        from tests.faults.materials import make_catalogue, make_records, make_tasks, make_tiles

        (folder / "data").symlink_to(mock_dataset)
        make_catalogue(folder / "catalogue")
        make_tiles(folder / "catalogue")
        make_records(folder / "records")
        make_tasks(folder / "tasks.toml", mock_dataset)
        for words in (
            (*JOBS["publish catalogue"].words[:-1], "rings"),
            ("publish", "simulate", "--galaxies", 60, "--size", 32, "--seed", 5, "--num-proc", 1, "--out", "other"),
            ("pretrain", *TRAINING, "--backbone", "test_resnet", "--epochs", 1, "--out", "run"),
        ):
            paths = {"data": mock_dataset, "catalogue": folder / "catalogue"}
            done = processes.run(folder, [str(word).format(**paths) for word in words], without_drawing)
            assert done.status == 0, done.said

    def words(self, job: Job, place: Path) -> list[str]:
        """The words of a job."""
        names = {path.stem: path for path in self.folder.iterdir()}
        return [str(word).format(**names, place=place) for word in job.words]

    def place(self, job: Job, place: Path) -> Path:
        """Make the place of a job."""
        place.mkdir()
        for name in job.copied:
            shutil.copytree(self.folder / name, place / name)
        if job.has_cache:
            (place / "cache").mkdir()
        return place

    def start(self, job: Job, place: Path, *faults: Callable[[], None], **options):
        """Start a job in its place."""
        return processes.start(place, self.words(job, place), without_drawing, *faults, **options)

    def run(self, job: Job, place: Path, *faults: Callable[[], None], **options) -> processes.Ended:
        """Run a job in its place, to its end."""
        return processes.wait(self.start(job, place, *faults, **options))

    def undisturbed(self, name: str) -> Undisturbed:
        """A job that nobody disturbs, run once for all processes of pytest-xdist."""
        folder = SHARED / f"undisturbed-{name.replace(' ', '-')}"
        with FileLock(f"{folder}.lock"):
            if not (folder / "seconds").exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                place, began = self.place(ALL[name], folder / "place"), time.monotonic()
                faults = [partial(keep_states, place, folder / "states")] if name in JOBS else []
                done = self.run(ALL[name], place, *faults)
                assert done.status == 0, done.said
                (folder / "seconds").write_text(str(time.monotonic() - began))
        return Undisturbed(
            outcome_of(folder / "place", ALL[name]), float((folder / "seconds").read_text()), folder / "states"
        )

    def is_undisturbed(self, name: str, place: Path) -> str | None:
        """What a job has made that differs from the outcome of the undisturbed one; None if nothing does."""
        one, other = outcome_of(place, ALL[name]), self.undisturbed(name).outcome
        differing = sorted(path for path in one.keys() | other.keys() if one.get(path, "") != other.get(path, ""))
        return f"differ: {differing}" if differing else None

    def completes(self, name: str, place: Path) -> str | None:
        """Why the same command does not complete a job in its place with the outcome of the undisturbed one; None if it does."""
        done = self.run(ALL[name], place)
        difference = self.is_undisturbed(name, place)
        if done.status and (difference or not any(text in done.last for text in COMPLETE)):
            return done.said
        return difference and f"{difference}\n{done.said}"


def outcome_of(place: Path, job: Job) -> dict[str, bytes | str | None]:
    """All that a job has made: path -> content, without what is different each time; None for folders."""
    names = {str(path.relative_to(place)): path for path in sorted(place.rglob("*"))}
    return {name: _content(path, place) for name, path in names.items() if not re.search(job.state, name)}


def _content(path: Path, place: Path) -> bytes | str | None:
    if path.is_dir():
        return None
    if path.name in ("run.json", "results.json") or "cells" in path.parts:
        return json.dumps(_without_times(json.loads(path.read_text().replace(str(place), "PLACE"))), indent=1)
    if path.name == ".journal":  # of cutouts, whose order does not matter
        return "".join(sorted(path.read_text().splitlines(keepends=True)))
    if path.name == "README.md":
        return re.sub(r"(time, with validation \| ).*? \|", r"\1 |", path.read_text().replace(str(place), "PLACE"))
    if path.name == "index.html":  # of the demo
        return re.sub(r"<b>\d+ \+ \d+ s</b>", "", path.read_text())
    return path.read_bytes()


def _without_times(value):
    if isinstance(value, dict):
        return {key: _without_times(each) for key, each in value.items() if key not in TIMES}
    return [_without_times(each) for each in value] if isinstance(value, list) else value
