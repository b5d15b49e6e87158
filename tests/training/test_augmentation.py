"""Shears are those of an affine map of scipy, erased rectangles have the areas of Random Erasing, and each change has its own draws."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.stats import kstest

from hf_galaxy.data.band_stretch import BandStretch
from hf_galaxy.data.views import Framing
from hf_galaxy.errors import BadInput
from hf_galaxy.models.configuration import GalaxyConfig
from hf_galaxy.models.model import GalaxyForImageClassification
from hf_galaxy.training.augmentation import Augmentation, draw_affine, draw_erased, erased, train_view
from hf_galaxy.training.random_views import draw_views, random_views, target_of_views
from hf_galaxy.training.settings import Settings
from tests.training.second_device import second_device

STILL = Augmentation(rotate=False, flip=False, zoom=(1, 1), shift=0)
EVERYTHING = Augmentation(shear=15, erase=0.5, blur=2, noise=1, mixup=0.4, cutmix=1)
FRAMING = Framing(64, 0.5)


def sheared(degrees, positions=range(2000), **others):
    """(B, 2, 2) matrices from places in a view to places in the picture, in pixels."""
    maps = draw_affine(4, positions, FRAMING, dataclasses.replace(STILL, shear=degrees, **others))
    return maps[:, :, :2] * FRAMING.canvas / FRAMING.size


def test_shears_keep_areas_and_have_all_directions_and_angles_up_to_the_maximum():
    matrices = sheared(20).astype(float)
    np.testing.assert_allclose(np.linalg.det(matrices), 1, atol=1e-5)
    np.testing.assert_allclose(
        np.trace(matrices, axis1=1, axis2=2), 2, atol=1e-5
    )  # with area 1, a shear along some line
    shifts = matrices - np.eye(2)
    angles = np.degrees(np.arctan(np.linalg.norm(shifts, axis=(1, 2))))
    assert kstest(angles, "uniform", (0, 20)).pvalue > 1e-3
    turned = np.arctan2(shifts[:, 0, 0] - shifts[:, 1, 1], shifts[:, 0, 1] + shifts[:, 1, 0])  # twice the direction
    assert kstest(turned, "uniform", (-np.pi, 2 * np.pi)).pvalue > 1e-3


def test_by_the_largest_shear_a_circle_becomes_the_ellipse_of_the_documentation():
    long, short = np.linalg.svd(sheared(20)[:, :, :]).S.T
    assert (short / long).min() == pytest.approx(0.70, abs=0.005)


def test_a_sheared_view_is_that_of_scipy():
    y, x = np.mgrid[: FRAMING.canvas, : FRAMING.canvas] / FRAMING.canvas
    picture = (100 + 60 * (np.sin(5 * x + 2 * y) + x * y * y)).astype(np.uint8)
    canvases = torch.from_numpy(picture).expand(10, 1, -1, -1)
    affine = draw_affine(0, range(10), FRAMING, dataclasses.replace(STILL, shear=25))
    views = train_view(canvases, torch.from_numpy(affine), FRAMING)
    for view, matrix in zip(views[:, 0], affine[:, :, :2] * FRAMING.canvas / FRAMING.size, strict=True):
        rows_first = matrix[::-1, ::-1]
        offset = (FRAMING.canvas - 1) / 2 - rows_first @ np.full(2, (FRAMING.size - 1) / 2)
        expected = ndimage.affine_transform(
            picture / 255, rows_first, offset, (FRAMING.size,) * 2, order=1, mode="reflect"
        )
        np.testing.assert_allclose(view, expected, atol=1e-5)
    plain = train_view(canvases, torch.from_numpy(draw_affine(0, range(10), FRAMING, STILL)), FRAMING)
    assert abs(views - plain).max() > 0.1


def test_erased_rectangles_have_the_areas_shapes_and_share_that_were_asked_for():
    size = 1000
    top, bottom, left, right = draw_erased(0, range(20_000), size, 0.3).T
    area = (bottom - top) * (right - left) / size**2
    assert (area > 0).mean() == pytest.approx(0.3, abs=0.01)
    some = area > 0
    assert kstest(area[some], "uniform", (0.02, 0.18)).pvalue > 1e-3
    shape = ((bottom - top) / (right - left + ~some))[some]
    assert kstest(np.log(shape), "uniform", (np.log(0.3), 2 * np.log(1 / 0.3))).pvalue > 1e-3
    assert top.min() >= 0
    assert left.min() >= 0
    assert bottom.max() <= size
    assert right.max() <= size
    room = (top / (size - (bottom - top)))[some]
    assert kstest(room, "uniform").pvalue > 1e-3


def test_fluxes_are_erased_to_no_value_and_pictures_to_their_median():
    rectangles = torch.tensor([[2, 5, 10, 30], [0, 0, 0, 0]])
    rng = np.random.default_rng(0)
    views = torch.from_numpy(rng.normal([[[[0.8]], [[0.1]], [[0.5]]]], 0.02, (2, 3, 32, 32)).astype(np.float32))
    views[:, :, 12:20, 12:20] = 1.0 - views[:, :, 12:20, 12:20]  # a galaxy
    for fluxes in (True, False):
        result = erased(views, rectangles, fluxes)
        changed = ~torch.isclose(result, views, rtol=0, atol=0)
        assert changed[0, :, 2:5, 10:30].all() if fluxes else changed[0, :, 2:5, 10:30].float().mean() > 0.95
        assert changed.sum() <= 3 * 3 * 20
        inside = result[0, :, 2:5, 10:30]
        if fluxes:
            assert inside.isnan().all()
        else:
            torch.testing.assert_close(inside.amax((1, 2)), views[0].flatten(1).median(1).values, atol=0.01, rtol=0)
            torch.testing.assert_close(inside.amax((1, 2)), inside.amin((1, 2)))


@pytest.mark.parametrize("name", ["shear", "erase", "blur", "noise", "mixup", "cutmix"])
def test_a_change_that_is_switched_on_leaves_the_draws_of_the_others(name):
    """Both ways: with all of the rest off, and with all of it on."""
    arcsec = torch.full((8,), 0.3)
    off = dataclasses.replace(EVERYTHING, **{name: 0.0})
    for before, after in (
        (off, EVERYTHING),
        (Augmentation(), dataclasses.replace(Augmentation(), **{name: getattr(EVERYTHING, name)})),
    ):
        one, other = (draw_views(5, range(8, 16), FRAMING, each, arcsec) for each in (before, after))
        changed = {
            "shear": {"affine"},
            "mixup": {"share", "opacity", "square"},
            "cutmix": {"share", "opacity", "square"},
        }
        for key in (one.keys() & other.keys()) - changed.get(name, set()):
            if (name, key) == ("shear", "blur"):  # its pixels are those of a sheared view, which has the same area
                torch.testing.assert_close(one[key], other[key])
            else:
                assert torch.equal(one[key], other[key]), key
        assert any(key not in one or not torch.equal(one[key], other[key]) for key in other), "it is drawn"


def test_the_draws_of_positions_do_not_depend_on_their_batch():
    arcsec = torch.linspace(0.2, 0.5, 8)
    whole = draw_views(1, range(8), FRAMING, EVERYTHING, arcsec)
    part = draw_views(1, range(4, 6), FRAMING, EVERYTHING, arcsec[4:6])
    assert whole.keys() == part.keys()
    for name, values in part.items():
        assert torch.equal(whole[name][4:6], values), name
    other = draw_views(2, range(8), FRAMING, EVERYTHING, arcsec)
    assert all(not torch.equal(other[name], whole[name]) for name in whole)


def model_and_galaxies(bands):
    stretch = BandStretch((5.0, 10.0), (1.0, 2.0), (100.0, 200.0)).to_dict()
    fields = dict(bands=list(bands), band_stretch=stretch, pixel_mean=[0.0] * 2, pixel_std=[1.0] * 2) if bands else {}
    model = GalaxyForImageClassification(GalaxyConfig(backbone="test_resnet", image_size=32, num_labels=3, **fields))
    side = model.config.framing.canvas
    light = 60 * torch.rand(8, 2 if bands else 3, side, side)
    return model, {"pixels": light if bands else light.byte(), "labels": torch.arange(8) % 3}


@pytest.mark.parametrize("bands", [None, ("g", "z")], ids=["8 bits", "fluxes"])
@pytest.mark.parametrize("name", ["shear", "erase", "blur", "noise", "mixup", "cutmix"])
def test_each_change_is_seen_by_the_model(name, bands):
    if bands is None and name in ("blur", "noise"):
        pytest.skip("is for fluxes")
    model, batch = model_and_galaxies(bands)
    framing = model.config.framing
    seen = []
    for augmentation in (Augmentation(), dataclasses.replace(Augmentation(), **{name: 1.0})):
        drawn = draw_views(0, range(8), framing, augmentation, torch.full((8,), 0.3))
        seen.append((random_views(batch | drawn, model), target_of_views(batch | drawn, model)["labels"]))
    (plain, labels), (views, targets) = seen
    assert torch.equal(
        plain, train_view(batch["pixels"], draw_views(0, range(8), framing, Augmentation())["affine"], framing)
    )
    assert not torch.equal(plain, views)
    if name in ("mixup", "cutmix"):
        torch.testing.assert_close(targets.sum(1), torch.ones(8))
        assert (targets[range(8), labels] < 1).any()
    else:
        assert torch.equal(targets, labels)
    assert model(views, labels=targets).loss.isfinite()


@pytest.mark.parametrize("bands", [None, ("g", "z")], ids=["8 bits", "fluxes"])
def test_views_are_made_on_the_device_of_the_galaxies(bands):
    model, batch = model_and_galaxies(bands)
    everything = EVERYTHING if bands else dataclasses.replace(EVERYTHING, blur=0, noise=0)
    batch |= draw_views(0, range(8), model.config.framing, everything, torch.full((8,), 0.3))
    views, labels = random_views(batch, model), target_of_views(batch, model)["labels"]
    with second_device() as device:
        batch = {name: values.to(device) for name, values in batch.items()}
        for name, values in model.named_buffers(recurse=False):
            setattr(model, name, values.to(device))
        assert torch.equal(random_views(batch, model).values, views)
        assert torch.equal(target_of_views(batch, model)["labels"].values, labels)


CLASSES = dict(task="classes", label="kind")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(shear=90.0), r"--shear 90.0: is an angle in degrees, in \[0, 90\)"),
        (dict(erase=1.5), r"--erase 1.5: is a share of the views, in \[0, 1\]"),
        (dict(noise=-1.0, bands=("g",)), "--noise -1.0: must not be negative"),
        (dict(noise=1.0), "--noise 1.0: is for fluxes, not for 8-bit pictures; name bands with --bands"),
        (dict(blur=1.0), "--blur 1.0: is for fluxes, not for 8-bit pictures; name bands with --bands"),
        (dict(mixup=float("nan"), **CLASSES), "--mixup nan: must not be negative"),
        (dict(mixup=0.2), "--mixup: is for --task classes and labels; --task votes has"),
        (dict(cutmix=1.0, task="values", values=("z",)), "--cutmix: is for --task classes and labels; --task values has --values"),
        (dict(cutmix=1.0, train="head", start="run", **CLASSES), "--cutmix 1.0: --train head learns from features"),
        (dict(shear=5.0, train="head", start="run"), "--shear 5.0: --train head learns from features"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(settings, message):
    Settings(dataset=("d",), out="o", shear=5.0, erase=0.5).check()
    Settings(dataset=("d",), out="o", mixup=0.2, cutmix=1.0, task="labels", labels=("ring",)).check()
    with pytest.raises(BadInput, match=message):
        Settings(dataset=("d",), out="o", **settings).check()
