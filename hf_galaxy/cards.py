"""The record of a run -> the card of its model. A pure function: no inference, no network."""

from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from hf_galaxy.run_record import RunRecord

TEMPLATES = Path(__file__).parent / "templates"
NOT_MEASURED = "not measured"


def model_card(record: RunRecord) -> str:
    """README.md of a finished run: what it is, how to load it, how it was trained, how good it is."""
    task = record.settings["task"]
    data = ModelCardData(
        license="apache-2.0", library_name="transformers",
        pipeline_tag="image-classification" if task == "classes" else "image-feature-extraction",
        tags=["galaxy zoo", "astronomy", "galaxies", "hf_galaxy"],
    )  # fmt: skip
    return str(
        ModelCard.from_template(
            data, template_path=str(TEMPLATES / "model_card.md.jinja"), record=record, task=task,
            tables={split: metrics_table(results) for split, results in record.results.items()},
            recipe={name: _setting(value) for name, value in record.settings.items() if value not in (None, [])},
        )
    )  # fmt: skip


def metrics_table(results: dict) -> str:
    """Markdown of one split's results, every figure beside its baseline."""
    if "questions" not in results:
        rows = [
            (name, f"{_number(pair['model'])} | {_number(pair['baseline'])}")
            for name, pair in results.items()
            if isinstance(pair, dict) and name != "bootstrap"
        ]
        return _table(f"{results['galaxies']} galaxies | model | baseline", rows)

    def cells(figures, *names):
        return " | ".join(_number(figures[name][who]) for name in names for who in ("model", "baseline"))

    errors = "RMSE | baseline | MAE | baseline | accuracy | baseline"
    header = f"question | galaxies asked | nll | baseline | with >= {results['min_votes']} votes | {errors}"
    rows = [
        (
            name,
            f"{figures['galaxies_asked']} | {cells(figures, 'nll')} | {figures['galaxies_with_enough_votes']} | "
            + cells(figures, "rmse", "mae", "accuracy"),
        )
        for name, figures in results["questions"].items()
    ]
    by_campaign = [
        (name, f"{figures['galaxies']} | {cells(figures, 'nll', 'rmse', 'mae', 'accuracy')}")
        for name, figures in results["campaigns"].items()
    ]
    loss = results["loss"]
    summary = (
        f"All {results['galaxies']} galaxies: loss {_number(loss['model'])}, baseline {_number(loss['baseline'])}."
    )
    campaigns = _table(f"campaign, mean of its questions | galaxies | nll, sum | baseline | {errors}", by_campaign)
    return f"{_table(header, rows)}\n\n{campaigns}\n\n{summary}"


def _table(header, rows):
    lines = [f"| {header} |", "|" + " --- |" * len(header.split(" | "))]
    return "\n".join(lines + [f"| {name} | {cells} |" for name, cells in rows])


def _setting(value):
    return " ".join(map(str, value)) if isinstance(value, list) else value


def _number(value):
    return NOT_MEASURED if value is None else f"{value:.4f}"
