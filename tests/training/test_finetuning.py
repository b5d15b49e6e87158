"""What is trained changes and nothing else does; adapters are merged without a trace; heads are kept column by column."""

import math

import pytest
import torch
from transformers import BeitConfig, Dinov2Config, SiglipVisionConfig

from hf_galaxy import GalaxyConfig, GalaxyForImageClassification, GalaxyForRegression, GalaxyForVotes, load_tree
from hf_galaxy.errors import BadInput
from hf_galaxy.models.backbones import layer_groups
from hf_galaxy.training.finetuning import keep_head, merge_adapters, prepare
from hf_galaxy.training.settings import Settings, TrainableParts

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
TRANSFORMERS = {
    "dinov2": Dinov2Config(**SMALL, image_size=56, patch_size=8),
    "siglip": SiglipVisionConfig(**SMALL, image_size=64),
    "beit": BeitConfig(**SMALL, image_size=64),
}
IMAGES = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def backbone(request, tmp_path):
    """The name of a backbone; for those of transformers, a folder made here takes the Hub's place."""
    if request.param not in TRANSFORMERS:
        return request.param
    TRANSFORMERS[request.param].save_pretrained(tmp_path / request.param)
    return f"transformers:{tmp_path / request.param}"


def make(backbone, tree="gz_rings", **options):
    torch.manual_seed(3)
    model = GalaxyForVotes(GalaxyConfig(backbone=backbone, tree=tree, image_size=64, **options))
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            if parameter.ndim == 1:  # some scales are 0 at first, and what they scale would have no gradient
                parameter.uniform_(0.5, 1)
    return model


def trained_step(model):
    """The names of the tensors that a few steps of training change."""
    before = {name: values.clone() for name, values in model.state_dict().items()}
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01, eps=1e-30)
    votes = torch.randint(0, 30, (8, len(model.tree.columns)))
    for _ in range(3):
        model.train()
        model(pixel_values=IMAGES, votes=votes).loss.backward()
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
        optimizer.step()
        optimizer.zero_grad()
    return {name for name, values in model.state_dict().items() if not torch.equal(values, before[name])}


HEAD = {"head.weight", "head.bias"}


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "dinov2"], indirect=True)
def test_a_head_is_trained_alone(backbone):
    options = {} if "dinov2" in backbone else {"drop_path": 0.5}
    model = make(backbone, **options)
    assert prepare(model, TrainableParts.parse("head")) == (model.head.in_features + 1) * len(model.head.bias)
    assert trained_step(model) == HEAD
    model.train()
    assert model.training
    assert model.dropout.training
    assert not any(module.training for module in model.backbone.modules())
    assert torch.equal(model.features(IMAGES), model.features(IMAGES)), "nothing is dropped at random"


@pytest.mark.parametrize(
    "backbone", ["test_resnet", "test_efficientnet", "test_convnext", "test_vit", "dinov2"], indirect=True
)
@pytest.mark.parametrize("last", [1, 2])
def test_the_last_layers_are_trained(backbone, last):
    model = make(backbone)
    layers = {f"backbone.{name}" for group in layer_groups(model.backbone)[-last:] for name in group}
    parameters = {f"backbone.{name}": p.numel() for name, p in model.backbone.named_parameters()}
    trained = prepare(model, TrainableParts("last", last))
    assert trained == sum(parameters[name] for name in layers) + (model.head.in_features + 1) * len(model.head.bias)
    changed = trained_step(model)
    assert {name for name in changed if name in parameters or name in HEAD} == layers | HEAD
    # Statistics of batch norms move where their weights do, and nowhere else.
    parts = {name.rpartition(".")[0] for name in layers}
    assert {name.rpartition(".")[0] for name in changed - parameters.keys() - HEAD} <= parts
    assert any("running_mean" in name for name in changed) == any("running_mean" in name for name in model.state_dict())


def test_more_layers_than_there_are_is_refused():
    with pytest.raises(BadInput, match="last:99: test_vit has 7 layer groups; --train all trains them all"):
        prepare(make("test_vit"), TrainableParts.parse("last:99"))


def brute_force_size(model, rank):
    """Of adapters: rank x (inputs + outputs) for each layer that is not in groups, and not smaller itself."""
    sizes = []
    for layer in model.backbone.modules():
        if isinstance(layer, torch.nn.Linear) or (isinstance(layer, torch.nn.Conv2d) and layer.groups == 1):
            outputs, *inputs = layer.weight.shape
            sizes.append((rank * (outputs + math.prod(inputs)), layer.weight.numel()))
    return sum(own for own, whole in sizes if own < whole)


@pytest.mark.parametrize(
    "backbone",
    ["test_vit", "test_convnext", "test_resnet", "tf_efficientnet_lite0", "test_nfnet", "dinov2", "siglip", "beit"],
    indirect=True,
)
def test_adapters_are_trained_and_merged(backbone):
    model = make(backbone)
    whole, before = list(model.state_dict()), {k: v.clone() for k, v in model.state_dict().items()}
    with torch.no_grad():
        untrained = model.eval()(pixel_values=IMAGES).concentrations
    expected = brute_force_size(model, 2)
    trained = prepare(model, TrainableParts.parse("lora:2")) - (model.head.in_features + 1) * len(model.head.bias)
    if "siglip" in backbone or "nfnet" in backbone:
        # The former's pooling has a layer that torch's attention never calls; most filters of the latter are standardised.
        assert 0 < trained < expected
    else:
        assert trained == expected
    with torch.no_grad():
        assert torch.equal(model.eval()(pixel_values=IMAGES).concentrations, untrained), "adapters begin with nothing"
    changed = trained_step(model)
    assert changed == {name for name, p in model.named_parameters() if p.requires_grad}, (
        "and no batch norm's statistics"
    )
    assert all("lora_" in name for name in changed - HEAD)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02)
        adapted = model.eval()(pixel_values=IMAGES).concentrations
        merge_adapters(model)
        merged = model(pixel_values=IMAGES).concentrations
    assert not torch.allclose(adapted, untrained, rtol=1e-3)
    torch.testing.assert_close(merged, adapted, rtol=1e-5, atol=1e-4)
    assert list(model.state_dict()) == whole
    for name, values in model.state_dict().items():
        if not name.endswith("weight") or values.ndim == 1:
            assert name in HEAD or torch.equal(values, before[name])
    make(backbone).load_state_dict(model.state_dict())


def test_an_adapter_that_is_larger_than_its_layer_is_refused():
    with pytest.raises(
        BadInput, match=r"lora:4000: test_vit has no linear layer .* smaller than; choose --train last:N"
    ):
        prepare(make("test_vit"), TrainableParts.parse("lora:4000"))


@pytest.mark.parametrize("text", ["none", "last", "last:0", "lora", "lora:-1", "head:2", "all:1", "last:1.5", ""])
def test_other_words_are_refused(text):
    with pytest.raises(BadInput, match="choose all, head, last:N"):
        TrainableParts.parse(text)


def test_without_peft_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"lora:8: needs peft; pip install 'hf_galaxy\[lora\]'"):
        TrainableParts.parse("lora:8")
    assert TrainableParts.parse("last:2") == TrainableParts("last", 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": "head"}, "--train head: is for pretrained weights"),
        ({"keep_head": True}, "--keep-head: is for pretrained weights"),
        ({"train": "head", "start": "run", "layer_decay": 0.8}, "trains none of them"),
        ({"train": "lora:2", "start": "run", "layer_decay": 0.8}, "trains adapters, all alike"),
        ({"train": "head", "start": "run", "drop_path": 0.1}, "leaves the backbone in evaluation mode"),
        ({"train": "most"}, "choose all"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(options, message, tmp_path):
    with pytest.raises(BadInput, match=message):
        Settings(dataset=("data",), out=tmp_path, **options).check()
    Settings(dataset=("data",), out=tmp_path, start="run", train="last:2", layer_decay=0.8, drop_path=0.1).check()


def test_a_head_is_kept_column_by_column(tmp_path):
    old = make("test_vit", ["gz2", "gz_hubble"])
    old.save_pretrained(tmp_path)
    model = make("test_vit", ["gz_hubble", "gz_rings"])
    torch.nn.init.normal_(model.head.weight)
    fresh = model.head.weight.clone(), model.head.bias.clone()
    new = keep_head(model, str(tmp_path))
    assert new == load_tree("gz_rings").columns
    for i, column in enumerate(model.tree.columns):
        expected = fresh if column in new else (old.head.weight, old.head.bias)
        row = [i] if column in new else [old.tree.columns.index(column)]
        theirs = model.outputs_of(row) if column in new else old.outputs_of(row)
        assert len(theirs) == 3  # two concentrations and a weight
        assert torch.equal(model.head.weight[model.outputs_of([i])], expected[0][theirs])
        assert torch.equal(model.head.bias[model.outputs_of([i])], expected[1][theirs])
    model.load_state_dict(old.state_dict() | {f"head.{k}": v for k, v in model.head.state_dict().items()})
    columns = [model.tree.columns.index(column) for column in load_tree("gz_hubble").columns]
    theirs = [old.tree.columns.index(column) for column in load_tree("gz_hubble").columns]
    with torch.no_grad():
        ours, before = (each.eval()(pixel_values=IMAGES) for each in (model, old))
    torch.testing.assert_close(ours.concentrations[..., columns], before.concentrations[..., theirs])
    torch.testing.assert_close(ours.fractions[:, columns], before.fractions[:, theirs])


def classifier(*names):
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    return GalaxyForImageClassification(GalaxyConfig(backbone="test_vit", image_size=64, **labels))


@pytest.mark.parametrize("unit_interval", [False, True])
def test_values_are_kept_by_name_in_their_units(unit_interval, tmp_path):
    old, model = (
        GalaxyForRegression(
            GalaxyConfig(
                backbone="test_vit", image_size=64, values=names, value_mean=means, value_std=[2.0, 3.0],
                unit_interval=unit_interval, head_dropout=0.0,
            )
        )
        for names, means in ((["z", "radius"], [0.1, 0.7]), (["radius", "mass"], [0.4, 0.2]))
    )  # fmt: skip
    old.save_pretrained(tmp_path)
    assert keep_head(model, str(tmp_path)) == ["mass"]
    model.backbone.load_state_dict(old.backbone.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(IMAGES).values[:, 0], old.eval()(IMAGES).values[:, 1])
    other = GalaxyForRegression(
        GalaxyConfig(backbone="test_vit", image_size=64, values=["z"], unit_interval=not unit_interval)
    )
    with pytest.raises(BadInput, match="--unit-interval"):
        keep_head(other, str(tmp_path))


def test_classes_are_kept_by_name(tmp_path):
    old = classifier("spiral", "smooth")
    old.save_pretrained(tmp_path)
    model = classifier("smooth", "ring", "spiral")
    assert keep_head(model, str(tmp_path)) == ["ring"]
    assert torch.equal(model.head.weight[[2, 0]], old.head.weight)


def test_a_head_that_means_something_else_is_not_kept(tmp_path):
    make("test_vit").save_pretrained(tmp_path / "votes")
    classifier("spiral", "smooth").save_pretrained(tmp_path / "classes")
    with pytest.raises(BadInput, match="is a GalaxyForVotes, but a GalaxyForImageClassification is to be trained"):
        keep_head(classifier("spiral", "smooth"), str(tmp_path / "votes"))
    with pytest.raises(BadInput, match="has --likelihood dirichlet_multinomial, whose outputs mean something else"):
        keep_head(make("test_vit", likelihood="multinomial"), str(tmp_path / "votes"))
    with pytest.raises(BadInput, match=r"has --head-activation mixture, .* else; give it, too"):
        keep_head(make("test_vit", head_activation="sigmoid"), str(tmp_path / "votes"))
    with pytest.raises(BadInput, match=r"has none of the columns star, galaxy, ...; leave it out"):
        keep_head(classifier("star", "galaxy"), str(tmp_path / "classes"))
    with pytest.raises(BadInput, match="none: there is no such folder"):
        keep_head(classifier("star", "galaxy"), str(tmp_path / "none"))
