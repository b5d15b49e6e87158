"""Mixtures are those of timm's Mixup with the same share and square; their loss is the mean of the losses of both classes."""

import numpy as np
import pytest
import torch
from scipy import stats
from timm.data.mixup import cutmix_bbox_and_lam, mixup_target

from hf_galaxy.data.band_stretch import BandStretch
from hf_galaxy.losses import class_cross_entropy, masked_binary_cross_entropy
from hf_galaxy.training.pairs import draw_pairs, mixed_fluxes, mixed_labels, mixed_views

SIZE = 32


def drawn(mixup, cutmix, count=4000, seed=0):
    return {name: torch.from_numpy(each) for name, each in draw_pairs(seed, range(count), SIZE, mixup, cutmix).items()}


def test_both_of_a_pair_have_the_same_share_from_the_beta_distribution():
    for alpha in (0.2, 1.0, 4.0):
        share = drawn(alpha, 0)["share"].view(-1, 2)
        assert torch.equal(share[:, 0], share[:, 1])
        assert stats.kstest(share[:, 0], "beta", (alpha, alpha)).pvalue > 1e-3
        opaque = drawn(0, alpha)
        assert (opaque["opacity"] == 1).all()
        top, bottom, left, right = opaque["square"].T
        expected = 1 - (bottom - top) * (right - left) / SIZE**2
        torch.testing.assert_close(opaque["share"], expected.float())


def test_squares_are_those_of_timm(monkeypatch):
    """Of the same share and centre; timm cuts one pixel more or less of those with an odd side."""
    ours = drawn(0, 1.0, 400)
    rng = np.random.default_rng(0)
    for _ in range(3):
        share, centre = rng.random(), rng.integers(0, SIZE, 2)
        monkeypatch.setattr(
            "hf_galaxy.training.pairs.uniforms", lambda *_, s=share, c=centre: np.array([[0, s, *c / SIZE]])
        )
        square = draw_pairs(0, [0, 1], SIZE, 0, 1.0)
        draws = iter(centre)
        monkeypatch.setattr(np.random, "randint", lambda *_, draws=draws, **__: next(draws))
        box, lam = cutmix_bbox_and_lam((1, 3, SIZE, SIZE), share)
        assert np.abs(square["square"][0] - box).max() <= 1
        assert square["share"][0] == pytest.approx(lam, abs=2.1 / SIZE)
    middles = (ours["square"][:, 0] + ours["square"][:, 1]) / 2
    assert middles.mean() == pytest.approx(SIZE / 2, abs=1.5)


def test_with_both_a_pair_is_mixed_in_one_of_the_two_ways():
    both = drawn(0.5, 1.0)
    cut = both["opacity"] == 1
    assert cut.float().mean() == pytest.approx(0.5, abs=0.05)
    top, bottom, left, right = both["square"][~cut].T
    assert ((bottom - top) * (right - left) == 0).all()
    torch.testing.assert_close(both["share"][~cut], both["opacity"][~cut])


def test_views_are_mixed_within_pairs():
    views, draws = torch.rand(8, 3, SIZE, SIZE), drawn(1.0, 1.0, 8, seed=3)
    assert 0 < (draws["opacity"] == 1).sum() < 8, "both ways"
    mixed = mixed_views(views, draws["opacity"], draws["square"])
    for i in range(8):
        own, other, share = views[i], views[i ^ 1], draws["share"][i]
        if draws["opacity"][i] < 1:
            torch.testing.assert_close(mixed[i], share * own + (1 - share) * other)
        else:
            top, bottom, left, right = draws["square"][i]
            expected = own.clone()
            expected[:, top:bottom, left:right] = other[:, top:bottom, left:right]
            assert torch.equal(mixed[i], expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, (0.5, 1.0, 3.0)])
def test_the_loss_of_a_mixture_is_the_mean_of_those_of_both_classes(smoothing, weights):
    logits, labels, share = (
        torch.randn(6, 3),
        torch.tensor([0, 1, 2, 2, 1, 0]),
        torch.tensor([0.3, 0.3, 0.9, 0.9, 1, 1]),
    )
    targets = mixed_labels(labels, share, 3)
    other = labels[[1, 0, 3, 2, 5, 4]]
    one, two = (class_cross_entropy(each, logits, smoothing, weights) for each in (labels, other))
    torch.testing.assert_close(
        class_cross_entropy(targets, logits, smoothing, weights), share * one + (1 - share) * two
    )
    for i, lam in enumerate(share.tolist()):
        theirs = mixup_target(torch.stack([labels[i], other[i]]), 3, lam)[0]  # with the other one flipped
        torch.testing.assert_close(targets[i], theirs)


def test_the_loss_of_mixed_labels_is_over_those_that_both_galaxies_have():
    labels, logits = torch.tensor([[1, 0, torch.nan], [0, 0, 1]]), torch.randn(2, 3)
    targets = mixed_labels(labels, torch.tensor([0.25, 0.25]), 3)
    torch.testing.assert_close(targets, torch.tensor([[0.25, 0, torch.nan], [0.75, 0, torch.nan]]), equal_nan=True)
    known = [masked_binary_cross_entropy(torch.where(targets.isnan(), torch.nan, each), logits) for each in (labels, labels.flip(0))]  # fmt: skip
    torch.testing.assert_close(masked_binary_cross_entropy(targets, logits), 0.25 * known[0] + 0.75 * known[1])


def test_fluxes_are_mixed_as_they_are_shown():
    stretch = BandStretch((10.0, -1.0), (2.0, 0.1), (5000.0, 40.0))
    tensors = [torch.tensor(each).view(-1, 1, 1) for each in (stretch.sky, stretch.noise, stretch.saturation)]
    fluxes = tensors[0] + tensors[1] * torch.randn(8, 2, SIZE, SIZE) * torch.logspace(0, 4, SIZE)
    fluxes[1, 0] = torch.nan
    draws = drawn(1.0, 1.0, 8, seed=3)
    assert 0 < (draws["opacity"] == 1).sum() < 8, "both ways"
    mixed = mixed_fluxes(fluxes, draws["opacity"], draws["square"], tensors)
    expected = mixed_views(stretch.brightness(fluxes), draws["opacity"], draws["square"])
    torch.testing.assert_close(stretch.brightness(mixed), expected, atol=1e-5, rtol=1e-5)
    assert mixed.isfinite().all()
