"""Initialisation of a run: its backbone and weights; loading the models of finished runs."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import timm
import torch
from transformers import AutoModel
from transformers.models.timm_wrapper import TimmWrapperModel

from hf_galaxy.errors import BadInput
from hf_galaxy.models.backbones import TRANSFORMERS, Architecture, architecture
from hf_galaxy.models.model import GalaxyConfig, GalaxyForImageClassification, GalaxyPreTrainedModel
from hf_galaxy.models.pretrained import WEIGHT_FILES, PublishedWeights, fitted_weights
from hf_galaxy.plain_json import mapping_in, texts_of
from hf_galaxy.reports.run_record import FILE, RunRecord, check_weights, reading


def check_start(backbone: str | None, start: str | None, bands: Sequence[str] | None = None) -> None:
    """Refuse what `resolve_start` would refuse by the names alone; no weights are loaded.

    Args:
        bands: whose fluxes a model is to see; None: colour pictures.

    Raises:
        BadInput: an option is missing, there is no such backbone or repository, or the run in `start` is not finished, or of other bands.
    """
    if start is None:
        _random_start(backbone)
    elif _is_run(start):
        _check_finished(start)
        if (config := Path(start) / "config.json").is_file():
            _check_bands(start, _bands_in(config), bands)
    else:
        published = PublishedWeights(start)
        _described(published, backbone)
        published.check_file()


def resolve_start(
    backbone: str | None, start: str | None, image_size: int | None, bands: Sequence[str] | None = None
) -> tuple[dict, dict | None]:
    """The backbone of a run and its initial weights.

    Args:
        backbone: architecture; None if `start` defines it.
        start: 1. None: the library's random initialisation. 2. a run folder, or the Hub id ORG/NAME of one: its
            backbone. 3. any `start` of `pretrained.PublishedWeights`.
        image_size: of the run; None: the default.
        bands: whose fluxes it is to see; None: what its weights were trained on. Weights of colour pictures are adapted to the number of
            bands.

    Returns:
        The fields of a GalaxyConfig that describe the backbone (for a run also the framing of pictures, and of one with the same bands
        their stretch), and its weights (None: random).

    Raises:
        BadInput: an option is missing, or a run has another backbone than `backbone`, or other bands.
    """
    if start is None:
        return _fields(_random_start(backbone)), None
    if _is_run(start):
        model = load_model(start)
        if backbone not in (None, model.config.backbone):
            raise BadInput(f"--start {start}: has backbone {model.config.backbone}, not {backbone}; omit --backbone")
        config = model.config
        _check_bands(start, config.bands, bands or config.bands)
        same = (
            "backbone", "backbone_config", "pixel_mean", "pixel_std", "image_size", "crop", "bands", "band_stretch", "rendering",
        )  # fmt: skip
        fields = {field: getattr(config, field) for field in same}
        size, channels = image_size or config.image_size, len(bands or "RGB") if not config.bands else config.channels
        weights = model.backbone.state_dict()
        if (size, channels) != (config.image_size, config.channels):
            weights = fitted_weights(config.backbone, config.backbone_config, weights, size, channels, config.channels)
        return fields, weights
    published = PublishedWeights(start)
    described = _described(published, backbone)
    size = image_size or GalaxyConfig.image_size
    return _fields(described), published.load(described.name, size, len(bands or "RGB"))


def _bands_in(config: Path) -> Sequence[str] | None:
    """Whose fluxes a run sees; None: pictures.

    Raises:
        BadInput: the file is no configuration.
    """
    try:
        fields = mapping_in(config.read_bytes())
        return texts_of(fields, "bands") if fields.get("bands") else None
    except (OSError, ValueError) as error:
        raise BadInput(f"{config}: is no configuration of a model ({error})") from error


def _check_bands(start: str, trained: Sequence[str] | None, bands: Sequence[str] | None) -> None:
    """Refuse a run that was trained on the fluxes of other bands; a run of colour pictures can be adapted to any."""
    if trained and list(bands or []) != list(trained):
        raise BadInput(
            f"--start {start}: was trained on fluxes in {' '.join(trained)}; give --bands {' '.join(trained)}"
        )


def _random_start(backbone: str | None) -> Architecture:
    if backbone is None:
        raise BadInput("pass --backbone, a timm architecture such as convnext_atto, or --start")
    return architecture(backbone)


def _is_run(start: str) -> bool:
    """Whether a start is the folder or the Hub id of a run, by its name."""
    return Path(start).is_dir() or ("/" in start and ":" not in start and Path(start).suffix not in WEIGHT_FILES)


def _described(published: PublishedWeights, backbone: str | None) -> Architecture:
    """The architecture of published weights, and the normalisation of their images."""
    if published.is_file:
        if backbone is None:
            raise BadInput(f"--start {published.start}: is a file of weights; pass their architecture with --backbone")
        return architecture(backbone)
    described = published.architecture
    if backbone in (None, described.name):
        return described
    # Weights of an architecture may have been trained with other means than its default ones.
    return dataclasses.replace(architecture(backbone), mean=described.mean, std=described.std)


def load_model(folder: str | Path) -> GalaxyPreTrainedModel:
    """The model of a run, from its folder or Hub id; only safetensors are read.

    Raises:
        BadInput: there is no model, its run is not finished, or it cannot be read.
    """
    _check_finished(folder)
    if (Path(folder) / FILE).is_file():
        with reading(Path(folder) / FILE):
            check_weights(Path(folder), RunRecord.load(Path(folder)))
    try:
        model = AutoModel.from_pretrained(folder, use_safetensors=True)
    except Exception as error:  # transformers and timm raise many kinds about what others have written
        if str(folder).count("/") > 1 and not Path(folder).exists():  # a Hub id has one at most
            raise BadInput(f"{folder}: there is no such folder") from error
        reason = " ".join(str(error).split())[:200]
        raise BadInput(
            f"{folder}: is neither the folder nor a reachable Hub id of a finished run ({reason})"
        ) from error
    if not isinstance(model, GalaxyPreTrainedModel):
        prefix = TRANSFORMERS
        if isinstance(model, TimmWrapperModel):
            prefix = "local-dir:" if Path(folder).is_dir() else "hf_hub:"
        raise BadInput(f"{folder}: holds a {type(model).__name__}; use --start {prefix}{folder}")
    return model


def refuse_bare_encoder(name: str) -> None:
    """Refuse what has features but no head, by its name, where predictions are asked for.

    Raises:
        BadInput: names the command that writes features.
    """
    encoder = name.startswith((TRANSFORMERS, "hf_hub:", "local-dir:")) or Path(name).suffix in WEIGHT_FILES
    if encoder or (not Path(name).exists() and "/" not in name and timm.is_model(name)):
        raise BadInput(
            f"--run {name}: is an encoder without a head, which predicts nothing; its features are written by hf-galaxy embed --model {name}"
        )


def _check_finished(folder: str | Path) -> None:
    if (Path(folder) / FILE).is_file() and not RunRecord.load(Path(folder)).finished:
        raise BadInput(f"{folder}: the run is not finished; run the same command to resume it")


def backbone_of(start: str, backbone: str | None = None, image_size: int | None = None) -> GalaxyPreTrainedModel:
    """A pretrained backbone, to compute features with; its head is not trained.

    Args:
        start, backbone: as of `resolve_start`.
        image_size: side of its input in pixels; None: that of the run in `start`, else the default.

    Raises:
        BadInput: as `resolve_start`, or the backbone does not work with pictures of this size.
    """
    if image_size is not None and image_size < 1:
        raise BadInput(f"--image-size {image_size}: must be more than 0")
    fields, weights = resolve_start(backbone, start, image_size)
    if image_size is not None:
        fields["image_size"] = image_size
    try:
        with torch.random.fork_rng(devices=[]):
            model = GalaxyForImageClassification(GalaxyConfig(num_labels=1, **fields)).eval()
        model.backbone.load_state_dict(weights or {})
        with torch.inference_mode():
            model.features(torch.zeros(1, model.config.channels, model.config.image_size, model.config.image_size))
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:  # each library has its own
        reason = " ".join(str(error).split())[:300]
        raise BadInput(
            f"{start}: does not work with pictures of {image_size or GalaxyConfig.image_size} px ({reason})"
        ) from error
    return model


def _fields(described: Architecture) -> dict:
    return {
        "backbone": described.name,
        "backbone_config": described.config,
        "pixel_mean": list(described.mean),
        "pixel_std": list(described.std),
    }


def load_run(folder: Path) -> tuple[GalaxyPreTrainedModel, RunRecord]:
    """The model and the record of a finished run.

    Raises:
        BadInput: there is no run in the folder, or it is not finished.
    """
    record = RunRecord.load(folder)
    return load_model(folder), record
