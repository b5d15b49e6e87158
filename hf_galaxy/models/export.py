"""Export of a trained model: its backbone for timm and transformers, the whole model for ONNX Runtime.

Each export is loaded, and its outputs are compared with those of the model, before it gets its name. Legend: B pictures, S
their side in pixels, D features.
"""

import dataclasses
import json
import math
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import timm
import torch
from huggingface_hub import ModelCard, ModelCardData
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModel
from transformers.models.clip import CLIPImageProcessor

from hf_galaxy.data.band_stretch import BandStretch
from hf_galaxy.data.views import Framing
from hf_galaxy.errors import BadInput, unwritable
from hf_galaxy.files import check_new, only_writer_of, replaced_folder, whole_file
from hf_galaxy.models.backbones import TransformersBackbone
from hf_galaxy.models.model import GalaxyForVotes, GalaxyPreTrainedModel
from hf_galaxy.reports.card_data import base_model, licence
from hf_galaxy.reports.model_card import shown
from hf_galaxy.reports.run_record import RunRecord, reading
from hf_galaxy.reports.target_report import report_of
from hf_galaxy.reports.text import TEMPLATES
from hf_galaxy.safe_text import fenced

MADE = "<!-- Made by hf-galaxy export, which replaces it: write elsewhere. -->"
MADE_BY = "hf_galaxy"  # what an ONNX file calls its producer
# Metadata of the published weights of an architecture in timm, which do not apply to other weights.
OF_PUBLISHED_WEIGHTS = ("tag", "license", "description", "origin_url", "paper_name", "paper_ids", "notes")
TOLERANCE = 1e-4  # relative difference between the outputs of ONNX Runtime and torch
FEATURES = "features"  # name of the input of the head, as an output of an ONNX file
ONNX_BYTES = 2**31 - 2**20  # the size limit of a file, with room for other content than weights


def check_encoder_folder(out: Path) -> None:
    """Check that a folder can be written.

    Raises:
        BadInput: it exists and is not an export, or cannot be created.
    """
    card = out / "README.md"
    if not (card.is_file() and MADE.encode() in card.read_bytes()):
        check_new(out)


def export_encoder(model: GalaxyPreTrainedModel, record: RunRecord, out: Path) -> None:
    """Write the backbone in the format of its library, with a card; an earlier export is replaced when all is written.

    `transformers.AutoModel.from_pretrained`, and for a timm backbone also
    `timm.create_model("local-dir:FOLDER" or "hf-hub:ORG/NAME", pretrained=True)`, load a model with the weights and outputs of
    `model.backbone` to the bit (but see `_aligned`). The export includes the preprocessing of pictures, with normalisation.

    Raises:
        InUse: another command writes the folder.
        BadInput: as `check_encoder_folder`; it cannot be written; its outputs differ; or it is of a model of fluxes.
    """
    check_encoder_folder(out)
    if model.config.bands:
        raise BadInput(
            "a backbone alone would be given fluxes without their stretch, which neither timm nor transformers has; export the whole model "
            "with hf-galaxy export onnx, or load the run with transformers.AutoModel, whose `features` takes fluxes"
        )
    model.eval()
    try:
        with replaced_folder(out.resolve()) as folder:
            if isinstance(model.backbone, TransformersBackbone):
                _save_transformers(model, folder)
            else:
                _save_timm(model, folder)
            _check_encoder(model, folder)
            card = folder / "README.md"
            with reading("run.json"):
                card.write_text(encoder_card(record, model), encoding="utf-8")
            for file in folder.iterdir():
                file.chmod(card.stat().st_mode)  # safetensors writes files that only their owner can read
    except (OSError, SafetensorError) as error:
        raise unwritable(f"--out {out}:", error) from error


def _save_timm(model: GalaxyPreTrainedModel, folder: Path) -> None:
    framing = model.config.framing
    data_config = {
        "input_size": (3, framing.size, framing.size), "mean": tuple(model.config.pixel_mean),
        "std": tuple(model.config.pixel_std), "crop_pct": crop_pct(framing), "crop_mode": "center",
        "interpolation": "bicubic",
    }  # fmt: skip
    timm.models.save_for_hf(model.backbone, folder, safe_serialization=True, data_config=data_config)
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    # transformers passes num_classes=0 itself, and fails with a second one; drop_path_rate is for further training.
    arguments = {name: value for name, value in config.pop("model_args").items() if name == "img_size"}
    config |= {"model_args": arguments} if arguments else {}
    config["pretrained_cfg"] = {k: v for k, v in config["pretrained_cfg"].items() if k not in OF_PUBLISHED_WEIGHTS}
    file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def crop_pct(framing: Framing) -> float:
    """The share for which timm, which rounds S / share down, scales pictures like `Framing`."""
    share = framing.size / framing.scaled
    return share if math.floor(framing.size / share) == framing.scaled else math.nextafter(share, 0)


def _save_transformers(model: GalaxyPreTrainedModel, folder: Path) -> None:
    model.backbone.model.save_pretrained(folder)
    framing = model.config.framing
    CLIPImageProcessor(
        size={"shortest_edge": framing.scaled}, crop_size=framing.size,
        image_mean=list(model.config.pixel_mean), image_std=list(model.config.pixel_std),
    ).save_pretrained(folder)  # fmt: skip


def _check_encoder(model: GalaxyPreTrainedModel, folder: Path) -> None:
    """Raise BadInput unless the exported backbone gives the same features."""
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
                f"backbone {model.config.backbone}: {library} computes other features with the exported weights"
            )


def _aligned(module: nn.Module) -> nn.Module:
    """The module, with its weights copied to memory with torch's alignment.

    transformers maps a file of weights into memory, with the alignment of the file. Then convolutions and matrix products add up
    in another order: the features of the same weights differ by about 1e-9, also in the model of a run.
    """
    module.load_state_dict({name: values.clone() for name, values in module.state_dict().items()}, assign=True)
    return module


def encoder_card(record: RunRecord, model: GalaxyPreTrainedModel) -> str:
    """README.md of an exported backbone: its origin, and how to load it with timm and transformers."""
    of_transformers = isinstance(model.backbone, TransformersBackbone)
    data = ModelCardData(
        license=licence(record) or "unknown", library_name="transformers" if of_transformers else "timm",
        pipeline_tag="image-feature-extraction", tags=["galaxy zoo", "astronomy", "galaxies", "hf_galaxy"],
        base_model=base_model(record),
    )  # fmt: skip
    options = model.backbone.options if of_transformers else {}
    return str(
        ModelCard.from_template(
            data, template_path=str(TEMPLATES / "encoder_card.md.jinja"), record=shown(record), made=MADE, licence=licence(record),
            predicted=report_of(record).phrase(shown(record)), command=fenced(record.command),
            of_transformers=of_transformers, name=model.config.backbone.split("/")[-1], features=model.head.in_features,
            options="".join(f", {name}={value}" for name, value in options.items()),
        )
    )  # fmt: skip


def check_onnx_file(out: Path) -> None:
    """Check that an ONNX file can be written.

    Raises:
        BadInput: a package is missing; or the file exists and is not an export, or cannot be created.
    """
    if out.suffix != ".onnx":
        raise BadInput(f"--out {out}: the name of an ONNX file must end in .onnx")
    check_onnx_installed("ONNX")
    if out.is_file():
        import onnx

        try:
            if onnx.load(out, load_external_data=False).producer_name == MADE_BY:
                return
        except Exception as error:  # the reader raises many kinds of errors for other files
            raise BadInput(f"--out {out}: exists and cannot be read as ONNX; choose another") from error
    check_new(out)


def check_onnx_installed(what: str) -> None:
    """Check that ONNX files can be written and run.

    Args:
        what: needs it, for the message.

    Raises:
        BadInput: a package is missing.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise BadInput(f"{what} needs {error.name}, which is not installed: pip install 'hf_galaxy[onnx]'") from error


def export_onnx(model: GalaxyPreTrainedModel, record: RunRecord, out: Path) -> dict[str, float]:
    """Write the whole model as one ONNX file: pixel_values (B, 3, S, S) float32 in [0, 1], or fluxes (B, K, S, S) of K bands -> all outputs of
    the model, and `features` (B, D), the input of its head.

    B is free, S is that of the run. The metadata of the file hold the names of the columns of the outputs (`columns`, JSON:
    output -> names; for votes also `tree`; features have no names), the `bands` (JSON), if it sees fluxes, the framing of pictures, the backbone and the dataset. The
    outputs are compared with torch, on noise, black, white and mock galaxies, in batches of other sizes than the exported one.

    Returns:
        Output -> the largest difference, relative to the column's largest value; for features, to the largest value of all.

    Raises:
        InUse: another command writes the file.
        BadInput: as `check_onnx_file`; the model is too large; torch cannot export it; or a difference exceeds TOLERANCE.
    """
    with only_writer_of(out):
        check_onnx_file(out)
        return _export_onnx(model, record, out)


def _export_onnx(model: GalaxyPreTrainedModel, record: RunRecord, out: Path) -> dict[str, float]:
    """As `export_onnx`, under the lock of the file."""
    if sum(p.numel() * p.element_size() for p in model.state_dict().values()) > ONNX_BYTES:
        raise BadInput(f"--out {out}: an ONNX file is limited to 2 GB, and the weights have more")
    model.eval()
    images = _pictures(model.config.image_size)
    if model.config.bands:
        images = _as_fluxes(images, BandStretch.from_dict(model.config.band_stretch))
    with torch.no_grad():
        # Also for its side effects: constants that a model creates in its first call must not be created during tracing.
        expected = {name: values.numpy() for name, values in _outputs(model, images).items()}
    program = _onnx_program(model, images[:2], list(expected))
    program.model.producer_name = MADE_BY
    program.model.metadata_props.update(_metadata(model, record, expected))
    try:
        with whole_file(out) as partial:
            program.save(partial, external_data=False)
            differences = _differences(partial, images.numpy(), expected)
            if not all(share <= TOLERANCE for share in differences.values()):  # in this form NaN fails too
                shares = ", ".join(f"{name} by {share:.1e}" for name, share in differences.items())
                raise BadInput(f"--out {out}: not written, as outputs of ONNX Runtime differ from torch ({shares})")
    except OSError as error:
        raise unwritable(f"--out {out}:", error) from error
    return differences


class _Outputs(nn.Module):
    """A model that returns a tuple, as torch.export requires."""

    def __init__(self, model: GalaxyPreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(_outputs(self.model, pixel_values).values())


def _outputs(model: GalaxyPreTrainedModel, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """All outputs of a model, by name, and after them the input of its head."""
    features: list[torch.Tensor] = []
    with model.head.register_forward_pre_hook(lambda head, inputs: features.append(inputs[0])):
        outputs = model(pixel_values=images)
    by_name = {field.name: getattr(outputs, field.name) for field in dataclasses.fields(outputs)}
    return {name: values for name, values in by_name.items() if values is not None} | {FEATURES: features[0]}


def _onnx_program(model: GalaxyPreTrainedModel, images: torch.Tensor, outputs: list[str]) -> "torch.onnx.ONNXProgram":
    try:
        with warnings.catch_warnings():
            # torch 2.13 uses a class that it has deprecated itself.
            warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\)", FutureWarning)
            return torch.onnx.export(
                _Outputs(model).eval(), (images,), dynamo=True, verbose=False, input_names=["pixel_values"],
                output_names=outputs, dynamic_shapes={"pixel_values": {0: torch.export.Dim("galaxies")}},
            )  # fmt: skip
    except torch.onnx.errors.OnnxExporterError as error:
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        raise BadInput(f"backbone {model.config.backbone}: torch cannot export it to ONNX ({reason})") from error


def _metadata(model: GalaxyPreTrainedModel, record: RunRecord, outputs: Iterable[str]) -> dict[str, str]:
    config = model.config
    facts = {
        "columns": {name: _names(model, name) for name in outputs if name != FEATURES}, "image_size": config.image_size,
        "shortest_edge": config.framing.scaled, "backbone": config.backbone, "dataset": str(record.dataset.get("title")),
    }  # fmt: skip
    facts |= {"tree": config.tree} if config.tree else {}
    facts |= {"bands": list(config.bands)} if config.bands else {}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items()}


def _names(model: GalaxyPreTrainedModel, output: str) -> list[str]:
    """Of the numbers in the last dimension of an output."""
    if output == "weights" and isinstance(model, GalaxyForVotes):
        return [question.name for question in model.tree.questions]
    return model.columns


def _differences(file: Path, images: np.ndarray, expected: dict[str, np.ndarray]) -> dict[str, float]:
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    batches = [images[:1], images[1:]]
    outputs = zip(*(session.run(list(expected), {"pixel_values": batch}) for batch in batches), strict=True)
    differences = {}
    for (name, of_torch), of_onnx in zip(expected.items(), outputs, strict=True):
        # Some features are never active, and hold only rounding errors.
        scale = np.abs(of_torch).max(axis=None if name == FEATURES else 0).clip(np.finfo(np.float32).tiny)
        differences[name] = float((np.abs(np.concatenate(of_onnx) - of_torch) / scale).max())
    return differences


def _as_fluxes(pictures: torch.Tensor, stretch: BandStretch) -> torch.Tensor:
    """(B, K, S, S) fluxes that are about as bright as the pictures (B, 3, S, S); of the last the last band is missing."""
    sky, noise, saturation = (
        torch.tensor(each).view(-1, 1, 1) for each in (stretch.sky, stretch.noise, stretch.saturation)
    )
    colours = pictures[:, [band % pictures.shape[1] for band in range(len(sky))]]
    fluxes = sky + noise * torch.sinh(colours * torch.asinh((saturation - sky) / noise))
    fluxes[-1, -1] = torch.nan
    return fluxes


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
