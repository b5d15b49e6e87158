"""Models of fluxes in any number of bands. Legend: K bands."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from timm.models import save_for_hf
from transformers import AutoConfig, AutoModel

from hf_galaxy import GalaxyConfig, GalaxyForImageClassification, GalaxyForVotes
from hf_galaxy.data.band_stretch import BandStretch
from hf_galaxy.errors import BadInput
from hf_galaxy.models.export import TOLERANCE, export_encoder, export_onnx
from hf_galaxy.models.onnx_model import FastModel
from hf_galaxy.models.start import check_start, resolve_start

SEVEN = "ugrizyJ"


def fields_of(bands):
    """The fields of a configuration that describe bands."""
    numbers = range(1, len(bands) + 1)
    stretch = BandStretch(
        *(tuple(float(factor * n) for n in numbers) for factor in (5, 1, 200)),
    )
    moments = {"pixel_mean": [0.1 * n for n in numbers], "pixel_std": [0.3 + 0.01 * n for n in numbers]}
    return {"bands": list(bands), "band_stretch": stretch.to_dict(), **moments}


def model_of(bands, backbone="test_resnet", **changes):
    torch.manual_seed(0)
    return GalaxyForVotes(
        GalaxyConfig(backbone=backbone, tree="gz_rings", image_size=64, **fields_of(bands), **changes)
    ).eval()


def fluxes_in(bands, galaxies=3, size=64):
    generator = torch.Generator().manual_seed(0)
    steps = torch.arange(1, len(bands) + 1).view(-1, 1, 1)
    return steps * (5 + torch.randn(galaxies, len(bands), size, size, generator=generator) ** 2 * 20)


@pytest.mark.parametrize("backbone", ["test_resnet", "convnext_atto", "test_vit", "test_efficientnet", "resnet10t"])
@pytest.mark.parametrize("bands", ["r", "gr", "griz", "ugrizyJH"])
def test_first_filters_are_adapted_as_timm_does(backbone, bands, tmp_path):
    size = {"img_size": 64} if timm.get_pretrained_cfg(backbone).fixed_input_size else {}
    torch.manual_seed(0)
    published = timm.create_model(backbone, num_classes=0, **size)
    save_for_hf(published, tmp_path / "timm", safe_serialization=True)
    start = f"local-dir:{tmp_path / 'timm'}"
    theirs = timm.create_model(start, pretrained=True, num_classes=0, in_chans=len(bands), **size).state_dict()
    GalaxyForVotes(GalaxyConfig(backbone=backbone, tree="gz_rings", image_size=64)).save_pretrained(tmp_path / "run")
    _fields, ours = resolve_start(None, start, 64, bands)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    model_of(bands, backbone).backbone.load_state_dict(ours)
    # A run on colour pictures is adapted likewise.
    run = AutoModel.from_pretrained(tmp_path / "run")
    save_for_hf(run.backbone, tmp_path / "again", safe_serialization=True)
    again = f"local-dir:{tmp_path / 'again'}"
    theirs = timm.create_model(again, pretrained=True, num_classes=0, in_chans=len(bands), **size).state_dict()
    _, ours = resolve_start(None, str(tmp_path / "run"), 64, bands)
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())


def test_weights_of_other_surveys_with_bands_are_adapted(tmp_path):
    """Weights that timm has for five bands, for five and for two."""
    published = timm.create_model("test_convnext", num_classes=0, in_chans=5)
    published.pretrained_cfg |= {"mean": [0.5] * 5, "std": [0.25] * 5, "input_size": [5, 160, 160]}
    save_for_hf(published, tmp_path, safe_serialization=True)
    start = f"local-dir:{tmp_path}"
    _, same = resolve_start(None, start, 64, "ugriz")
    assert all(torch.equal(value, published.state_dict()[key]) for key, value in same.items())
    _, two = resolve_start(None, start, 64, "gr")
    first = published.stem[0].weight
    torch.testing.assert_close(two["stem.0.weight"], first[:, :2] * 5 / 2)


@pytest.mark.parametrize("kind", ["dinov2", "convnext", "resnet", "swin"])
def test_backbones_of_transformers_take_bands(kind, tmp_path):
    small = {
        "dinov2": dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=64, patch_size=8),
        "convnext": dict(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1]),
        "resnet": dict(embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], layer_type="basic"),
        "swin": dict(embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4, image_size=64),
    }[kind]
    torch.manual_seed(0)
    colour = AutoModel.from_config(AutoConfig.for_model(kind, **small)).eval()
    colour.save_pretrained(tmp_path)
    start = f"transformers:{tmp_path}"
    _, rgb = resolve_start(None, start, 64)
    fields, weights = resolve_start(None, start, 64, "griz")
    (first,) = [key for key, value in weights.items() if value.shape != rgb[key].shape]
    expected = rgb[first][:, [0, 1, 2, 0]] * 3 / 4
    torch.testing.assert_close(weights[first], expected)
    model = GalaxyForVotes(GalaxyConfig(tree="gz_rings", image_size=64, **fields | fields_of("griz"))).eval()
    model.backbone.load_state_dict(weights)
    model.save_pretrained(tmp_path / "run")
    loaded = AutoModel.from_pretrained(tmp_path / "run").eval()
    images = fluxes_in("griz")
    with torch.no_grad():
        torch.testing.assert_close(loaded(pixel_values=images).fractions, model(pixel_values=images).fractions)


def test_the_stretch_travels_with_the_model(tmp_path):
    model = model_of("griz")
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path).eval()
    assert loaded.config.framing.bands == tuple("griz")
    assert loaded.config.channels == 4
    images = fluxes_in("griz")
    with torch.no_grad():
        assert torch.equal(loaded(pixel_values=images).fractions, model(pixel_values=images).fractions)
        stretch = BandStretch.from_dict(model.config.band_stretch)
        seen = (stretch.brightness(images) - model.pixel_mean) / model.pixel_std
        torch.testing.assert_close(model.features(images), model.backbone(seen))
        images[:, 3] = float("nan")
        empty = images.clone()
        empty[:, 3] = stretch.sky[3]
        assert torch.equal(model.features(images), model.features(empty)), "a missing band is empty sky"
    assert not (tmp_path / "preprocessor_config.json").exists(), "image processors know no fluxes"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"bands": ["g", "g"]}, "must be one or several different names"),
        ({"bands": []}, "must be one or several different names"),
        ({"band_stretch": None}, "band_stretch: must be that of the bands"),
        ({"bands": ["g", "r", "i"]}, "band_stretch: must be that of the bands"),
        ({"pixel_mean": [0.5] * 3}, "must be one number for each of g, r"),
    ],
)
def test_a_configuration_that_contradicts_itself_is_refused(changes, reason):
    with pytest.raises(BadInput, match=reason):
        GalaxyConfig(backbone="test_resnet", num_labels=2, **fields_of("gr") | changes)


def test_a_run_of_bands_is_a_start_for_the_same_bands(tmp_path):
    model_of("griz").save_pretrained(tmp_path)
    fields, _ = resolve_start(None, str(tmp_path), None, tuple("griz"))
    model = GalaxyForImageClassification(GalaxyConfig(num_labels=2, **fields))
    assert model.config.band_stretch == model_of("griz").config.band_stretch
    for bands in ("gri", "zirg", None):
        with pytest.raises(BadInput, match="was trained on fluxes in g r i z; give --bands g r i z"):
            check_start(None, str(tmp_path), bands)
    with pytest.raises(BadInput, match="was trained on fluxes in g r i z; give --bands g r i z"):
        resolve_start(None, str(tmp_path), None, "gri")


def test_brightness_is_learnt_on_numbers_of_ordinary_size():
    """Whatever the unit of the fluxes: a backbone sees the same."""
    model, images = model_of("gr"), fluxes_in("gr")
    scaled = {name: [1e-9 * each for each in values] for name, values in model.config.band_stretch.items()}
    other = GalaxyForVotes(GalaxyConfig(**model.config.to_dict() | {"band_stretch": scaled})).eval()
    other.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("band_")}, strict=False)
    with torch.no_grad():
        np.testing.assert_allclose(other.features(images * 1e-9), model.features(images), rtol=1e-3, atol=1e-5)


def test_a_model_of_bands_is_exported_whole(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = model_of("griz")
    record = SimpleNamespace(dataset={"title": "drawn"})
    differences = export_onnx(model, record, tmp_path / "model.onnx")
    assert max(differences.values()) <= TOLERANCE
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert json.loads(session.get_modelmeta().custom_metadata_map["bands"]) == list("griz")
    images = fluxes_in("griz")
    images[0, 3] = float("nan")
    with torch.no_grad():
        expected = model(pixel_values=images).fractions
    (fractions,) = session.run(["fractions"], {"pixel_values": images.numpy()})
    np.testing.assert_allclose(fractions, expected, rtol=1e-4)
    with pytest.raises(BadInput, match="a backbone alone would be given fluxes without their stretch"):
        export_encoder(model, record, tmp_path / "encoder")
    model.save_pretrained(tmp_path / "run")
    with pytest.raises(BadInput, match="sees fluxes in g r i z, and visitors have pictures of 8 bits"):
        FastModel(tmp_path / "run")


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_of_the_precision_is_enough_for_a_model_whose_sky_is_a_thousand_times_its_noise(half, tmp_path):
    fields = fields_of("gr")
    stretch = BandStretch((10_000.0, 30_001.0), (1.0, 2.0), (10_200.0, 30_400.0))
    config = GalaxyConfig(
        backbone="test_resnet", tree="gz_rings", image_size=64, **fields | {"band_stretch": stretch.to_dict()}
    )
    GalaxyForVotes(config).save_pretrained(tmp_path)
    fluxes = fluxes_in("gr") + torch.tensor([10_000.0, 30_000.0]).view(-1, 1, 1)
    whole, rounded = (AutoModel.from_pretrained(tmp_path, dtype=each).eval() for each in (torch.float32, half))
    assert rounded.head.weight.dtype == half
    with torch.no_grad():
        torch.testing.assert_close(
            rounded(pixel_values=fluxes).fractions, whole(pixel_values=fluxes).fractions, atol=0.01, rtol=0
        )
