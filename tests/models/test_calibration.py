"""Calibrations: fitted to votes whose law is known, applied in models, and kept in their configurations."""

import json

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from transformers import AutoModel

from hf_galaxy import load_tree
from hf_galaxy.decision_tree import DecisionTree, Question
from hf_galaxy.errors import BadInput
from hf_galaxy.evaluation.pit import PIT_BINS, pit_histogram
from hf_galaxy.losses import dirichlet_multinomial_nll, multinomial_nll
from hf_galaxy.models.calibration import calibrated_logs, uncalibrated_logs
from hf_galaxy.models.calibration_fit import PRIOR_STDS, VoteLikelihood, composed, fit_classes, fit_votes
from hf_galaxy.models.model import GalaxyConfig, GalaxyForImageClassification, GalaxyForVotes

TREE = DecisionTree("two", (Question("p", ("a", "b"), (), "x"), Question("q", ("a", "b", "c"), (), "x")))
GROUP = np.array(TREE.question_of_answer)
TRUE = {"scales": [1.3, 0.8], "shifts": [0.2, -0.3, 0.1, 0.4, 0.0]}
NOTHING = {"scales": [1.0, 1.0], "shifts": [0.0] * 5}


def drawn(galaxies, calibration, rng, asked=(1.0, 1.0), most=40):
    """Predicted logarithms of concentrations, and votes that follow the Dirichlet distributions with the calibrated ones."""
    x = rng.normal(0.7, 1, (galaxies, 5))
    a = np.exp(np.array(calibration["scales"])[GROUP] * x + calibration["shifts"])
    votes = np.zeros((galaxies, 5), int)
    for where, share in zip(TREE.slices, asked, strict=True):
        fractions = np.array([rng.dirichlet(each) for each in a[:, where]])
        totals = rng.integers(5, most, galaxies) * (rng.random(galaxies) < share)
        votes[:, where] = rng.multinomial(totals, fractions)
    return x, votes


@pytest.mark.parametrize("multinomial", [False, True])
def test_the_likelihood_and_its_slopes_are_those_of_torch(multinomial):
    x, votes = drawn(30, NOTHING, np.random.default_rng(0), asked=(0.6, 0.9))
    leaf = torch.from_numpy(x).requires_grad_()
    counts = torch.from_numpy(votes)
    nll = multinomial_nll(counts, leaf, TREE) if multinomial else dirichlet_multinomial_nll(counts, leaf.exp(), TREE)
    nll.sum().backward()
    values, slopes = VoteLikelihood(votes, TREE, multinomial)(x)
    others, _ = VoteLikelihood(votes, TREE, multinomial)(x + 0.1)
    shifted = leaf + 0.1
    expected = (
        multinomial_nll(counts, shifted, TREE)
        if multinomial
        else dirichlet_multinomial_nll(counts, shifted.exp(), TREE)
    )
    np.testing.assert_allclose(others - values, (expected - nll).detach(), atol=1e-9)  # a constant is left out
    np.testing.assert_allclose(slopes, leaf.grad, atol=1e-9)


def drawn_mixture(galaxies, calibration, rng):
    """As `drawn`, of mixtures of two distributions: x (N, 2, A + Q), and votes."""
    parts = [drawn(galaxies, calibration, rng, most=80) for _ in range(2)]
    first = rng.uniform(0.05, 0.95, (galaxies, 2))
    of_first = (rng.random((galaxies, 2)) < first)[:, GROUP]
    votes = np.where(of_first, parts[0][1], parts[1][1])
    logs = np.stack([x for x, _ in parts], axis=1)
    return np.concatenate([logs, np.stack([first, 1 - first], axis=1)], axis=2), votes


def test_the_likelihood_of_a_mixture_and_its_slopes_are_those_of_torch():
    x, votes = drawn_mixture(30, NOTHING, np.random.default_rng(5))
    counts = torch.from_numpy(votes)
    logs, weights = (torch.from_numpy(each) for each in np.split(x, [5], axis=2))

    def nll(logs):
        return dirichlet_multinomial_nll(counts, logs.exp(), TREE, weights)

    leaf = logs.clone().requires_grad_()
    nll(leaf).sum().backward()
    values, slopes = VoteLikelihood(votes, TREE)(x)
    others, _ = VoteLikelihood(votes, TREE)(x + np.r_[[0.1] * 5, 0, 0])
    np.testing.assert_allclose(others - values, nll(logs + 0.1) - nll(logs), atol=1e-9)
    np.testing.assert_allclose(slopes, leaf.grad, atol=1e-9)


def test_numbers_by_which_votes_of_a_mixture_were_drawn_are_found():
    x, votes = drawn_mixture(4000, TRUE, np.random.default_rng(6))
    fitted = fit_votes(x, VoteLikelihood(votes, TREE), np.arange(4000))
    assert fitted.helps
    assert fitted.numbers["scales"] == pytest.approx(TRUE["scales"], abs=0.07)
    assert fitted.numbers["shifts"] == pytest.approx(TRUE["shifts"], abs=0.08)
    assert fitted.predictions.shape == x.shape
    np.testing.assert_array_equal(fitted.predictions[..., 5:], x[..., 5:])  # of the weights


def test_numbers_by_which_votes_were_drawn_are_found():
    x, votes = drawn(4000, TRUE, np.random.default_rng(1))
    fitted = fit_votes(x, VoteLikelihood(votes, TREE), np.arange(4000))
    assert fitted.helps
    assert fitted.galaxies == 4000
    assert fitted.numbers["scales"] == pytest.approx(TRUE["scales"], abs=0.05)
    assert fitted.numbers["shifts"] == pytest.approx(TRUE["shifts"], abs=0.06)


def test_what_it_brings_to_other_galaxies_is_foretold_and_intervals_hold():
    rng = np.random.default_rng(2)
    foretold, brought, covered = [], [], []
    for _ in range(20):
        x, votes = drawn(150, TRUE, rng)
        fitted = fit_votes(x, VoteLikelihood(votes, TREE), rng.integers(0, 2**62, 150))
        x, votes = drawn(1000, TRUE, rng)
        after = calibrated_logs(torch.from_numpy(x), fitted.numbers, TREE).numpy()
        likelihood = VoteLikelihood(votes, TREE)
        foretold.append(fitted.gain.mean())
        brought.append((likelihood(x)[0] - likelihood(after)[0]).sum(1).mean())
        covered.append([_covered(votes, np.exp(each)) for each in (x, after)])
    # Of one survey of 150 galaxies the difference scatters by 0.08.
    assert abs(np.mean(np.subtract(foretold, brought))) < 3 * 0.08 / 20**0.5
    assert np.mean(brought) > 0.1
    before, after = np.mean(covered, axis=0)
    assert not 0.88 <= before <= 0.92
    assert 0.88 <= after <= 0.92


def _covered(votes, concentrations):
    """Share of the answers whose votes lie in the central interval of 90 %."""
    total, a0 = (
        np.stack([each[:, where].sum(1) for where in TREE.slices], 1)[:, GROUP] for each in (votes, concentrations)
    )
    k, n, a, b = (
        torch.from_numpy(np.asarray(each, float)).flatten()
        for each in (votes, total, concentrations, a0 - concentrations)
    )
    outside = PIT_BINS // 20
    return pit_histogram(k, n, a, b)[:, outside:-outside].sum(1).mean().item()


def test_a_calibrated_model_is_left_as_it_is_and_few_galaxies_change_little():
    rng = np.random.default_rng(3)
    fits = [
        fit_votes(x, VoteLikelihood(votes, TREE), np.arange(100))
        for x, votes in (drawn(100, NOTHING, rng) for _ in range(20))
    ]
    assert np.mean([fitted.gain.mean() for fitted in fits]) < 0
    assert np.mean([fitted.helps for fitted in fits]) < 0.5
    x, votes = drawn(300, TRUE, rng, asked=(1, 0.02))
    fitted = fit_votes(x, VoteLikelihood(votes, TREE), np.arange(300))
    assert abs(fitted.numbers["scales"][1] - 1) < PRIOR_STDS[0] / 2, "few galaxies were asked"
    x, votes = drawn(3, TRUE, rng, asked=(1, 0))
    fitted = fit_votes(x, VoteLikelihood(votes, TREE), np.arange(3))
    assert fitted.numbers["scales"][1] == 1
    assert fitted.numbers["shifts"][2:] == [0, 0, 0], "nobody was asked"


def test_multinomial_fractions_are_calibrated_too():
    rng = np.random.default_rng(4)
    x = rng.normal(0, 1, (3000, 5))
    true = np.array([0.6, 1.2])[GROUP] * x
    votes = np.zeros((3000, 5), int)
    for where in TREE.slices:
        votes[:, where] = rng.multinomial(30, np.exp(log_softmax(true[:, where], axis=1)))
    fitted = fit_votes(x, VoteLikelihood(votes, TREE, multinomial=True), np.arange(3000))
    assert fitted.helps
    assert fitted.numbers["scales"] == pytest.approx([0.6, 1.2], abs=0.03)


def test_a_temperature_is_the_likeliest():
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 2, (2000, 4))
    labels = np.array([rng.choice(4, p=np.exp(log_softmax(each / 1.7))) for each in logits])
    fitted = fit_classes(logits, labels, np.arange(2000))

    def posterior(log_temperature):
        of_labels = log_softmax(logits / np.exp(log_temperature), axis=1)[np.arange(2000), labels]
        return -of_labels.sum() + log_temperature**2 / (2 * fitted.prior_std**2)

    assert fitted.helps
    assert fitted.numbers["temperature"] == pytest.approx(np.exp(minimize_scalar(posterior).x), rel=1e-4)
    assert fitted.numbers["temperature"] == pytest.approx(1.7, abs=0.1)


def test_a_very_different_survey_gets_the_wide_prior_and_a_similar_one_the_narrow():
    rng = np.random.default_rng(8)
    far = {"scales": [2.5, 0.3], "shifts": [1.5, 0.5, -1.0, 1.0, 2.0]}
    for calibration, prior in ((far, PRIOR_STDS[1]), ({**NOTHING, "scales": [1.2, 0.9]}, PRIOR_STDS[0])):
        x, votes = drawn(60, calibration, rng)
        assert fit_votes(x, VoteLikelihood(votes, TREE), np.arange(60)).prior_std == prior


def test_a_calibration_on_top_of_another_does_both():
    rng = np.random.default_rng(9)
    x = torch.from_numpy(rng.normal(size=(4, 5)))
    other = {"scales": [0.5, 2.0], "shifts": [1.0, 0.0, -1.0, 0.5, 0.25]}
    one_after_the_other = calibrated_logs(calibrated_logs(x, TRUE, TREE), other, TREE)
    torch.testing.assert_close(calibrated_logs(x, composed(TRUE, other, TREE), TREE), one_after_the_other)
    assert composed(None, other, TREE) == other
    first, second = ({"temperature": each, "classes": 3} for each in (2.0, 1.5))
    assert composed(first, second, None) == {"temperature": 3.0, "classes": 3}


def test_the_order_of_galaxies_does_not_matter():
    x, votes = drawn(200, TRUE, np.random.default_rng(6))
    keys, order = np.arange(200) * 7919, np.random.default_rng(7).permutation(200)
    one = fit_votes(x, VoteLikelihood(votes, TREE), keys)
    other = fit_votes(x[order], VoteLikelihood(votes[order], TREE), keys[order])
    for name, numbers in one.numbers.items():
        assert other.numbers[name] == pytest.approx(numbers, abs=1e-4)
    np.testing.assert_allclose(other.gain, one.gain[order], atol=1e-4)


def votes_model(**fields):
    torch.manual_seed(0)
    return GalaxyForVotes(GalaxyConfig(backbone="test_resnet", tree="gz_rings", image_size=32, **fields)).eval()


TREE_OF_MODEL = load_tree("gz_rings")
OF_MODEL = {
    "scales": [1.5] * len(TREE_OF_MODEL.questions),
    "shifts": [0.1 * i for i in range(len(TREE_OF_MODEL.columns))],
}


@pytest.mark.parametrize("likelihood", ["dirichlet_multinomial", "multinomial"])
def test_a_model_predicts_calibrated_votes_also_after_it_was_saved(tmp_path, likelihood):
    model, pictures = votes_model(likelihood=likelihood), torch.rand(3, 3, 32, 32)
    before = model(pixel_values=pictures)
    model.config.calibration = OF_MODEL
    after = model(pixel_values=pictures)
    name = "fractions" if likelihood == "multinomial" else "concentrations"
    undone = uncalibrated_logs(after[name].log(), OF_MODEL, model.tree)
    if likelihood == "multinomial":  # logarithms of fractions are known up to a constant for each question
        undone = torch.cat([undone[:, where].log_softmax(1) for where in model.tree.slices], 1)
    torch.testing.assert_close(undone, before[name].log(), atol=1e-5, rtol=1e-5)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["calibration"] == OF_MODEL
    loaded = AutoModel.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(pixel_values=pictures).fractions, after.fractions)
    plain = AutoModel.from_pretrained(tmp_path, calibration=None).eval()
    assert torch.equal(plain(pixel_values=pictures).fractions, before.fractions)


def test_classes_are_calibrated_by_a_temperature(tmp_path):
    torch.manual_seed(0)
    model = GalaxyForImageClassification(GalaxyConfig(backbone="test_resnet", image_size=32, num_labels=3)).eval()
    pictures = torch.rand(3, 3, 32, 32)
    before = model(pixel_values=pictures).logits
    model.config.calibration = {"temperature": 2.0, "classes": 3}
    model.save_pretrained(tmp_path)
    assert torch.equal(AutoModel.from_pretrained(tmp_path).eval()(pixel_values=pictures).logits, before / 2)


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"temperature": 1.0},
        {**OF_MODEL, "scales": OF_MODEL["scales"][1:]},
        {**OF_MODEL, "scales": [0.0, *OF_MODEL["scales"][1:]]},
        {**OF_MODEL, "shifts": [float("nan"), *OF_MODEL["shifts"][1:]]},
        {**OF_MODEL, "shifts": ["1", *OF_MODEL["shifts"][1:]]},
        {**OF_MODEL, "shifts": [True, *OF_MODEL["shifts"][1:]]},
        {**OF_MODEL, "shifts": [10**400, *OF_MODEL["shifts"][1:]]},
        {**OF_MODEL, "scales": 1.0},
        {**OF_MODEL, "more": 1},
        [],
        5,
        "x",
    ],
)
def test_a_calibration_of_another_model_is_refused(wrong):
    with pytest.raises(BadInput, match=r"^calibration: is not that of this model.*load it with calibration=None"):
        votes_model(calibration=wrong)


def test_a_backbone_with_a_new_head_has_no_calibration_of_the_old_one(tmp_path):
    votes_model(calibration=OF_MODEL).save_pretrained(tmp_path)
    new = GalaxyForImageClassification.from_pretrained(
        tmp_path, tree=None, num_labels=2, ignore_mismatched_sizes=True
    )  # fmt: skip
    assert new.config.calibration is None
    classes = GalaxyConfig(backbone="test_resnet", num_labels=3, calibration={"temperature": 2.0, "classes": 3})
    GalaxyForImageClassification(classes).save_pretrained(tmp_path / "classes")
    for change in ({"num_labels": 9}, {"problem_type": "multi_label_classification"}):
        new = GalaxyForImageClassification.from_pretrained(tmp_path / "classes", ignore_mismatched_sizes=True, **change)
        assert new.config.calibration is None
    right = {"temperature": 1.0, "classes": 3}
    for wrong in (
        {}, [1], "", {"temp": 2}, {**right, "temperature": 0.0}, {**right, "temperature": [2.0]}, {**right, "scales": []}, {"temperature": 1.0},
    ):  # fmt: skip
        with pytest.raises(BadInput, match="is not that of this model, which has one temperature and one classes"):
            GalaxyForImageClassification(GalaxyConfig(backbone="test_resnet", num_labels=3, calibration=wrong))
