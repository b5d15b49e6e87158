"""The downstream benchmark: what a start is worth, on tasks that it has not seen. Its cells, and how one is measured.

A cell is a task, a start, a mode, a share of the training galaxies and a seed. Two starts share everything else: the seed
says which galaxies test and validate (of tasks with folds), which are learnt from, and in which order; and hyper-parameters are
chosen from the same grid, by the loss on the validation split, which is whole whatever the share.
"""

import json
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Literal

from hf_galaxy.downstream.results import ABOUT, CELLS
from hf_galaxy.downstream.tasks import Task
from hf_galaxy.errors import BadInput
from hf_galaxy.files import write_json
from hf_galaxy.reports import records_file
from hf_galaxy.reports.records_file import read_records
from hf_galaxy.reports.run_record import FILE, RunRecord
from hf_galaxy.sweeps.grid import STATE_DIR, name_of
from hf_galaxy.training.settings import Settings, settings_of

Mode = Literal["linear", "full"]
# Full finetuning: the same for every start, but for the learning rate.
VALIDATIONS = 6
FULL = dict(
    train="all", batch_size=32, layer_decay=0.8, weight_decay=0.05, head_dropout=0.2, warmup=0.1, schedule="cosine",
    patience=VALIDATIONS,
)  # fmt: skip
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
# Linear probes: shares of the loss of a head without weights, from next to nothing learnt to next to no penalty.
PENALTIES = tuple(10.0**k for k in range(2, -5, -1))


@dataclass(frozen=True)
class Start:
    """The weights that a backbone starts from.

    Attributes:
        weights: as --start of scripts/finetune.py takes them; None: random, for each seed others.
        backbone: architecture, where the weights do not say it and it is not that of the benchmark.
    """

    name: str
    weights: str | None
    backbone: str | None = None

    @cached_property
    def lineage(self) -> list[RunRecord]:
        """The records of the runs that it comes from, the last first; of weights from elsewhere nothing is known."""
        records, weights = [], self.weights
        while weights is not None and (Path(weights) / FILE).is_file():
            records.append(RunRecord.load(Path(weights)))
            weights = records[-1].settings["start"]
        return records


@dataclass(frozen=True)
class BenchmarkCell:
    """One measurement, kept in a file of its own."""

    task: Task
    start: Start
    mode: Mode
    share: float
    seed: int
    out: Path

    @property
    def name(self) -> str:
        """Of its file: by task and start, a folder each."""
        share = str(Fraction(self.share).limit_denominator(10_000))
        options = name_of({"share": share, "seed": str(self.seed)})
        return f"{self.task.name}/{self.start.name}/{self.mode},{options}"

    @property
    def file(self) -> Path:
        """What was measured."""
        return self.out / CELLS / f"{self.name}.json"

    def state_file(self, kind: str) -> Path:
        """What is kept while it is measured: its `lock`, and the runs that it takes."""
        return self.out / STATE_DIR / f"{self.name.replace('/', ',')}.{kind}"

    @property
    def measured(self) -> bool:
        """Whether it was."""
        return self.file.exists() or f"{CELLS}/{self.name}.json" in read_records(self.out / records_file.FILE)

    def record(self) -> dict | None:
        """What was measured, in its file or in the records file of the study; None if it was not yet."""
        if self.file.exists():
            return json.loads(self.file.read_text())
        return read_records(self.out / records_file.FILE).get(f"{CELLS}/{self.name}.json")


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What is compared, and how.

    Attributes:
        reference: the name of the start that the others are compared with.
        backbone: architecture, for starts that do not say it.
        image_size, crop: how all of them see pictures; None: each run as it was trained, other starts 224 px of all of it.
        sizes: names of starts that differ in the size of their backbone only.
        precision, workers: of the runs of full finetuning.
        seen: full finetuning sees so many times the root of the number of galaxies: few of them often, and many not too often to
            be affordable.
        rates: learning rates that full finetuning searches (`measure.search`); penalties: those of the linear probe.
    """

    title: str
    tasks: dict[str, Task]
    starts: dict[str, Start]
    reference: str
    out: Path
    modes: tuple[Mode, ...] = ("linear", "full")
    shares: tuple[float, ...] = (1.0, 1 / 4, 1 / 16, 1 / 64)
    seeds: tuple[int, ...] = (1, 2, 3)
    backbone: str | None = None
    image_size: int | None = None
    crop: float | None = None
    sizes: tuple[str, ...] = ()
    precision: str | None = None
    workers: int = 0
    seen: float = 250
    rates: tuple[float, ...] = RATES
    penalties: tuple[float, ...] = PENALTIES

    def cells(self) -> Iterator[BenchmarkCell]:
        """All cells, seed by seed, so that what is done by then is a whole benchmark; linear probes, which are quick, first.

        A start is not measured on a task whose dataset it has learnt from.
        """
        for seed in self.seeds:
            for mode in sorted(self.modes, key=("linear", "full").index):
                for share in sorted(self.shares, reverse=True):
                    for task in self.tasks.values():
                        for start in self.starts.values():
                            if task.dataset not in datasets_of(start):
                                yield BenchmarkCell(task, start, mode, share, seed, self.out)

    def settings(self, cell: BenchmarkCell, **changes) -> Settings:
        """The settings of a run on what the cell learns from."""
        return Settings(
            dataset=(cell.task.dataset,), **cell.task.options, fold=self.fold(cell), subset=cell.share, seed=cell.seed,
            backbone=self.backbone_of(cell.start),
            start=cell.start.weights, image_size=self.image_size, crop=self.crop, workers=self.workers, precision=self.precision, **changes,
        )  # fmt: skip

    def backbone_of(self, start: Start) -> str | None:
        """The architecture of a start; None for a run, which says it itself."""
        return None if start.lineage else start.backbone or self.backbone

    def fold(self, cell: BenchmarkCell) -> int | None:
        """Which fifth of the galaxies tests, for tasks with folds."""
        return 1 + (cell.seed - 1) % 5 if cell.task.folds else None

    def about(self, looked: dict[str, bool]) -> dict:
        """What the page needs to know besides the cells; `looked` as `check_unseen` gives it."""
        return {
            "title": self.title,
            "command": shlex.join(["python", *(word for word in sys.argv if word != "--page")]),
            "reference": self.reference,
            "tasks": {
                name: {"title": t.title, "dataset": t.dataset, "kind": t.kind, "measure": t.measure, "note": t.note, "folds": t.folds}
                for name, t in self.tasks.items()
            },
            "starts": {
                name: {
                    "title": name.replace("_", " "),
                    "weights": start.weights,
                    "galaxies": bool(start.lineage),
                    "began": start.lineage[-1].settings["start"] if start.lineage else start.weights,
                    "looked": looked[name],
                    "size_of": self.sizes[0] if name in self.sizes else None,
                    "learnt_from": [t.name for t in self.tasks.values() if t.dataset in datasets_of(start)],
                    "pretraining": [
                        {"dataset": r.dataset["name"], "galaxies": r.dataset["splits"]["train"], "command": r.command}
                        for r in start.lineage
                    ],
                }
                for name, start in self.starts.items()
            },
            "modes": self.modes, "shares": self.shares, "seeds": self.seeds,
            "grids": {"linear": self.penalties, "full": self.rates},
            "fixed": {
                "backbone": self.backbone or "that of each start",
                "pictures": f"{self.image_size or 'as the start was trained:'} px, {self.crop or 'the share that it saw'} of the side",
                "linear": "L-BFGS to the optimum; the penalty is a share of the loss of a head without weights",
                "full": f"AdamW in batches of {FULL['batch_size']}, {self.seen:g} x the root of the number of galaxies are seen in all, "
                f"{VALIDATIONS} validations, of which the best counts; a cosine after {FULL['warmup']:.0%} of warm-up, layer decay "
                f"{FULL['layer_decay']}, weight decay {FULL['weight_decay']}, dropout {FULL['head_dropout']} before the head",
            },
        }  # fmt: skip


def datasets_of(start: Start) -> set[str]:
    """The datasets that a start has learnt from, by name."""
    return {name for record in start.lineage for name in record.settings["dataset"]}


def shared_galaxies(start: Start, task: Task) -> set[str] | None:
    """Names of galaxies of a task that a start has learnt from or validated with; None if its datasets are not at hand.

    The same galaxy may have another name in another dataset: scripts/find_overlap.py looks for its picture, too.
    """
    from hf_galaxy.data.dataset import open_dataset
    from hf_galaxy.training.sources import open_sources

    learnt = set()
    for record in start.lineage:
        try:
            splits = open_sources(settings_of(record)).splits
        except BadInput:
            return None
        learnt |= _names([*splits["train"], *splits["validation"]])
    return learnt & _names(open_dataset(task.dataset, task.options.get("config")).values())


def check_unseen(benchmark: Benchmark) -> dict[str, bool]:
    """Refuse starts that have learnt, from another dataset, about galaxies of a task.

    Returns:
        Of each start whether all that it has learnt from was there to look.

    Raises:
        BadInput: one has.
    """
    looked = {}
    for start in benchmark.starts.values():
        found = {
            task.name: shared_galaxies(start, task)
            for task in benchmark.tasks.values()
            if task.dataset not in datasets_of(start)
        }
        for task, shared in found.items():
            if shared:
                raise BadInput(
                    f"start {start.name} has learnt from {len(shared):,} galaxies of task {task} (such as {min(shared)}); "
                    "pretrain it without them (scripts/find_overlap.py, then --leave-out)"
                )
        looked[start.name] = None not in found.values()
    return looked


def _names(parts):
    from hf_galaxy.data.targets import tables_of

    return {name for rows in parts for table in tables_of(rows, ["id_str"]) for name in table["id_str"].to_pylist()}


# What may be added to a benchmark; all else stays as it was begun.
GROWS = ("modes", "shares", "seeds")
BESIDE = ("title", "command")


def begin(benchmark: Benchmark, looked: dict[str, bool]) -> None:
    """Write what the benchmark is about; one that is there may grow, but not change.

    Raises:
        BadInput: what is there is another benchmark.
    """
    file, about = benchmark.out / ABOUT, json.loads(json.dumps(benchmark.about(looked)))
    if file.exists():
        earlier = json.loads(file.read_text())
        for name in about:
            if name in ("tasks", "starts"):
                sizes = {"size_of": None}  # which starts are of a family is not measured
                known = {each: said | sizes for each, said in earlier[name].items()}
                changed = [each for each, said in about[name].items() if known.get(each, said | sizes) != said | sizes]
                about[name] = earlier[name] | about[name]
            elif name in GROWS:
                changed = []
                about[name] = earlier[name] + [each for each in about[name] if each not in earlier[name]]
            elif name in BESIDE:
                changed = []
            else:
                changed = [] if earlier[name] == about[name] else [name]
            if changed:
                raise BadInput(f"{file}: was begun with another {changed[0]} ({name}); choose another --out")
    write_json(file, about)
