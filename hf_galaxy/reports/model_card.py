"""The record of a run -> the card of its model. A pure function: no inference, no network."""

import re

import numpy as np
from huggingface_hub import ModelCard

from hf_galaxy.reports import run_figures
from hf_galaxy.reports.card_data import base_model, card_data, datasets, licence
from hf_galaxy.reports.run_record import RunRecord
from hf_galaxy.reports.text import TEMPLATES, interval, rounded, table

FEW = 100  # test galaxies below which a figure is said to rest on few
PAPER = """@misc{walmsley2024scaling,
  title = {{Scaling Laws for Galaxy Images}},
  author = {Walmsley, Mike and Bowles, Micah and Scaife, Anna M. M. and others},
  year = {2024},
  eprint = {2404.02973},
  archivePrefix = {arXiv}
}"""


def model_card(record: RunRecord) -> str:
    """README.md of a finished run: what it is, how to use it, how good it is and where it fails, how it was made."""
    task, test = record.settings["task"], record.results.get("test", {})
    return str(
        ModelCard.from_template(
            card_data(record), template_path=str(TEMPLATES / "model_card.md.jinja"), record=record, task=task,
            folder=record.publication.get("repo") or "path/or/hub-id", said=record.dataset.get("cards", []),
            datasets=datasets(record), base_model=base_model(record), licence=licence(record),
            tables={split: metrics_table(results) for split, results in record.results.items()},
            classes=_classes_table(test["confusion"], record.dataset["classes"]) if "confusion" in test else None,
            calibration=_calibration_section(run_figures.calibration_of(record)), figures=run_figures,
            few=_questions_of_few(test), no_better=_no_better(test), floor=test.get("loss", {}).get("saturated"),
            compute=_compute(record), duration=_duration(record.training["seconds"]), citation=_citations(record),
            scaling=_scaling_section(**record.scaling) if record.scaling else None,
            recipe={name: _setting(value) for name, value in record.settings.items() if value not in (None, [])},
        )
    )  # fmt: skip


def metrics_table(results: dict) -> str:
    """Markdown of one split's results, every figure beside its baseline.

    Where there are replicates of a bootstrap over galaxies, the interval that 90 % of them lie in follows in brackets.
    """
    again = results.get("bootstrap", {})
    if "values" in results:
        return _values_table(results, again)
    if "questions" not in results:
        rows = [
            (name, f"{_told(pair['model'], again.get(name, {}).get('model'))} | {rounded(pair['baseline'])}")
            for name, pair in results.items()
            if isinstance(pair, dict) and "baseline" in pair
        ]
        return table([f"{results['galaxies']} galaxies", "model", "baseline"], rows)

    def cells(figures, replicates, *names):
        return " | ".join(
            f"{_told(figures[name]['model'], replicates.get(name, {}).get('model'))} | {rounded(figures[name]['baseline'])}"
            for name in names
        )

    errors = ["RMSE", "baseline", "accuracy", "baseline"]
    header = ["question", "galaxies asked", "nll", "baseline", f"with >= {results['min_votes']} votes", *errors]
    of_questions = again.get("questions", {})
    rows = [
        (
            name,
            f"{figures['galaxies_asked']} | {cells(figures, of_questions.get(name, {}), 'nll')} | "
            f"{figures['galaxies_with_enough_votes']} | "
            + cells(figures, of_questions.get(name, {}), "rmse", "accuracy"),
        )
        for name, figures in results["questions"].items()
    ]
    by_campaign = [
        (
            name,
            f"{figures['galaxies']} | {cells(figures, again.get('campaigns', {}).get(name, {}), 'nll', 'rmse', 'accuracy')}",
        )
        for name, figures in results["campaigns"].items()
    ]
    campaigns = table(["campaign: its questions", "galaxies", "nll, sum", "baseline", *errors], by_campaign)
    return f"{_loss_of_all(results, again)}\n\n{campaigns}\n\n{table(header, rows)}"


def _values_table(results, again):
    header = ["value", "galaxies", "RMSE", "baseline", "MAE", "baseline", "R²", "baseline"]
    rows = []
    for name, figures in results["values"].items():
        replicates = again.get("values", {}).get(name, {})
        row = [name, figures["galaxies"]]
        for error in ("rmse", "mae", "r2"):
            figure = figures[error]
            row += [_told(figure["model"], replicates.get(error, {}).get("model")), rounded(figure["baseline"])]
        rows.append(row)
    return f"{_loss_of_all(results, again)}\n\n{table(header, rows)}"


def _loss_of_all(results, again):
    loss = results["loss"]
    return (
        f"All {results['galaxies']} galaxies: loss {_told(loss['model'], again.get('loss', {}).get('model'))}, "
        f"baseline {rounded(loss['baseline'])}."
    )


def _told(value: float | None, replicates: list[float | None] | None) -> str:
    """A figure and, where it was measured in replicates, the interval that 90 % of them lie in."""
    drawn = [each for each in replicates or [] if each is not None]
    if value is None or not drawn:
        return rounded(value)
    low, high = np.quantile(drawn, (0.05, 0.95))
    if low == high:  # as of one galaxy, which is all that can be drawn: nothing is known of others
        return rounded(value)
    return f"{rounded(value)}\xa0[{rounded(low)},\xa0{rounded(high)}]"  # not to be broken into lines


def _classes_table(confusion, names):
    """Of each class the test galaxies, and the shares that are found and that are right."""
    confusion = np.array(confusion)
    right, of_class, said = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    taken_for = confusion - np.diag(right)
    rows = [
        [
            name, of_class[i], rounded(right[i] / of_class[i] if of_class[i] else None),
            rounded(right[i] / said[i] if said[i] else None), names[taken_for[i].argmax()] if taken_for[i].any() else "-",
        ]
        for i, name in enumerate(names)
    ]  # fmt: skip
    return table(["class", "test galaxies", "recall", "precision", "most often taken for"], rows)


def _calibration_section(calibration):
    """What the figure of it shows, in words and numbers."""
    if calibration is None:
        return None
    if "campaigns" not in calibration:
        return (
            "The probability of the likeliest class, in ten bins, against the share of galaxies in which that class is right. "
            f"The mean distance of both (expected calibration error) is {rounded(calibration['error'])}."
        )
    columns = {
        level: f"in the {level} % interval"
        for each in calibration["campaigns"].values()
        for level in each.get("coverage", {})
    }
    rows = [
        [name, rounded(each["error"]), *(rounded(each["coverage"][level]) for level in columns)]
        for kind in ("campaigns", "questions")
        for name, each in calibration[kind].items()
    ]
    text = (
        "Left: predicted fractions, in ten bins of all answers together, against the fractions of the votes that were given. The "
        "error in the table is their mean distance in bins of each answer by itself, a campaign's the mean of its questions'; all "
        "are weighted by votes. The mean fractions, predicted for every galaxy, would have no error either."
    )
    if columns:
        text += (
            " Right, and in the table: how many answers got a number of votes that lies in the central interval of what the "
            "Dirichlet predicts for it; more than the interval says means that the model is too modest, fewer that it is too "
            "sure of itself."
        )
    return f"{text}\n\n{table(['', 'error', *columns.values()], rows)}"


def _questions_of_few(results):
    """Questions that less than FEW test galaxies have enough votes for, with their number."""
    counts = {name: each["galaxies_with_enough_votes"] for name, each in results.get("questions", {}).items()}
    return {name: count for name, count in counts.items() if count < FEW}


def _no_better(results):
    """Questions whose votes the model foretells no better than the constant does."""
    pairs = {name: each["nll"] for name, each in results.get("questions", {}).items()}
    return [name for name, nll in pairs.items() if nll["model"] is not None and nll["model"] >= nll["baseline"]]


def _compute(record):
    """Galaxies seen in training and, if the operations for one are known, an estimate of all, in words."""
    history = [entry for entry in record.training.get("history", []) if entry]
    if not history:
        return None
    seen, flops = history[-1]["galaxies"], record.model.get("flops")
    if not flops:
        return {"seen": seen, "operations": None}
    once = f"{flops:.3g} for a picture once through the network"
    if "features" in record.training:
        splits = record.dataset["splits"]
        total = flops * (splits["train"] + splits["validation"])
        return {
            "seen": seen,
            "operations": f"{total:.2g}: {once}, each of training and validation; those of the head alone left out",
        }
    # Going back through a network takes about twice the operations of going through it, less where parts are frozen.
    partly = record.settings.get("train", "all").startswith(("last:", "lora:"))
    at_most = "at most " if partly else ""
    total = f"{at_most}{3 * flops * seen:.2g}"
    return {"seen": seen, "operations": f"{total}: {once}, {at_most}twice as many on the way back; validation left out"}


def _duration(seconds):
    return (
        f"{seconds:.0f} s"
        if seconds < 300
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


def _citations(record):
    """BibTeX of the paper and of what the datasets' cards ask to be cited, each entry once."""
    texts = [said["citation"] for said in record.dataset.get("cards", []) if said["citation"]]
    entries = {}
    for entry in (each for text in [PAPER, *texts] for each in re.split(r"\n(?=@)", text)):
        entries.setdefault(entry.split(",")[0].strip(), entry.strip())
    return "\n\n".join(entries.values())


def _setting(value):
    return " ".join(map(str, value)) if isinstance(value, list) else value


def _scaling_section(title: str, laws: list[dict]) -> str:
    columns = ["figure", "measure", "exponent b", "left by a doubling", "c", "loss with the most galaxies"]
    rows = [
        [law["figure"], law["measure"]]
        + [interval(law["law"] and law["law"][name]) for name in ("b", "per_doubling", "c")]
        + [interval(law["points"][-1])]
        for law in laws
    ]
    first, *_, last = laws[0]["points"]
    return (
        f"This run is part of the study {title}, in which the loss of this backbone was measured after learning from "
        f"{first['galaxies']:,} to {last['galaxies']:,} galaxies and the law c + a D^-b was fitted to it; intervals are of "
        f"90 %.\n\n{table(columns, rows)}"
    )
