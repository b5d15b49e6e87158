"""Outputs of the head of a votes model become concentrations, of the range that the activation promises, and back."""

import json
import math

import pytest
import torch

from hf_galaxy import GalaxyConfig, GalaxyForVotes
from hf_galaxy.errors import BadInput
from hf_galaxy.models.head_activation import FLOOR, HEAD_ACTIVATIONS, LEAST_WEIGHT, weights_of
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mixture", lambda x: math.log1p(math.exp(x)) + 0.01),
        ("softplus", lambda x: math.log1p(math.exp(x)) + 0.01),
        ("sigmoid", lambda x: 1 + 100 / (1 + math.exp(-x))),
    ],
)
def test_concentrations_are_those_of_the_formula(name, expected):
    outputs = [-30.0, -3.0, 0.0, 0.7, 12.0]
    concentrations = HEAD_ACTIVATIONS[name].concentrations(torch.tensor(outputs))
    torch.testing.assert_close(concentrations, torch.tensor([expected(x) for x in outputs]))


@pytest.mark.parametrize("name", HEAD_ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_outputs_have_finite_positive_concentrations_and_gradients(name, dtype):
    outputs = torch.tensor([-1e4, -90.0, 0.0, 90.0, 1e4], dtype=dtype, requires_grad=True)
    concentrations = HEAD_ACTIVATIONS[name].concentrations(outputs)
    assert concentrations.min() >= FLOOR
    assert concentrations.isfinite().all()
    concentrations.sum().backward()
    assert outputs.grad.isfinite().all()


def test_extreme_weights_have_a_logarithm_and_a_sum_of_1():
    outputs = torch.tensor([[-1e4, -3.0, 0.0, 1e4]], requires_grad=True)
    weights = weights_of(outputs)
    assert weights.shape == (1, 2, 4)
    torch.testing.assert_close(weights.sum(1), torch.ones(1, 4))
    assert weights.min() >= LEAST_WEIGHT * (1 - 1e-4)
    torch.testing.assert_close(weights[0, 0, 1:3], 1e-3 + 0.998 * torch.tensor([1 / (1 + math.exp(3)), 0.5]))
    weights.log().sum().backward()
    assert outputs.grad.isfinite().all()


@pytest.mark.parametrize(
    ("name", "reached"), [("mixture", (0.02, 100)), ("softplus", (0.02, 100)), ("sigmoid", (1.6, 100))]
)
def test_outputs_are_the_inverse_in_the_range_that_is_reached(name, reached):
    activation = HEAD_ACTIVATIONS[name]
    concentrations = torch.logspace(math.log10(reached[0]), math.log10(reached[1]), 50)
    torch.testing.assert_close(activation.concentrations(activation.outputs(concentrations)), concentrations)


@pytest.mark.parametrize("name", HEAD_ACTIVATIONS)
def test_constants_out_of_reach_start_at_the_nearest_with_a_gradient(name):
    outputs = HEAD_ACTIVATIONS[name].outputs(torch.tensor([0.0, 1e-4, 22_000.0])).requires_grad_()
    concentrations = HEAD_ACTIVATIONS[name].concentrations(outputs)
    assert concentrations[0] == concentrations[1] <= 1.5
    assert 100 <= concentrations[2] < 101.1
    concentrations.sum().backward()
    assert outputs.grad.abs().min() > 1e-3


@pytest.mark.parametrize("folder", ["small", "lite0"])
def test_weights_from_before_there_was_a_choice_have_the_sigmoid(folder):
    """The shipped models of the Space were saved before."""
    saved = ROOT / "spaces_app/models" / folder
    assert "head_activation" not in json.loads((saved / "config.json").read_text())
    config = GalaxyConfig.from_pretrained(saved)
    assert config.head_activation == "sigmoid"
    assert GalaxyConfig.from_dict(config.to_dict()).head_activation == "sigmoid"


@pytest.mark.parametrize("name", HEAD_ACTIVATIONS)
def test_the_activation_is_saved_with_the_weights(name, tmp_path):
    options = {} if name == "mixture" else {"head_activation": name}  # also as the default
    model = GalaxyForVotes(GalaxyConfig(backbone="test_vit", tree="gz2", image_size=64, **options))
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["head_activation"] == name
    loaded = GalaxyForVotes.from_pretrained(tmp_path)
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        outputs = model.eval().head_outputs(pixels)
        answer, answers = loaded.eval()(pixel_values=pixels), len(model.columns)
        if name == "mixture":
            expected = HEAD_ACTIVATIONS[name].concentrations(outputs[:, : 2 * answers]).view(2, 2, answers)
            torch.testing.assert_close(answer.weights, weights_of(outputs[:, 2 * answers :]))
        else:
            expected = HEAD_ACTIVATIONS[name].concentrations(outputs)
            assert answer.weights is None
        torch.testing.assert_close(answer.concentrations, expected)


def test_an_unknown_activation_is_refused():
    with pytest.raises(BadInput, match="head_activation 'relu': choose mixture, softplus, sigmoid"):
        GalaxyConfig(backbone="test_vit", tree="gz2", head_activation="relu")
