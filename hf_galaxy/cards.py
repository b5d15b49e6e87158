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
            scaling=_scaling_section(**record.scaling) if record.scaling else None,
            tables={split: metrics_table(results) for split, results in record.results.items()},
            recipe={name: _setting(value) for name, value in record.settings.items() if value not in (None, [])},
        )
    )  # fmt: skip


def metrics_table(results: dict) -> str:
    """Markdown of one split's results, every figure beside its baseline."""
    if "values" in results:
        return _values_table(results)
    if "questions" not in results:
        rows = [
            (name, f"{_number(pair['model'])} | {_number(pair['baseline'])}")
            for name, pair in results.items()
            if isinstance(pair, dict) and name != "bootstrap"
        ]
        return table([f"{results['galaxies']} galaxies", "model", "baseline"], rows)

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
    campaigns = table(
        f"campaign, mean of its questions | galaxies | nll, sum | baseline | {errors}".split(" | "), by_campaign
    )
    return f"{table(header.split(' | '), rows)}\n\n{campaigns}\n\n{_loss_of_all(results)}"


def _values_table(results):
    header = ["value", "galaxies", "RMSE", "baseline", "MAE", "baseline", "R²", "baseline"]
    rows = []
    for name, figures in results["values"].items():
        errors = [_digits(figures[error][who]) for error in ("rmse", "mae") for who in ("model", "baseline")]
        rows.append(
            [name, figures["galaxies"], *errors, *(_number(figures["r2"][who]) for who in ("model", "baseline"))]
        )
    return f"{table(header, rows)}\n\n{_loss_of_all(results)}"


def _loss_of_all(results):
    loss = results["loss"]
    return f"All {results['galaxies']} galaxies: loss {_number(loss['model'])}, baseline {_number(loss['baseline'])}."


def _setting(value):
    return " ".join(map(str, value)) if isinstance(value, list) else value


def _number(value):
    return NOT_MEASURED if value is None else f"{value:.4f}"


def _digits(value):
    """Four digits that matter, of a number in any unit."""
    return NOT_MEASURED if value is None else f"{value:.4g}"


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


def table(columns: list[str], rows: list[list[str]]) -> str:
    """Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def number(value: float | None) -> str:
    """Three digits that matter."""
    return "not known" if value is None else f"{value:#.3g}".rstrip(".") if abs(value) < 1000 else f"{value:,.0f}"


def interval(estimate: dict | None) -> str:
    """A value and its interval; of runs with one seed there is none, and it is said."""
    if estimate is None or estimate["value"] is None:
        return "-"
    if estimate["low"] is None:
        return f"{number(estimate['value'])} (one seed)"
    return f"{number(estimate['value'])} ({number(estimate['low'])} to {number(estimate['high'])})"


def percent(share: float | None) -> str:
    """Such as -12 %."""
    return "-" if share is None else f"{100 * share:.1f} %"


def percents(estimate: dict | None) -> str:
    """A share and its interval."""
    if estimate is None:
        return "-"
    return f"{percent(estimate['value'])} ({percent(estimate['low'])} to {percent(estimate['high'])})"
