"""What differs between votes, classes and values in training: the model, its baseline, its inputs and its metrics."""

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from accelerate import Accelerator

from hf_galaxy.data.galaxies import Galaxies
from hf_galaxy.data.targets import Label, Rows, Values, tables_of, vote_batches
from hf_galaxy.data.views import eval_view
from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.errors import BadInput
from hf_galaxy.evaluation.class_metrics import ClassMetrics
from hf_galaxy.evaluation.constant_votes import ConstantVotes
from hf_galaxy.evaluation.value_metrics import ConstantValues, ValueMetrics
from hf_galaxy.evaluation.vote_metrics import VoteMetrics
from hf_galaxy.models.model import (
    GalaxyConfig,
    GalaxyForImageClassification,
    GalaxyForRegression,
    GalaxyForVotes,
    GalaxyPreTrainedModel,
)
from hf_galaxy.reports.run_record import RunRecord
from hf_galaxy.training.augmentation import train_view
from hf_galaxy.training.features import GalaxyFeatures
from hf_galaxy.training.loop import evaluate
from hf_galaxy.training.sequence import ProcessShard, evaluation_batches
from hf_galaxy.training.settings import Settings
from hf_galaxy.training.sources import Sources


def model_and_baseline(settings: Settings, sources: Sources, fields: dict) -> tuple[GalaxyPreTrainedModel, dict]:
    """A fresh model of the target, and the constants of its training split, for a run record.

    Args:
        fields: of its backbone, as `start.resolve_start` gives.
    """
    target, train = sources.target, sources.splits["train"]
    torch.manual_seed(settings.seed)
    framing = dict(image_size=settings.image_size, crop=settings.crop)
    fields |= {name: value for name, value in framing.items() if value is not None}
    fields |= dict(head_dropout=settings.head_dropout, drop_path=settings.drop_path)
    if isinstance(target, DecisionTree):
        model = GalaxyForVotes(GalaxyConfig(tree=target, likelihood=settings.likelihood, **fields))
        votes = itertools.chain.from_iterable(vote_batches(rows, target) for rows in train)
        constant = ConstantVotes.of(votes, target, settings.min_votes)
        model.start_from_constant(constant.concentrations, constant.fractions)
        return model, constant.to_dict()
    if isinstance(target, Values):
        numbers = [target.numbers(table) for rows in train for table in tables_of(rows, list(target.columns))]
        constant = ConstantValues.of(np.concatenate(numbers))
        check_varied(target, constant)
        scale = dict(value_mean=constant.mean.tolist(), value_std=constant.std.tolist())
        config = GalaxyConfig(values=list(target.columns), unit_interval=target.unit_interval, **scale, **fields)
        return GalaxyForRegression(config), constant.to_dict()
    labels = dict(id2label=dict(enumerate(target.names)), label2id={name: i for i, name in enumerate(target.names)})
    counts = torch.bincount(torch.from_numpy(np.concatenate(sources.strata)), minlength=len(target.names))
    weights = _balanced(counts) if settings.class_weights == "balanced" else settings.class_weights
    labels |= dict(label_smoothing=settings.label_smoothing, class_weights=weights)
    model = GalaxyForImageClassification(GalaxyConfig(**labels, **fields))
    # A class without a training galaxy counts as half a galaxy: unlikely, not impossible.
    return model, {"log_priors": (counts.clamp_min(0.5) / counts.sum()).log().tolist()}


def check_varied(values, constant):
    """Refuse values that no model can learn to tell apart."""
    for column, std in zip(values.columns, constant.std.tolist(), strict=True):
        if not std > np.finfo(np.float32).tiny:  # nor is NaN, that of a value which no galaxy has
            raise BadInput(
                f"--values {column}: no two training galaxies have different ones, in the numbers that float32 holds; "
                "leave it out, or use another unit"
            )


def _balanced(counts):
    """(C,) the weights with which all classes together count the same, and a galaxy 1 on average; 1 for a class without any."""
    shares = counts.sum() / (counts.count_nonzero() * counts.clamp_min(1))
    return torch.where(counts > 0, shares, 1).tolist()


def describe(target: DecisionTree | Label | Values) -> dict:
    """What a run record says of its target."""
    if isinstance(target, DecisionTree):
        return {"tree": target.name, "questions": [question.name for question in target.questions]}
    if isinstance(target, Values):
        return {"values": list(target.columns)}
    return {"classes": list(target.names)}


def measure(
    model: torch.nn.Module, record: RunRecord, splits: Sequence[Rows | GalaxyFeatures], batch_size: int, workers: int,
    accelerator: Accelerator, bootstrap: bool = False,
) -> VoteMetrics | ClassMetrics | ValueMetrics:  # fmt: skip
    """The metrics of a run's model on some rows, shared out over all processes.

    Args:
        model: as `fit` made it, or loaded.
        splits: of one dataset or of several, which are then measured together; features for a model `without_backbone`.
        bootstrap: measure in the replicates of a bootstrap over galaxies, too.
    """
    config = accelerator.unwrap_model(model).config
    if "tree" in record.dataset:
        target = config.decision_tree
        constant = ConstantVotes.from_dict(record.baseline)
        metrics = VoteMetrics(target, constant, record.settings["min_votes"], config.likelihood)
    elif "values" in record.dataset:
        target = Values(tuple(record.dataset["values"]))
        metrics = ValueMetrics(record.dataset["values"], ConstantValues.from_dict(record.baseline))
    else:
        target = Label.of(record.settings["label"], record.dataset["classes"])
        metrics = ClassMetrics(record.dataset["classes"], torch.tensor(record.baseline["log_priors"]))
    share = ProcessShard(accelerator.process_index, accelerator.num_processes)
    galaxies = (
        rows if isinstance(rows, GalaxyFeatures) else Galaxies(rows, config.framing, target, keyed=bootstrap)
        for rows in splits
    )
    batches = itertools.chain.from_iterable(evaluation_batches(each, batch_size, share, workers) for each in galaxies)
    return evaluate(
        model, batches, lambda batch: model_inputs(batch, view_batch(batch, config.framing)), metrics, accelerator
    )


def view_batch(batch, framing):
    """What the model is called with: features if they are known, else the random view if one is drawn, else the centre."""
    if "features" in batch:
        return batch["features"]
    if "affine" in batch:
        return train_view(batch["pixels"], batch["affine"], framing)
    return eval_view(batch["pixels"], framing)


def model_inputs(batch, pixel_values):
    return {"pixel_values": pixel_values} | {k: v for k, v in batch.items() if k in ("votes", "labels")}
