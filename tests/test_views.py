"""The evaluation view is the middle of the picture, always; training views are the same sky turned, mirrored and zoomed."""

import numpy as np
import pytest
import torch
from PIL import Image

from hf_galaxy.views import Framing, draw_affine, eval_view, to_canvas, train_view


def picture(side=200, mode="RGB"):
    """A smooth picture without symmetry, so that every turn and mirror of it differs."""
    y, x = np.mgrid[0:side, 0:side] / side
    bands = [np.sin(3 * x + y), x * y, np.cos(2 * y) * x]
    return Image.fromarray((np.stack(bands, -1) * 127 + 100).astype(np.uint8)).convert(mode)


@pytest.mark.parametrize("framing", [Framing(64), Framing(64, 0.5), Framing(48, 0.7), Framing(200), Framing(256)])
def test_shapes_and_range(framing):
    canvases = torch.stack([to_canvas(picture(), framing)] * 3)
    assert canvases.shape == (3, 3, framing.canvas, framing.canvas)
    assert canvases.dtype == torch.uint8
    view = eval_view(canvases, framing)
    assert view.shape == (3, 3, framing.size, framing.size)
    assert view.dtype == torch.float32
    assert 0 <= view.min() < view.max() <= 1
    affine = torch.from_numpy(np.stack([draw_affine(np.random.default_rng(i), framing) for i in range(3)]))
    seen = train_view(canvases, affine, framing)
    assert seen.shape == view.shape
    assert not torch.equal(seen[0], seen[1])
    assert 0 <= seen.min() < seen.max() <= 1


def test_crop_shows_the_middle():
    framing = Framing(50, 0.5)
    whole = np.asarray(picture().resize((100, 100), Image.Resampling.BICUBIC))[25:75, 25:75]
    view = eval_view(to_canvas(picture(), framing)[None], framing)[0]
    np.testing.assert_allclose(view.permute(1, 2, 0) * 255, whole, atol=1e-4)


def test_oblong_and_grey_pictures():
    framing = Framing(32)
    oblong = picture().crop((0, 0, 200, 120))
    assert to_canvas(oblong, framing).shape == (3, 32, 32)
    grey = to_canvas(picture(mode="L"), framing)
    assert torch.equal(grey[0], grey[1])
    assert torch.equal(grey[0], grey[2])


def undisturbed(framing, turn=0.0, mirror=1.0):
    scale = framing.size / framing.canvas
    cos, sin = scale * np.cos(turn), scale * np.sin(turn)
    return torch.tensor([[[cos * mirror, -sin, 0], [sin * mirror, cos, 0]]], dtype=torch.float32)


def test_train_view_without_any_change_is_the_evaluation_view():
    framing = Framing(64, 0.5)
    canvas = to_canvas(picture(), framing)[None]
    torch.testing.assert_close(
        train_view(canvas, undisturbed(framing), framing), eval_view(canvas, framing), atol=1e-5, rtol=0
    )


def test_turns_and_mirrors_are_those_of_torch():
    framing = Framing(64, 0.5)
    canvas = to_canvas(picture(), framing)[None]
    view = eval_view(canvas, framing)
    turned = train_view(canvas, undisturbed(framing, np.pi / 2), framing)
    torch.testing.assert_close(turned, view.rot90(1, (2, 3)), atol=1e-5, rtol=0)
    mirrored = train_view(canvas, undisturbed(framing, mirror=-1), framing)
    torch.testing.assert_close(mirrored, view.flip(3), atol=1e-5, rtol=0)


def test_draws_are_turns_of_all_angles_with_little_zoom_and_mirrors_only_if_wanted():
    framing = Framing(64, 0.5)
    scale = framing.size / framing.canvas
    draws = np.stack([draw_affine(np.random.default_rng(i), framing)[:, :2] / scale for i in range(500)])
    determinants = np.linalg.det(draws)
    assert 0.4 < (determinants < 0).mean() < 0.6
    zooms = 1 / np.abs(determinants) ** 0.5
    assert 0.9 <= zooms.min() < 0.92
    assert 1.08 < zooms.max() <= 1.1
    angles = np.arctan2(-draws[:, 0, 1], draws[:, 1, 1])
    assert np.histogram(angles, bins=4, range=(-np.pi, np.pi))[0].min() > 90
    unmirrored = [draw_affine(np.random.default_rng(i), framing, flip=False)[:, :2] for i in range(100)]
    assert (np.linalg.det(unmirrored) > 0).all()
