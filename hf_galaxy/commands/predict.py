"""Predictions of a finished run for every galaxy of a dataset, or of a folder of pictures, as Parquet.

hf-galaxy predict --run runs/ceers --dataset data/ceers --out predictions/ceers
"""

import hashlib
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import tyro

from hf_galaxy.command_line import Command, DatasetConfig, OutputPath, RunName
from hf_galaxy.data.pictures import Rendering
from hf_galaxy.errors import BadInput
from hf_galaxy.files import check_new, new_folder


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Write the predictions of a run, one row per galaxy, in Parquet files. An interrupted command resumes when it is run again."""

    run: RunName
    """The run folder, or its Hub id."""
    dataset: tuple[str, ...]
    """One or several: folders of JPEG, PNG and FITS files, including subfolders, or published datasets (folders or Hub ids)."""
    out: OutputPath
    """Output folder, created by the command: part-*.parquet, and unreadable.csv if pictures cannot be read."""
    config: DatasetConfig = None
    """Configuration of the dataset, if it has several."""
    split: str | None = None
    """Split of the dataset; by default all of them."""
    embeddings: bool = False
    """Also write the features of the backbone, as a column `embedding`."""
    csv: bool = False
    """Also write predictions.csv, without embeddings."""
    batch_size: int = 128
    """Batch size per process."""
    workers: int = 1
    """Processes that decode pictures, per predicting process; at most one for a published dataset."""
    precision: Literal["no", "bf16", "fp16"] | None = None
    """Mixed precision; by default that of `accelerate launch` or `accelerate config`."""
    cpu: bool = False
    """Predict on the CPU even if there is a GPU."""
    rendering: Annotated[Rendering, tyro.conf.arg(name="")] = field(default_factory=Rendering)
    """How files become pictures; use the same options as for the training set."""


def main(settings: Predict) -> None:
    from accelerate.utils import broadcast_object_list

    from hf_galaxy.models.predictions import finish, predict, schema_of, sources_of, weights_digest
    from hf_galaxy.models.start import load_model
    from hf_galaxy.training.processes import on_main_process, start_accelerator

    if settings.batch_size < 1 or settings.workers < 0:
        raise BadInput("--batch-size must be at least 1, --workers must not be negative")
    settings.rendering.check()
    accelerator = start_accelerator(settings.precision, settings.cpu)
    on_main_process(accelerator, check_new, settings.out)
    model = load_model(settings.run)
    sources = [each for name in settings.dataset for each in sources_of(name, settings.config, settings.split)]
    about = {"model": settings.run, "weights_sha256": weights_digest(model), "precision": accelerator.mixed_precision}
    schema = schema_of(model, about, settings.embeddings)
    galaxies = [(each.name, each.split, each.fingerprint()) for each in sources]
    depends_on = f"{schema} {schema.metadata} {galaxies} {settings.batch_size} {settings.rendering}"
    fingerprint = hashlib.sha256(depends_on.encode()).hexdigest()
    with ExitStack() as stack:
        place: list[Any] = [
            on_main_process(accelerator, lambda: stack.enter_context(new_folder(settings.out, fingerprint)))
        ]
        if accelerator.num_processes > 1:
            broadcast_object_list(place)
        predict(
            model, sources, schema, place[0], settings.batch_size, settings.workers, accelerator, settings.rendering
        )
        accelerator.wait_for_everyone()
        counts: Any = on_main_process(accelerator, finish, place[0], sources, settings.csv)
    if accelerator.is_main_process:
        predicted, unreadable = counts
        print(f"{settings.out}: {predicted:,} galaxies")
        if unreadable:
            print(
                f"{unreadable:,} pictures cannot be read; {settings.out / 'unreadable.csv'} lists them with the reasons"
            )


command = Command(Predict, main)

if __name__ == "__main__":
    command()
