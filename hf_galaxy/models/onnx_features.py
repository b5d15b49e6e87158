"""The network of a model in ONNX Runtime, for tables of predictions that are computed on CPUs.

Only the features come from there; the head, and all that follows it, stays in torch. So whatever is computed of a model is computed of it here, too. Legend: B galaxies, K channels,
S side of the view, D features.
"""

import copy
from pathlib import Path

import torch

from hf_galaxy.errors import BadInput
from hf_galaxy.models.export import FEATURES, check_onnx_installed
from hf_galaxy.models.model import GalaxyPreTrainedModel
from hf_galaxy.models.onnx_model import export_digest, exported, session_of
from hf_galaxy.models.predictions import weights_digest
from hf_galaxy.reports.run_record import RunRecord

# What features depend on, besides the weights of the backbone.
OF_FEATURES = ("backbone", "backbone_config", "image_size", "pixel_mean", "pixel_std", "bands", "band_stretch")


class OnnxFeatures:
    """`GalaxyPreTrainedModel.features` of an exported model: (B, K, S, S) -> (B, D), equal to torch to `export.TOLERANCE` of the largest."""

    def __init__(self, file: Path) -> None:
        self._session = session_of(file, torch.get_num_threads())

    def __call__(self, pixel_values: torch.Tensor) -> torch.Tensor:
        [features] = self._session.run([FEATURES], {"pixel_values": pixel_values.contiguous().numpy()})
        return torch.from_numpy(features)


def check_onnx_runtime(device: torch.device, precision: str) -> None:
    """Refuse what ONNX Runtime does not compute here.

    Raises:
        BadInput: a package is missing; or there is a GPU, or mixed precision.
    """
    if device.type != "cpu":
        raise BadInput(
            "--runtime onnx: is for CPUs, and there is a GPU, where torch is fast; leave it out, or add --cpu"
        )
    if precision != "no":
        raise BadInput(f"--runtime onnx: computes in float32, and not in {precision}; add --precision no")
    check_onnx_installed("--runtime onnx")


def with_onnx_features(model: GalaxyPreTrainedModel, cache: Path | None = None) -> GalaxyPreTrainedModel:
    """The model with the same weights, whose features ONNX Runtime computes with as many threads as torch has. The given one keeps its own, in
    evaluation mode.

    The first call for a model exports it, in 10 to 60 seconds, to a file in the cache, which later ones read.

    Args:
        cache: as of `onnx_model.exported`.

    Raises:
        BadInput: as `onnx_model.exported`.
    """
    facts = [weights_digest(model.backbone), *(repr(getattr(model.config, name)) for name in OF_FEATURES)]
    record = RunRecord(command="", settings={}, dataset={})
    try:
        file = exported(export_digest(map(str.encode, facts)), lambda: (model.cpu(), record), cache)
    except BadInput as error:
        raise BadInput(f"--runtime onnx: {error}") from error
    twin = copy.copy(model)  # its modules are those of the model
    twin.__dict__["features"] = OnnxFeatures(file)  # in place of the method
    return twin
