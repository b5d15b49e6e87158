"""Records and statistics -> the cards of datasets and models. Pure functions: no inference, no network."""

import io
from collections.abc import Iterable
from pathlib import Path

from datasets.info import DatasetInfo, DatasetInfosDict
from datasets.splits import SplitDict
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard, DatasetCardData, ModelCard, ModelCardData
from PIL import Image, ImageDraw

from hf_galaxy.data import Published
from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.run_record import RunRecord

TEMPLATES = Path(__file__).parent / "templates"
NOT_MEASURED = "not measured"


def dataset_card(
    published: Published,
    title: str,
    about: str,
    command: str,
    license: str,
    tree: DecisionTree | None,
    mock: bool = False,
) -> str:
    """README.md of a published dataset; its YAML is what `load_dataset` reads.

    Args:
        title, about: what it is, in a person's words.
        command: that published it.
        license: identifier of huggingface.co/docs/hub/repositories-licenses.
        mock: nobody has looked at these galaxies.
    """
    galaxies = sum(split.num_examples for split in published.splits.values())
    data = DatasetCardData(
        license=license, pretty_name=title, task_categories=["image-classification", "image-feature-extraction"],
        tags=["galaxy zoo", "astronomy", "galaxies", "mock" if mock else "citizen science"],
        annotations_creators=["machine-generated" if mock else "crowdsourced"],
        size_categories=[_size_category(galaxies)],
    )  # fmt: skip
    info = DatasetInfo(
        features=published.features,
        splits=SplitDict(published.splits),
        download_size=published.download_size,
        dataset_size=sum(split.num_bytes for split in published.splits.values()),
    )
    DatasetInfosDict({"default": info}).to_dataset_card_data(data)
    files = [{"split": split, "path": f"data/{split}-*.parquet"} for split in published.splits]
    MetadataConfigs({"default": {"data_files": files, "default": True}}).to_dataset_card_data(data)
    questions = [
        (
            q.name,
            sum(published.sums[c] for c in q.columns),
            {a: published.sums[c] for a, c in zip(q.answers, q.columns, strict=True)},
        )
        for q in (tree.questions if tree else ())
    ]
    return str(
        DatasetCard.from_template(
            data, template_path=str(TEMPLATES / "dataset_card.md.jinja"), title=title, about=about, command=command,
            galaxies=galaxies, splits=published.splits, questions=questions, class_counts=published.class_counts,
        )
    )  # fmt: skip


def contact_sheet(rows: Iterable[dict], caption: str, columns: int = 8, side: int = 144) -> Image.Image:
    """Pictures of rows side by side, each above its value of the column `caption`."""
    rows = list(rows)
    sheet = Image.new("RGB", (columns * side, -(-len(rows) // columns) * (side + 16)), "white")
    pen = ImageDraw.Draw(sheet)
    for i, row in enumerate(rows):
        x, y = i % columns * side, i // columns * (side + 16)
        picture = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
        sheet.paste(picture.resize((side - 2, side - 2), Image.Resampling.BICUBIC), (x, y))
        pen.text((x + 2, y + side), str(row[caption]), fill="black")
    return sheet


def _size_category(rows):
    edges = [(10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M")]
    return next((name for edge, name in edges if rows < edge), "1M<n<10M")


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
            recipe={name: value for name, value in record.settings.items() if value is not None},
        )
    )  # fmt: skip


def metrics_table(results: dict) -> str:
    """Markdown of one split's results, every figure beside its baseline."""
    if "questions" not in results:
        rows = [
            (name, f"{_number(pair['model'])} | {_number(pair['baseline'])}")
            for name, pair in results.items()
            if isinstance(pair, dict)
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


def _number(value):
    return NOT_MEASURED if value is None else f"{value:.4f}"
