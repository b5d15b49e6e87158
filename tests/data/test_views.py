"""The evaluation view is the middle of the picture, always; training views are the same sky turned, mirrored and zoomed."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.stats import kstest

from hf_galaxy.data.views import Framing, eval_view, to_canvases
from hf_galaxy.errors import BadInput
from hf_galaxy.randomness import GOLDEN, split_mix, uniforms
from hf_galaxy.training.augmentation import Augmentation, draw_affine, train_view


def picture(side=200, mode="RGB"):
    """A smooth picture without symmetry, so that every turn and mirror of it differs."""
    y, x = np.mgrid[0:side, 0:side] / side
    bands = [np.sin(3 * x + y), x * y, np.cos(2 * y) * x]
    return Image.fromarray((np.stack(bands, -1) * 127 + 100).astype(np.uint8)).convert(mode)


def canvases_of(*pictures, framing):
    return to_canvases([np.asarray(picture.convert("RGB")) for picture in pictures], framing)


@pytest.mark.parametrize("framing", [Framing(64), Framing(64, 0.5), Framing(48, 0.7), Framing(200), Framing(256)])
def test_shapes_and_range(framing):
    canvases = canvases_of(*[picture()] * 3, framing=framing)
    assert canvases.shape == (3, 3, framing.canvas, framing.canvas)
    assert canvases.dtype == torch.uint8
    view = eval_view(canvases, framing)
    assert view.shape == (3, 3, framing.size, framing.size)
    assert view.dtype == torch.float32
    assert 0 <= view.min() < view.max() <= 1
    affine = torch.from_numpy(draw_affine(0, range(3), framing))
    seen = train_view(canvases, affine, framing)
    assert seen.shape == view.shape
    assert not torch.equal(seen[0], seen[1])
    assert 0 <= seen.min() < seen.max() <= 1


def test_crop_shows_the_middle():
    framing = Framing(50, 0.5)
    whole = np.asarray(picture().resize((100, 100), Image.Resampling.BICUBIC))[25:75, 25:75]
    view = eval_view(canvases_of(picture(), framing=framing), framing)[0]
    # Pillow rounds the weights of its filter a little otherwise
    np.testing.assert_allclose(view.permute(1, 2, 0) * 255, whole, atol=1.01)


def test_oblong_and_grey_pictures():
    framing = Framing(32)
    oblong = picture().crop((0, 0, 200, 120))
    assert canvases_of(oblong, framing=framing).shape == (1, 3, 32, 32)
    grey = canvases_of(picture(mode="L"), framing=framing)[0]
    assert torch.equal(grey[0], grey[1])
    assert torch.equal(grey[0], grey[2])


def undisturbed(framing, turn=0.0, mirror=1.0):
    scale = framing.size / framing.canvas
    cos, sin = scale * np.cos(turn), scale * np.sin(turn)
    return torch.tensor([[[cos * mirror, -sin, 0], [sin * mirror, cos, 0]]], dtype=torch.float32)


def test_train_view_without_any_change_is_the_evaluation_view():
    framing = Framing(64, 0.5)
    canvas = canvases_of(picture(), framing=framing)
    torch.testing.assert_close(
        train_view(canvas, undisturbed(framing), framing), eval_view(canvas, framing), atol=1e-5, rtol=0
    )


def test_turns_and_mirrors_are_those_of_torch():
    framing = Framing(64, 0.5)
    canvas = canvases_of(picture(), framing=framing)
    view = eval_view(canvas, framing)
    turned = train_view(canvas, undisturbed(framing, np.pi / 2), framing)
    torch.testing.assert_close(turned, view.rot90(1, (2, 3)), atol=1e-5, rtol=0)
    mirrored = train_view(canvas, undisturbed(framing, mirror=-1), framing)
    torch.testing.assert_close(mirrored, view.flip(3), atol=1e-5, rtol=0)


def test_draws_are_turns_of_all_angles_with_little_zoom_and_mirrors_only_if_wanted():
    framing = Framing(64, 0.5)
    scale = framing.size / framing.canvas
    draws = draw_affine(0, range(500), framing)[:, :, :2] / scale
    determinants = np.linalg.det(draws)
    assert 0.4 < (determinants < 0).mean() < 0.6
    zooms = 1 / np.abs(determinants) ** 0.5
    assert 0.9 <= zooms.min() < 0.92
    assert 1.08 < zooms.max() <= 1.1
    angles = np.arctan2(-draws[:, 0, 1], draws[:, 1, 1])
    assert np.histogram(angles, bins=4, range=(-np.pi, np.pi))[0].min() > 90
    unmirrored = draw_affine(0, range(100), framing, Augmentation(flip=False))[:, :, :2]
    assert (np.linalg.det(unmirrored) > 0).all()


def parts_of(maps, framing):
    """What `draw_affine` put together: turn, mirror, zoom, shift to the right and down as shares of the view."""
    linear = maps[:, :, :2] / (framing.size / framing.canvas)
    zoom = 1 / abs(np.linalg.det(linear)) ** 0.5
    mirror = np.sign(np.linalg.det(linear))
    shift = maps[:, :, 2] / 2 / (framing.size / framing.canvas) * zoom[:, None]
    return {"rotate": np.arctan2(-linear[:, 0, 1], linear[:, 1, 1]), "flip": mirror, "zoom": zoom, "shift": shift}


OFF = {"rotate": False, "flip": False, "zoom": (1.0, 1.0), "shift": 0.0}


@pytest.mark.parametrize("off", [(), ("zoom",), ("rotate", "shift"), ("flip",), tuple(OFF)], ids=" ".join)
def test_what_is_switched_off_is_not_done_and_changes_nothing_else(off):
    framing = Framing(64, 0.5)
    whole = parts_of(draw_affine(3, range(200), framing), framing)
    less = parts_of(draw_affine(3, range(200), framing, Augmentation(**{name: OFF[name] for name in off})), framing)
    still = {"rotate": 0, "flip": 1, "zoom": 1, "shift": 0}
    for name in OFF:
        expected = np.full_like(whole[name], still[name]) if name in off else whole[name]
        np.testing.assert_allclose(less[name], expected, atol=1e-5, err_msg=name)
        assert name in off or whole[name].std() > 0.02


def test_ranges_are_those_that_were_asked_for():
    framing = Framing(64, 0.5)
    parts = parts_of(draw_affine(0, range(4000), framing, Augmentation(zoom=(1.5, 3.0), shift=0.2)), framing)
    assert kstest(parts["zoom"], "uniform", (1.5, 1.5)).pvalue > 1e-3
    for shift in parts["shift"].T:
        assert kstest(shift, "uniform", (-0.2, 0.4)).pvalue > 1e-3
    assert kstest(parts["rotate"], "uniform", (-np.pi, 2 * np.pi)).pvalue > 1e-3


@pytest.mark.parametrize("framing", [Framing(64, 0.5), Framing(65, 0.7), Framing(200)], ids=str)
def test_with_everything_off_a_training_view_is_the_evaluation_view(framing):
    canvases = canvases_of(*[picture()] * 5, framing=framing)
    affine = torch.from_numpy(draw_affine(0, range(5), framing, Augmentation(**OFF)))
    torch.testing.assert_close(train_view(canvases, affine, framing), eval_view(canvases, framing), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"zoom": (0.0, 1.0)}, "--zoom 0.0 1.0"), ({"zoom": (1.2, 1.1)}, "--zoom 1.2 1.1"), ({"shift": -0.1}, "--shift -0.1"),
     ({"zoom": (1.0, float("nan"))}, "--zoom 1.0 nan"), ({"shift": 1.0}, r"--shift 1.0: is a fraction of the view, in \[0, 1\)")],
)  # fmt: skip
def test_ranges_that_are_none_are_refused(changes, message):
    Augmentation(zoom=(1.0, 1.0), shift=0.0).check()
    with pytest.raises(BadInput, match=message):
        Augmentation(**changes).check()


@pytest.mark.parametrize("threads", [1, 3])
def test_a_batch_of_views_is_what_torch_makes_of_each_canvas_alone(threads):
    framing = Framing(40, 0.8)
    canvases = canvases_of(*[picture(side) for side in (100, 60, 90, 80, 70, 55, 66)], framing=framing)
    affine = torch.from_numpy(draw_affine(5, range(7), framing))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        views = train_view(canvases, affine, framing)
    finally:
        torch.set_num_threads(before)
    for view, canvas, one in zip(views, canvases.double() / 255, affine.double(), strict=True):
        grid = F.affine_grid(one[None], (1, 3, 40, 40), align_corners=False)
        expected = F.grid_sample(canvas[None], grid, padding_mode="reflection", align_corners=False)[0]
        torch.testing.assert_close(view, expected.float(), atol=2e-5, rtol=0)
    assert views.is_contiguous()


def test_pictures_of_several_sizes_are_framed_each_as_if_alone():
    framing, pictures = Framing(32, 0.8), [picture(200), picture(90), picture(200)]
    together = canvases_of(*pictures, framing=framing)
    assert torch.equal(together, torch.cat([canvases_of(each, framing=framing) for each in pictures]))


def test_of_a_strip_the_middle_alone_is_scaled(monkeypatch):
    framing, sizes, resize = Framing(32), [], F.interpolate

    def interpolate(batch, size, **options):
        sizes.append(size)
        return resize(batch, size=size, **options)

    monkeypatch.setattr(F, "interpolate", interpolate)
    strip = np.zeros((4, 400_000, 3), np.uint8)  # scaled as a whole, 300 MB
    strip[:, 199_990:200_010] = np.random.default_rng(0).integers(0, 256, (4, 20, 3))
    middle = strip[:, 199_968:200_032]
    for pixels, expected in ((strip, middle), (strip.swapaxes(0, 1), middle.swapaxes(0, 1))):
        assert torch.equal(to_canvases([pixels], framing), to_canvases([expected], framing))
    assert max(max(size) for size in sizes) == 16 * 32


def test_draws_of_a_position_do_not_depend_on_the_others():
    whole = uniforms(7, range(1000), 5)
    np.testing.assert_array_equal(uniforms(7, [3, 999, 0], 5), whole[[3, 999, 0]])
    assert (uniforms(8, range(1000), 5) != whole).all()
    affine = draw_affine(7, range(9), Framing(64))
    np.testing.assert_array_equal(draw_affine(7, [4], Framing(64))[0], affine[4])


def test_draws_are_uniform_and_uncorrelated():
    draws = uniforms(0, range(20000), 4)
    for column in draws.T:
        assert kstest(column, "uniform").pvalue > 1e-3
    beside = np.column_stack([draws[:-1], draws[1:], uniforms(1, range(19999), 1)])
    correlations = np.corrcoef(beside.T) - np.eye(beside.shape[1])
    assert abs(correlations).max() < 5 / 20000**0.5


def test_splitmix64_is_the_published_one():
    """The first outputs for seed 1234567, from the reference implementation (rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64)."""
    with np.errstate(over="ignore"):
        states = np.uint64(1234567) + np.arange(1, 4, dtype=np.uint64) * GOLDEN
        assert split_mix(states).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]
