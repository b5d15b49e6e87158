"""Standard deviations of values: fitted to errors whose law is known, predicted by models, and kept in their folders."""

import json

import numpy as np
import pytest
import torch
from scipy.stats import norm
from scipy.stats import t as student
from transformers import AutoModel

from hf_galaxy import GalaxyConfig, GalaxyForRegression
from hf_galaxy.errors import BadInput
from hf_galaxy.models.calibration import TAIL, log_scales_of, std_of
from hf_galaxy.models.calibration_fit import composed
from hf_galaxy.models.ensemble import combined, value_intervals
from hf_galaxy.models.prediction_columns import PredictionColumns
from hf_galaxy.models.spread_fit import LEAST, fit_log_scales, fit_values, t_nll

CALIBRATION = {"scales": [0.7, 1.2], "shifts": [0.4, -0.3], "tails": [0.2, 0.0]}
PICTURES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_the_likelihood_and_its_slopes_are_those_of_scipy():
    rng = np.random.default_rng(0)
    errors, logs, tails = rng.normal(size=(40, 2)), rng.normal(size=(40, 2)), np.array([0.1, 0.3])
    errors[3, 1] = np.nan
    nll, by_logs, by_tails = t_nll(errors, logs, tails)
    expected = -student.logpdf(errors, 1 / tails, scale=np.exp(logs))
    assert (nll[3, 1], by_logs[3, 1], by_tails[3, 1]) == (0, 0, 0)
    np.testing.assert_allclose(nll, np.nan_to_num(expected), atol=1e-12)
    for slopes, logs_step, tails_step in ((by_logs, 1e-5, 0), (by_tails, 0, 1e-5)):
        ends = [t_nll(errors, logs + side * logs_step, tails + side * tails_step)[0] for side in (-1, 1)]
        np.testing.assert_allclose(slopes, (ends[1] - ends[0]) / 2e-5, atol=1e-7)
    without = t_nll(np.array([0.5]), np.array([0.2]), 0.0)[0]
    np.testing.assert_allclose(without, -norm.logpdf(0.5, scale=np.exp(0.2)), rtol=1e-3)


def test_scales_by_which_errors_were_drawn_are_found():
    rng = np.random.default_rng(1)
    features = rng.normal([0, 5, -3], [1, 0.2, 10], (4000, 3))
    true_weights, true_biases = np.array([[0.5, 1.0, 0.03], [0.0, -2.0, 0.0]]), np.array([-6.0, 9.0])
    logs = features @ true_weights.T + true_biases
    errors = np.exp(logs) * student.rvs(1 / TAIL, size=logs.shape, random_state=rng)
    errors[::3, 1] = np.nan
    weights, biases = fit_log_scales(features, errors)
    found = features @ weights.T + biases
    assert np.sqrt(((found - logs) ** 2).mean(axis=0)).max() < 0.06
    nothing = fit_log_scales(features, np.zeros((4000, 1)))
    assert all(np.isfinite(each).all() for each in nothing), "a model without errors"


def drawn(galaxies, rng, scale=0.8, shift=-0.7, tail=0.2):
    """Predictions as of `fit_values`, and errors that follow the corrected distributions."""
    x = rng.normal(0, 0.5, (galaxies, 1))
    errors = np.exp(scale * x + shift) * (
        student.rvs(1 / tail, size=x.shape, random_state=rng) if tail else rng.normal(size=x.shape)
    )
    return np.stack([np.zeros_like(x), x, np.full_like(x, TAIL)], axis=1), errors


@pytest.mark.parametrize(
    ("galaxies", "tail", "band"), [(LEAST, 0.1, 0.05), (50, 0.2, 0.03), (100, 0.0, 0.025), (400, 0.2, 0.02)]
)
def test_intervals_hold_for_galaxies_that_they_were_not_fitted_to(galaxies, tail, band):
    rng, covered, gained = np.random.default_rng(galaxies), [], []
    for _ in range(16):
        predictions, errors = drawn(galaxies, rng, tail=tail)
        fitted = fit_values(predictions, errors, rng.integers(0, 2**62, galaxies))
        [scale], [shift], [found] = (fitted.numbers[name] for name in ("scales", "shifts", "tails"))
        predictions, errors = drawn(2000, rng, tail=tail)
        logs = scale * predictions[:, 1] + shift
        z = errors * np.exp(-logs)
        places = student.cdf(z, 1 / max(found, 1e-6))
        covered.append([(np.abs(2 * places - 1) < level).mean() for level in (0.68, 0.9)])
        gained.append(
            [fitted.gain.mean(), (t_nll(errors, predictions[:, 1], TAIL)[0] - t_nll(errors, logs, found)[0]).mean()]
        )
    of_68, of_90 = np.mean(covered, axis=0)
    assert abs(of_68 - 0.68) < band + 0.02
    assert abs(of_90 - 0.9) < band
    foretold, brought = np.mean(gained, axis=0)
    assert abs(foretold - brought) < 0.12
    assert brought > 0.1


def test_the_order_of_galaxies_and_missing_values_do_not_matter():
    rng = np.random.default_rng(6)
    predictions, errors = (np.repeat(each, 2, axis=-1) for each in drawn(120, rng))
    errors[::2, 1] = np.nan
    keys, order = np.arange(120) * 7919, rng.permutation(120)
    both = fit_values(predictions, errors, keys)
    other = fit_values(predictions[order], errors[order], keys[order])
    for name, numbers in both.numbers.items():
        assert other.numbers[name] == pytest.approx(numbers, abs=1e-3)
    np.testing.assert_allclose(other.gain, both.gain[order], atol=1e-3)
    assert both.predictions.shape == predictions.shape


def test_a_calibration_on_top_of_another_does_both():
    second = {"scales": [0.5, 2.0], "shifts": [1.0, 0.0], "tails": [0.0, 0.1]}
    both = composed(CALIBRATION, second, None)
    assert both["scales"] == pytest.approx([0.35, 2.4])
    assert both["shifts"] == pytest.approx([0.5 * 0.4 + 1, 2 * -0.3])
    assert both["tails"] == second["tails"]
    assert composed(None, second, None) == second


def values_model(**options):
    torch.manual_seed(0)
    scale = dict(value_mean=[0.1, 0.7], value_std=[0.05, 0.2])
    config = GalaxyConfig(backbone="test_resnet", image_size=32, values=["z", "mass"], **scale | options)
    return GalaxyForRegression(config).eval()


def with_spread(**options):
    model = values_model(**options)
    model.set_spread(*(0.3 * torch.randn(shape) for shape in ((2, model.head.in_features), (2,))))
    return model


def test_values_of_a_model_are_the_same_with_and_without_standard_deviations():
    plain, model = values_model(), with_spread()
    before, answer = plain(pixel_values=PICTURES), model(pixel_values=PICTURES)
    assert before.std is None
    assert torch.equal(before.values, plain.value_mean + plain.value_std * plain.head_outputs(PICTURES))
    assert torch.equal(answer.values, before.values)
    assert plain.prediction_columns == ["z", "mass"]
    assert model.prediction_columns == ["z", "mass", "z_std", "mass_std"]
    assert torch.equal(model.predictions(PICTURES), torch.cat([answer.values, answer.std], dim=1))
    model.forget_spread()
    assert model(pixel_values=PICTURES).std is None
    assert model.state_dict().keys() == plain.state_dict().keys()


def test_standard_deviations_are_those_of_the_t_distributions():
    model = with_spread(calibration=CALIBRATION)
    x = model.features(PICTURES) @ model.spread_weight.T + model.spread_bias
    x = x * torch.tensor(CALIBRATION["scales"]) + torch.tensor(CALIBRATION["shifts"])
    std = model(pixel_values=PICTURES).std.detach().numpy()
    scales = (model.value_std * x.exp()).detach().numpy()
    expected = [student.std(5, scale=scales[:, 0]), norm.std(scale=scales[:, 1])]
    np.testing.assert_allclose(std, np.stack(expected, 1), rtol=1e-5)
    tails, unit = torch.tensor(CALIBRATION["tails"]), model.value_std
    torch.testing.assert_close(log_scales_of(std_of(x, tails, unit), tails, unit), x)


def test_a_constant_one_needs_no_weights_and_none_becomes_infinite():
    model = values_model(calibration=CALIBRATION)
    std = model(pixel_values=PICTURES).std
    assert torch.equal(std, std[:1].expand(3, 2))
    extreme = with_spread()
    extreme.set_spread(1e6 * torch.ones(2, model.head.in_features), torch.zeros(2))
    assert extreme(pixel_values=PICTURES).std.isfinite().all()


def test_the_backbone_does_not_learn_from_them():
    labels = torch.tensor([[0.2, float("nan")], [0.1, 0.5], [0.3, 0.9]])
    gradients = []
    for model in (values_model(), with_spread()):
        model(pixel_values=PICTURES, labels=labels).loss.backward()
        gradients.append([p.grad for p in model.parameters()])
    assert all(torch.equal(one, other) and one.isfinite().all() for one, other in zip(*gradients, strict=True))


@pytest.mark.parametrize("options", [{}, {"unit_interval": True}])
def test_a_saved_model_predicts_the_same(options, tmp_path):
    model = with_spread(calibration=CALIBRATION, **options)
    model.save_pretrained(tmp_path)
    assert (
        json.loads((tmp_path / "config.json").read_text())["auto_map"]["AutoModel"] == "regression.GalaxyForRegression"
    )
    loaded = AutoModel.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(pixel_values=PICTURES).std, model(pixel_values=PICTURES).std)
    half = AutoModel.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    assert half(pixel_values=PICTURES.bfloat16()).std.dtype == torch.float32


@pytest.mark.parametrize(
    "wrong", [{"scales": [1.0], "shifts": [0.0], "tails": [0.1]}, {**CALIBRATION, "tails": [0.5, 0.1]}, {"temperature": 2.0, "classes": 2}, {}]
)  # fmt: skip
def test_a_calibration_of_another_model_is_refused(wrong):
    with pytest.raises(BadInput, match=r"^calibration: is not that of this model.*2 scales and 2 shifts and 2 tails"):
        values_model(calibration=wrong)


def test_intervals_are_the_quantiles_of_the_mixture():
    rng = np.random.default_rng(3)
    tails = np.array([[0.2, 0.0], [0.1, 0.3]])
    values, stds = rng.normal(size=(2, 4, 2)), np.exp(rng.normal(0, 0.5, (2, 4, 2)))
    low, high = value_intervals(values, stds, tails, 0.9)

    def below(ends):
        z = (ends - values) / (stds * np.sqrt(1 - 2 * tails)[:, None])
        parts = [
            norm.cdf(z[m, :, k]) if tails[m, k] == 0 else student.cdf(z[m, :, k], 1 / tails[m, k])
            for m in (0, 1)
            for k in (0, 1)
        ]
        return np.array(parts).reshape(2, 2, 4).mean(axis=0).T

    np.testing.assert_allclose(below(low), 0.05, atol=1e-5)
    np.testing.assert_allclose(below(high), 0.95, atol=1e-5)
    alone = value_intervals(values[:1], stds[:1], tails[:1], 0.68)
    expected = values[0, :, 1] + stds[0, :, 1] * norm.ppf(0.84)
    np.testing.assert_allclose(alone[1][:, 1], expected, rtol=1e-5)


def test_several_predictions_have_the_total_variance():
    rng, model = np.random.default_rng(4), with_spread()
    numbers = np.abs(rng.normal(1, 0.3, (3, 1, 4))).astype(np.float32)
    together = combined(numbers, model)[0]
    member = rng.integers(0, 3, 400_000)
    draws = rng.normal(numbers[member, 0, :2], numbers[member, 0, 2:])
    np.testing.assert_allclose(together, [*draws.mean(axis=0), *draws.std(axis=0)], rtol=5e-3)


@pytest.mark.parametrize("members", [1, 2])
def test_a_table_has_values_standard_deviations_and_intervals(members):
    model = with_spread(calibration=CALIBRATION, unit_interval=True)
    columns = PredictionColumns(model, credible=0.9, members=members)
    assert columns.names == ["z", "mass", "z_std", "mass_std", "z_low", "mass_low", "z_high", "mass_high"]
    numbers = np.float32([[[0.02, 0.9, 0.1, 0.2]]] * members)
    own = {name: array[0].as_py() for name, array in zip(columns.names, columns.arrays(numbers), strict=True)}
    assert (own["z_low"], own["mass_high"]) == (0, 1), "fractions end there"
    assert own["z_high"] == pytest.approx(0.02 + student.ppf(0.95, 5) * 0.1 * (1 - 0.4) ** 0.5, rel=1e-4)
    with pytest.raises(
        BadInput, match="predicts values without standard deviations: leave it out, or let hf-galaxy calibrate"
    ):
        PredictionColumns(values_model(), credible=0.9)
