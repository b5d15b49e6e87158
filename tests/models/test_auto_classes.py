"""Saved models behave as transformers models do in the hands of its Auto classes, its pipeline and the Hub."""

import os

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    ViTConfig,
    pipeline,
)

from hf_galaxy import GalaxyConfig, GalaxyForImageClassification, GalaxyForVotes, load_tree
from hf_galaxy.data.views import eval_view, to_canvases
from tests import fake_hub
from tests.forks import run_code

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
CLASSES = {"id2label": {0: "ring", 1: "no-ring"}, "label2id": {"ring": 0, "no-ring": 1}}


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """A backbone of transformers; its folder takes the Hub's place."""
    folder = tmp_path_factory.mktemp("backbone") / "vit"
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    ViTConfig(**small, image_size=64).save_pretrained(folder)
    return f"transformers:{folder}"


@pytest.fixture(params=["test_convnext", "vit"])
def backbone(request, vit):
    return vit if request.param == "vit" else request.param


def saved(task, backbone, folder):
    torch.manual_seed(0)
    kind, meaning = (GalaxyForVotes, {"tree": "gz2"}) if task == "votes" else (GalaxyForImageClassification, CLASSES)
    model = kind(GalaxyConfig(backbone=backbone, image_size=64, crop=0.75, **meaning)).eval()
    model.save_pretrained(folder)
    return model


def answers(model):
    with torch.no_grad():
        out = model.eval()(IMAGES.to(model.dtype))
    return out.fractions if isinstance(model, GalaxyForVotes) else out.logits


@pytest.mark.parametrize("task", ["votes", "classes"])
@pytest.mark.parametrize(
    "options", [{}, {"dtype": "auto"}, {"device_map": "cpu"}, {"low_cpu_mem_usage": True}, {"dtype": torch.float32}]
)
def test_whatever_way_a_model_is_loaded_it_answers_the_same(task, options, backbone, tmp_path):
    model = saved(task, backbone, tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path, **options)
    assert type(loaded) is type(model)
    assert torch.equal(answers(loaded), answers(model))
    assert type(AutoConfig.from_pretrained(tmp_path)) is GalaxyConfig
    assert type(AutoModel.from_config(model.config)) is type(model)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("task", ["votes", "classes"])
def test_half_precision_is_loaded_and_kept(dtype, task, tmp_path):
    model = saved(task, "test_convnext", tmp_path / "whole")
    half = AutoModel.from_pretrained(tmp_path / "whole", dtype=dtype)
    assert {values.dtype for values in half.state_dict().values()} == {dtype}
    torch.testing.assert_close(answers(half), answers(model), atol=0.02, rtol=0.02)
    assert answers(half).dtype == torch.float32
    half.save_pretrained(tmp_path / "half")
    assert torch.equal(answers(AutoModel.from_pretrained(tmp_path / "half", dtype="auto")), answers(half))


@pytest.mark.parametrize("task", ["votes", "classes"])
def test_large_models_are_saved_in_parts(task, backbone, tmp_path):
    model = saved(task, backbone, tmp_path / "whole")
    model.save_pretrained(tmp_path / "parts", max_shard_size="100KB")
    assert len(list((tmp_path / "parts").glob("model-*.safetensors"))) > 1
    assert not (tmp_path / "parts" / "model.safetensors").exists()
    assert torch.equal(answers(AutoModel.from_pretrained(tmp_path / "parts")), answers(model))


def test_nothing_is_missing_or_left_over(backbone, tmp_path):
    saved("votes", backbone, tmp_path)
    _, loading = GalaxyForVotes.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(loading.values()), loading


def test_other_classes_get_a_new_head_and_the_same_backbone(backbone, tmp_path):
    model = saved("classes", backbone, tmp_path)
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        AutoModelForImageClassification.from_pretrained(tmp_path, num_labels=5)
    five = AutoModelForImageClassification.from_pretrained(tmp_path, num_labels=5, ignore_mismatched_sizes=True)
    assert five.head.weight.shape[0] == len(five.config.id2label) == 5
    assert five.head.weight.std() > 0
    for name, values in model.backbone.state_dict().items():
        assert torch.equal(values, five.backbone.state_dict()[name])


def test_a_model_of_votes_gives_its_backbone_to_one_of_another_tree_or_of_classes(backbone, tmp_path):
    model = saved("votes", backbone, tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    config.tree = load_tree("gz_hubble").to_dict()
    hubble = GalaxyForVotes.from_pretrained(tmp_path, config=config, ignore_mismatched_sizes=True)
    assert hubble.tree == load_tree("gz_hubble")
    classes = GalaxyForImageClassification.from_pretrained(tmp_path, tree=None, ignore_mismatched_sizes=True, **CLASSES)
    for other in (hubble, classes):
        assert torch.equal(other.features(IMAGES), model.features(IMAGES))


def test_the_pipeline_names_the_class_of_a_picture(backbone, tmp_path):
    model = saved("classes", backbone, tmp_path)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8))
    classify = pipeline("image-classification", str(tmp_path))
    together = classify([picture, picture.convert("L")], batch_size=2)
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    for found, seen in zip(together, (picture, picture.convert("L").convert("RGB")), strict=True):
        with torch.no_grad():
            shares = model(**processor(seen, return_tensors="pt")).logits.softmax(1)[0]
        expected = sorted(zip(shares.tolist(), ("ring", "no-ring"), strict=True), reverse=True)
        assert [(answer["score"], answer["label"]) for answer in found] == [
            (pytest.approx(share, abs=1e-6), label) for share, label in expected
        ]


@pytest.mark.parametrize("side", [300, 81, 41])  # scaled down, a little, and up
@pytest.mark.parametrize(("backend", "levels"), [("torchvision", 0), ("pil", 2)])
def test_the_saved_processor_sees_square_pictures_as_the_evaluation_does(side, backend, levels, tmp_path):
    """To the bit with torchvision; Pillow rounds the weights of its filter otherwise, by up to two levels of 255."""
    framing = saved("votes", "test_convnext", tmp_path).config.framing
    pictures = list(np.random.default_rng(0).integers(0, 255, (3, side, side, 3), dtype=np.uint8))
    expected = eval_view(to_canvases(pictures, framing), framing)
    processor = AutoImageProcessor.from_pretrained(tmp_path, backend=backend)
    seen = processor([Image.fromarray(picture) for picture in pictures], return_tensors="pt")["pixel_values"]
    assert ((seen - expected).abs() * 255).max().item() <= levels + 1e-3


PUSH = """
import sys
from hf_galaxy import GalaxyForImageClassification
from transformers import AutoImageProcessor, AutoModelForImageClassification
import torch
model = GalaxyForImageClassification.from_pretrained(sys.argv[1]).eval()
model.push_to_hub("lab/rings")
loaded = AutoModelForImageClassification.from_pretrained("lab/rings").eval()
images = torch.rand(2, 3, 64, 64)
assert torch.equal(model(images).logits, loaded(images).logits)
assert loaded.config.id2label == {0: "ring", 1: "no-ring"}
assert AutoImageProcessor.from_pretrained("lab/rings").crop_size["height"] == 64
"""


def test_a_pushed_model_is_loaded_from_the_hub_with_its_processor(tmp_path):
    saved("classes", "test_convnext", tmp_path / "model")
    with fake_hub.FakeHub(tmp_path / "hub") as hub:
        environment = os.environ | hub.environment | {"HF_HOME": str(tmp_path / "cache")}
        done = run_code(PUSH, tmp_path / "model", environment=environment)
        assert done.returncode == 0, done.stderr
        pushed = hub.folder("models", "lab/rings")
        for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
            assert (pushed / name).read_bytes() == (tmp_path / "model" / name).read_bytes()
