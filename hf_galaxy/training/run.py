"""One training run, from its settings to its run folder: what the commands pretrain and finetune share."""

import logging
import platform
from importlib.metadata import version

import torch
from accelerate import Accelerator

from hf_galaxy.command_line import typed
from hf_galaxy.models.pretrained import hub_id_of
from hf_galaxy.outcome import folder_of_outcome
from hf_galaxy.reports import model_card
from hf_galaxy.reports.run_record import RunRecord
from hf_galaxy.training.context import ModelSetup, RunContext
from hf_galaxy.training.engines import HeadOnFeatures, WholeModel
from hf_galaxy.training.estimate import estimate
from hf_galaxy.training.finetuning import merge_adapters
from hf_galaxy.training.loop import Checkpointing
from hf_galaxy.training.processes import on_main_process
from hf_galaxy.training.run_folder import check_folder, claimed_folder, save
from hf_galaxy.training.run_paths import recorded_paths
from hf_galaxy.training.settings import Settings, to_record

LIBRARIES = ("hf_galaxy", "torch", "timm", "transformers", "datasets", "accelerate")

logger = logging.getLogger(__name__)


def run_training(settings: Settings, command: str | None = None) -> RunRecord | None:
    """Train, evaluate and save. Settings that cannot work are refused before training starts.

    Args:
        command: with which the run can be repeated; None: that of this process.

    Returns:
        The record of the finished run; None if it was only estimated.

    Raises:
        BadInput: the settings cannot work, or the run folder cannot be used.
        Occupied: it holds another run, or this one, finished.
        FloatingPointError: a loss is not finite.
        Interrupted: on SIGTERM, after a checkpoint.
    """
    context = RunContext.open(settings)
    settings, accelerator = context.settings, context.accelerator
    record = new_record(context, command)
    if not settings.estimate:
        on_main_process(accelerator, check_folder, settings.out, record)  # before weights are loaded
    setup = ModelSetup.build(context)
    record.model, record.baseline = description(setup, settings.start), setup.baseline
    engine_type = HeadOnFeatures if setup.trainable.kind == "head" else WholeModel
    engine = engine_type(context, setup.model, record)
    if settings.estimate:
        _estimate(context, setup, engine)
        return None
    with claimed_folder(context, record) as lock:
        splits, galaxies = context.sources.splits, context.sources.count("train")
        checkpointing = Checkpointing(settings.out, settings.checkpoint_minutes, settings.keep_checkpoints)
        record.training = engine.train(settings, galaxies, splits, checkpointing)
        if setup.trainable.kind == "lora":
            merge_adapters(setup.model)
        if settings.calibrate and context.sources.target.is_calibrated:
            record.training["calibration"] = engine.calibrate()
        record.results["test"] = engine.test()
        record.finished = True
        weights = accelerator.get_state_dict(setup.model) | setup.model.fitted_after_training
        on_main_process(accelerator, save, setup.model, weights, record, settings.out, lock)
    accelerator.end_training()
    return record


def show_results(settings: Settings, record: RunRecord | None) -> None:
    """Log the figures of a run that has just been trained.

    Args:
        record: as `run_training` returns it.
    """
    if record is not None:
        table = model_card.metrics_table(record.results["test"], record.task)
        logger.info("\n%s\n\nrun folder: %s", table, settings.out, extra={"lines": True})


def _estimate(context: RunContext, setup: ModelSetup, engine: WholeModel) -> None:
    """Log what the run would need; also as a file, if the program that started the command wants one."""
    accelerator = context.accelerator
    needs = estimate(engine.train, context, setup.weights_bytes)
    logger.info("%s", needs)
    if accelerator.is_main_process and (folder := folder_of_outcome()) is not None:
        needs.save(folder)
    accelerator.end_training()


def new_record(context: RunContext, command: str | None = None) -> RunRecord:
    """The record of a run that has not started yet, without its model."""
    settings, accelerator, sources = context.settings, context.accelerator, context.sources
    return RunRecord(
        command=command or typed().removeprefix("python "),
        settings=to_record(settings) | {"precision": accelerator.mixed_precision},  # which the launcher may have set
        dataset={
            "name": " ".join(settings.dataset),
            "title": " and ".join(facts.title for facts in sources.facts),
            "cards": [vars(facts) for facts in sources.facts],
            "bytes": sources.bytes,
            "splits": {split: sources.count(split) for split in sources.splits},
            **sources.target.description(),
        },
        environment=environment(accelerator),
        paths=recorded_paths(settings.dataset, settings, settings.out),
    )


def description(setup: ModelSetup, start: str | None) -> dict:
    """What a run record holds of its model.

    Args:
        start: of the settings.
    """
    config = setup.model.config
    return {
        "backbone": config.backbone,
        "start": start,
        "base_model": start and hub_id_of(start),
        "image_size": config.image_size,
        "crop": config.crop,
        **({"bands": list(config.bands)} if config.bands else {}),
        "parameters": setup.parameters,
        "flops": setup.flops,
    }


def environment(accelerator: Accelerator) -> dict:
    """Versions, device and processes, for a run record."""
    cpu = f"CPU ({platform.machine()}, {torch.get_num_threads()} threads)"
    return {
        "device": torch.cuda.get_device_name() if accelerator.device.type == "cuda" else cpu,
        "processes": accelerator.num_processes,
        "precision": accelerator.mixed_precision,
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
    }
