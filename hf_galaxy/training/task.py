"""A run's model and baseline, the inputs of its model, and its metrics, for whatever it learns to predict."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from hf_galaxy.data.galaxies import Galaxies
from hf_galaxy.data.targets import LABEL_NAMES, Rows
from hf_galaxy.data.views import Framing, eval_view
from hf_galaxy.models.model import GalaxyConfig, GalaxyPreTrainedModel
from hf_galaxy.reports.run_record import RunRecord
from hf_galaxy.targets import target_class
from hf_galaxy.training.features import GalaxyFeatures
from hf_galaxy.training.loop import Batch, to_device
from hf_galaxy.training.observing import check_scales
from hf_galaxy.training.sequence import ProcessShard, evaluation_batches
from hf_galaxy.training.settings import Settings
from hf_galaxy.training.sources import Sources
from hf_galaxy.training.stretch import measured_fields, warn_if_far
from hf_galaxy.training.targets.target import Collected, Metrics, TrainingTarget

CollectedT = TypeVar("CollectedT", bound=Collected)


def model_and_baseline(settings: Settings, sources: Sources, fields: dict) -> tuple[GalaxyPreTrainedModel, dict]:
    """A fresh model of the target, and the constant prediction of its training split, for a run record.

    Args:
        fields: of its backbone, as `start.resolve_start` gives.
    """
    baseline = sources.target.baseline(settings, sources.splits["train"], sources.strata)
    framing = dict(image_size=settings.image_size, crop=settings.crop)
    fields = fields | {name: value for name, value in framing.items() if value is not None}
    fields |= sources.rendering | dict(head_dropout=settings.head_dropout, drop_path=settings.drop_path)
    if settings.bands:
        fields |= flux_fields(settings, sources, fields)
    torch.manual_seed(settings.seed)
    return sources.target.model(settings, fields, baseline, sources.strata), baseline


def flux_fields(settings: Settings, sources: Sources, fields: dict) -> dict:
    """The bands of a model and their stretch: that of its start, or measured on the training galaxies."""
    parts, bands = sources.splits["train"], settings.bands or ()
    if settings.blur:
        check_scales(parts)
    if fields.get("band_stretch") is None or settings.measure_stretch:
        return {"bands": list(bands), **measured_fields(parts, bands)}
    warn_if_far(fields["band_stretch"], parts, bands)
    return {"bands": list(bands)}


def target_of(record: RunRecord, config: GalaxyConfig) -> TrainingTarget:
    """The target of a run, from its record and the configuration of its model."""
    return target_class(record.task).from_record(record, config)


def measure(
    model: torch.nn.Module, record: RunRecord, splits: Sequence[Rows | GalaxyFeatures], batch_size: int, workers: int,
    accelerator: Accelerator, bootstrap: bool = False,
) -> Metrics:  # fmt: skip
    """The metrics of a run's model on some rows, divided among all processes.

    Args:
        model: as training left it, or loaded.
        splits: of one dataset or of several, which are then measured together; features for a model `without_backbone`.
        bootstrap: measure in the replicates of a bootstrap over galaxies, too.
    """
    config = accelerator.unwrap_model(model).config
    target = target_of(record, config)
    return collect(model, target, splits, batch_size, workers, accelerator, target.metrics(record, config), bootstrap)


def collect(
    model: torch.nn.Module, target: TrainingTarget, splits: Sequence[Rows | GalaxyFeatures], batch_size: int, workers: int,
    accelerator: Accelerator, collected: CollectedT, keyed: bool,
) -> CollectedT:  # fmt: skip
    """What is collected of a model's answers to some rows, divided among all processes.

    Args:
        model, splits: as of `measure`.
        collected: empty.
        keyed: its batches have `keys`.
    """
    framing = accelerator.unwrap_model(model).config.framing
    share = ProcessShard(accelerator.process_index, accelerator.num_processes)
    galaxies = (
        rows if isinstance(rows, GalaxyFeatures) else Galaxies(rows, framing, target, keyed=keyed) for rows in splits
    )
    batches = itertools.chain.from_iterable(evaluation_batches(each, batch_size, share, workers) for each in galaxies)
    return evaluate(
        model, batches, lambda batch: model_inputs(batch, view_batch(batch, framing)), collected, accelerator
    )


def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    to_inputs: Callable[[Batch], Batch],
    collected: CollectedT,
    accelerator: Accelerator,
) -> CollectedT:
    """Run the model over this process's batches and add up what is `collected` over all processes.

    Returns:
        That of all galaxies, the same in every process.
    """
    model = accelerator.unwrap_model(model)
    was_training = model.training
    model.eval()
    with torch.inference_mode(), accelerator.autocast():
        for batch in batches:
            batch = to_device(batch, accelerator.device)
            collected.update(batch, model(**to_inputs(batch)))
    model.train(was_training)
    first, *others = gather_object([collected.cpu()])
    return sum(others, start=first)


def view_batch(batch: dict[str, torch.Tensor], framing: Framing) -> torch.Tensor:
    """The input of the model in evaluation: features if the batch has them, else the centre of each canvas."""
    return batch["features"] if "features" in batch else eval_view(batch["pixels"], framing)


def model_inputs(batch: dict[str, torch.Tensor], pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
    """The arguments of the model: pictures or features, and the target."""
    return {"pixel_values": pixel_values} | {k: v for k, v in batch.items() if k in LABEL_NAMES}
