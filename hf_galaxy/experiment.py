"""One training run, from its settings to its run folder: what scripts/pretrain.py and scripts/finetune.py have in common."""

import dataclasses
import itertools
import json
import platform
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from hf_galaxy import cards
from hf_galaxy.backbones import hub_id_of, layer_groups
from hf_galaxy.data import Galaxies, Label, Rows, vote_batches
from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.errors import BadInput
from hf_galaxy.estimate import estimate
from hf_galaxy.metrics import ClassMetrics, ConstantVotes, VoteMetrics
from hf_galaxy.mixture import mixed
from hf_galaxy.model import (
    GalaxyConfig,
    GalaxyForImageClassification,
    GalaxyForVotes,
    GalaxyPreTrainedModel,
    load_model,
    resolve_start,
)
from hf_galaxy.optimizers import make_optimizer, parameter_groups
from hf_galaxy.processes import first_alone, start_accelerator, start_tracker
from hf_galaxy.run_folder import begin, save
from hf_galaxy.run_record import RunRecord
from hf_galaxy.sequence import Share, TrainingSequence, evaluation_batches, training_batches
from hf_galaxy.settings import Settings
from hf_galaxy.sources import open_sources
from hf_galaxy.train import evaluate, fit
from hf_galaxy.views import eval_view, train_view


def carry_out(settings: Settings) -> RunRecord | None:
    """Train, evaluate and save. Everything that can be wrong with the settings is refused before training starts.

    Returns:
        The record of the finished run; None if it was only estimated.
    """
    # 1. What takes part: processes, datasets, the model, and the constant that its metrics stand beside.
    settings.check()
    accelerator = start_accelerator(
        settings.precision, settings.cpu, settings.exact, settings.tracker, settings.out.parent / "logs"
    )
    share = Share.of(accelerator.process_index, accelerator.num_processes, settings.batch_size, settings.device_batch)
    fields, weights = resolve_start(settings.backbone, settings.start, settings.image_size)
    with accelerator.main_process_first():
        sources = open_sources(settings, accelerator.print)
    if accelerator.distributed_type == DistributedType.FSDP:
        _check_fsdp(settings, sources, accelerator)
    model, baseline = _model_and_baseline(settings, sources, fields)
    flops = _try_out(model, weights)
    if settings.compile:
        model.backbone.compile()  # in place: the names in the state dict stay as they are
    record = RunRecord(
        command=" ".join(map(shlex.quote, sys.argv)),
        settings=json.loads(json.dumps(dataclasses.asdict(settings), default=str))
        | {"precision": accelerator.mixed_precision},  # which the launcher may have said
        dataset={
            "name": " ".join(settings.dataset),
            "title": " and ".join(said.title for said in sources.said),
            "cards": [vars(said) for said in sources.said],
            "splits": {split: sources.count(split) for split in sources.splits},
            **_about(sources.target),
        },
        model={
            "backbone": model.config.backbone,
            "start": settings.start,
            "base_model": settings.start and hub_id_of(settings.start),
            "image_size": model.config.image_size,
            "crop": model.config.crop,
            "parameters": model.parameter_counts(),
            "flops": flops,
        },
        environment=_environment(accelerator),
        baseline=baseline,
    )

    # 2. How it trains: in which order, by which optimiser, and by which loss the best epoch is chosen.
    sequence = _sequence(settings, sources, model, share)
    framing = model.config.framing

    def measured(model, split, **options):
        micro_batch = share.micro_batch(settings.batch_size)
        return measure(model, record, split, micro_batch, settings.workers, accelerator, **options)

    def train(recipe, galaxies, folder, validation, **checkpointing):
        layers = [[f"backbone.{name}" for name in group] for group in layer_groups(model.backbone)]
        groups = parameter_groups(model, recipe.weight_decay, layers, recipe.layer_decay)
        return fit(
            model,
            make_optimizer(recipe.optimizer, groups),
            recipe,
            galaxies,
            share.accumulate,
            batches=lambda steps: training_batches(sequence, recipe.batch_size, steps, share, settings.workers),
            to_inputs=lambda batch: _inputs(batch, train_view(batch["pixels"], batch["affine"], framing)),
            validate=lambda model: measured(model, validation).loss,
            accelerator=accelerator,
            folder=folder,
            **checkpointing,
        )

    if settings.estimate:
        accelerator.print(estimate(train, settings, sources, share, accelerator))
        accelerator.end_training()
        return None

    # 3. The run folder, which says at once what it will hold; and training.
    lock = first_alone(accelerator, begin, settings, record, sources.count("train"))
    if settings.tracker is not None:
        start_tracker(accelerator, settings.tracker, settings.out, vars(settings))
    record.training = train(
        settings, sources.count("train"), settings.out, sources.splits["validation"],
        checkpoint_minutes=settings.checkpoint_minutes, keep_checkpoints=settings.keep_checkpoints, keep_at=settings.keep_at,
    )  # fmt: skip

    # 4. The test split, once.
    record.results["test"] = measured(model, sources.splits["test"], bootstrap=True).compute()
    record.finished = True
    weights = accelerator.get_state_dict(model)
    first_alone(accelerator, save, model, weights, record, settings.out, lock)
    accelerator.print(f"\n{cards.metrics_table(record.results['test'])}\n\nrun folder: {settings.out}")
    accelerator.end_training()
    return record


def _check_fsdp(settings, sources, accelerator):
    """Refuse what cannot be done while each process has a part of the weights only."""
    if settings.ema_galaxies:
        raise BadInput("--ema-galaxies: FSDP keeps the weights in pieces, which are not averaged; use DDP")
    for split, parts in sources.splits.items():
        if fewest := [len(rows) for rows in parts if len(rows) < accelerator.num_processes]:
            raise BadInput(f"split {split} has {fewest[0]} galaxies; with FSDP every process must have one; use DDP")


def _model_and_baseline(settings, sources, fields):
    """A fresh model of the target, and the constants of its training split, for a run record."""
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
    labels = dict(id2label=dict(enumerate(target.names)), label2id={name: i for i, name in enumerate(target.names)})
    model = GalaxyForImageClassification(GalaxyConfig(**labels, **fields))
    counts = torch.bincount(torch.from_numpy(np.concatenate(sources.strata)), minlength=len(target.names))
    # A class without a training galaxy counts as half a galaxy: unlikely, not impossible.
    return model, {"log_priors": (counts.clamp_min(0.5) / counts.sum()).log().tolist()}


def _about(target):
    if isinstance(target, DecisionTree):
        return {"tree": target.name, "questions": [question.name for question in target.questions]}
    return {"classes": list(target.names)}


def _sequence(settings, sources, model, share):
    """The training galaxies in the order in which they are seen."""
    framing = model.config.framing
    galaxies = [Galaxies(rows, framing, sources.target, fast=True) for rows in sources.splits["train"]]
    order = dict(seed=settings.seed, augmentation=settings.augmentation, share=share, batch_size=settings.batch_size)
    if len(galaxies) == 1 and not settings.balance:
        return TrainingSequence(galaxies[0], **order)
    weights = settings.weights or tuple(map(len, galaxies))
    strata = sources.strata if settings.balance else None
    return mixed(galaxies, list(weights), **order, strata=strata, power=settings.balance)


def _try_out(model, weights):
    """Give the backbone the weights it starts from, and the model one empty picture: the floating-point operations it takes."""
    size = model.config.image_size
    try:
        if weights is not None:
            model.backbone.load_state_dict(weights)
        # Fused attention is not counted.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model.eval()(pixel_values=torch.zeros(1, 3, size, size))
        return counter.get_total_flops()
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:  # each library has words of its own
        reason = " ".join(str(error).split())[:300]
        raise BadInput(
            f"backbone {model.config.backbone}: does not work with pictures of {size} px or with --start ({reason})"
        ) from error


def load_run(folder: Path) -> tuple[GalaxyPreTrainedModel, RunRecord]:
    """The model and the record of a finished run.

    Raises:
        BadInput: there is no run in the folder, or it is not finished.
    """
    record = RunRecord.load(folder)
    if not record.finished:
        raise BadInput(f"{folder}: the run is not finished; start it again with the same command and it goes on")
    return load_model(folder), record


def measure(
    model: torch.nn.Module, record: RunRecord, splits: Sequence[Rows], batch_size: int, workers: int,
    accelerator: Accelerator, bootstrap: bool = False,
) -> VoteMetrics | ClassMetrics:  # fmt: skip
    """The metrics of a run's model on some rows, shared out over all processes.

    Args:
        model: as `fit` made it, or loaded.
        splits: of one dataset or of several, which are then measured together.
        bootstrap: measure in the replicates of a bootstrap over galaxies, too.
    """
    config = accelerator.unwrap_model(model).config
    if "tree" in record.dataset:
        target = config.decision_tree
        constant = ConstantVotes.from_dict(record.baseline)
        metrics = VoteMetrics(target, constant, record.settings["min_votes"], config.likelihood)
    else:
        target = Label(record.settings["label"], tuple(record.dataset["classes"]))
        metrics = ClassMetrics(record.dataset["classes"], torch.tensor(record.baseline["log_priors"]))
    share = Share(accelerator.process_index, accelerator.num_processes)
    batches = itertools.chain.from_iterable(
        evaluation_batches(Galaxies(rows, config.framing, target, keyed=bootstrap), batch_size, share, workers)
        for rows in splits
    )
    return evaluate(
        model, batches, lambda batch: _inputs(batch, eval_view(batch["pixels"], config.framing)), metrics, accelerator
    )


def _inputs(batch, pixel_values):
    return {"pixel_values": pixel_values} | {k: v for k, v in batch.items() if k in ("votes", "labels")}


def _environment(accelerator):
    libraries = ("hf_galaxy", "torch", "timm", "transformers", "datasets", "accelerate")
    cuda = accelerator.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name()
        if cuda
        else f"CPU ({platform.machine()}, {torch.get_num_threads()} threads)",
        "processes": accelerator.num_processes,
        "precision": accelerator.mixed_precision,
        "python": platform.python_version(),
        **{name: version(name) for name in libraries},
    }
