"""Every trainable parameter is trained once, at its rate and weight decay; each optimiser can be stopped and resumed."""

import numpy as np
import pytest
import timm
import timm.optim
import torch
from accelerate import Accelerator
from torch import nn
from transformers import ConvNextV2Config, Dinov2WithRegistersConfig, SiglipVisionConfig, Swinv2Config

from hf_galaxy.errors import BadInput
from hf_galaxy.models.backbones import TransformersBackbone, layer_groups
from hf_galaxy.training.optimizers import check_optimizer, make_optimizer, parameter_groups

TRIED = ["adamw", "muon", "adamuon", "lion", "nadamw", "adopt", "sgd"]


@pytest.fixture(autouse=True)
def one_thread():
    """Tensors this small only wait for a second one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def settings(model, groups):
    """Of each parameter's name (weight decay, scale of the learning rate); fails where one is in two groups."""
    names = {id(p): name for name, p in model.named_parameters()}
    listed = [(names[id(p)], g["weight_decay"], g["lr_scale"]) for g in groups for p in g["params"]]
    assert len(listed) == len({name for name, *_ in listed})
    return {name: tuple(rest) for name, *rest in listed}


def with_head(backbone, width):
    return nn.ModuleDict({"backbone": backbone, "head": nn.Linear(width, 3)})


def layers_of(model):
    return [[f"backbone.{name}" for name in names] for names in layer_groups(model["backbone"])]


@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet", "test_resnet", "test_convnext", "hiera_tiny_224"])
def test_the_scales_and_decays_are_those_of_timm(name):
    """But for a final norm that timm's matcher does not know: there it trains like the head, here like the last block."""
    with torch.device("meta"):
        model, backbone = (timm.create_model(name, num_classes=n) for n in (10, 0))
    timms = timm.optim.create_optimizer_v2(model, "sgd", lr=0.0, weight_decay=0.05, layer_decay=0.7)
    theirs = settings(model, timms.param_groups)
    ours = settings(model, parameter_groups(model, 0.05, layer_groups(backbone), 0.7))
    assert ours.keys() == theirs.keys()
    head_norm = {key for key in ours if key.startswith("head.norm")}
    assert {key for key in ours if ours[key] != pytest.approx(theirs[key])} == head_norm
    assert all(ours[key] == (0.0, 0.7) and theirs[key] == (0.0, 1.0) for key in head_norm)
    assert len(head_norm) == (2 if name in ("test_convnext", "hiera_tiny_224") else 0)


def test_the_rule_of_beit():
    with torch.device("meta"):
        model = with_head(timm.create_model("vit_tiny_patch16_224", num_classes=0), 192)
    scale = {k: v[1] for k, v in settings(model, parameter_groups(model, 0.1, layers_of(model), 0.5)).items()}
    assert scale["head.weight"] == scale["head.bias"] == 1
    assert scale["backbone.norm.weight"] == scale["backbone.blocks.11.mlp.fc2.weight"] == 0.5
    assert scale["backbone.blocks.0.norm1.bias"] == 0.5**12
    assert (
        scale["backbone.cls_token"] == scale["backbone.pos_embed"] == scale["backbone.patch_embed.proj.bias"] == 0.5**13
    )


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
MATRICES = {
    "siglip": (SiglipVisionConfig(**SMALL, image_size=64), {"patch_embedding", "q_proj", "k_proj", "v_proj", "out_proj",
        "fc1", "fc2", "attention"}),
    "dinov2": (Dinov2WithRegistersConfig(**SMALL, image_size=56, patch_size=8), {"projection", "q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2"}),
    "convnextv2": (ConvNextV2Config(depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 32]), {"patch_embeddings", "1",
        "dwconv", "pwconv1", "pwconv2"}),
    "swinv2": (Swinv2Config(image_size=64, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4), {"projection",
        "0", "2", "query", "key", "value", "dense", "reduction"}),
}  # fmt: skip


@pytest.mark.parametrize("name", MATRICES)
def test_only_matrices_and_filters_decay(name):
    config, layers = MATRICES[name]
    model = TransformersBackbone(config)
    decaying = {key for key, (decay, _) in settings(model, parameter_groups(model, 0.1)).items() if decay}
    assert {key.split(".")[-2] for key in decaying} == layers
    assert {key.split(".")[-1] for key in decaying} <= {"weight", "in_proj_weight"}
    assert not any("norm" in key or "position_embedding" in key or "grn" in key for key in decaying)


def test_what_timm_exempts_does_not_decay():
    with torch.device("meta"):
        model = with_head(timm.create_model("twins_pcpvt_small", num_classes=0), 512)
    decay = {name: decay for name, (decay, _) in settings(model, parameter_groups(model, 0.1)).items()}
    assert decay["backbone.pos_block.0.proj.0.weight"] == 0  # a filter, but it makes the position embedding
    assert decay["backbone.blocks.0.0.attn.q.weight"] == 0.1
    assert decay["head.weight"] == 0.1
    one_output = nn.Linear(8, 1)
    assert settings(one_output, parameter_groups(one_output, 0.1)) == {"weight": (0.1, 1.0), "bias": (0.0, 1.0)}


def test_frozen_parameters_are_in_no_group_and_unknown_layers_are_noticed():
    model = with_head(timm.create_model("test_vit", num_classes=0), 64)
    for parameter in model["backbone"].blocks.parameters():
        parameter.requires_grad_(False)
    names = settings(model, parameter_groups(model, 0.1, layers_of(model), 0.8)).keys()
    assert names == {name for name, p in model.named_parameters() if p.requires_grad}
    assert not any("blocks" in name for name in names)
    with pytest.raises(ValueError, match=r"is no parameter of the model"):
        parameter_groups(model, 0.1, layer_groups(model["backbone"]), 0.8)  # the prefix is missing


def test_equal_groups_are_one_and_their_order_is_fixed():
    model = with_head(timm.create_model("test_vit", num_classes=0), 64)
    assert [(g["weight_decay"], g["lr_scale"]) for g in parameter_groups(model, 0.1)] == [(0.0, 1.0), (0.1, 1.0)]
    assert len(parameter_groups(model, 0.0)) == 1
    twin = with_head(timm.create_model("test_vit", num_classes=0), 64)
    first, second = (
        [list(settings(m, [group])) for group in parameter_groups(m, 0.1, layers_of(m), 0.8)] for m in (model, twin)
    )
    assert first == second


def test_adamw_is_the_papers_formula():
    """Two linear maps, gradients by hand, AdamW (papers/1711.05101, algorithm 2) in numpy, each parameter at its own rate."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 4)), rng.normal(size=(20, 2))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)).double()
    weights = {name: p.detach().numpy().copy() for name, p in model.named_parameters()}
    optimizer = make_optimizer("adamw", parameter_groups(model, 0.3, [["0.weight", "0.bias"]], 0.5))
    moments = {name: (np.zeros_like(w), np.zeros_like(w)) for name, w in weights.items()}
    for t in range(1, 6):
        rate = 0.01 * t
        for group in optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        (model(torch.tensor(x)) - torch.tensor(y)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

        hidden = x @ weights["0.weight"].T + weights["0.bias"]
        slope = 2 * (hidden @ weights["1.weight"].T + weights["1.bias"] - y)
        below = slope @ weights["1.weight"]
        gradient = {
            "0.weight": below.T @ x, "0.bias": below.sum(0), "1.weight": slope.T @ hidden, "1.bias": slope.sum(0)
        }  # fmt: skip
        for name, g in gradient.items():
            m, v = moments[name]
            moments[name] = m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            own = rate * (0.5 if name.startswith("0") else 1.0)
            decay = 0.3 if name.endswith("weight") else 0.0
            adam = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            weights[name] = weights[name] - own * decay * weights[name] - own * adam
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(parameter.detach().numpy(), weights[name], rtol=1e-12)


def convolutions():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.GELU(), nn.Conv2d(8, 8, 3, groups=8), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(8, 2),
    )  # fmt: skip


def groups_of(model):
    return parameter_groups(model, 0.05, [["0.weight", "0.bias"], ["1.weight", "1.bias"]], 0.5)


def train(model, optimizer, steps, rate, accelerator):
    """As the training loop does, on a small regression; returns the losses."""
    losses = []
    for step in steps:
        for group in optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        torch.manual_seed(step)
        x = torch.rand(16, 3, 8, 8)
        loss = (model(x) - torch.stack([x.mean((1, 2, 3)), -x[:, 0].std((1, 2))], 1) * 3).square().mean()
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", TRIED)
def test_each_optimizer_learns_and_goes_on_where_it_stopped(name, tmp_path):
    check_optimizer(name)
    accelerator = Accelerator(cpu=True)
    model = convolutions()
    model, optimizer = accelerator.prepare(model, make_optimizer(name, groups_of(model)))
    train(model, optimizer, range(3), 0.01, accelerator)
    accelerator.save_state(tmp_path / "accelerate")
    torch.save(optimizer.optimizer.state_dict(), tmp_path / "optimizer.pt")
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    losses = train(model, optimizer, range(3, 6), 0.01, accelerator)
    assert not any(torch.equal(p, weights[key]) for key, p in model.named_parameters())

    by_hand = convolutions()
    by_hand.load_state_dict(weights)
    fresh = make_optimizer(name, groups_of(by_hand))
    fresh.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    assert train(by_hand, fresh, range(3, 6), 0.01, accelerator) == losses

    resumer = Accelerator(cpu=True)
    resumed = convolutions()
    resumed, continued = resumer.prepare(resumed, make_optimizer(name, groups_of(resumed)))
    resumer.load_state(tmp_path / "accelerate")
    assert train(resumed, continued, range(3, 6), 0.01, resumer) == losses
    for twin in (by_hand, resumed):
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))

    learner = convolutions()
    losses = train(learner, make_optimizer(name, groups_of(learner)), range(50), 0.01, accelerator)
    assert np.mean(losses[-5:]) < 0.3 * np.mean(losses[:5])


@pytest.mark.parametrize("name", TRIED)
def test_scales_and_decays_survive_and_are_applied_once(name):
    model = convolutions()
    groups = groups_of(model)
    expected = [(g["weight_decay"], g["lr_scale"], len(g["params"])) for g in groups]
    optimizer = make_optimizer(name, groups)
    assert [(g["weight_decay"], g["lr_scale"], len(g["params"])) for g in optimizer.param_groups] == expected
    assert {g["lr"] for g in optimizer.param_groups} == {0.0}

    def first_step(scale):
        weight = nn.Parameter(torch.eye(4))
        optimizer = make_optimizer(name, [{"params": [weight], "weight_decay": 0.0, "lr_scale": scale}])
        optimizer.param_groups[0]["lr"] = 1e-3
        weight.square().sum().backward()
        optimizer.step()
        return weight.detach()

    assert torch.equal(first_step(0.25), first_step(1.0))  # the loop alone multiplies with it


@pytest.mark.parametrize(
    "name", ["adafactorbv", "adahessian", "adamc", "madgrad", "fusedadam", "bnblion", "lookahead_adamw", "adamwish"]
)
def test_optimizers_that_do_not_fit_the_loop_are_refused(name):
    with pytest.raises(BadInput, match=rf"--optimizer {name}: .*adamw, lion, muon"):
        check_optimizer(name)


def test_the_trial_leaves_the_random_numbers_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    check_optimizer("adamw")
    assert torch.equal(torch.rand(3), expected)
