"""One training run, from its settings to its run folder: what scripts/pretrain.py and scripts/finetune.py have in common."""

import contextlib
import dataclasses
import json
import platform
import shlex
import sys
import time
from importlib.metadata import version

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from hf_galaxy.data.galaxies import Galaxies
from hf_galaxy.errors import BadInput
from hf_galaxy.models.backbones import layer_groups
from hf_galaxy.models.pretrained import hub_id_of
from hf_galaxy.models.start import resolve_start
from hf_galaxy.outcome import folder_of_outcome
from hf_galaxy.reports import model_card
from hf_galaxy.reports.run_record import RunRecord
from hf_galaxy.training.estimate import estimate
from hf_galaxy.training.features import features_of, without_backbone
from hf_galaxy.training.finetuning import keep_head, merge_adapters, prepare
from hf_galaxy.training.loop import fit
from hf_galaxy.training.mixture import mixed
from hf_galaxy.training.optimizers import make_optimizer, parameter_groups
from hf_galaxy.training.processes import on_main_process, start_accelerator, start_tracker, stop_tracker
from hf_galaxy.training.run_folder import begin, save
from hf_galaxy.training.sequence import (
    ProcessShard,
    TrainingSequence,
    default_workers,
    training_batches,
)
from hf_galaxy.training.settings import Settings, TrainableParts
from hf_galaxy.training.sources import open_sources
from hf_galaxy.training.task import describe, measure, model_and_baseline, model_inputs, view_batch


def run_training(settings: Settings) -> RunRecord | None:
    """Train, evaluate and save. Everything that can be wrong with the settings is refused before training starts.

    Returns:
        The record of the finished run; None if it was only estimated.
    """
    # 1. What takes part: processes, datasets, the model, and the constant that its metrics stand beside.
    settings.check()
    accelerator = start_accelerator(
        settings.precision, settings.cpu, settings.exact, settings.tracker, settings.out.parent / "logs"
    )
    if settings.workers is None:
        settings = dataclasses.replace(settings, workers=default_workers(accelerator.device))
    share = ProcessShard.of(
        accelerator.process_index, accelerator.num_processes, settings.batch_size, settings.device_batch
    )
    fields, weights = resolve_start(settings.backbone, settings.start, settings.image_size)
    with accelerator.main_process_first():
        sources = open_sources(settings, accelerator.print)
    if accelerator.distributed_type == DistributedType.FSDP:
        _check_fsdp(settings, sources, accelerator)
    model, baseline = model_and_baseline(settings, sources, fields)
    flops = _try_out(model, weights)
    parameters = model.parameter_counts()  # of the finished run, which has no adapters
    weights_bytes = sum(values.nbytes for values in model.state_dict().values())
    new = keep_head(model, settings.start) if settings.keep_head else None
    what = TrainableParts.of(settings.train)
    trained = prepare(model, what)
    if settings.start is not None:
        accelerator.print(_kept_and_new(model, settings, parameters, new, trained))
    if settings.gradient_checkpointing:
        model.activation_checkpointing_enable()
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
            **describe(sources.target),
        },
        model={
            "backbone": model.config.backbone,
            "start": settings.start,
            "base_model": settings.start and hub_id_of(settings.start),
            "image_size": model.config.image_size,
            "crop": model.config.crop,
            "parameters": parameters | {"trained": trained},
            "flops": flops,
        },
        environment=environment(accelerator),
        baseline=baseline,
    )

    # 2. How it trains: in which order, by which optimiser, and by which loss the best epoch is chosen.
    framing = model.config.framing
    pictures = [Galaxies(rows, framing, sources.target, fast=True) for rows in sources.splits["train"]]
    sequence = _sequence(settings, pictures, sources.strata, share)

    def measured(model, split, workers, **options):
        micro_batch = share.micro_batch(settings.batch_size)
        return measure(model, record, split, micro_batch, workers, accelerator, **options)

    def learn(sequence, validation, workers, recipe, galaxies, folder, **checkpointing):
        layers = layer_groups(model.backbone) if recipe.layer_decay < 1 else []
        layers = [[f"backbone.{name}" for name in group] for group in layers]
        groups = parameter_groups(model, recipe.weight_decay, layers, recipe.layer_decay)
        return fit(
            model,
            make_optimizer(recipe.optimizer, groups),
            recipe,
            galaxies,
            share.accumulate,
            batches=lambda steps: training_batches(sequence, recipe.batch_size, steps, share, workers),
            to_inputs=lambda batch: model_inputs(batch, view_batch(batch, framing)),
            validate=lambda model: measured(model, validation, workers).loss,
            accelerator=accelerator,
            folder=folder,
            **checkpointing,
        )

    def train(recipe, galaxies, folder, splits, **checkpointing):
        if what.kind != "head":
            return learn(sequence, splits["validation"], settings.workers, recipe, galaxies, folder, **checkpointing)
        # The same loop on features in the place of pictures; a run that goes on computes them again.
        started = time.perf_counter()
        splits = {split: splits[split] for split in ("train", "validation")}
        micro_batch = share.micro_batch(settings.batch_size)
        known = features_of(model, splits, sources.target, micro_batch, share, settings.workers, accelerator)
        about = {
            "seconds": time.perf_counter() - started,
            "bytes": sum(each.bytes for part in known.values() for each in part),
        }
        # An estimate takes but the first rows of each dataset.
        strata = sources.strata and [
            kinds[: len(rows)] for kinds, rows in zip(sources.strata, splits["train"], strict=True)
        ]
        order = _sequence(settings, known["train"], strata, share)
        with without_backbone(model):
            training = learn(order, known["validation"], 0, recipe, galaxies, folder, **checkpointing)
        return training | {"features": about}

    if settings.estimate:
        needs = estimate(train, settings, sources, share, accelerator, weights_bytes)
        accelerator.print(needs)
        if accelerator.is_main_process and (folder := folder_of_outcome()) is not None:
            needs.save(folder)
        accelerator.end_training()
        return None

    # 3. The run folder, which says at once what it will hold; and training. However it ends, folder and tracker are released.
    with contextlib.ExitStack() as held:
        lock = on_main_process(accelerator, begin, settings, record, sources.count("train"))
        held.enter_context(lock or contextlib.nullcontext())
        if settings.tracker is not None:
            held.callback(stop_tracker, accelerator)
            start_tracker(accelerator, settings.tracker, settings.out, vars(settings))
        record.training = train(
            settings, sources.count("train"), settings.out, sources.splits,
            checkpoint_minutes=settings.checkpoint_minutes, keep_checkpoints=settings.keep_checkpoints, keep_at=settings.keep_at,
        )  # fmt: skip
        if what.kind == "lora":
            merge_adapters(model)

        # 4. The test split, once.
        record.results["test"] = measured(model, sources.splits["test"], settings.workers, bootstrap=True).compute()
        record.finished = True
        weights = accelerator.get_state_dict(model)
        on_main_process(accelerator, save, model, weights, record, settings.out, lock)
    accelerator.print(f"\n{model_card.metrics_table(record.results['test'])}\n\nrun folder: {settings.out}")
    accelerator.end_training()
    return record


def _check_fsdp(settings, sources, accelerator):
    """Refuse what cannot be done while each process has a part of the weights only."""
    if TrainableParts.of(settings.train).kind in ("head", "lora"):
        raise BadInput(
            f"--train {settings.train}: FSDP keeps the weights in pieces, but this needs them whole; use DDP"
        )
    if settings.ema_galaxies:
        raise BadInput("--ema-galaxies: FSDP keeps the weights in pieces, which are not averaged; use DDP")
    if settings.compile and settings.exact and (settings.head_dropout or settings.drop_path):
        raise BadInput(
            "--compile: with FSDP a compiled model draws other dropout in a step that compiles than in one that does not, so that a "
            "run could not be repeated; add --no-exact, or --head-dropout 0 without --drop-path, or use DDP"
        )
    for split, parts in sources.splits.items():
        if fewest := [len(rows) for rows in parts if len(rows) < accelerator.num_processes]:
            raise BadInput(f"split {split} has {fewest[0]} galaxies; with FSDP every process must have one; use DDP")


def _kept_and_new(model, settings, parameters, new, trained):
    """What starts from pretrained weights and what is initialised, in words."""
    outputs, width = model.head.weight.shape
    head = f"{outputs} x {width} weights and {outputs} biases"
    if new is None:
        head += " newly initialised"
    elif new:
        head += f" kept, but for {', '.join(new)}, newly initialised"
    else:
        head += " kept"
    return (
        f"from {settings.start}: backbone {model.config.backbone}, {parameters['backbone']:,} parameters kept; head, {head}; "
        f"--train {settings.train}: {trained:,} parameters are trained"
    )


def _sequence(settings, galaxies, strata, share):
    """The training galaxies of each dataset in the order in which they are seen."""
    order = dict(seed=settings.seed, augmentation=settings.augmentation, share=share, batch_size=settings.batch_size)
    if len(galaxies) == 1 and not settings.balance:
        return TrainingSequence(galaxies[0], **order)
    weights = settings.weights or tuple(map(len, galaxies))
    strata = strata if settings.balance else None
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


def environment(accelerator: Accelerator) -> dict:
    """What a run record says of versions, device and processes."""
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
