"""Run records -> the table of measured losses that laws are fitted to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_galaxy.errors import BadInput
from hf_galaxy.files import whole_file
from hf_galaxy.reports import records_file
from hf_galaxy.reports.run_record import FILE, RunRecord, reading
from hf_galaxy.reports.target_report import report_of
from hf_galaxy.scaling.convergence import convergence_of, with_convergence
from hf_galaxy.training.settings import NOT_PART_OF_RESULT, as_recorded

if TYPE_CHECKING:
    import pandas as pd

# Settings in which the runs of one backbone may differ: the number of galaxies, the length of training, and settings without
# an effect on the result. Not the fold, nor may runs of different backbones differ in it: an effect of other test galaxies would look like an
# effect of more training galaxies.
VARIED = NOT_PART_OF_RESULT | {"seed", "subset", "epochs", "validate_every"}
SERIES = ["dataset", "start", "measure", "figure"]  # rows with equal values differ in backbone, galaxies and seed only


def records_in(source: Path) -> dict[str, RunRecord]:
    """The records of all finished runs below a folder and in its records file, by the path of the run folder; or those in a
    records file.

    Raises:
        BadInput: there is none, or one cannot be read.
    """
    file = source if source.is_file() else source / records_file.FILE
    try:
        records = {
            name: RunRecord.of(fields)
            for name, fields in records_file.read_records(file).items()
            if "settings" in fields
        }
    except TypeError as error:
        raise BadInput(f"{file}: holds no run records ({error})") from error
    if source.is_dir():
        folders = [path.parent for path in source.rglob(FILE)]
        loaded = {folder.relative_to(source).as_posix(): RunRecord.load(folder) for folder in folders}
        records |= {name: record for name, record in loaded.items() if record.finished}
    if not records:
        raise BadInput(f"{source}: there is no finished run in it or below; give the folder of a sweep")
    return {name: records[name] for name in records_file.in_order(records)}


def points_in(source: Path) -> pd.DataFrame:
    """The points in a table that `save_points` wrote, or those of the runs in a folder or a records file.

    Raises:
        BadInput: as `load_points`, `records_in` and `points_of`.
    """
    if source.is_file() and not records_file.holds_records(source):
        return load_points(source)
    return points_of(records_in(source))


def points_of(records: Mapping[str, RunRecord]) -> pd.DataFrame:
    """The test losses of runs, one row for each run and figure.

    Columns: `run`; `dataset`, `start` ("random" for none); `backbone`, `family` (timm's module), `parameters` (with the head),
    `flops` (of one picture); `galaxies` (of the training set), `seed`, `epochs` (up to the best validation), `seconds`; `converged`,
    `length_epochs`, `length_losses`, `length_least` (`convergence_of`); `figure`
    (a question, or "all"), `measure`; `loss`, `baseline`, `test_galaxies`; `replicates`, (R,) the loss in the replicates of a
    bootstrap over test galaxies; `subtracted`, the loss of a reference above which `loss` is, such as of the oracle of votes; 0 for most measures.

    The measures are those of `TargetReport.study_losses`.

    Raises:
        BadInput: a run was measured without a bootstrap, two runs have the same galaxies and seed, runs of one backbone
            differ in more than `VARIED`, or runs on one dataset differ in their fold, or in what their losses are above.
    """
    import pandas as pd

    _check_comparable(records)
    rows = [row for name, record in records.items() for row in _rows(name, record)]
    _check_references(rows)
    # A figure without a galaxy in some replicate has too few test galaxies to be measured.
    if not (rows := [row for row in rows if np.isfinite(row["replicates"]).all()]):
        raise BadInput("the test split of these runs has too few galaxies for any measure")
    return pd.DataFrame(rows)


def _check_comparable(records: Mapping[str, RunRecord]) -> None:
    cells: dict[tuple, str] = {}
    first_of_kind: dict[tuple, str] = {}
    first_of_dataset: dict[str, str] = {}
    for name, record in records.items():
        with reading(name):
            _check_beside(name, record, records, (cells, first_of_kind, first_of_dataset))


def _check_beside(
    name: str, record: RunRecord, records: Mapping[str, RunRecord], earlier: tuple[dict, dict, dict]
) -> None:
    """Check a run beside earlier ones, which are known by their cell, by their kind, and by their dataset."""
    cells, first_of_kind, first_of_dataset = earlier
    about = _about(name, record)
    other = first_of_dataset.setdefault(about["dataset"], name)
    if record.settings.get("fold") != records[other].settings.get("fold"):
        raise BadInput(
            f"{other} and {name} differ in --fold, so they were tested on different galaxies; make a study of each, "
            "from a folder of its own"
        )
    kind = about["dataset"], about["start"], about["backbone"]
    cell = *kind, about["galaxies"], about["seed"]
    if cell in cells:
        raise BadInput(
            f"{cells[cell]} and {name} have the same backbone, number of galaxies and seed; remove one of them"
        )
    cells[cell] = name
    other = first_of_kind.setdefault(kind, name)
    ours, theirs = as_recorded(record.settings), as_recorded(records[other].settings)
    differing = [option for option in ours if option not in VARIED and ours[option] != theirs.get(option)]
    if differing:
        option = differing[0].replace("_", "-")
        raise BadInput(f"{other} and {name} differ in --{option}; make a study of each, from a folder of its own")


def _check_references(rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse runs on votes that were measured beside the oracle together with runs from before that was measured."""
    runs: dict[str, dict[str, str]] = {}
    for row in rows:
        runs.setdefault(row["dataset"], {}).setdefault(row["measure"], row["run"])
    for of_dataset in runs.values():
        if {"above_oracle", "excess"} <= of_dataset.keys():
            raise BadInput(
                f"{of_dataset['excess']}: lacks the loss of the true vote fractions, above which the loss of {of_dataset['above_oracle']} is measured; "
                "measure it again with hf-galaxy evaluate --run"
            )


def save_points(points: pd.DataFrame, file: Path) -> None:
    """Write the table as Parquet, replicates in single precision, whole or not at all."""
    replicates = [values.astype(np.float32) for values in points["replicates"]]
    with whole_file(file) as partial:
        # Bytes of equal weight stand together, which makes the file a third smaller.
        points.assign(replicates=replicates).to_parquet(
            partial, index=False, compression="zstd", compression_level=19, use_byte_stream_split=["replicates.list.element"],
            use_dictionary=[column for column in points if column != "replicates"],
        )  # fmt: skip


def load_points(file: Path) -> pd.DataFrame:
    """Read the table that `save_points` wrote.

    Raises:
        BadInput: the file cannot be read, or holds another table.
    """
    import pandas as pd
    import pyarrow as pa

    try:
        points = pd.read_parquet(file)
    except (OSError, pa.ArrowInvalid) as error:
        raise BadInput(f"{file}: cannot be read as Parquet ({error})") from error
    if missing := {*SERIES, "backbone", "galaxies", "seed", "loss", "replicates"} - set(points.columns):
        raise BadInput(f"{file}: is no table of measured points; it lacks the columns {', '.join(sorted(missing))}")
    points = points.rename(columns={"saturated": "subtracted"})  # its name before the oracle was measured
    return with_convergence(points).assign(replicates=[np.asarray(values, float) for values in points["replicates"]])


def _about(name: str, record: RunRecord) -> dict[str, Any]:
    """Columns that all rows of a run share."""
    with reading(name):
        return _about_whole(name, record)


def _about_whole(name: str, record: RunRecord) -> dict[str, Any]:
    if "bootstrap" not in record.results["test"]:
        raise BadInput(f"{name}: was measured without a bootstrap; measure it again with hf-galaxy evaluate --run")
    parts = record.model["parameters"]
    return {
        "run": name,
        "dataset": record.dataset["name"],
        "start": Path(record.model["start"]).name if record.model["start"] else "random",
        "backbone": record.model["backbone"],
        "family": family_of(record.model["backbone"]),
        "parameters": parts["backbone"] + parts["head"],
        "flops": record.model["flops"],
        "galaxies": record.dataset["splits"]["train"],
        "seed": record.settings["seed"],
        "epochs": record.training["best_epoch"],
        "seconds": record.training["seconds"],
        **convergence_of(record),
    }


def _rows(name: str, record: RunRecord) -> list[dict[str, Any]]:
    about = _about(name, record)
    with reading(name):
        losses = report_of(record).study_losses(record.results["test"])
    return [
        about
        | {
            "figure": loss.part, "measure": loss.measure, "loss": loss.model, "baseline": loss.baseline, "subtracted": loss.subtracted,
            "test_galaxies": loss.galaxies, "replicates": loss.replicates,
        }
        for loss in losses
    ]  # fmt: skip


def family_of(backbone: str) -> str:
    """The module of timm that builds it (resnet18 and test_resnet: resnet); of transformers, the name itself."""
    import timm

    if timm.is_model(backbone):
        return timm.model_entrypoint(backbone).__module__.rpartition(".")[2]
    return backbone
