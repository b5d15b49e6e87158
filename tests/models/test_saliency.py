"""A saliency map shows what an answer rests on where this is known, moves along with it, and is that of these weights."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.stats import linregress, pearsonr, spearmanr

from hf_galaxy import GalaxyConfig, GalaxyForVotes
from hf_galaxy.models.onnx_model import Answers
from hf_galaxy.models.saliency import saliency
from hf_galaxy.publishing.mock_pictures import draw
from hf_galaxy.publishing.simulate import CAMPAIGNS, draw_morphology

SIDE = 32
YES = 0  # the answer of gz_rings
PLACES = np.mgrid[:SIDE, :SIDE].transpose(1, 2, 0)


def near(place, sigma):
    """(S, S): 1 at a place, and less around it."""
    return np.exp(-0.5 * ((PLACES - place) ** 2).sum(axis=2) / sigma**2).astype(np.float32)


def answers(fractions):
    """Of two answers, with the fraction of the first."""
    return Answers(np.stack([fractions, 1 - fractions], axis=1), None, np.empty((len(fractions), 0)))


def peak(saliency_map):
    return np.array(np.unravel_index(saliency_map.argmax(), saliency_map.shape))


def test_it_is_the_regression_on_what_is_seen():
    """scipy's slope, of masks that the answering function sees, as a white view under a black border shows them."""
    view = np.zeros((3, SIDE, SIDE), np.float32)
    view[:, 2:-2, 2:-2] = 1
    weights, seen, said = near((10, 20), 3), [], []

    def answer(views):
        seen.append(views[:, 0])
        said.append(0.1 + 0.9 * (views.mean(axis=1) * weights).sum(axis=(1, 2)) / weights.sum())
        return answers(said[-1])

    found = saliency(answer, view, 0, masks=150)
    masks, fractions = np.concatenate(seen), np.concatenate(said)
    assert found.shape == (SIDE, SIDE)
    assert max(map(len, seen)) < 150 == len(masks)
    assert masks.min() >= 0
    assert masks.max() <= 1
    np.testing.assert_allclose(masks.mean(axis=0)[2:-2, 2:-2], 0.5, atol=1e-6)
    for place in ((10, 20), (2, 2), (25, 7), (16, 16)):
        slope = linregress(masks[:, *place], fractions).slope
        assert found[place] == pytest.approx(slope, rel=1e-3, abs=1e-5)
    against = saliency(answer, view, 1, masks=150)
    np.testing.assert_allclose(against, -found, atol=1e-6)


@pytest.mark.parametrize("place", [(16, 16), (8, 21), (25, 6)])
def test_it_finds_the_place_that_an_answer_rests_on(place):
    """Wherever in a picture of noise, with stars, this is."""
    rng, weights = np.random.default_rng(0), near(place, 2)
    view = np.clip(0.2 + 0.02 * rng.normal(size=(3, SIDE, SIDE)) + 0.6 * near((14, 16), 14), 0, 1).astype(np.float32)
    view[:, :3, :3] = 1  # a star on the border is not taken for the sky
    found = saliency(lambda views: answers((views[:, 0] * weights).sum(axis=(1, 2)) / weights.sum()), view, 0, 1024)
    assert np.abs(peak(found) - place).max() <= 3
    assert found[tuple(place)] > 0.02
    far = ((PLACES - place) ** 2).sum(axis=2) > 12**2
    assert np.abs(found[far]).mean() < 0.5 * found[tuple(place)]


@pytest.fixture(scope="module")
def pictures():
    """Drawn galaxies, half of them with a bright spot somewhere: views, and where it is (-1: nowhere)."""
    rng = np.random.default_rng(0)
    jpegs = [draw(draw_morphology(rng), CAMPAIGNS[0].imaging, SIDE, rng) for _ in range(160)]
    views = np.stack([np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")) for jpeg in jpegs])
    views = np.concatenate([views, views[:, ::-1], views[:, :, ::-1]]).transpose(0, 3, 1, 2).astype(np.float32) / 255
    spots = rng.integers(6, SIDE - 6, (len(views), 2))
    spots[::2] = -1
    for view, spot in zip(views, spots, strict=True):
        if spot[0] >= 0:
            view += (1 - view) * near(spot, 1.5) * np.array([0.2, 0.5, 1])[:, None, None]
    return views, spots


@pytest.fixture(scope="module")
def model(pictures):
    """It has learnt whether there is a spot."""
    views, spots = pictures
    torch.manual_seed(0)
    made = GalaxyForVotes(GalaxyConfig(backbone="test_resnet", tree="gz_rings", image_size=SIDE, head_dropout=0.0))
    votes = torch.from_numpy(np.where(spots[:, :1] >= 0, [20, 0], [0, 20]))
    optimizer, views = torch.optim.AdamW(made.parameters(), lr=2e-3), torch.from_numpy(views)
    for step in range(160):
        some = torch.arange(step * 48, step * 48 + 48) % 400  # the others are new to it
        optimizer.zero_grad()
        made(pixel_values=views[some], votes=votes[some]).loss.backward()
        optimizer.step()
    return made.eval()


def asked(model):
    @torch.inference_mode()
    def answer(views):
        return answers(model(pixel_values=torch.from_numpy(views)).fractions[:, YES].numpy())

    return answer


@pytest.fixture(scope="module")
def known(model, pictures):
    """New galaxies of which the model says that there is a spot, where it is, and their maps."""
    views, spots = (each[400:] for each in pictures)
    said = asked(model)(views).fractions[:, YES]
    having = spots[:, 0] >= 0
    assert said[having].mean() > 0.6, "it has learnt"
    assert said[~having].mean() < 0.4
    chosen = np.flatnonzero(having & (said > 0.6))[:16]
    return views[chosen], spots[chosen], [saliency(asked(model), view, YES, 1024) for view in views[chosen]]


def test_of_a_trained_model_it_finds_what_was_learnt(known):
    _, spots, maps = known
    apart = [np.abs(peak(each) - spot).max() for each, spot in zip(maps, spots, strict=True)]
    assert np.mean(np.array(apart) <= 4) > 0.8


def test_without_what_it_shows_the_answer_changes_more_than_without_other_places(known, model):
    views, _, maps = known
    rng, fallen = np.random.default_rng(0), {"most": [], "least": [], "random": []}
    for view, each in zip(views, maps, strict=True):
        for which, order in (
            ("most", -each),
            ("least", np.abs(each)),
            ("random", gaussian_filter(rng.random(each.shape), 2)),
        ):
            covered = order <= np.quantile(order, 0.1)
            without = np.where(covered, np.median(view, axis=(1, 2))[:, None, None], view)
            before, after = asked(model)(np.stack([view, without]).astype(np.float32)).fractions[:, YES]
            fallen[which].append(before - after)
    most, least, random = (np.mean(fallen[which]) for which in ("most", "least", "random"))
    assert most > 0.3
    assert most > 3 * max(abs(least), abs(random))


def test_it_is_that_of_these_weights(known, model):
    """Random weights in the place of what was learnt (Adebayo et al. 2018, huggingface.co/papers/1810.03292) show something else."""
    views, _, maps = known
    torch.manual_seed(1)
    random = GalaxyForVotes(model.config).eval()
    torch.nn.init.normal_(random.head.weight, std=0.3)

    def likeness(others, correlation):
        return np.mean([correlation(a.ravel(), b.ravel()).statistic for a, b in zip(maps, others, strict=True)])

    same = [saliency(asked(model), view, YES, 1024, seed=1) for view in views]
    other = [saliency(asked(random), view, YES, 1024, seed=1) for view in views]
    # A bright spot stirs random weights, too, so that their maps are not without any likeness.
    assert likeness(same, pearsonr) > max(0.5, likeness(other, pearsonr) + 0.1), "but for the noise of other masks"
    assert abs(likeness(other, spearmanr)) < 0.25
