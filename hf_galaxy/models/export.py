"""A trained model for other libraries: its backbone alone for timm and transformers, all of it for ONNX Runtime.

Whatever is written has been read again, and answered as the model does, before it takes its name. Legend: B pictures, S
their side in pixels.
"""

import dataclasses
import json
import math
import warnings
from pathlib import Path

import numpy as np
import timm
import torch
from huggingface_hub import ModelCard, ModelCardData
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModel
from transformers.models.clip import CLIPImageProcessor

from hf_galaxy.data.views import Framing
from hf_galaxy.errors import BadInput
from hf_galaxy.files import check_new, replaced_folder, whole_file
from hf_galaxy.models.backbones import TransformersBackbone
from hf_galaxy.models.model import GalaxyPreTrainedModel
from hf_galaxy.reports.card_data import base_model, licence
from hf_galaxy.reports.run_record import RunRecord
from hf_galaxy.reports.text import TEMPLATES

MADE = "<!-- Made by scripts/export.py, which replaces it: write elsewhere. -->"
MADE_BY = "hf_galaxy"  # what an ONNX file calls its producer
# What timm knows of the published weights of an architecture, and is not true of others.
OF_PUBLISHED_WEIGHTS = ("tag", "license", "description", "origin_url", "paper_name", "paper_ids", "notes")
TOLERANCE = 1e-4  # of what ONNX Runtime and torch answer, as a share of the answer
FEATURES = "features"  # the output of an ONNX file that is no answer
ONNX_BYTES = 2**31 - 2**20  # what one file can hold, with room for what is not weights


def check_encoder_folder(out: Path) -> None:
    """Refuse a folder that is something else than an export.

    Raises:
        BadInput: says so, or that the folder cannot be made.
    """
    card = out / "README.md"
    if not (card.is_file() and MADE.encode() in card.read_bytes()):
        check_new(out)


def export_encoder(model: GalaxyPreTrainedModel, record: RunRecord, out: Path) -> None:
    """Write the backbone in the format of its library, with a card; an earlier export is replaced when all is written.

    Of a timm backbone `timm.create_model("local-dir:FOLDER" or "hf-hub:ORG/NAME", pretrained=True)` and
    `transformers.AutoModel.from_pretrained` both make what has the weights and answers of `model.backbone` to the bit (but
    see `_aligned`); of a transformers backbone `AutoModel` does. What prepares pictures comes with it, and normalises them.

    Raises:
        BadInput: as `check_encoder_folder`; it cannot be written; or what was written does not answer alike.
    """
    check_encoder_folder(out)
    model.eval()
    try:
        with replaced_folder(out.resolve()) as folder:
            if isinstance(model.backbone, TransformersBackbone):
                _save_transformers(model, folder)
            else:
                _save_timm(model, folder)
            _check_encoder(model, folder)
            card = folder / "README.md"
            card.write_text(encoder_card(record, model))
            for file in folder.iterdir():
                file.chmod(card.stat().st_mode)  # safetensors lets nobody else read what it writes
    except (OSError, SafetensorError) as error:
        raise BadInput(f"--out {out}: cannot be written ({error})") from error


def _save_timm(model, folder):
    framing = model.config.framing
    seen = {
        "input_size": (3, framing.size, framing.size), "mean": tuple(model.config.pixel_mean),
        "std": tuple(model.config.pixel_std), "crop_pct": crop_pct(framing), "crop_mode": "center",
        "interpolation": "bicubic",
    }  # fmt: skip
    timm.models.save_for_hf(model.backbone, folder, safe_serialization=True, data_config=seen)
    file = folder / "config.json"
    config = json.loads(file.read_text())
    # transformers gives num_classes=0 itself, and stops at a second one; drop_path_rate is for whoever trains it on.
    arguments = {name: value for name, value in config.pop("model_args").items() if name == "img_size"}
    config |= {"model_args": arguments} if arguments else {}
    config["pretrained_cfg"] = {k: v for k, v in config["pretrained_cfg"].items() if k not in OF_PUBLISHED_WEIGHTS}
    file.write_text(json.dumps(config, indent=2) + "\n")


def crop_pct(framing: Framing) -> float:
    """The share for which timm, which rounds S / share down, scales pictures as `Framing` does."""
    share = framing.size / framing.scaled
    return share if math.floor(framing.size / share) == framing.scaled else math.nextafter(share, 0)


def _save_transformers(model, folder):
    model.backbone.model.save_pretrained(folder)
    framing = model.config.framing
    CLIPImageProcessor(
        size={"shortest_edge": framing.scaled}, crop_size=framing.size,
        image_mean=list(model.config.pixel_mean), image_std=list(model.config.pixel_std),
    ).save_pretrained(folder)  # fmt: skip


def _check_encoder(model, folder):
    backbone, loaded = _aligned(model.backbone), _aligned(AutoModel.from_pretrained(folder).eval())
    with torch.no_grad():
        images = (_pictures(model.config.image_size) - model.pixel_mean) / model.pixel_std
        expected = backbone(images)
        if isinstance(backbone, TransformersBackbone):
            answers = {"transformers": loaded(pixel_values=images, **backbone.options)}
        else:
            answers = {"transformers": loaded(pixel_values=images)}
            answers["timm"] = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()(images)
    answers["transformers"] = answers["transformers"].pooler_output.flatten(1)
    for library, features in answers.items():
        if not torch.equal(features, expected):
            raise BadInput(
                f"backbone {model.config.backbone}: {library} answers otherwise with what was exported of it"
            )


def _aligned(module: nn.Module) -> nn.Module:
    """The module, its weights where torch puts tensors in memory.

    transformers maps a file of weights into memory, and they lie as they lie in there. Convolutions and matrix products add
    up in another order then: the features of the same weights differ by some 1e-9, in the model of a run too.
    """
    module.load_state_dict({name: values.clone() for name, values in module.state_dict().items()}, assign=True)
    return module


def encoder_card(record: RunRecord, model: GalaxyPreTrainedModel) -> str:
    """README.md of an exported backbone: where it comes from, and how timm and transformers load it."""
    of_transformers = isinstance(model.backbone, TransformersBackbone)
    data = ModelCardData(
        license=licence(record) or "unknown", library_name="transformers" if of_transformers else "timm",
        pipeline_tag="image-feature-extraction", tags=["galaxy zoo", "astronomy", "galaxies", "hf_galaxy"],
        base_model=base_model(record),
    )  # fmt: skip
    options = model.backbone.options if of_transformers else {}
    return str(
        ModelCard.from_template(
            data, template_path=str(TEMPLATES / "encoder_card.md.jinja"), record=record, made=MADE, licence=licence(record),
            of_transformers=of_transformers, name=model.config.backbone.split("/")[-1], features=model.head.in_features,
            options="".join(f", {name}={value}" for name, value in options.items()),
        )
    )  # fmt: skip


def check_onnx_file(out: Path) -> None:
    """Refuse to replace a file that is something else than an export, and to start without what is needed for one.

    Raises:
        BadInput: says what is missing, or that the file cannot be made.
    """
    if out.suffix != ".onnx":
        raise BadInput(f"--out {out}: is no name of an ONNX file; let it end in .onnx")
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise BadInput(f"{error.name} is not installed, which ONNX needs: pip install 'hf_galaxy[onnx]'") from error
    if out.is_file():
        try:
            if onnx.load(out, load_external_data=False).producer_name == MADE_BY:
                return
        except Exception as error:  # of a file that is something else, its reader says so in many ways
            raise BadInput(f"--out {out}: exists and cannot be read as ONNX; choose another") from error
    check_new(out)


def export_onnx(model: GalaxyPreTrainedModel, record: RunRecord, out: Path) -> dict[str, float]:
    """Write the whole model as one ONNX file: pixel_values (B, 3, S, S) float32 in [0, 1] -> all that the model answers, and
    `features` (B, D), which the head makes it of.

    B is free, S is that of the run. The file says in its metadata what the columns of the answers mean (`columns`, JSON:
    output -> names; for votes also `tree`; features have no names), how pictures are framed and whence it comes. What it
    answers is compared with torch, on noise, black, white and mock galaxies, in batches of other sizes than the exported one.

    Returns:
        Output -> the largest difference, as a share of the column's largest value; of features, of the largest of all.

    Raises:
        BadInput: as `check_onnx_file`; the model is too large; torch cannot export it; or a difference exceeds TOLERANCE.
    """
    check_onnx_file(out)
    if sum(p.numel() * p.element_size() for p in model.state_dict().values()) > ONNX_BYTES:
        raise BadInput(f"--out {out}: an ONNX file holds less than 2 GB, and the weights are more")
    model.eval()
    images = _pictures(model.config.image_size)
    with torch.no_grad():
        # Also for what it leaves behind: constants that a model makes at its first call must not be those of a tracer.
        expected = {name: values.numpy() for name, values in _answers(model, images).items()}
    program = _onnx_program(model, images[:2], list(expected))
    program.model.producer_name = MADE_BY
    program.model.metadata_props.update(_metadata(model, record, expected))
    try:
        with whole_file(out) as partial:
            program.save(partial, external_data=False)
            differences = _differences(partial, images.numpy(), expected)
            if not all(share <= TOLERANCE for share in differences.values()):  # so put, what is not a number fails too
                found = ", ".join(f"{name} by {share:.1e}" for name, share in differences.items())
                raise BadInput(f"--out {out}: not written, as ONNX Runtime answers otherwise than torch ({found})")
    except OSError as error:
        raise BadInput(f"--out {out}: cannot be written ({error})") from error
    return differences


class _Outputs(nn.Module):
    """A model that answers with a tuple, as torch.export asks for."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixel_values):
        return tuple(_answers(self.model, pixel_values).values())


def _answers(model, images):
    """All that a model answers, by name, and behind it what its head is given."""
    given = []
    with model.head.register_forward_pre_hook(lambda head, inputs: given.append(inputs[0])):
        answer = model(pixel_values=images)
    every = {field.name: getattr(answer, field.name) for field in dataclasses.fields(answer)}
    return {name: value for name, value in every.items() if value is not None} | {FEATURES: given[0]}


def _onnx_program(model, images, outputs):
    try:
        with warnings.catch_warnings():
            # torch 2.13 uses a class of its own that it deprecates.
            warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\)", FutureWarning)
            return torch.onnx.export(
                _Outputs(model).eval(), (images,), dynamo=True, verbose=False, input_names=["pixel_values"],
                output_names=outputs, dynamic_shapes={"pixel_values": {0: torch.export.Dim("galaxies")}},
            )  # fmt: skip
    except torch.onnx.errors.OnnxExporterError as error:
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        raise BadInput(f"backbone {model.config.backbone}: torch cannot export it to ONNX ({reason})") from error


def _metadata(model, record, outputs):
    config = model.config
    said = {
        "columns": {name: model.columns for name in outputs if name != FEATURES}, "image_size": config.image_size,
        "shortest_edge": config.framing.scaled, "backbone": config.backbone, "dataset": record.dataset["title"],
    }  # fmt: skip
    said |= {"tree": config.tree} if config.tree else {}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in said.items()}


def _differences(file, images, expected):
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    batches = [images[:1], images[1:]]
    answers = zip(*(session.run(list(expected), {"pixel_values": batch}) for batch in batches), strict=True)
    differences = {}
    for (name, wanted), answered in zip(expected.items(), answers, strict=True):
        # Some features are never active: what is left of them is rounding.
        scale = np.abs(wanted).max(axis=None if name == FEATURES else 0).clip(np.finfo(np.float32).tiny)
        differences[name] = float((np.abs(np.concatenate(answered) - wanted) / scale).max())
    return differences


def _pictures(size: int) -> torch.Tensor:
    """(7, 3, S, S) in [0, 1]: four blobs of light on a dark and noisy sky, noise, black and white."""
    rng = np.random.default_rng(0)
    down, across = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    blobs = [
        color[:, None, None] * np.exp(-((across / wide) ** 2 + (down / high) ** 2))
        for wide, high, color in zip(*rng.uniform(0.1, 0.6, (2, 4)), rng.uniform(0.3, 1, (4, 3)), strict=True)
    ]
    blobs = (np.stack(blobs) + rng.normal(0.05, 0.02, (4, 3, size, size))).clip(0, 1)
    noise, black = rng.random((1, 3, size, size)), np.zeros((1, 3, size, size))
    pictures = np.concatenate([blobs, noise, black, black + 1])
    return torch.from_numpy(pictures.astype(np.float32))
