"""The vision backbones of timm and transformers behind one contract: normalised images (B, 3, S, S) -> features (B, D).

A backbone is named by a timm architecture ("convnext_atto") or by "transformers:" and a folder or Hub id
("transformers:facebook/dinov2-small"). Architecture and weights are different things: a name builds, `--start` loads.
"""

import inspect
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models._manipulate import group_with_matcher
from torch import nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel, PreTrainedConfig

from hf_galaxy.errors import BadInput

logger = logging.getLogger(__name__)
TRANSFORMERS = "transformers:"
TIMM_FORMAT = ("hf_hub:", "hf-hub:", "local-dir:")  # as timm names what timm.models.save_for_hf has saved


@dataclass(frozen=True)
class Architecture:
    """What builds a backbone, and how its images are normalised.

    Attributes:
        name: of a timm architecture, or "transformers:..." as given by the user.
        config: for a transformers backbone its whole configuration, so that nothing needs to be looked up again; for a
            timm one the arguments that it was built with beside its name, if published weights say any.
        mean, std: of the red, green and blue values in [0, 1] that the published weights were trained with.
    """

    name: str
    config: dict | None
    mean: tuple[float, ...]
    std: tuple[float, ...]


class TransformersBackbone(nn.Module):
    """A transformers vision model that answers with its pooled features (B, D) alone."""

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        # Whatever the checkpoint was saved in, it is built in what the whole model is built in: by default float32.
        self.model = AutoModel.from_config(config, dtype=torch.get_default_dtype())
        resizable = "interpolate_pos_encoding" in inspect.signature(self.model.forward).parameters
        self.options = {"interpolate_pos_encoding": True} if resizable else {}
        for name, parameter in self.model.named_parameters():
            if name.endswith("mask_token"):
                # Only masked-image modelling uses it, and DDP stops at a parameter without gradient.
                parameter.requires_grad_(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) -> (B, D)."""
        pooled = self.model(pixel_values=images, **self.options).get("pooler_output")
        if pooled is None:
            raise BadInput(f"a {self.model.config.model_type} of transformers has no pooled features")
        return pooled.flatten(1)


def architecture(name: str) -> Architecture:
    """Look up a backbone by its name, or by the name of published weights for it.

    Args:
        name: 1. "transformers:..."; of a pair of image and text models (CLIP, SigLIP) the image model is meant. 2. a
            timm repository, "hf_hub:ORG/NAME" or "local-dir:FOLDER": its config.json is read. 3. a timm architecture, or
            one with a tag of weights ("convnext_atto.d2_in1k").

    Raises:
        BadInput: there is no such thing.
    """
    if name.startswith(TRANSFORMERS):
        source = name.removeprefix(TRANSFORMERS)
        config = transformers_config(source)
        if config.model_type == "timm_wrapper":  # transformers would initialise it in its own way
            raise BadInput(f"backbone {name}: is in timm's format; say --start hf_hub:ORG/NAME or local-dir:FOLDER")
        mean, std = _processor_normalisation(source)
        return Architecture(name, config.to_dict(), mean, std)
    if name.startswith(TIMM_FORMAT):
        built, arguments, trained = timm_format(name)
        # A model of grey pictures takes the mean of the three channels once its weights are adapted, so normalise all.
        mean, std = (tuple(trained[key]) * (3 // len(trained[key])) for key in ("mean", "std"))
        return Architecture(built, arguments or None, mean, std)
    if not timm.is_model(name):
        close = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:5])
        raise BadInput(f"backbone {name}: timm has no such architecture{f'; it has {close}, ...' if close else ''}")
    cfg = timm.get_pretrained_cfg(name)
    return Architecture(name.split(".")[0], None, tuple(cfg.mean), tuple(cfg.std))


def transformers_config(source: str) -> PreTrainedConfig:
    """The configuration of a folder or Hub id; of a pair of image and text models that of the image model.

    Raises:
        BadInput: there is none.
    """
    try:
        config = AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise BadInput(
            f"backbone {TRANSFORMERS}{source}: {source} is no transformers model folder or reachable Hub id"
        ) from error
    return getattr(config, "vision_config", config)


def timm_format(name: str) -> tuple[str, dict, dict]:
    """Of a timm repository: the architecture, the arguments that it is built with beside that, and how it was trained.

    Raises:
        BadInput: there is none, or of an architecture that timm does not have.
    """
    try:
        config = json.loads(file_of(name, "config.json").read_text())
        built = config["architecture"]
    except (OSError, ValueError, KeyError, EntryNotFoundError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadInput(f"{name}: is no folder or reachable Hub id of a timm model ({reason})") from error
    if not timm.is_model(built):
        raise BadInput(f"{name}: is of the architecture {built}, which timm {timm.__version__} does not have")
    cfg = config.get("pretrained_cfg", config)  # older versions of timm do not nest it
    arguments = config.get("model_args") or {}
    channels = arguments.get("in_chans") or cfg.get("input_size", (3,))[0]
    trained = {"mean": IMAGENET_DEFAULT_MEAN, "std": IMAGENET_DEFAULT_STD} | cfg | {"channels": channels}
    # What a run decides itself; pictures always have three channels.
    ours = ("num_classes", "img_size", "in_chans", "drop_rate", "drop_path_rate")
    return built, {key: value for key, value in arguments.items() if key not in ours}, trained


def file_of(name: str, file: str) -> Path:
    """A file of a timm repository, fetched if need be.

    Raises:
        EntryNotFoundError: it is not there.
        OSError: there is no such repository, or the Hub cannot be asked.
    """
    source, _, place = name.partition(":")
    if source == "local-dir":
        if not (Path(place) / file).is_file():
            raise EntryNotFoundError(f"there is no {Path(place) / file}")
        return Path(place) / file
    repo, _, revision = place.partition("@")
    return Path(hf_hub_download(repo, file, revision=revision or None))


def _processor_normalisation(source):
    try:
        processor = AutoImageProcessor.from_pretrained(source, backend="pil")
    except (OSError, ValueError) as error:  # there is none, or the Hub does not give it
        reason = " ".join(str(error).split())[:200]
        logger.warning(
            "%s: has no image processor that can be read (%s): pictures are normalised with the mean and standard deviation "
            "of ImageNet, as for most models",
            source, reason,
        )  # fmt: skip
        return IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    return tuple(processor.image_mean), tuple(processor.image_std)


def build(name: str, config: dict | None, image_size: int, drop_path: float = 0.0) -> tuple[nn.Module, int]:
    """A fresh backbone with its library's own initialisation, and the width D of its features.

    Args:
        config: `Architecture.config`.
        image_size: S, for architectures whose position embedding is made for one size.
        drop_path: stochastic depth rate, timm only.

    Raises:
        BadInput: it has no pooled features, or is not made for pictures of this size.
    """
    if name.startswith(TRANSFORMERS):
        if drop_path:
            raise BadInput(f"--drop-path {drop_path}: only timm backbones have it")
        config = AutoConfig.for_model(**config)
        return TransformersBackbone(config), _pooled_width(name, config, image_size)
    try:
        backbone = timm.create_model(name, num_classes=0, **timm_options(name, config, image_size, drop_path))
    except (TypeError, AssertionError) as error:
        raise BadInput(f"backbone {name}: cannot be built for {image_size} px with these options ({error})") from error
    return backbone, backbone.head_hidden_size


def _pooled_width(name, config, image_size):
    # Configurations name it in many ways (hidden_size, hidden_sizes, hidden_dim, neck_hidden_sizes), so it is read off
    # the shapes of a forward pass that computes nothing and draws no random number.
    try:
        with torch.device("meta"):
            return TransformersBackbone(config).eval()(torch.empty(1, 3, image_size, image_size)).shape[1]
    except (RuntimeError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise BadInput(f"backbone {name}: cannot be built for pictures of {image_size} px ({reason})") from error


def timm_options(name: str, config: dict | None, image_size: int, drop_path: float = 0.0) -> dict:
    """What timm builds a backbone with, beside its name; arguments as of `build`."""
    fixed = timm.get_pretrained_cfg(name).fixed_input_size
    size = {"img_size": image_size} if fixed else {}
    return (config or {}) | size | ({"drop_path_rate": drop_path} if drop_path else {})


def set_checkpointing(backbone: nn.Module, enable: bool, function: Callable, every: int) -> None:
    """Let a built backbone compute what its blocks did again in the backward pass, instead of keeping it until then.

    Gradients are the same, bit by bit. Batch norms see each batch twice, so that their running averages forget faster.

    Args:
        function: what checkpoints a block; transformers only, timm has its own.
        every: one block of so many is checkpointed; transformers only.

    Raises:
        BadInput: the architecture has no checkpoints.
    """
    try:
        if isinstance(backbone, TransformersBackbone):
            if not backbone.model.supports_gradient_checkpointing:
                raise ValueError("transformers has none for it")
            backbone.model._set_gradient_checkpointing(enable, function, every)
        elif every > 1:
            raise ValueError("those of timm checkpoint every block")
        else:
            backbone.set_grad_checkpointing(enable)
    except (AssertionError, ValueError) as error:
        if enable:
            name = type(backbone.model if isinstance(backbone, TransformersBackbone) else backbone).__name__
            raise BadInput(f"gradient checkpointing: {name} cannot do it ({error}); train without") from error


def layer_groups(backbone: nn.Module) -> list[list[str]]:
    """The names of all parameters of a built backbone, from its input to its output, each in exactly one group.

    The first group is what stands before the blocks (stem, embeddings), then each block is a group; what stands between
    two blocks (downsampling) goes with the one that follows, what stands behind the last (final norm, pooling by
    attention) with the last. So layer-wise decay, and training only the last blocks, leave nothing out.

    timm says what the blocks of its models are: for a few (MaxViT, MViTv2) whole stages. There, tokens and position
    embeddings are in the first group even where they are first used in a later block (CaiT, XCiT). Where timm says
    nothing, and in transformers, the blocks are read off the modules.
    """
    if not hasattr(backbone, "group_matcher"):
        return _groups_by_definition(backbone)
    unmatched = "?"  # a name that no matcher knows: timm takes whatever it does not match for the head
    names = [(name, None) for name in [*dict(backbone.named_parameters()), unmatched]]
    *groups, behind = group_with_matcher(names, backbone.group_matcher(coarse=False)).values()
    groups[-1] += [name for name in behind if name != unmatched]
    return groups


def _groups_by_definition(backbone):
    # Blocks are the elements of lists whose elements are alike and have parts, or of such lists in a stage, which is an
    # element of one itself; lists further inside are parts of a block. Modules are defined in the order of their use (not
    # so in PoolFormer and SegFormer of transformers, which have no pooled features and thus cannot be built here).
    elements: list[str] = []
    for name, module in backbone.named_modules():
        if isinstance(module, nn.ModuleList | nn.Sequential) and len({type(element) for element in module}) == 1:
            has_parts = any(True for _ in module[0].children()) and not isinstance(module[0], nn.ModuleList)
            if has_parts and sum(name.startswith(element) for element in elements) < 2:
                elements += [f"{name}.{i}." for i in range(len(module))]
    blocks = [a for a in elements if not any(b != a and b.startswith(a) for b in elements)]

    groups, between, current = [], [], None
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
