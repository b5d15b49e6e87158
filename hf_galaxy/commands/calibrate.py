"""Calibrate a finished run: for the survey that it was trained on, or for another one, from 50 galaxies with votes or labels.

hf-galaxy calibrate --run runs/survey --dataset new_survey --out runs/survey_calibrated
"""

import itertools
import logging
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hf_galaxy.command_line import Command, OutputPath, RunFolder, typed
from hf_galaxy.cores import check_processes
from hf_galaxy.errors import BadInput
from hf_galaxy.files import check_new, new_folder
from hf_galaxy.importing.reading import VotesReading
from hf_galaxy.safe_text import visible

if TYPE_CHECKING:
    from hf_galaxy.data.targets import Rows
    from hf_galaxy.models.model import GalaxyPreTrainedModel
    from hf_galaxy.reports.run_record import RunRecord

KEPT = ("*.safetensors", "preprocessor_config.json")  # files of a run that a calibration leaves as they are

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Calibrate(VotesReading):
    """Fit, on galaxies that a run was not trained on, how certain its predictions may be, and write the run with this calibration into a new folder. It says what to expect of other galaxies, by cross-validation."""

    run: RunFolder
    """The run folder."""
    out: OutputPath
    """Folder to create: a run folder with the same weights, whose predictions are calibrated wherever it is loaded."""
    dataset: str | None = None
    """Dataset to calibrate for: a folder, table or Hub id with votes for at least one question of the model, or with its classes or values; by default that of the training."""
    streaming: bool = False
    """Stream the dataset's Parquet files instead of copying all of them to a cache first."""
    split: str | None = None
    """Split of the dataset, or all; by default validation of the dataset of the training, and all of another one."""
    batch_size: int = 128
    """Galaxies per batch, in each process."""
    workers: int | None = None
    """Data loading processes per process; by default as in training."""
    precision: Literal["no", "bf16", "fp16"] | None = None
    """Mixed precision; by default that of `accelerate launch` or `accelerate config`."""
    cpu: bool = False
    """Work on the CPU even if there is a GPU."""


def main(settings: Calibrate) -> None:
    settings.check_there([settings.dataset] if settings.dataset else [])
    from hf_galaxy.models.start import load_run
    from hf_galaxy.reports import run_record
    from hf_galaxy.reports.target_report import report_of
    from hf_galaxy.training.calibrating import calibrate, in_words, recorded
    from hf_galaxy.training.processes import on_main_process, start_accelerator
    from hf_galaxy.training.run_data import open_for_run, trained_datasets
    from hf_galaxy.training.run_paths import is_same_dataset
    from hf_galaxy.training.sequence import default_workers
    from hf_galaxy.training.task import measure, target_of

    if settings.batch_size < 1:
        raise BadInput("--batch-size must be at least 1")
    check_processes("--workers", settings.workers, least=0)
    accelerator = start_accelerator(settings.precision, settings.cpu)
    on_main_process(accelerator, check_new, settings.out)
    model, record = load_run(settings.run)
    with run_record.reading(settings.run / run_record.FILE):
        target = target_of(record, model.config)
    if not target.is_calibrated:
        raise BadInput(
            f"--run {settings.run}: learnt {record.task}, and only votes, classes and values have a calibration"
        )
    opened = open_for_run(
        settings.run, record, model.config, settings.dataset, VotesReading.of(vars(settings)), settings.streaming
    )
    trained = trained_datasets(settings.run, record)
    own = any(is_same_dataset(name, other) for name in opened for other in trained)
    split = settings.split or ("validation" if own else "all")
    rows = _rows(opened, split, own)
    parts = target.measurable(list(rows.values()), list(rows), split, partly=True)
    if not own and all(map(os.path.exists, trained)):  # nothing is downloaded for it
        _warn_of_training_galaxies(settings.run, record, model, parts)
    model.to(accelerator.device)
    workers = default_workers(accelerator.device) if settings.workers is None else settings.workers
    fitted, held_out = calibrate(model, target, parts, settings.batch_size, workers, accelerator)
    sentence = in_words(fitted, held_out)
    if fitted is None or not fitted.helps:
        raise BadInput(f"{sentence}; nothing is written, {settings.run} is as good as it can be with these")
    titles = " and ".join(dict.fromkeys(Path(name).name if os.path.exists(name) else name for name in opened))
    expected = f"{split} of {titles}, cross-validated"
    results = held_out.metrics(record, fitted).compute()
    record.training["calibration"] = recorded(fitted, held_out) | {"command": typed(), "measured_on": expected}
    record.results = {expected: results}
    if own and all("test" in each for each in opened.values()):
        tested = target.measurable([each["test"] for each in opened.values()], list(opened), "test", partly=True)
        record.results["test"] = measure(
            model, record, tested, settings.batch_size, workers, accelerator, bootstrap=True
        ).compute()
    if accelerator.is_main_process:
        _write(settings.run, settings.out, model, record)
        report, measured = report_of(record), results["calibration"]
        figures = report.calibration_table(measured) or report.calibration_text(measured)
        print(visible(f"{settings.out}: {sentence}\n\n{figures}", keep="\n"))


def _warn_of_training_galaxies(
    run: Path, record: "RunRecord", model: "GalaxyPreTrainedModel", parts: "Sequence[Rows]"
) -> None:
    """Log how many galaxies of another dataset have the names of training galaxies, whose answers the run knows."""
    from hf_galaxy.data.targets import tables_of
    from hf_galaxy.training.run_data import open_for_run

    def names(rows: "Iterable[Rows]") -> set[str]:
        return {name for each in rows for table in tables_of(each, ["id_str"]) for name in table["id_str"].to_pylist()}

    try:
        opened = open_for_run(run, record, model.config, None, VotesReading())
    except BadInput:  # it is somewhere else now
        return
    ours = names(parts)
    if same := ours & names(each["train"] for each in opened.values() if "train" in each):
        logger.warning(
            "%d of %d galaxies have the names of training galaxies, such as %s; if they are the same, the calibration is too sure of itself: "
            "give --dataset only galaxies that the run has not seen", len(same), len(ours), min(same),
        )  # fmt: skip


def _rows(opened: "dict[str, dict[str, Rows]]", split: str, own: bool) -> "dict[str, Rows]":
    """The rows of a split, or of all splits, by what messages call them.

    Raises:
        BadInput: there is no such split, or the run was trained on it.
    """
    from hf_galaxy.data.dataset import rows_of

    if own and split in ("train", "all"):
        raise BadInput(
            f"--split {split}: the run was trained on these galaxies, and knows their answers; take validation"
        )
    if own and split == "test":
        raise BadInput("--split test: the run is measured on these galaxies; take validation")
    if split != "all":
        return {name: rows_of(each, split, name) for name, each in opened.items()}
    return {f"{name}, {part}": rows for name, each in opened.items() for part, rows in each.items()}


def _write(run: Path, out: Path, model: "GalaxyPreTrainedModel", record: "RunRecord") -> None:
    """The run with the calibration of the model, as a new run folder."""
    from hf_galaxy.models.remote_code import save_code
    from hf_galaxy.reports.run_folder import write_figures_and_card

    with new_folder(out, f"{model.config.calibration} of {record.model.get('weights')}") as folder:
        for file in itertools.chain.from_iterable(run.glob(pattern) for pattern in KEPT):
            shutil.copyfile(file, folder / file.name)
        model.config.save_pretrained(folder)
        save_code(folder, type(model))  # that of before may know no calibration
        write_figures_and_card(folder, record)


command = Command(Calibrate, main)

if __name__ == "__main__":
    command()
