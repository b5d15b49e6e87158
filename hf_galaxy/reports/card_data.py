"""The machine-readable results of a run: the YAML of its card, with `model-index`, and the Hub's newer `.eval_results`.

Both hold the figures of the run's own test split; figures of other data are in the tables of the card.
"""

import re
from collections.abc import Sequence

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCardData, eval_result_entries_to_yaml

from hf_galaxy.reports.run_record import RunRecord
from hf_galaxy.reports.target_report import report_of

SPLIT = "test"
NAMES = {
    "nll": "negative log-likelihood", "rmse": "RMSE", "true_rmse": "RMSE against the true fractions", "mae": "MAE", "r2": "R²",
    "standardised_mse": "mean squared error, in standard deviations of the training split",
}  # fmt: skip
HUB_METRICS = {"auc": "roc_auc", "r2": "r_squared"}  # names of the Hub that differ from ours

Headline = tuple[str | None, str, float]  # campaign or value (None: all galaxies), figure, number


def card_data(record: RunRecord) -> ModelCardData:
    """The YAML header of a card."""
    figures = headline(record)
    name = record.publication.get("repo") or record.model["backbone"]
    return ModelCardData(
        license=licence(record) or "unknown", library_name="transformers",
        pipeline_tag=report_of(record).pipeline_tag,
        tags=["galaxy zoo", "astronomy", "galaxies", "galaxy morphology", "hf_galaxy", "arxiv:2404.02973"],
        base_model=base_model(record), datasets=datasets(record) or None,
        metrics=list(dict.fromkeys(HUB_METRICS.get(figure, figure) for _, figure, _ in figures)) or None,
        model_name=name.split("/")[-1], eval_results=_model_index(record, figures) or None,
    )  # fmt: skip


def licence(record: RunRecord) -> str | None:
    """The licence of the weights: the one that a person chose, otherwise the one that all training datasets have."""
    stated = {card["license"] for card in record.dataset.get("cards", [{"license": None}])}
    return record.publication.get("license") or (stated.pop() if len(stated) == 1 else None)


def datasets(record: RunRecord) -> list[str]:
    """Hub ids of the training datasets that are on the Hub."""
    return record.publication.get("datasets") or [
        card["hub_id"] for card in record.dataset.get("cards", []) if card["hub_id"]
    ]


def base_model(record: RunRecord) -> str | None:
    """Hub id of the model that training started from, if it is on the Hub."""
    return record.publication.get("base_model") or record.model.get("base_model")


def headline(record: RunRecord) -> list[Headline]:
    """The figures of the test split."""
    parts = report_of(record).header(record.results[SPLIT]) if SPLIT in record.results else {}
    return [
        (name, figure, pair["model"])
        for name, figures in parts.items()
        for figure, pair in figures.items()
        if isinstance(pair, dict) and pair.get("model") is not None
    ]


def _measured_on(record: RunRecord) -> str | None:
    """Hub id of the dataset of the test split; None without an id, for several datasets together, or for a fold."""
    ids = datasets(record) if record.settings.get("fold") is None else []
    return ids[0] if len(ids) == 1 and len(record.dataset.get("cards", ids)) == 1 else None


def _model_index(record: RunRecord, figures: Sequence[Headline]) -> list[EvalResult]:
    title, report, results = record.dataset["title"], report_of(record), record.results.get(SPLIT, {})
    fold = record.settings.get("fold")
    split = SPLIT if fold is None else f"fold {fold} of 5"  # of all published splits
    return [
        EvalResult(
            task_type=report.pipeline_tag, task_name=report.names(record),
            dataset_type=_measured_on(record) or re.sub(r"\W+", "_", title.lower()).strip("_"),
            dataset_name=f"{title}, {config}" if config else title,
            dataset_config=config or record.settings.get("config"), dataset_split=split,
            metric_type=HUB_METRICS.get(figure, figure), metric_value=float(f"{value:.6g}"),
            metric_name=report.figure_title(NAMES.get(figure, figure.replace("_", " ")), figure, part),
        )
        for part, figure, value in figures
        for config in [report.dataset_config(results, part)]
    ]  # fmt: skip


def eval_results(record: RunRecord) -> dict[str, str]:
    """Path -> YAML: `.eval_results/DATASET.yaml` as in huggingface.co/docs/hub/eval-results.

    It names a dataset by its Hub id; without one, or with several datasets that were measured together, there is none.
    """
    dataset = _measured_on(record)
    if dataset is None:
        return {}
    entries = [
        EvalResultEntry(
            dataset_id=dataset,
            task_id="_".join(filter(None, (part or record.settings.get("label"), figure))),
            value=float(f"{value:.6g}"),
            notes=f"{SPLIT} split",
        )
        for part, figure, value in headline(record)
    ]
    if not entries:
        return {}
    text = yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False)
    return {f".eval_results/{dataset.split('/')[-1]}.yaml": text}
