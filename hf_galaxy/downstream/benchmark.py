"""The downstream benchmark, which compares starting weights on tasks that they were not pretrained with: its cells and its description.

A cell is a task, a start, a mode, a share of the training galaxies and a seed. Two starts share everything else: the seed sets
the test and validation galaxies (of tasks with folds), the training galaxies and their order; and hyper-parameters are chosen
from the same grid, by the loss on the whole validation split.
"""

import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from hf_galaxy.command_line import typed
from hf_galaxy.downstream.cell_files import ABOUT, CELLS
from hf_galaxy.downstream.tasks import Task
from hf_galaxy.errors import BadInput
from hf_galaxy.files import remove_left_beside, write_json
from hf_galaxy.locks import locked
from hf_galaxy.reports import records_file
from hf_galaxy.reports.records_file import read_records
from hf_galaxy.reports.run_record import FILE, RunRecord
from hf_galaxy.sweeps.grid import STATE_DIR, name_of
from hf_galaxy.training.settings import Settings, has_concentrations, settings_of

Mode = Literal["linear", "full"]
# Full finetuning: the same for every start, but for the learning rate.
VALIDATIONS = 6
FULL = dict(
    train="all", batch_size=32, layer_decay=0.8, weight_decay=0.05, head_dropout=0.2, warmup=0.1, schedule="cosine",
    patience=VALIDATIONS,
)  # fmt: skip
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
# Linear probes: in units of the loss of a head without weights, from almost no weights to almost no penalty.
PENALTIES = tuple(10.0**k for k in range(2, -5, -1))
# Settings in which two pretrainings by one recipe may differ: their seed, and what does not change what is learnt.
SEED_SETTINGS = {
    "seed", "out", "start", "workers", "cpu", "device_batch", "checkpoint_minutes", "keep_checkpoints", "tracker", "estimate", "compile",
    "gradient_checkpointing", "exact",
}  # fmt: skip


@dataclass(frozen=True)
class Start:
    """The weights that a backbone starts from.

    Attributes:
        weights: a value of --start of hf-galaxy finetune; None: random weights, different for each seed.
        backbone: architecture, where the weights do not contain it and it is not that of the benchmark.
        more: the weights of further pretrainings by the same recipe. Seeds take them in turn, as folds: with as many of them as
            seeds every cell has its own, so that the differences between seeds are those of pretrainings, too, at the same cost.
    """

    name: str
    weights: str | None
    backbone: str | None = None
    more: tuple[str, ...] = ()

    @property
    def pretrainings(self) -> tuple[str | None, ...]:
        """The weights of every pretraining."""
        return (self.weights, *self.more)

    def pretraining(self, seed: int) -> int:
        """The number of the pretraining that a seed has, from 1; of random weights the seed itself."""
        return seed if self.weights is None else 1 + (seed - 1) % len(self.pretrainings)

    def weights_of(self, seed: int) -> str | None:
        """The weights that a seed has."""
        return None if self.weights is None else self.pretrainings[self.pretraining(seed) - 1]

    @cached_property
    def lineages(self) -> list[list[RunRecord]]:
        """For every pretraining the records of the runs that it comes from, the last first; empty for weights from elsewhere."""
        return list(map(_lineage, self.pretrainings))

    @property
    def lineage(self) -> list[RunRecord]:
        """That of the first."""
        return self.lineages[0]

    def check(self) -> None:
        """Refuse pretrainings that are not by one recipe, and those that are the same one.

        Raises:
            BadInput: names what differs.
        """
        if len(set(self.pretrainings)) < len(self.pretrainings):
            raise BadInput(f"--starts {self.name}: has the same weights twice; give those of another pretraining")
        first = self.lineage
        for weights, other in zip(self.more, self.lineages[1:], strict=True):
            place = f"--starts {self.name}={weights}: is no other pretraining by the recipe of {self.weights}:"
            if len(other) != len(first):
                raise BadInput(f"{place} it comes from {len(other)} runs, not {len(first)}")
            for one, two in zip(first, other, strict=True):
                names = one.settings.keys() & two.settings.keys() - SEED_SETTINGS
                differing = sorted(name for name in names if one.settings[name] != two.settings[name])
                if differing:
                    name = differing[0]
                    raise BadInput(
                        f"{place} its {name} is {two.settings[name]}, not {one.settings[name]}; give it another name"
                    )
        # A run is reproducible to the bit: with the seeds of another one it is no other pretraining.
        weights_of_seeds: dict[tuple[int, ...], str | None] = {}
        for weights, lineage in zip(self.pretrainings, self.lineages, strict=True):
            seeds = tuple(record.settings["seed"] for record in lineage)
            if seeds and seeds in weights_of_seeds:
                raise BadInput(
                    f"--starts {self.name}={weights}: has the seed of {weights_of_seeds[seeds]} "
                    f"({', '.join(map(str, seeds))}), so it would count the same pretraining twice; give one with another --seed"
                )
            weights_of_seeds[seeds] = weights


def _lineage(weights: str | None) -> list[RunRecord]:
    records = []
    while weights is not None and (Path(weights) / FILE).is_file():
        records.append(RunRecord.load(Path(weights)))
        weights = records[-1].settings["start"]
    return records


@dataclass(frozen=True)
class BenchmarkCell:
    """One measurement, with a file of its own."""

    task: Task
    start: Start
    mode: Mode
    share: float
    seed: int
    out: Path

    @property
    def name(self) -> str:
        """The name of its file, in folders by task and start."""
        share = str(Fraction(self.share).limit_denominator(10_000))
        options = name_of({"share": share, "seed": str(self.seed)})
        return f"{self.task.name}/{self.start.name}/{self.mode},{options}"

    @property
    def file(self) -> Path:
        """The file of its measurement."""
        return self.out / CELLS / f"{self.name}.json"

    def state_file(self, kind: str) -> Path:
        """A file or folder of its state: its `lock`, and the `runs` of full finetuning."""
        return self.out / STATE_DIR / f"{self.name.replace('/', ',')}.{kind}"

    @property
    def measured(self) -> bool:
        """Whether it is in a file, or in the records file of the study."""
        return self.file.exists() or f"{CELLS}/{self.name}.json" in read_records(self.out / records_file.FILE)

    def record(self) -> dict[str, Any] | None:
        """The measurement, from its file or from the records file of the study; None if there is none yet."""
        if self.file.exists():
            return json.loads(self.file.read_text(encoding="utf-8"))
        return read_records(self.out / records_file.FILE).get(f"{CELLS}/{self.name}.json")


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """The tasks and starts that are compared, and the settings that all of them share.

    Attributes:
        reference: the name of the start that the others are compared with.
        backbone: architecture, for starts that do not set it.
        image_size, crop: of the input; None: that of the run, for other starts 224 px of the whole image.
        precision, workers: of the runs of full finetuning.
        images_per_root: full finetuning trains on this number times the square root of the number of training galaxies: small
            training sets are repeated often, and large ones stay affordable.
        rates: learning rates that full finetuning searches (`measure.search`); penalties: those of the linear probe.
    """

    title: str
    tasks: dict[str, Task]
    starts: dict[str, Start]
    reference: str
    out: Path
    modes: tuple[Mode, ...] = ("linear", "full")
    shares: tuple[float, ...] = (1.0, 1 / 4, 1 / 16, 1 / 64)
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    backbone: str | None = None
    image_size: int | None = None
    crop: float | None = None
    precision: Literal["no", "bf16", "fp16"] | None = None
    workers: int = 0
    images_per_root: float = 250
    rates: tuple[float, ...] = RATES
    penalties: tuple[float, ...] = PENALTIES

    def cells(self) -> Iterator[BenchmarkCell]:
        """All cells, seed by seed, so that the finished part is always a whole benchmark; linear probes, which are quick, first.

        A start is not measured on a task whose dataset it was pretrained with.
        """
        for seed in self.seeds:
            for mode in sorted(self.modes, key=("linear", "full").index):
                for share in sorted(self.shares, reverse=True):
                    for task in self.tasks.values():
                        for start in self.starts.values():
                            if task.dataset not in datasets_of(start):
                                yield BenchmarkCell(task, start, mode, share, seed, self.out)

    def settings(self, cell: BenchmarkCell, **changes: Any) -> Settings:
        """The settings of a run on the training galaxies of a cell. Networks are compared as they were trained, without calibration."""
        return Settings(
            dataset=(cell.task.dataset,), **cell.task.options, fold=self.fold(cell), subset=cell.share, seed=cell.seed,
            backbone=self.backbone_of(cell.start),
            start=cell.start.weights_of(cell.seed), image_size=self.image_size, crop=self.crop, workers=self.workers, precision=self.precision,
            calibrate=False, **changes,
        )  # fmt: skip

    def backbone_of(self, start: Start) -> str | None:
        """The architecture of a start; None for a run, whose record contains it."""
        return None if start.lineage else start.backbone or self.backbone

    def fold(self, cell: BenchmarkCell) -> int | None:
        """The number of the fifth of the galaxies that is the test split, for tasks with folds."""
        return 1 + (cell.seed - 1) % 5 if cell.task.folds else None

    def about(self, checked: dict[str, bool]) -> dict[str, Any]:
        """The description of the benchmark for the page, and for later commands that extend it.

        Args:
            checked: from `check_unseen`.
        """
        return {
            "title": self.title,
            "command": typed("--page"),
            "reference": self.reference,
            "tasks": {
                name: {
                    "title": t.title, "dataset": t.dataset, "kind": t.kind, "measure": t.measure, "note": t.note, "folds": t.folds, **_head_of(t),
                }
                for name, t in self.tasks.items()
            },
            "starts": {
                name: {
                    "title": name.replace("_", " "),
                    "weights": list(start.pretrainings) if start.more else start.weights,
                    "galaxies": bool(start.lineage) and not is_control(start),
                    **({"control": True} if is_control(start) else {}),
                    "began": start.lineage[-1].settings["start"] if start.lineage else start.weights,
                    "looked": checked[name],
                    "learnt_from": [t.name for t in self.tasks.values() if t.dataset in datasets_of(start)],
                    "pretraining": _described(start.lineage),
                    **({"more": list(map(_described, start.lineages[1:]))} if start.more else {}),
                }
                for name, start in self.starts.items()
            },
            "modes": self.modes, "shares": self.shares, "seeds": self.seeds,
            "grids": {"linear": self.penalties, "full": self.rates},
            "fixed": {
                "backbone": self.backbone or "that of each start",
                "pictures": f"{self.image_size or 'as the start was trained:'} px, {self.crop or 'the share that it saw'} of the side",
                "linear": "L-BFGS to the optimum; the penalty is a share of the loss of a head without weights",
                "full": f"AdamW in batches of {FULL['batch_size']}, {self.images_per_root:g} x the root of the number of galaxies are seen in all, "
                f"{VALIDATIONS} validations, of which the best counts; a cosine after {FULL['warmup']:.0%} of warm-up, layer decay "
                f"{FULL['layer_decay']}, weight decay {FULL['weight_decay']}, dropout {FULL['head_dropout']} before the head",
            },
        }  # fmt: skip


def _described(lineage: list[RunRecord]) -> list[dict[str, Any]]:
    return [
        {"dataset": r.dataset["name"], "galaxies": r.dataset["splits"]["train"], "command": r.command} for r in lineage
    ]


def _head_of(task: Task) -> dict[str, str]:
    """What the head of votes is, if it is not that which all had before there was a choice."""
    activation = task.options.get("head_activation", Settings.head_activation)
    is_new = has_concentrations(task.kind, Settings.likelihood) and activation != "sigmoid"
    return {"head_activation": activation} if is_new else {}


def datasets_of(start: Start) -> set[str]:
    """The names of the datasets that a start was pretrained with."""
    return {name for lineage in start.lineages for record in lineage for name in record.settings["dataset"]}


def is_control(start: Start) -> bool:
    """Whether its last pretraining was with shuffled targets; after one before that it has learnt about galaxies."""
    return any(lineage[0].settings.get("shuffle_targets", False) for lineage in start.lineages if lineage)


def shared_galaxies(start: Start, task: Task) -> set[str] | None:
    """Names of galaxies of a task that a start was pretrained or validated with; None if its datasets are missing.

    The same galaxy may have another name in another dataset: hf-galaxy overlap also compares pictures.
    """
    from hf_galaxy.importing.dataset import open_dataset
    from hf_galaxy.importing.reading import Reading
    from hf_galaxy.training.sources import open_sources

    pretrained: set[str] = set()
    for record in itertools.chain.from_iterable(start.lineages):
        try:
            splits = open_sources(settings_of(record)).splits
        except BadInput:
            return None
        pretrained |= _names([*splits["train"], *splits["validation"]])
    return pretrained & _names(open_dataset(task.dataset, Reading.of(task.options)).values())


def check_unseen(benchmark: Benchmark) -> dict[str, bool]:
    """Refuse starts that were pretrained, with another dataset, on galaxies of a task.

    Returns:
        For each start whether all its datasets could be checked.

    Raises:
        BadInput: a start shares galaxies with a task.
    """
    checked = {}
    for start in benchmark.starts.values():
        shared_by_task = {
            task.name: shared_galaxies(start, task)
            for task in benchmark.tasks.values()
            if task.dataset not in datasets_of(start)
        }
        for task, shared in shared_by_task.items():
            if shared:
                raise BadInput(
                    f"start {start.name} was pretrained with {len(shared):,} galaxies of task {task} (such as {min(shared)}); "
                    "pretrain it without them (hf-galaxy overlap, then --leave-out)"
                )
        checked[start.name] = None not in shared_by_task.values()
    return checked


def _names(parts: Iterable[Any]) -> set[str]:
    from hf_galaxy.data.targets import tables_of

    return {name for rows in parts for table in tables_of(rows, ["id_str"]) for name in table["id_str"].to_pylist()}


# A benchmark may be extended by more of these, beside tasks and starts; the second group may change; all else stays.
MAY_BE_EXTENDED = ("modes", "shares", "seeds")
MAY_CHANGE = ("title", "command")
# Of a task: its cells hold all measures.
OF_THE_PAGE = ("title", "note", "measure")


def begin(benchmark: Benchmark, checked: dict[str, bool]) -> None:
    """Write the description of the benchmark; an existing one may be extended, but not changed.

    Args:
        checked: from `check_unseen`.

    Raises:
        BadInput: the folder holds another benchmark.
    """
    file, about = benchmark.out / ABOUT, json.loads(json.dumps(benchmark.about(checked)))
    (benchmark.out / STATE_DIR).mkdir(parents=True, exist_ok=True)
    # Several commands may extend the same benchmark at the same time.
    with locked(benchmark.out / STATE_DIR / f"{ABOUT}.lock"):
        remove_left_beside(file)
        if file.exists():
            about = _extended(json.loads(file.read_text(encoding="utf-8")), about, file)
        write_json(file, about)


def _fixed(fields: dict[str, Any]) -> dict[str, Any]:
    """What makes a task or a start another one."""
    return {key: value for key, value in fields.items() if key not in OF_THE_PAGE}


def _extended(earlier: dict[str, Any], about: dict[str, Any], file: Path) -> dict[str, Any]:
    """The earlier description with the tasks, starts, modes, shares and seeds of the other one added; BadInput as `begin`."""
    extended = {}
    for name, value in about.items():
        before, changed = earlier[name], []
        if name in ("tasks", "starts"):
            changed = [
                key
                for key, fields in value.items()
                if not _fixed(fields).items() <= _fixed(before.get(key, fields)).items()
            ]
            value = before | {
                key: value[key] for key in value if key not in before
            }  # its cells may lack another measure
        elif name in MAY_BE_EXTENDED:
            value = before + [each for each in value if each not in before]
        elif name not in MAY_CHANGE and value != before:
            changed = [name]
        if changed:
            raise BadInput(f"{file}: is of a benchmark with another {changed[0]} ({name}); choose another --out")
        extended[name] = value
    return extended
