"""What machines read of a run: the YAML of its card, with `model-index`, and the Hub's newer `.eval_results`.

Both hold the figures of the run's own test split; what is measured on other data stands in the card's tables.
"""

import re

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCardData, eval_result_entries_to_yaml

from hf_galaxy.run_record import RunRecord

SPLIT = "test"
NAMES = {"nll": "negative log-likelihood", "rmse": "RMSE of vote fractions", "mae": "MAE of vote fractions"}
HUB_METRICS = {"auc": "roc_auc"}  # where the Hub has another word than we


def card_data(record: RunRecord) -> ModelCardData:
    """The YAML header of a card."""
    task = record.settings["task"]
    figures = headline(record)
    name = record.publication.get("repo") or record.model["backbone"]
    return ModelCardData(
        license=licence(record) or "unknown", library_name="transformers",
        pipeline_tag="image-classification" if task == "classes" else "image-feature-extraction",
        tags=["galaxy zoo", "astronomy", "galaxies", "galaxy morphology", "hf_galaxy", "arxiv:2404.02973"],
        base_model=base_model(record), datasets=datasets(record) or None,
        metrics=list(dict.fromkeys(HUB_METRICS.get(figure, figure) for _, figure, _ in figures)) or None,
        model_name=name.split("/")[-1], eval_results=_model_index(record, figures) or None,
    )  # fmt: skip


def licence(record: RunRecord) -> str | None:
    """Of the weights: what a person chose, or else what the cards of all datasets they learnt from agree on."""
    stated = {said["license"] for said in record.dataset.get("cards", [{"license": None}])}
    return record.publication.get("license") or (stated.pop() if len(stated) == 1 else None)


def datasets(record: RunRecord) -> list[str]:
    """Hub ids of what it learnt from, as far as it stands there."""
    return record.publication.get("datasets") or [
        said["hub_id"] for said in record.dataset.get("cards", []) if said["hub_id"]
    ]


def base_model(record: RunRecord) -> str | None:
    """Hub id of what its weights started from, if it stands there."""
    return record.publication.get("base_model") or record.model.get("base_model")


def headline(record: RunRecord) -> list[tuple[str | None, str, float]]:
    """(campaign, figure, value) of the test split; a model that knows no campaigns has None there."""
    results = record.results.get(SPLIT, {})
    campaigns = results.get("campaigns", {None: results})
    found = [(name, figure, pair) for name, figures in campaigns.items() for figure, pair in figures.items()]
    return [
        (name, "nll" if figure == "loss" else figure, pair["model"])
        for name, figure, pair in found
        if isinstance(pair, dict) and pair.get("model") is not None
    ]


def _model_index(record, figures):
    ids = datasets(record)
    title = record.dataset["title"]
    task = "image-classification" if record.settings["task"] == "classes" else "image-feature-extraction"
    several = len(record.results.get(SPLIT, {}).get("campaigns", {})) > 1
    return [
        EvalResult(
            task_type=task, task_name=record.settings.get("label") or "votes of volunteers",
            dataset_type=ids[0] if len(ids) == 1 else re.sub(r"\W+", "_", title.lower()).strip("_"),
            dataset_name=f"{title}, {campaign}" if several else title,
            dataset_config=campaign if several else record.settings.get("config"), dataset_split=SPLIT,
            metric_type=HUB_METRICS.get(figure, figure), metric_value=float(f"{value:.6g}"),
            metric_name=f"{NAMES.get(figure, figure.replace('_', ' '))}{', mean of questions' if campaign and figure != 'nll' else ''}",
        )
        for campaign, figure, value in figures
    ]  # fmt: skip


def eval_results(record: RunRecord) -> dict[str, str]:
    """Path -> YAML: `.eval_results/DATASET.yaml` as in huggingface.co/docs/hub/eval-results.

    It names a dataset by its Hub id; without one, or with several that were measured together, there is none.
    """
    ids = datasets(record)
    if len(ids) != 1 or len(record.dataset.get("cards", ids)) != 1:
        return {}
    entries = [
        EvalResultEntry(
            dataset_id=ids[0],
            task_id="_".join(filter(None, (campaign or record.settings.get("label"), figure))),
            value=float(f"{value:.6g}"),
            notes=f"{SPLIT} split",
        )
        for campaign, figure, value in headline(record)
    ]
    if not entries:
        return {}
    text = yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False)
    return {f".eval_results/{ids[0].split('/')[-1]}.yaml": text}
