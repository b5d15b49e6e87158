"""The measurement of a cell of the downstream benchmark: a linear probe of cached features, or the best run of full finetuning."""

import dataclasses
import math
import shutil
import time
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any

import torch
from accelerate import Accelerator

from hf_galaxy.downstream.benchmark import FULL, VALIDATIONS, Benchmark, BenchmarkCell
from hf_galaxy.downstream.probe import probe
from hf_galaxy.errors import BadInput
from hf_galaxy.evaluation.bootstrap import six_digits
from hf_galaxy.files import remove_left_beside, write_json
from hf_galaxy.importing.dataset import open_dataset
from hf_galaxy.models.start import resolve_start
from hf_galaxy.reports.run_record import FILE, RunRecord
from hf_galaxy.sweeps.grid import STATE_DIR
from hf_galaxy.targets import report_class
from hf_galaxy.training.features import BATCH, FeatureStore, without_backbone
from hf_galaxy.training.processes import full_precision, start_accelerator
from hf_galaxy.training.run import environment, run_training
from hf_galaxy.training.settings import Settings
from hf_galaxy.training.sources import open_sources
from hf_galaxy.training.task import measure, model_and_baseline

# The record of a run, the validation losses of a grid, and the value that was chosen from it.
Measurement = tuple[RunRecord, dict[float, float], float]
# The configuration and the weights of a start, from `resolve_start`.
Resolved = tuple[dict[str, Any], dict[str, torch.Tensor] | None]


class CellMeasurer:
    """Measures cells, one after the other, in this process.

    Args:
        benchmark: of the cells; its folder also holds the features of whole datasets.
    """

    def __init__(self, benchmark: Benchmark) -> None:
        self.benchmark, self.store = benchmark, FeatureStore(benchmark.out / STATE_DIR / "features")
        # To read a start takes longer than to probe it.
        self.resolved: dict[tuple[str | None, str | None], Resolved] = {}

    def measure(self, cell: BenchmarkCell) -> bool:
        """Measure a cell and write its file; False while the first seed, which chooses the learning rate, is not measured."""
        started = time.perf_counter()
        measured = self._linear(cell) if cell.mode == "linear" else self._full(cell)
        if measured is None:
            return False
        record, grid, chosen = measured
        figures = losses_of(record.results["test"], record.task)
        if cell.task.measure not in figures:  # of votes with few galaxies
            raise BadInput(
                f"task {cell.task.name}: its {record.results['test']['galaxies']} test galaxies are too few for {cell.task.measure}; "
                f"choose its measure among {', '.join(figures)}"
            )
        galaxies = record.dataset["splits"]["train"]
        about = {
            "task": cell.task.name, "start": cell.start.name, "mode": cell.mode, "share": cell.share, "seed": cell.seed,
            "pretraining": cell.start.pretraining(cell.seed),
            "galaxies": galaxies, "test_galaxies": record.results["test"]["galaxies"],
            "hyperparameter": "penalty" if cell.mode == "linear" else "learning_rate",
            "chosen": chosen, "grid": {str(value): loss if math.isfinite(loss) else None for value, loss in grid.items()},
            "figures": figures, "backbone": record.model["backbone"], "parameters": sum(record.model["parameters"][part] for part in ("backbone", "head")),
            "seconds": time.perf_counter() - started, "environment": record.environment,
        }  # fmt: skip
        remove_left_beside(cell.file)  # by a process that was killed; this one has the lock of the cell
        write_json(cell.file, about)
        return True

    def _linear(self, cell: BenchmarkCell) -> Measurement:
        """A linear probe of cached features."""
        settings = self.benchmark.settings(cell, out=cell.state_file("runs"))
        accelerator = start_accelerator(settings.precision)  # one for all cells: that of a process cannot change
        with full_precision(accelerator):
            return self._probe(cell, settings, accelerator)

    def _probe(self, cell: BenchmarkCell, settings: Settings, accelerator: Accelerator) -> Measurement:
        fields, weights = self._resolve(settings)
        sources = open_sources(settings)
        model, baseline = model_and_baseline(settings, sources, dict(fields))
        if weights is not None:
            model.backbone.load_state_dict(weights)
        model.to(accelerator.device)
        whole = open_dataset(cell.task.dataset, settings)
        features = self.store.lookup(model, cell.task.dataset, list(whole.values()), sources.target, accelerator)
        splits = {split: features(parts) for split, parts in sources.splits.items()}
        # Of the whole training split, not only of the subset: mean and standard deviation need no labels.
        pool = features(open_sources(dataclasses.replace(settings, subset=1.0)).splits["train"])
        grid = probe(model, splits["train"], splits["validation"], pool.columns["features"], self.benchmark.penalties)
        record = RunRecord(
            command="", settings=dataclasses.asdict(settings), baseline=baseline,
            dataset={"splits": {split: len(each) for split, each in splits.items()}, **sources.target.description()},
            model={"backbone": model.config.backbone, "parameters": model.parameter_counts()},
            environment=environment(accelerator) | {"precision": "no"},
        )  # fmt: skip
        with without_backbone(model):
            record.results["test"] = measure(model, record, [splits["test"]], BATCH, 0, accelerator).compute()
        return record, grid, min(grid, key=grid.__getitem__)

    def _full(self, cell: BenchmarkCell) -> Measurement | None:
        """The best run of a search over learning rates; of a later seed, one run with the rate of the first."""
        rates, runs = self.benchmark.rates, dict[float, RunRecord]()
        if cell.seed != self.benchmark.seeds[0]:
            first = dataclasses.replace(cell, seed=self.benchmark.seeds[0]).record()
            if first is None:
                return None
            rates = (first["chosen"],)

        def loss_of(rate: float) -> float:
            runs[rate] = self._finetune(cell, rate)
            return min(each["validation_loss"] for each in runs[rate].training["history"])

        grid = search(sorted(rates), loss_of)
        chosen = min(grid, key=grid.__getitem__)
        shutil.rmtree(cell.state_file("runs"))
        return runs[chosen], grid, chosen

    def _finetune(self, cell: BenchmarkCell, rate: float) -> RunRecord:
        folder = cell.state_file("runs") / f"{rate:g}"
        if (folder / FILE).exists() and (record := RunRecord.load(folder)).finished:
            return record
        settings = self.benchmark.settings(cell, **FULL, learning_rate=rate, out=folder)
        galaxies = open_sources(settings).count("train")
        epochs = self.benchmark.images_per_root / galaxies**0.5
        record = run_training(dataclasses.replace(settings, epochs=epochs, validate_every=epochs / VALIDATIONS))
        assert record is not None, "only an estimate has no record"
        return record

    def _resolve(self, settings: Settings) -> Resolved:
        key = settings.start, settings.backbone
        if key not in self.resolved:
            self.resolved[key] = resolve_start(settings.backbone, settings.start, settings.image_size)
        return self.resolved[key]


def search(rates: Sequence[float], loss_of: Callable[[float], float]) -> dict[float, float]:
    """Losses of some of the rates: from the middle one upwards while the loss improves, or else downwards.

    The best rate has a worse one on either side, unless it is the first or the last of all. A loss that is not finite is
    infinity here, worse than any other.

    Args:
        rates: in rising order.

    Raises:
        FloatingPointError: that of the last rate, where none has a finite loss.
    """
    losses: dict[float, float] = {}
    divergence: FloatingPointError | None = None

    def improves(rate: float) -> bool:
        nonlocal divergence
        best = min(losses.values(), default=math.inf)
        try:
            losses[rate] = loss_of(rate)
        except FloatingPointError as error:
            losses[rate], divergence = math.inf, error
        return losses[rate] < best

    middle = (len(rates) - 1) // 2
    improves(rates[middle])
    if not list(takewhile(improves, rates[middle + 1 :])):
        list(takewhile(improves, reversed(rates[:middle])))
    if divergence is not None and min(losses.values()) == math.inf:
        raise divergence
    return losses


def losses_of(results: dict, task: str) -> dict[str, dict]:
    """Figures of a test split as losses, by measure: `model`, `baseline`, and the model's `replicates`, all of six digits.

    Args:
        results: of a run record, measured with a bootstrap.
        task: of the run (`RunRecord.task`).
    """
    return {
        measure: {
            "model": _six_digits(loss.model), "baseline": _six_digits(loss.baseline), "replicates": six_digits(loss.replicates),
        }
        for measure, loss in report_class(task)().benchmark_losses(results).items()
    }  # fmt: skip


def _six_digits(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
