"""The record of a run -> the card of its model. A pure function: no inference, no network."""

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

from huggingface_hub import ModelCard

from hf_galaxy.reports import run_figures
from hf_galaxy.reports.card_data import base_model, card_data, datasets, licence
from hf_galaxy.reports.run_record import RunRecord
from hf_galaxy.reports.target_report import Results, TargetReport, report_of
from hf_galaxy.reports.text import TEMPLATES, interval, number, table
from hf_galaxy.safe_text import code, fenced, markdown_inside, prose
from hf_galaxy.targets import report_class

PAPER = """@misc{walmsley2024scaling,
  title = {{Scaling Laws for Galaxy Images}},
  author = {Walmsley, Mike and Bowles, Micah and Scaife, Anna M. M. and others},
  year = {2024},
  eprint = {2404.02973},
  archivePrefix = {arXiv}
}"""


def model_card(record: RunRecord) -> str:
    """README.md of a finished run: what it predicts, how to use it, how good it is, its limits, how it was trained."""
    report, header, own = report_of(record), card_data(record), record
    record = shown(record)
    return str(
        ModelCard.from_template(
            header, template_path=str(TEMPLATES / "model_card.md.jinja"), record=record, report=report,
            folder=record.publication.get("repo") or "path/or/hub-id", cards=record.dataset.get("cards", []), command=fenced(own.command),
            problems=[prose(card["problems"] or "") for card in own.dataset.get("cards", [])], source=code(str(own.dataset["name"])),
            datasets=datasets(own), base_model=base_model(own), licence=licence(record),
            tables={split: report.table(results) for split, results in record.results.items()},
            sections=list(sections(record, report)), figures=run_figures, test=record.results.get("test", {}),
            compute=_compute(record), lengths=_lengths(record), duration=_duration(record.training["seconds"]), citation=_citations(own),
            scaling=_scaling_section(**record.scaling) if record.scaling else None,
            settings={name: _setting(value) for name, value in record.settings.items() if value not in (None, [])},
        )
    )  # fmt: skip


def shown(record: RunRecord) -> RunRecord:
    """The record with all texts in it, such as names of classes, as cards show them (`safe_text.markdown`)."""
    kept = {each.name: getattr(record, each.name) for each in dataclasses.fields(record)}
    return RunRecord(**{name: value if name == "command" else markdown_inside(value) for name, value in kept.items()})


def metrics_table(results: Results, task: str) -> str:
    """Markdown of one split's results, each figure with its interval and beside its baseline.

    Where there are replicates of a bootstrap over galaxies, the interval holds 90 % of them.

    Args:
        task: of the run (`RunRecord.task`).
    """
    return report_class(task)().table(results)


def sections(record: RunRecord, report: TargetReport) -> Iterator[tuple[str, str]]:
    """Titles and texts of what there is to tell about the test split beside its table."""
    yield from report.sections(record)
    calibration = run_figures.calibration_of(record)
    if calibration or report.calibrated:
        parts = ["Not measured."]
        if calibration:
            parts = [f"Measured on {run_figures.measured_on(record)}.", f"![Calibration]({run_figures.CALIBRATION})"]
            parts += [report.calibration_text(calibration), report.calibration_table(calibration)]
        yield "Calibration", "\n\n".join(filter(None, parts))


def _lengths(record: RunRecord) -> str:
    """How long it was trained, and whether longer would have been better, in a sentence."""
    if (convergence := record.training.get("convergence")) is None:
        return f"The weights are those after {record.training['best_epoch']:.3g} of at most {record.settings['epochs']:g} epochs, with the best validation loss."
    epochs = [f"{each['epochs']:g}" for each in convergence["lengths"]]
    oracle = (
        f" above {number(convergence['least'])}, that of an oracle that knows the true vote fractions"
        if convergence["least"]
        else ""
    )
    rule = f"brought less than {100 * convergence['gain']:g} % of the validation loss{oracle}"
    until = "until twice the length" if convergence["converged"] else "and has not converged: twice the length never"
    return (
        f"It was trained for {', '.join(epochs[:-1])} and {epochs[-1]} epochs, each length with a cool-down of its own, {until} {rule}. "
        f"The weights are those after {record.training['best_epoch']:.3g} epochs, with the best validation loss of all lengths."
    )


def _compute(record: RunRecord) -> dict[str, Any] | None:
    """Pictures processed in training, and an estimate of the operations if those of one picture are recorded, in words."""
    history = [entry for entry in record.training.get("history", []) if entry]
    if not history:
        return None
    pictures, flops = history[-1]["galaxies"], record.model.get("flops")
    if "convergence" in record.training:
        pictures = record.training["convergence"]["pictures"]
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
    return fenced("\n\n".join(entries.values()))


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
