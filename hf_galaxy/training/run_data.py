"""The datasets of a finished run, or others, as its model is measured on them."""

from pathlib import Path

from hf_galaxy.data.splits import in_fold
from hf_galaxy.data.targets import Rows
from hf_galaxy.importing.dataset import open_dataset, reading_of_each
from hf_galaxy.importing.reading import VotesReading
from hf_galaxy.models.model import GalaxyConfig
from hf_galaxy.reports import run_record
from hf_galaxy.reports.run_record import RunRecord
from hf_galaxy.training.run_paths import is_same_dataset, located, located_reading


def trained_datasets(run: Path, record: RunRecord) -> list[str]:
    """The datasets that a run was trained on, where they are now."""
    with run_record.reading(run / run_record.FILE):
        return [located(name, run, record.paths) for name in record.settings["dataset"]]


def open_for_run(
    run: Path,
    record: RunRecord,
    config: GalaxyConfig,
    dataset: str | None,
    reading: VotesReading,
    streaming: bool = False,
) -> dict[str, dict[str, Rows]]:
    """The splits of a dataset as a run divides them, by its name; or of all that it was trained on.

    Args:
        config: of its model.
        dataset: None: those of the training, read as then.
        reading: the options that were given.

    Raises:
        BadInput: one cannot be read.
    """
    trained = trained_datasets(run, record)
    names = [dataset or ""]
    if dataset is None:
        with run_record.reading(run / run_record.FILE):
            given = {name: value for name, value in vars(reading).items() if value is not None and value is not False}
            earlier = vars(located_reading(VotesReading.of(record.settings), run, record.paths))
            names, reading = trained, VotesReading.of(earlier | given)
    reading = reading.for_model(config.bands)
    fold = record.settings.get("fold")
    datasets = {}
    for name, own in zip(names, reading_of_each(names, reading), strict=True):
        opened = open_dataset(name, own, streaming, config.file_rendering)
        if fold is not None and any(is_same_dataset(name, other) for other in trained):
            opened = in_fold(opened, fold, name)  # published test splits have training galaxies
        datasets[name] = opened
    return datasets
