"""Evaluate a finished run on a split of its own or of another dataset.

hf-galaxy evaluate --run runs/rings
"""

from dataclasses import dataclass
from typing import Literal

from hf_galaxy.command_line import Command, RunFolder
from hf_galaxy.cores import check_processes
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.reading import VotesReading
from hf_galaxy.safe_text import visible


@dataclass(frozen=True, kw_only=True)
class Evaluate(VotesReading):
    """Print the metrics of a run beside its baseline, and add them to its run.json."""

    run: RunFolder
    """The run folder."""
    dataset: str | None = None
    """Dataset to evaluate on: a folder, table or Hub id; by default that of the training."""
    streaming: bool = False
    """Stream the dataset's Parquet files instead of copying all of them to a cache first."""
    split: str = "test"
    """Split of the dataset."""
    batch_size: int = 128
    """Galaxies per batch, in each process."""
    workers: int | None = None
    """Data loading processes per process; by default as in training."""
    precision: Literal["no", "bf16", "fp16"] | None = None
    """Mixed precision; by default that of `accelerate launch` or `accelerate config`."""
    cpu: bool = False
    """Evaluate on the CPU even if there is a GPU."""


def main(settings: Evaluate) -> None:
    settings.check_there([settings.dataset] if settings.dataset else [])
    from hf_galaxy.data.dataset import rows_of
    from hf_galaxy.models.start import load_run
    from hf_galaxy.reports import model_card, run_record
    from hf_galaxy.reports.run_folder import rewrite
    from hf_galaxy.training.processes import start_accelerator
    from hf_galaxy.training.run_data import open_for_run
    from hf_galaxy.training.sequence import default_workers
    from hf_galaxy.training.task import measure, target_of

    if settings.batch_size < 1:
        raise BadInput("--batch-size must be at least 1")
    check_processes("--workers", settings.workers, least=0)
    accelerator = start_accelerator(settings.precision, settings.cpu)
    model, record = load_run(settings.run)
    reading = VotesReading.of(vars(settings))
    opened = open_for_run(settings.run, record, model.config, settings.dataset, reading, settings.streaming)
    splits = [rows_of(each, settings.split, name) for name, each in opened.items()]
    with run_record.reading(settings.run / run_record.FILE):
        target = target_of(record, model.config)
    splits = target.measurable(splits, list(opened), settings.split)
    model.to(accelerator.device)
    workers = default_workers(accelerator.device) if settings.workers is None else settings.workers
    results = measure(model, record, splits, settings.batch_size, workers, accelerator, bootstrap=True).compute()
    if accelerator.is_main_process:
        print(visible(model_card.metrics_table(results, record.task), keep="\n"))
        split = settings.split if settings.dataset is None else f"{settings.dataset}, {settings.split}"
        rewrite(settings.run, lambda record: record.results.update({split: results}))


command = Command(Evaluate, main)

if __name__ == "__main__":
    command()
