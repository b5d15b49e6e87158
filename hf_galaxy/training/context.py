"""What takes part in a run: its settings, its processes and its datasets; and a model for them."""

import logging
from dataclasses import dataclass, replace
from typing import Self

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from hf_galaxy.errors import BadInput
from hf_galaxy.models.model import GalaxyPreTrainedModel
from hf_galaxy.models.start import check_start, resolve_start
from hf_galaxy.training.finetuning import keep_head, prepare
from hf_galaxy.training.lengths import Lengths
from hf_galaxy.training.processes import start_accelerator
from hf_galaxy.training.sequence import ProcessShard, default_workers
from hf_galaxy.training.settings import Settings, TrainableParts
from hf_galaxy.training.sources import Sources, open_sources
from hf_galaxy.training.task import model_and_baseline

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunContext:
    """What takes part in a run.

    Attributes:
        settings: with the number of workers, whoever chose it.
        shard: the part of each batch that this process computes.
    """

    settings: Settings
    accelerator: Accelerator
    shard: ProcessShard
    sources: Sources

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Check the settings, start the processes and open the datasets; no weights are loaded.

        Raises:
            BadInput: what they cannot do together.
        """
        settings.check()
        accelerator = start_accelerator(
            settings.precision, settings.cpu, settings.exact, settings.tracker, settings.out.parent / "logs"
        )
        if settings.workers is None:
            settings = replace(settings, workers=default_workers(accelerator.device))
        shard = ProcessShard.of(
            accelerator.process_index, accelerator.num_processes, settings.batch_size, settings.device_batch
        )
        if settings.augmentation.mixes and shard.micro_batch(settings.batch_size) % 2:
            raise BadInput(
                f"{'--mixup' if settings.mixup else '--cutmix'}: mixes pairs of galaxies, but of --batch-size {settings.batch_size} each "
                f"process has {shard.micro_batch(settings.batch_size)} at once; choose --batch-size and --device-batch so that it is even"
            )
        check_start(settings.backbone, settings.start, settings.bands)
        with accelerator.main_process_first():
            sources = open_sources(settings)
        Lengths(settings, sources.count("train")).check()
        if accelerator.distributed_type == DistributedType.FSDP:
            _check_fsdp(settings, sources, accelerator.num_processes)
        return cls(settings, accelerator, shard, sources)

    @property
    def workers(self) -> int:
        """Processes that decode pictures, for each training process."""
        return self.settings.workers or 0

    @property
    def micro_batch(self) -> int:
        """Galaxies in a process at once."""
        return self.shard.micro_batch(self.settings.batch_size)


@dataclass(frozen=True)
class ModelSetup:
    """A model that is ready to be trained.

    Attributes:
        baseline: the constant prediction that its metrics stand beside, for a run record.
        trainable: the parts that are trained.
        parameters: their numbers in backbone and head, and `trained`, with adapters.
        flops: floating-point operations for one picture.
        weights_bytes: of the finished model.
    """

    model: GalaxyPreTrainedModel
    baseline: dict
    trainable: TrainableParts
    parameters: dict[str, int]
    flops: int
    weights_bytes: int

    @classmethod
    def build(cls, context: RunContext) -> Self:
        """The model of a run, with the weights it starts from; frozen, adapted and compiled as the settings ask for.

        Raises:
            BadInput: the backbone does not work with pictures of this size, these weights, or these trainable parts.
        """
        settings = context.settings
        fields, weights = resolve_start(settings.backbone, settings.start, settings.image_size, settings.bands)
        model, baseline = model_and_baseline(settings, context.sources, fields)
        flops = _try_out(model, weights)
        parameters = model.parameter_counts()  # before there are adapters, which the finished run does not have
        weights_bytes = sum(values.nbytes for values in model.state_dict().values())
        new = keep_head(model, settings.start) if settings.keep_head else None
        trainable = TrainableParts.parse(settings.train)
        parameters["trained"] = prepare(model, trainable)
        if settings.start is not None:
            _log_start(model, settings, parameters, new)
        if settings.gradient_checkpointing:
            model.activation_checkpointing_enable()
        if settings.compile:
            model.backbone.compile()  # in place: the names in the state dict stay as they are
        return cls(model, baseline, trainable, parameters, flops, weights_bytes)


def _check_fsdp(settings: Settings, sources: Sources, processes: int) -> None:
    """Refuse what is not possible while each process holds only a part of the weights."""
    if TrainableParts.parse(settings.train).kind in ("head", "lora"):
        raise BadInput(f"--train {settings.train}: needs whole weights, which FSDP splits among processes; use DDP")
    if settings.ema_galaxies:
        raise BadInput("--ema-galaxies: needs whole weights, which FSDP splits among processes; use DDP")
    if settings.compile and settings.exact and (settings.head_dropout or settings.drop_path):
        raise BadInput(
            "--compile: with FSDP a compiled model draws other dropout in a step that compiles than in one that does not, so that a "
            "run could not be repeated; add --no-exact, or --head-dropout 0 without --drop-path, or use DDP"
        )
    for split, parts in sources.splits.items():
        if smaller := [len(rows) for rows in parts if len(rows) < processes]:
            raise BadInput(f"split {split} has {smaller[0]} galaxies; with FSDP every process must have one; use DDP")


def _try_out(model: GalaxyPreTrainedModel, weights: dict[str, torch.Tensor] | None) -> int:
    """Load the weights into the backbone, and run the model on one empty picture: the floating-point operations it takes."""
    size = model.config.image_size
    try:
        if weights is not None:
            model.backbone.load_state_dict(weights)
        # Fused attention is not counted.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model.eval()(pixel_values=torch.zeros(1, model.config.channels, size, size))
        return counter.get_total_flops()
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:  # each library has its own
        reason = " ".join(str(error).split())[:300]
        raise BadInput(
            f"backbone {model.config.backbone}: does not work with pictures of {size} px or with --start ({reason})"
        ) from error


def _log_start(
    model: GalaxyPreTrainedModel, settings: Settings, parameters: dict[str, int], new: list[str] | None
) -> None:
    """Log which weights are pretrained, which are initialised, and how many are trained.

    Args:
        new: the outputs of a kept head that are initialised; None if the whole head is.
    """
    outputs, width = model.head.weight.shape
    head = f"{outputs} x {width} weights and {outputs} biases"
    if new is None:
        head += " newly initialised"
    elif new:
        head += f" kept, but for {', '.join(new)}, newly initialised"
    else:
        head += " kept"
    logger.info(
        f"from {settings.start}: backbone {model.config.backbone}, {parameters['backbone']:,} parameters kept; head, {head}; "
        f"--train {settings.train}: {parameters['trained']:,} parameters are trained"
    )
