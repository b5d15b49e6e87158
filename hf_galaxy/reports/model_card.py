"""The record of a run -> the card of its model. A pure function: no inference, no network."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from huggingface_hub import ModelCard

from hf_galaxy.reports import run_figures
from hf_galaxy.reports.card_data import base_model, card_data, datasets, licence
from hf_galaxy.reports.run_record import RunRecord
from hf_galaxy.reports.text import TEMPLATES, interval, number, table

FEW = 100  # test galaxies below which the card warns of a figure
PAPER = """@misc{walmsley2024scaling,
  title = {{Scaling Laws for Galaxy Images}},
  author = {Walmsley, Mike and Bowles, Micah and Scaife, Anna M. M. and others},
  year = {2024},
  eprint = {2404.02973},
  archivePrefix = {arXiv}
}"""

Results = Mapping[str, Any]  # of one split, as `RunRecord.results` holds them, or a part of these


def model_card(record: RunRecord) -> str:
    """README.md of a finished run: what it predicts, how to use it, how good it is, its limits, how it was trained."""
    task, test = record.task, record.results.get("test", {})
    return str(
        ModelCard.from_template(
            card_data(record), template_path=str(TEMPLATES / "model_card.md.jinja"), record=record, task=task,
            folder=record.publication.get("repo") or "path/or/hub-id", cards=record.dataset.get("cards", []),
            datasets=datasets(record), base_model=base_model(record), licence=licence(record),
            tables={split: metrics_table(results, task) for split, results in record.results.items()},
            classes=_classes_table(test["confusion"], record.dataset["classes"]) if "confusion" in test else None,
            calibration=_calibration_section(run_figures.calibration_of(record)), figures=run_figures,
            few=_questions_of_few(test), no_better=_no_better(test), floor=_floor(test),
            compute=_compute(record), duration=_duration(record.training["seconds"]), citation=_citations(record),
            scaling=_scaling_section(**record.scaling) if record.scaling else None,
            settings={name: _setting(value) for name, value in record.settings.items() if value not in (None, [])},
        )
    )  # fmt: skip


# Figures of merit


def metrics_table(results: Results, task: str) -> str:
    """Markdown of one split's results, each figure with its interval and beside its baseline.

    Where there are replicates of a bootstrap over galaxies, the interval holds 90 % of them.

    Args:
        task: of the run (`RunRecord.task`).
    """
    return TABLES[task](results)


def _figures_table(results: Results) -> str:
    replicates = results.get("bootstrap", {})
    rows = [
        [name, *_pair(results, replicates, name)]
        for name, pair in results.items()
        if isinstance(pair, dict) and "baseline" in pair
    ]
    return table([f"{results['galaxies']} galaxies", "model", "baseline"], rows)


def _votes_tables(results: Results) -> str:
    replicates = results.get("bootstrap", {})
    rows = []
    for name, figures in results["campaigns"].items():
        own = replicates.get("campaigns", {}).get(name, {})
        pairs = [cell for figure in ("nll", "rmse", "accuracy") for cell in _pair(figures, own, figure)]
        rows.append([name, figures["galaxies"], *pairs])
    errors = ["RMSE", "baseline", "accuracy", "baseline"]
    campaigns = table(["campaign: its questions", "galaxies", "nll, sum", "baseline", *errors], rows)
    rows = []
    for name, figures in results["questions"].items():
        own = replicates.get("questions", {}).get(name, {})
        asked = [figures["galaxies_asked"], *_pair(figures, own, "nll")]
        enough = [figures["galaxies_with_enough_votes"], *_pair(figures, own, "rmse"), *_pair(figures, own, "accuracy")]
        rows.append([name, *asked, *enough])
    header = ["question", "galaxies asked", "nll", "baseline", f"with >= {results['min_votes']} votes", *errors]
    return f"{_loss_of_all(results)}\n\n{campaigns}\n\n{table(header, rows)}"


def _values_table(results: Results) -> str:
    return _parts_table(results, "values", ("galaxies",), {"rmse": "RMSE", "mae": "MAE", "r2": "R²"})


def _labels_table(results: Results) -> str:
    figures = {"error": "error", "average_precision": "average precision"}
    return _parts_table(results, "labels", ("galaxies", "positive"), figures)


def _parts_table(results: Results, parts: str, counts: Sequence[str], names: Mapping[str, str]) -> str:
    """A row for each value or label: numbers of galaxies, and its figures, each beside its baseline."""
    rows = []
    for part, figures in results[parts].items():
        replicates = results.get("bootstrap", {}).get(parts, {}).get(part, {})
        pairs = [cell for figure in names for cell in _pair(figures, replicates, figure)]
        rows.append([part, *(figures[count] for count in counts), *pairs])
    header = [parts.removesuffix("s"), *counts, *(cell for name in names.values() for cell in (name, "baseline"))]
    return f"{_loss_of_all(results)}\n\n{table(header, rows)}"


TABLES = {"votes": _votes_tables, "classes": _figures_table, "values": _values_table, "labels": _labels_table}


def _loss_of_all(results: Results) -> str:
    model, baseline = _pair(results, results.get("bootstrap", {}), "loss")
    return f"All {results['galaxies']} galaxies: loss {model}, baseline {baseline}."


def _pair(figures: Results, replicates: Results, name: str) -> tuple[str, str]:
    """The figure of the model with its interval, where it was measured in replicates; and that of the baseline."""
    value, drawn = figures[name]["model"], replicates.get(name, {}).get("model")
    return _with_interval(value, drawn), number(figures[name]["baseline"])


def _with_interval(value: float | None, replicates: Sequence[float | None] | None) -> str:
    drawn = [each for each in replicates or [] if each is not None]
    if value is None or not drawn:
        return number(value)
    low, high = np.quantile(drawn, (0.05, 0.95))
    if low == high:  # as with a single galaxy, which tells nothing of others
        return number(value)
    return interval({"value": value, "low": low, "high": high}).replace(" ", "\xa0")  # not to be broken into lines


def _classes_table(confusion: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    """Recall and precision of each class, and the class that it is most often confused with."""
    confusion = np.array(confusion)
    correct, actual, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    wrong = confusion - np.diag(correct)
    rows = [
        [
            name, actual[i], number(correct[i] / actual[i] if actual[i] else None),
            number(correct[i] / predicted[i] if predicted[i] else None), names[wrong[i].argmax()] if wrong[i].any() else "-",
        ]
        for i, name in enumerate(names)
    ]  # fmt: skip
    return table(["class", "test galaxies", "recall", "precision", "most often confused with"], rows)


def _calibration_section(calibration: Results | None) -> str | None:
    """The calibration figure in words and numbers."""
    if calibration is None:
        return None
    if "campaigns" not in calibration:
        return (
            "The probability of the predicted class, in ten bins, against the share of galaxies for which the prediction is correct. "
            f"The mean distance of the two (expected calibration error) is {number(calibration['error'])}."
        )
    columns = {
        level: f"in the {level} % interval"
        for each in calibration["campaigns"].values()
        for level in each.get("coverage", {})
    }
    rows = [
        [name, number(each["error"]), *(number(each["coverage"][level]) for level in columns)]
        for kind in ("campaigns", "questions")
        for name, each in calibration[kind].items()
    ]
    text = (
        "Left: predicted fractions, in ten bins of all answers together, against observed vote fractions. The error in the table "
        "is their mean distance in bins of each answer; that of a campaign is the mean of its questions. All are weighted by "
        "votes. A constant prediction of the mean fractions would have no error, either."
    )
    if columns:
        text += (
            " Right, and in the table: the share of answers whose number of votes lies in the central interval of the predicted "
            "Dirichlet distribution. A larger share than the level means that the model is underconfident, a smaller share that "
            "it is overconfident."
        )
    return f"{text}\n\n{table(['', 'error', *columns.values()], rows)}"


def _floor(results: Results) -> str | None:
    """The least loss that any prediction can have."""
    least = results.get("loss", {}).get("saturated")
    return None if least is None else number(least)


def _questions_of_few(results: Results) -> dict[str, int]:
    """Questions that fewer than FEW test galaxies have enough votes for, with their number."""
    counts = {name: each["galaxies_with_enough_votes"] for name, each in results.get("questions", {}).items()}
    return {name: count for name, count in counts.items() if count < FEW}


def _no_better(results: Results) -> list[str]:
    """Questions whose votes the model predicts no better than the constant does."""
    pairs = {name: each["nll"] for name, each in results.get("questions", {}).items()}
    return [name for name, nll in pairs.items() if nll["model"] is not None and nll["model"] >= nll["baseline"]]


# Training


def _compute(record: RunRecord) -> dict[str, Any] | None:
    """Pictures processed in training, and an estimate of the operations if those of one picture are recorded, in words."""
    history = [entry for entry in record.training.get("history", []) if entry]
    if not history:
        return None
    pictures, flops = history[-1]["galaxies"], record.model.get("flops")
    if not flops:
        return {"pictures": pictures, "operations": None}
    forward = f"{flops:.3g} for the forward pass of a picture"
    if "features" in record.training:
        splits = record.dataset["splits"]
        total = flops * (splits["train"] + splits["validation"])
        words = f"{total:.2g}: {forward}, once for each training and validation galaxy; without those of the head"
        return {"pictures": pictures, "operations": words}
    # A backward pass takes about twice the operations of a forward pass, less where parts are frozen.
    partly = record.settings.get("train", "all").startswith(("last:", "lora:"))
    at_most = "at most " if partly else ""
    total = f"{at_most}{3 * flops * pictures:.2g}"
    words = f"{total}: {forward}, {at_most}twice as many for the backward pass; without validation"
    return {"pictures": pictures, "operations": words}


def _duration(seconds: float) -> str:
    if seconds < 300:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _citations(record: RunRecord) -> str:
    """BibTeX of the paper and of the datasets' cards, each entry once."""
    texts = [card["citation"] for card in record.dataset.get("cards", []) if card["citation"]]
    entries: dict[str, str] = {}
    for entry in (each for text in [PAPER, *texts] for each in re.split(r"\n(?=@)", text)):
        entries.setdefault(entry.split(",")[0].strip(), entry.strip())
    return "\n\n".join(entries.values())


def _setting(value: object) -> object:
    return " ".join(map(str, value)) if isinstance(value, list) else value


def _scaling_section(title: str, laws: list[dict[str, Any]]) -> str:
    columns = ["figure", "measure", "exponent b", "left by a doubling", "c", "loss with the most galaxies"]
    rows = [
        [law["figure"], law["measure"]]
        + [interval(law["law"] and law["law"][name]) for name in ("b", "per_doubling", "c")]
        + [interval(law["points"][-1])]
        for law in laws
    ]
    first, *_, last = laws[0]["points"]
    return (
        f"This run is part of the study {title}. The loss of its backbone was measured after training on {first['galaxies']:,} to "
        f"{last['galaxies']:,} galaxies, and the law c + a D^-b was fitted to it. Brackets hold intervals of 90 %.\n\n"
        f"{table(columns, rows)}"
    )
