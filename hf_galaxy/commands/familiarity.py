"""Fit an out-of-distribution score to the galaxies of a run: a file in the run folder.

    hf-galaxy familiarity --run runs/ceers

On two cores some 10,000 galaxies of 88 px take a minute with an EfficientNet-Lite0.
"""

import dataclasses
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from hf_galaxy.command_line import Command, RunFolder
from hf_galaxy.cores import check_processes
from hf_galaxy.errors import BadInput
from hf_galaxy.files import only_writer_of
from hf_galaxy.models.familiarity import FILE, LEVEL, Descriptors, Familiarity, looks_of

if TYPE_CHECKING:
    from accelerate import Accelerator

    from hf_galaxy.models.model import GalaxyPreTrainedModel
    from hf_galaxy.reports.run_record import RunRecord


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Write RUN/familiarity.safetensors from the training and validation galaxies of the run, and apply it to its test split."""

    run: RunFolder
    """The run folder."""
    dataset: tuple[str, ...] | None = None
    """Folders or Hub ids; by default those of the run, where they were then."""
    level: float = LEVEL
    """Fraction of galaxies like those of the run whose score is below the threshold."""
    workers: int = 0
    """Processes that decode pictures, for each process."""
    precision: Literal["no", "bf16", "fp16"] | None = None
    """Mixed precision, by default that of `accelerate launch` or `accelerate config`."""
    cpu: bool = False
    """Work on the CPU even if there is a GPU."""


def main(settings: Measure) -> None:
    """Fit the score, save it in the run folder, and print how many validation and test galaxies are beyond the threshold."""
    from hf_galaxy.models.start import load_run
    from hf_galaxy.training.processes import on_main_process, start_accelerator

    if not 0 < settings.level < 1:
        raise BadInput("--level must be in (0, 1)")
    check_processes("--workers", settings.workers, least=0)
    accelerator = start_accelerator(settings.precision, settings.cpu)
    model, record = load_run(settings.run)
    with ExitStack() as stack:
        lock = only_writer_of(settings.run / FILE, "wait for it")
        on_main_process(accelerator, lambda: stack.enter_context(lock))
        measure(settings, accelerator, model, record)


def measure(settings: Measure, accelerator: "Accelerator", model: "GalaxyPreTrainedModel", record: "RunRecord") -> None:
    """As `main`, under the lock of the file."""
    import numpy as np
    from accelerate.utils import gather_object

    from hf_galaxy.data.galaxies import Galaxies
    from hf_galaxy.data.views import eval_view
    from hf_galaxy.training.features import BATCH, features_of
    from hf_galaxy.training.processes import on_main_process
    from hf_galaxy.training.sequence import ProcessShard, evaluation_batches
    from hf_galaxy.training.settings import settings_of
    from hf_galaxy.training.sources import open_sources

    run_settings = settings_of(record)
    if settings.dataset is not None:
        run_settings = dataclasses.replace(run_settings, dataset=settings.dataset)
    with accelerator.main_process_first():
        sources = open_sources(run_settings, model.config.file_rendering)
    share = ProcessShard(accelerator.process_index, accelerator.num_processes)
    features = features_of(model, sources.splits, sources.target, BATCH, share, settings.workers, accelerator)
    framing = model.config.framing

    def looks(rows: Any) -> np.ndarray:
        batches = evaluation_batches(Galaxies(rows, framing, sources.target), BATCH, share, settings.workers)
        return np.concatenate(
            gather_object([looks_of(eval_view(batch["pixels"], framing).numpy()) for batch in batches])
        )

    seen = {
        split: [Descriptors(part.columns["features"].numpy(), looks(rows)) for part, rows in zip(parts, sources.splits[split], strict=True)]
        for split, parts in features.items()
    }  # fmt: skip
    train, held_out = (
        Descriptors(*map(np.concatenate, zip(*seen[split], strict=True))) for split in ("train", "validation")
    )
    familiarity = Familiarity.fit(train, held_out, settings.level)
    on_main_process(accelerator, familiarity.save, settings.run)
    accelerator.print(
        f"{settings.run / FILE}: of {len(train.looks):,} training galaxies; {len(held_out.looks):,} of the validation split "
        f"set the threshold of the least similar {1 - settings.level:.1%}"
    )
    for name, validation, test in zip(run_settings.dataset, seen["validation"], seen["test"], strict=True):
        parts = (
            f"{(familiarity.ood_score(*part) > 1).mean():.2%} of {len(part.looks):,}" for part in (validation, test)
        )
        accelerator.print("{}: beyond are {} validation galaxies, and {} test galaxies".format(name, *parts))


command = Command(Measure, main)

if __name__ == "__main__":
    command()
