"""Run records -> the table of measured losses that laws are fitted to."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hf_galaxy.errors import BadInput
from hf_galaxy.files import whole_file
from hf_galaxy.reports.run_record import FILE, RunRecord
from hf_galaxy.training.settings import NOT_PART_OF_RESULT, as_recorded

if TYPE_CHECKING:
    import pandas as pd

ALL = "all"  # the figure of all questions together, or of all classes
# What the runs of one backbone may differ in: how much they learn from, how often they see it, and what changes no result.
# Not in the fold, nor may those of different backbones: what other test galaxies do would pass for what more galaxies do.
VARIED = NOT_PART_OF_RESULT | {"seed", "subset", "epochs", "validate_every"}
SERIES = ["dataset", "start", "measure", "figure"]  # rows alike in these differ in backbone, galaxies and seed only
MEASURES = {
    "excess": "likelihood loss above the least possible (nats per galaxy)",
    "rmse": "RMSE of vote fractions",
    "nll": "cross-entropy (nats per galaxy)",
    "error": "share of galaxies in a wrong class",
    "mse": "mean squared error (in standard deviations)",
    "unexplained": "share of the variance not explained (1 - R²)",
}


def records_in(folder: Path) -> dict[str, RunRecord]:
    """The records of all finished runs below a folder, by the name of their own folder.

    Raises:
        BadInput: there is none, or one cannot be read.
    """
    records = {}
    for file in sorted(folder.rglob(FILE)):
        record = RunRecord.load(file.parent)
        if record.finished:
            records[str(file.parent.relative_to(folder))] = record
    if not records:
        raise BadInput(f"{folder}: there is no finished run in it or below; give the folder of a sweep")
    return records


def points_of(records: Mapping[str, RunRecord]) -> "pd.DataFrame":
    """What the runs measured on their test splits, one row for each run and figure.

    Columns: `run`; `dataset`, `start` ("random" for none); `backbone`, `family` (timm's module), `parameters` (with the head),
    `flops` (of one picture); `galaxies` (learnt from), `seed`, `epochs` (up to the best validation), `seconds`; `figure` (a
    question, or "all"), `measure`; `loss`, `baseline`, `test_galaxies`; `replicates`, (R,) the loss in those of a bootstrap over
    test galaxies; `saturated`, which is 0 but for `excess`.

    `MEASURES` of votes are `excess`, the negative log-likelihood per galaxy asked above `saturated`, below which no prediction
    can come (`vote_metrics.VoteMetrics`), and `rmse`; of classes `nll` and `error`.

    Raises:
        BadInput: a run was measured without a bootstrap, two runs are of the same galaxies and seed, runs of one backbone
            differ in more than what a study is about (`VARIED`), or runs on one dataset in their fold.
    """
    seen, first, folded = {}, {}, {}
    for name, record in records.items():
        about = _about(name, record)
        other = folded.setdefault(about["dataset"], name)
        if record.settings.get("fold") != records[other].settings.get("fold"):
            raise BadInput(
                f"{other} and {name} differ in --fold, so they were tested on different galaxies; make studies of them apart, "
                "each of a folder of its own"
            )
        kind = about["dataset"], about["start"], about["backbone"]
        cell = *kind, about["galaxies"], about["seed"]
        if cell in seen:
            raise BadInput(
                f"{seen[cell]} and {name} are the same backbone on equally many galaxies with the same seed; take one away"
            )
        seen[cell] = name
        other = first.setdefault(kind, name)
        ours, theirs = as_recorded(record.settings), as_recorded(records[other].settings)
        differing = [option for option in ours if option not in VARIED and ours[option] != theirs.get(option)]
        if differing:
            option = differing[0].replace("_", "-")
            raise BadInput(
                f"{other} and {name} differ in --{option}; make studies of them apart, each of a folder of its own"
            )
    rows = [row for name, record in records.items() for row in _rows(name, record)]
    # A figure that in some replicate no galaxy was left for has too few of them to be measured by.
    if not (rows := [row for row in rows if np.isfinite(row["replicates"]).all()]):
        raise BadInput("the test split of these runs has too few galaxies to measure anything by")
    import pandas as pd

    return pd.DataFrame(rows)


def save_points(points: "pd.DataFrame", file: Path) -> None:
    """Write the table as Parquet, replicates in single precision, whole or not at all."""
    replicates = [values.astype(np.float32) for values in points["replicates"]]
    with whole_file(file) as partial:
        points.assign(replicates=replicates).to_parquet(partial, index=False, compression="zstd")


def load_points(file: Path) -> "pd.DataFrame":
    """What `save_points` wrote.

    Raises:
        BadInput: it cannot be read, or is no such table.
    """
    import pandas as pd
    import pyarrow as pa

    try:
        points = pd.read_parquet(file)
    except (OSError, pa.ArrowInvalid) as error:
        raise BadInput(f"{file}: cannot be read as Parquet ({error})") from error
    if missing := {*SERIES, "backbone", "galaxies", "seed", "loss", "replicates"} - set(points.columns):
        raise BadInput(f"{file}: is no table of measured points; it lacks {', '.join(sorted(missing))}")
    return points.assign(replicates=[np.asarray(values, float) for values in points["replicates"]])


def _about(name, record):
    if "bootstrap" not in record.results["test"]:
        raise BadInput(f"{name}: was measured without a bootstrap; scripts/evaluate.py --run measures it again")
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
    }


def _rows(name, record):
    about, test = _about(name, record), record.results["test"]

    def row(figure, measure, pair, count, replicates, saturated=0.0):
        return about | {
            "figure": figure,
            "measure": measure,
            "loss": pair["model"],
            "baseline": pair["baseline"],
            "saturated": saturated,
            "test_galaxies": count,
            "replicates": numbers_of(replicates),
        }

    def excess(figure, nll, count, again):
        least = nll["saturated"]
        above = {who: nll[who] - least for who in ("model", "baseline")}
        return row(figure, "excess", above, count, numbers_of(again["model"]) - numbers_of(again["saturated"]), least)

    again, count = test["bootstrap"], test["galaxies"]
    if "values" in test:
        unexplained = [
            row(name, "unexplained", {who: 1 - r2 for who, r2 in figures["r2"].items()}, figures["galaxies"],
                1 - numbers_of(again["values"][name]["r2"]["model"]))
            for name, figures in test["values"].items()
            if figures["r2"]["model"] is not None
        ]  # fmt: skip
        return [row(ALL, "mse", test["loss"], count, again["loss"]["model"]), *unexplained]
    if "questions" not in test:
        error = {who: 1 - accuracy for who, accuracy in test["accuracy"].items()}
        return [
            row(ALL, "nll", test["loss"], count, again["loss"]["model"]),
            row(ALL, "error", error, count, 1 - numbers_of(again["accuracy"]["model"])),
        ]
    rows = [excess(ALL, test["loss"], count, again["loss"])]
    for question, figures in test["questions"].items():
        own = again["questions"][question]
        if figures["galaxies_asked"]:
            rows.append(excess(question, figures["nll"], figures["galaxies_asked"], own["nll"]))
        if figures["galaxies_with_enough_votes"]:
            rows.append(
                row(question, "rmse", figures["rmse"], figures["galaxies_with_enough_votes"], own["rmse"]["model"])
            )
    return rows


def numbers_of(replicates):
    return np.array(replicates, float)  # None, where no galaxy counted, becomes no number


def family_of(backbone: str) -> str:
    """Which of timm's modules builds it (resnet18 and test_resnet: resnet); of transformers, the name itself."""
    import timm

    if timm.is_model(backbone):
        return timm.model_entrypoint(backbone).__module__.rpartition(".")[2]
    return backbone
