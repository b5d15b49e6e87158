"""The vision backbones of timm and transformers with one interface: normalised images (B, K, S, S) -> features (B, D).
K is 3 for colour pictures, or the number of bands.

A backbone is named by a timm architecture ("convnext_atto") or by "transformers:" and a folder or Hub id
("transformers:facebook/dinov2-small"). The name defines the architecture; `--start` loads weights.
"""

import inspect
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models._manipulate import group_with_matcher
from torch import nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel, PreTrainedConfig

from hf_galaxy.errors import BadInput

logger = logging.getLogger(__name__)
TRANSFORMERS = "transformers:"
RGB = 3  # channels of colour pictures
CHANNELS = "num_channels"  # what configurations of transformers call them


@dataclass(frozen=True)
class Architecture:
    """The architecture of a backbone, and the normalisation of its images.

    Attributes:
        name: of a timm architecture, or "transformers:...".
        config: of a transformers backbone its whole configuration, so that it can be built offline; of a timm backbone the
            arguments beside its name, if its published weights need any.
        mean, std: of the red, green and blue values in [0, 1] in the training of the published weights.
    """

    name: str
    config: dict | None
    mean: tuple[float, ...]
    std: tuple[float, ...]


class TransformersBackbone(nn.Module):
    """A transformers vision model that returns only its pooled features (B, D)."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        # The dtype of the whole model, by default float32, not that of the saved checkpoint.
        self.model = AutoModel.from_config(config, dtype=torch.get_default_dtype())
        resizable = "interpolate_pos_encoding" in inspect.signature(self.model.forward).parameters
        self.options = {"interpolate_pos_encoding": True} if resizable else {}
        for name, parameter in self.model.named_parameters():
            if name.endswith("mask_token"):
                # Only masked-image modelling uses it, and DDP fails with a parameter without gradient.
                parameter.requires_grad_(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, K, S, S) -> (B, D)."""
        pooled = self.model(pixel_values=images, **self.options).get("pooler_output")
        if pooled is None:
            raise BadInput(f"the model {self.model.config.model_type} of transformers has no pooled features")
        return pooled.flatten(1)


def architecture(name: str) -> Architecture:
    """The architecture of a backbone, by its name or by the name of published weights for it.

    Args:
        name: "transformers:..."; for a pair of image and text models (CLIP, SigLIP) the image model. Or a timm architecture, or one
            with a tag of weights ("convnext_atto.d2_in1k").

    Raises:
        BadInput: there is no such backbone.
    """
    if name.startswith(TRANSFORMERS):
        source = name.removeprefix(TRANSFORMERS)
        config = transformers_config(source)
        if config.model_type == "timm_wrapper":  # transformers would initialise it in its own way
            raise BadInput(f"backbone {name}: is in timm's format; use --start hf_hub:ORG/NAME or local-dir:FOLDER")
        mean, std = _processor_normalisation(source)
        return Architecture(name, config.to_dict(), mean, std)
    if not timm.is_model(name):
        close = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:5])
        raise BadInput(f"backbone {name}: timm has no such architecture{f'; it has {close}, ...' if close else ''}")
    cfg = timm.get_pretrained_cfg(name)
    return Architecture(name.split(".")[0], None, tuple(cfg.mean), tuple(cfg.std))


def transformers_config(source: str) -> PreTrainedConfig:
    """The configuration of a folder or Hub id; for a pair of image and text models that of the image model.

    Raises:
        BadInput: there is no configuration.
    """
    try:
        config = AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise BadInput(
            f"backbone {TRANSFORMERS}{source}: {source} is neither the folder nor a reachable Hub id of a transformers model"
        ) from error
    return getattr(config, "vision_config", config)


def _processor_normalisation(source: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each colour, by the image processor of a folder or Hub id; those of ImageNet if it states none."""
    try:
        processor = AutoImageProcessor.from_pretrained(source, backend="pil")
        mean, std = (tuple(map(float, each)) for each in (processor.image_mean, processor.image_std))
        if not (len(mean) == len(std) == RGB and min(std) > 0 and all(map(math.isfinite, (*mean, *std)))):
            raise ValueError(f"image_mean {mean} and image_std {std} are not those of {RGB} colours")
        return mean, std
    # There is none, the Hub denies access, or transformers raises one of many kinds about what others have written.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        logger.warning(
            "%s: has no readable image processor (%s), so pictures are normalised with the mean and standard deviation "
            "of ImageNet, as for most models",
            source, reason,
        )  # fmt: skip
        return IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD


def build(
    name: str, config: dict | None, image_size: int, drop_path: float = 0.0, channels: int = RGB
) -> tuple[nn.Module, int]:
    """A new backbone with its library's initialisation, and the width D of its features.

    Args:
        config: `Architecture.config`.
        image_size: S, for architectures whose position embeddings depend on it.
        drop_path: stochastic depth rate, timm only.
        channels: K of the images.

    Raises:
        BadInput: it has no pooled features, or does not support pictures of this size, or of so many channels.
    """
    if name.startswith(TRANSFORMERS):
        if drop_path:
            raise BadInput(f"--drop-path {drop_path}: only timm backbones have it")
        config = AutoConfig.for_model(**(config or {}))
        if channels != RGB:
            if not hasattr(config, CHANNELS):
                raise BadInput(
                    f"backbone {name}: its configuration has no {CHANNELS}, so it takes colour pictures only"
                )
            config.update({CHANNELS: channels})
        return TransformersBackbone(config), _pooled_width(name, config, image_size, channels)
    try:
        backbone = timm.create_model(name, num_classes=0, **timm_options(name, config, image_size, drop_path, channels))
    except (TypeError, AssertionError) as error:
        raise BadInput(f"backbone {name}: cannot be built for {image_size} px with these options ({error})") from error
    return backbone, backbone.head_hidden_size


def _pooled_width(name: str, config: PreTrainedConfig, image_size: int, channels: int) -> int:
    # Configurations use many names for it (hidden_size, hidden_sizes, hidden_dim, neck_hidden_sizes), so it is inferred from
    # the shapes of a forward pass that computes nothing and draws no random number.
    try:
        with torch.device("meta"):
            return TransformersBackbone(config).eval()(torch.empty(1, channels, image_size, image_size)).shape[1]
    except (RuntimeError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise BadInput(f"backbone {name}: cannot be built for pictures of {image_size} px ({reason})") from error


def timm_options(name: str, config: dict | None, image_size: int, drop_path: float = 0.0, channels: int = RGB) -> dict:
    """The arguments of `timm.create_model` beside the name; arguments as in `build`."""
    fixed = timm.get_pretrained_cfg(name).fixed_input_size
    size = {"img_size": image_size} if fixed else {}
    size |= {"in_chans": channels} if channels != RGB else {}
    return (config or {}) | size | ({"drop_path_rate": drop_path} if drop_path else {})


def set_checkpointing(backbone: nn.Module, enable: bool, function: Callable, every: int) -> None:
    """Enable or disable gradient checkpointing: blocks are computed again in the backward pass, to save memory.

    Gradients are the same to the bit. Batch norms update their running averages twice per batch.

    Args:
        function: checkpoints a block; transformers only, timm has its own.
        every: checkpoint one block of this many; transformers only.

    Raises:
        BadInput: the architecture does not support it.
    """
    try:
        if isinstance(backbone, TransformersBackbone):
            if not backbone.model.supports_gradient_checkpointing:
                raise ValueError("transformers does not support it")
            backbone.model._set_gradient_checkpointing(enable, function, every)
        elif every > 1:
            raise ValueError("timm checkpoints every block")
        else:
            backbone.set_grad_checkpointing(enable)
    except (AssertionError, ValueError) as error:
        if enable:
            name = type(backbone.model if isinstance(backbone, TransformersBackbone) else backbone).__name__
            raise BadInput(f"gradient checkpointing: {name} does not support it ({error}); train without it") from error


def layer_groups(backbone: nn.Module) -> list[list[str]]:
    """The names of all parameters of a built backbone, from its input to its output, each in exactly one group.

    The first group has the parameters before the blocks (stem, embeddings), then each block is a group. Parameters between
    two blocks (downsampling) belong to the following block, those after the last block (final norm, pooling by attention) to
    the last. So layer-wise decay, and training only the last blocks, omit no parameter.

    timm defines the blocks of its models: for a few (MaxViT, MViTv2) these are whole stages. There, tokens and position
    embeddings are in the first group even if a later block uses them first (CaiT, XCiT). Without such a definition, and in
    transformers, the blocks are inferred from the modules.
    """
    if not hasattr(backbone, "group_matcher"):
        return _groups_by_definition(backbone)
    unmatched = "?"  # matches nothing: timm groups such names with the head
    names = [(name, None) for name in [*dict(backbone.named_parameters()), unmatched]]
    *groups, head = group_with_matcher(names, backbone.group_matcher(coarse=False)).values()
    groups[-1] += [name for name in head if name != unmatched]
    return groups


def _groups_by_definition(backbone: nn.Module) -> list[list[str]]:
    # Blocks are the elements of lists whose elements have one type and have children, or of such lists within a stage, which is
    # itself an element of one; deeper lists are parts of a block. Modules are defined in the order of their use (except in
    # PoolFormer and SegFormer of transformers, which have no pooled features and thus cannot be built here).
    elements: list[str] = []
    for name, module in backbone.named_modules():
        if isinstance(module, nn.ModuleList | nn.Sequential) and len({type(element) for element in module}) == 1:
            has_parts = any(True for _ in module[0].children()) and not isinstance(module[0], nn.ModuleList)
            if has_parts and sum(name.startswith(element) for element in elements) < 2:
                elements += [f"{name}.{i}." for i in range(len(module))]
    blocks = [a for a in elements if not any(b != a and b.startswith(a) for b in elements)]

    groups: list[list[str]] = []
    between: list[str] = []
    current = None
    for name, _ in backbone.named_parameters():
        block = next((block for block in blocks if name.startswith(block)), None)
        if block is None:
            between.append(name)
            continue
        if block != current:
            groups += [between, []] if current is None else [between]
            between, current = [], block
        groups[-1].append(name)
    if current is None:
        return [between]
    groups[-1] += between
    return [group for group in groups if group]
