"""What is exported is the model, to the bit in timm and transformers, and in ONNX to rounding; and it says what it means."""

import json
import math
import runpy
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from huggingface_hub import ModelCard, constants
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from transformers import AutoImageProcessor, AutoModel, ConvNextV2Config, Dinov2Config, ViTConfig

from hf_galaxy import GalaxyConfig, GalaxyForImageClassification, GalaxyForRegression, GalaxyForVotes, load_tree
from hf_galaxy.data.views import Framing, eval_view, to_canvases
from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.errors import BadInput
from hf_galaxy.models import backbones
from hf_galaxy.models.export import check_onnx_file, crop_pct, encoder_card, export_encoder, export_onnx
from hf_galaxy.models.pretrained import PublishedWeights
from hf_galaxy.reports.run_record import RunRecord
from tests.conftest import ROOT

TIMM = ["test_convnext", "test_efficientnet", "test_resnet", "test_vit", "mobilenetv3_small_050"]
TRANSFORMERS = {
    "convnextv2": ConvNextV2Config(depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 32]),
    "vit": ViTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=32),
    "dinov2": Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=8),
}
CLASSES = {"id2label": {0: "ring", 1: "none", 2: "unsure"}, "label2id": {"ring": 0, "none": 1, "unsure": 2}}
GZ2 = load_tree("gz2")
CALIBRATION = {
    "scales": np.linspace(0.5, 1.5, len(GZ2.questions)).tolist(),
    "shifts": np.linspace(-1, 1, len(GZ2.columns)).tolist(),
}
NORMALISATION = {"pixel_mean": [0.1, 0.2, 0.3], "pixel_std": [0.5, 0.6, 0.7]}  # nobody's default
IMAGES = torch.rand(3, 3, 48, 48, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=[*TIMM, *TRANSFORMERS])
def name(request, tmp_path):
    """The name of each backbone; for those of transformers, a folder made here takes the Hub's place."""
    if request.param in TIMM:
        return request.param
    TRANSFORMERS[request.param].save_pretrained(tmp_path / request.param)
    return f"transformers:{tmp_path / request.param}"


def make(name, model=GalaxyForVotes, **options):
    torch.manual_seed(3)
    architecture = backbones.architecture(name)
    options = {"image_size": 48, "backbone_config": architecture.config} | NORMALISATION | options
    made = model(GalaxyConfig(backbone=name, tree="gz2" if model is GalaxyForVotes else None, **options)).eval()
    with torch.no_grad():  # answers that differ from picture to picture, and statistics of batches that are not 0 and 1
        made.head.weight.mul_(20)
        for part in made.backbone.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.running_mean.uniform_(-0.1, 0.1)
                part.running_var.uniform_(0.5, 2)
    return made


def record(model, base_model=None):
    config = model.config
    return RunRecord(
        command="scripts/pretrain.py --dataset d",
        settings={"task": "votes" if config.tree else "classes"},
        dataset={"name": "d", "title": "Rings", "splits": {"train": 7000}},
        model={
            "backbone": config.backbone,
            "start": base_model,
            "base_model": base_model,
            "image_size": config.image_size,
            "crop": config.crop,
            "parameters": model.parameter_counts(),
        },
        environment={"hf_galaxy": "0.1.0"},
        finished=True,
    )


def in_order(module):
    """The module with its weights where torch puts them: where they lie decides in which order sums are taken."""
    module.load_state_dict({key: value.clone() for key, value in module.state_dict().items()}, assign=True)
    return module.eval()


def assert_same_weights(ours, theirs):
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())


@torch.no_grad()
def test_an_exported_encoder_is_the_backbone_to_the_bit(name, tmp_path):
    model, out = make(name, crop=0.5), tmp_path / "made/encoder"
    export_encoder(model, record(model), out)
    expected = in_order(model.backbone)(IMAGES)
    assert expected.std() > 1e-4
    files = {file.name for file in out.iterdir()}
    loaded = AutoModel.from_pretrained(out)
    if name.startswith("transformers:"):
        assert files == {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"}
        assert_same_weights(model.backbone.model.state_dict(), loaded.state_dict())
        assert type(loaded) is type(model.backbone.model)
        options = {"interpolate_pos_encoding": True} if "vit" in name.rsplit("/", 1)[1] else {}
        features = in_order(loaded)(pixel_values=IMAGES, **options).pooler_output.flatten(1)
    else:
        assert files == {"README.md", "config.json", "model.safetensors"}
        assert_same_weights(model.backbone.state_dict(), loaded.timm_model.state_dict())
        features = in_order(loaded)(pixel_values=IMAGES).pooler_output
        in_timm = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
        assert_same_weights(model.backbone.state_dict(), in_timm.state_dict())
        assert torch.equal(in_timm(IMAGES), expected)
        # It starts another training, also at another size where the architecture has one.
        weights = PublishedWeights(f"local-dir:{out}").load(name, 48)
        assert_same_weights(model.backbone.state_dict(), weights)
        larger = PublishedWeights(f"local-dir:{out}").load(name, 64)
        assert larger.keys() == weights.keys()
    assert torch.equal(features, expected)
    assert [file.name for file in out.parent.iterdir()] == ["encoder"], "nothing half-written is left"


def test_an_exported_encoder_on_the_hub():
    model = make("test_vit")
    # As huggingface_hub keeps what it has fetched, which it finds again offline.
    repo = Path(constants.HF_HUB_CACHE) / "models--org--export-test"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs/main").write_text("0" * 40)
    export_encoder(model, record(model), repo / "snapshots" / ("0" * 40))
    expected = in_order(model.backbone)(IMAGES)
    for prefix in ("hf-hub", "hf_hub"):
        assert torch.equal(timm.create_model(f"{prefix}:org/export-test", pretrained=True).eval()(IMAGES), expected)
    assert torch.equal(in_order(AutoModel.from_pretrained("org/export-test"))(IMAGES).pooler_output, expected)


@pytest.mark.parametrize(("size", "crop", "side"), [(48, 0.5, 160), (48, 0.7, 69), (41, 0.33, 150), (48, 1.0, 48)])
@pytest.mark.parametrize("backbone", ["test_convnext", "transformers"])
def test_pictures_are_prepared_as_the_model_sees_them(backbone, size, crop, side, tmp_path):
    if backbone == "transformers":
        TRANSFORMERS["convnextv2"].save_pretrained(tmp_path / "config")
        backbone = f"transformers:{tmp_path / 'config'}"
    model = make(backbone, image_size=size, crop=crop)
    export_encoder(model, record(model), tmp_path / "encoder")
    pixels = np.random.default_rng(0).integers(0, 255, (side, side + 21, 3), dtype=np.uint8)
    framing = Framing(size, crop)
    expected = (eval_view(to_canvases([pixels], framing), framing) - model.pixel_mean) / model.pixel_std
    processor = AutoImageProcessor.from_pretrained(
        tmp_path / "encoder", **({"backend": "pil"} if ":" in backbone else {})
    )
    prepared = [processor(Image.fromarray(pixels), return_tensors="pt")["pixel_values"]]
    if ":" not in backbone:
        encoder = timm.create_model(f"local-dir:{tmp_path / 'encoder'}", pretrained=True)
        prepare = create_transform(**resolve_model_data_config(encoder))
        prepared.append(prepare(Image.fromarray(pixels))[None])
    # Without scaling all is the same to the last digit but one; else one level of brightness: Pillow rounds the weights of its
    # filter a little otherwise than torch.
    levels = 1e-4 if framing.scaled == side else 1.01
    for view in prepared:
        torch.testing.assert_close(view, expected, atol=levels / 255 / 0.5, rtol=0)


def test_every_framing_is_one_of_timm():
    for size in range(16, 400, 3):
        for crop in (0.05, 0.1, 0.3, 1 / 3, 0.49, 0.5, 0.625, 0.7, 0.875, 0.9, 0.99, 1.0):
            framing = Framing(size, crop)
            share = json.loads(json.dumps(crop_pct(framing)))
            assert math.floor(size / share) == framing.scaled  # timm.data.transforms_factory.transforms_imagenet_eval
            assert share == pytest.approx(size / framing.scaled)


def test_what_onnx_needs_and_cannot_hold(tmp_path, monkeypatch):
    model = make("test_resnet")
    monkeypatch.setattr("hf_galaxy.models.export.ONNX_BYTES", 1000)
    with pytest.raises(BadInput, match="limited to 2 GB"):
        export_onnx(model, record(model), tmp_path / "model.onnx")
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # as where it is not installed
    with pytest.raises(BadInput, match=r"ONNX needs onnxscript.*hf_galaxy\[onnx\]"):
        export_onnx(model, record(model), tmp_path / "model.onnx")
    assert not any(tmp_path.iterdir())


def test_what_is_no_export_is_not_replaced(tmp_path):
    model = make("test_resnet")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/README.md").write_text("years of work")
    with pytest.raises(BadInput, match="exists already"):
        export_encoder(model, record(model), tmp_path / "thesis")
    (tmp_path / "net.onnx").write_text("not ONNX")
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [])), tmp_path / "other.onnx")
    for file, message in (("net.onnx", "cannot be read as ONNX"), ("other.onnx", "exists already"), ("x.pt", "end in")):
        with pytest.raises(BadInput, match=message):
            export_onnx(model, record(model), tmp_path / file)
    assert {file.name for file in tmp_path.iterdir()} == {"thesis", "net.onnx", "other.onnx"}

    out = tmp_path / "encoder"
    export_encoder(model, record(model), out)
    earlier = (out / "model.safetensors").read_bytes()
    with torch.no_grad():
        next(model.backbone.parameters()).fill_(torch.nan)  # what is not a number equals nothing, so no check can pass
    for export, to in ((export_encoder, out), (export_onnx, tmp_path / "new.onnx")):
        with pytest.raises(BadInput, match=r"differ from torch|computes other features"):
            export(model, record(model), to)
    assert (out / "model.safetensors").read_bytes() == earlier
    other = make("test_convnext")
    export_encoder(other, record(other), out)
    assert json.loads((out / "config.json").read_text())["architecture"] == "test_convnext"
    assert {file.name for file in tmp_path.iterdir()} == {"thesis", "net.onnx", "other.onnx", "encoder"}


def test_the_card_says_where_an_encoder_comes_from(tmp_path):
    model = make("test_convnext", crop=0.5)
    text = encoder_card(record(model, base_model="timm/test_convnext.r160_in1k"), model)
    assert ModelCard(text).data.base_model == "timm/test_convnext.r160_in1k"
    assert ModelCard(text).data.library_name == "timm"
    assert "7,000 galaxies of Rings" in text
    assert "the middle 50 % of the picture's side" in text
    assert f"{model.parameter_counts()['backbone']:,}" in text
    assert "the weights that training started from may have terms of their own" in text
    assert ModelCard(text).data.license == "unknown"
    of_nothing = record(model)
    of_nothing.dataset["cards"] = [{"license": "cc-by-nc-sa-4.0"}]
    text = encoder_card(of_nothing, model)
    assert (ModelCard(text).data.base_model, ModelCard(text).data.license) == (None, "cc-by-nc-sa-4.0")
    assert "Licence: cc-by-nc-sa-4.0." in text


@pytest.mark.parametrize(
    ("backbone", "options"),
    [
        ("test_resnet", {"calibration": CALIBRATION}),
        (
            "test_efficientnet",
            {"model": GalaxyForImageClassification, "calibration": {"temperature": 1.7, "classes": 3}, **CLASSES},
        ),
        ("dinov2", {"model": GalaxyForRegression, "values": ["redshift", "mass"]}),
        ("test_resnet", {"model": GalaxyForRegression, "values": ["redshift", "mass"], "spread": True}),
    ],
)
def test_onnx_answers_as_torch_does(backbone, options, tmp_path):
    if backbone in TRANSFORMERS:
        TRANSFORMERS[backbone].save_pretrained(tmp_path / backbone)
        backbone = f"transformers:{tmp_path / backbone}"
    model, out = make(backbone, crop=0.5, **options), tmp_path / "made/model.onnx"
    if model.config.spread:
        model.spread_weight.normal_(0, 0.3)
    differences = export_onnx(model, record(model), out)
    assert [file.name for file in out.parent.iterdir()] == ["model.onnx"]
    onnx.checker.check_model(out, full_check=True)
    check_onnx_file(out)  # which another export may replace
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    said = session.get_modelmeta().custom_metadata_map
    columns = json.loads(said["columns"])
    assert [*columns, "features"] == [output.name for output in session.get_outputs()] == list(differences)
    assert (json.loads(said["image_size"]), json.loads(said["shortest_edge"])) == (48, 96)
    if model.config.tree:
        assert DecisionTree.from_dict(json.loads(said["tree"])) == model.tree
    for batch in (1, 2, 5):
        images = torch.rand(batch, 3, 48, 48)
        with torch.no_grad():
            expected, seen = model(pixel_values=images), model.features(images)
        *answers, features = session.run(None, {"pixel_values": images.numpy()})
        for name, answer in zip(columns, answers, strict=True):
            several = (2,) if model.config.tree and expected[name].ndim == 3 else ()
            assert expected[name].shape == (batch, *several, len(columns[name]))
            torch.testing.assert_close(torch.from_numpy(answer), expected[name], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(torch.from_numpy(features), seen, rtol=0, atol=1e-4 * seen.abs().max().item())
    assert max(differences.values()) < 1e-4
    expected_names = model.tree.columns if model.config.tree else model.config.values or ["ring", "none", "unsure"]
    if model.config.tree:
        assert columns.pop("weights") == [question.name for question in model.tree.questions]
    assert all(names == expected_names for names in columns.values())


def called(monkeypatch, *arguments):
    """Run scripts/export.py in this process, to save the start of another."""
    monkeypatch.setattr(sys, "argv", ["export", *map(str, arguments)])
    runpy.run_path(str(ROOT / "scripts/export.py"), run_name="__main__")


def test_the_script_exports_a_run_folder(tmp_path, monkeypatch, capsys):
    model, run = make("test_resnet", likelihood="multinomial"), tmp_path / "run"
    model.save_pretrained(run)
    record(model).save(run)
    called(monkeypatch, "encoder", "--run", run, "--out", tmp_path / "encoder")
    called(monkeypatch, "onnx", "--run", run, "--out", tmp_path / "model.onnx")
    said = capsys.readouterr().out
    assert "encoder: its weights and features are bit for bit" in said
    size = (tmp_path / "model.onnx").stat().st_size / 1e6
    assert f"model.onnx: {size:.1f} MB; differs from torch by at most" in said
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    answer, _ = session.run(None, {"pixel_values": IMAGES.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(answer), model(pixel_values=IMAGES).fractions, rtol=1e-4, atol=1e-6)
    with pytest.raises(SystemExit, match=r"error: .* is no run folder"):
        called(monkeypatch, "encoder", "--run", tmp_path, "--out", tmp_path / "other")
