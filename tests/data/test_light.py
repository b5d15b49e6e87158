"""Light of 8-bit pictures is what was stretched to them, as far as they hold it."""

import numpy as np
import pytest
from astropy import visualization

from hf_galaxy.data.light import PictureStretch
from hf_galaxy.errors import BadInput

RNG = np.random.default_rng(3)
LIGHT = RNG.uniform(0, 1, (3, 40, 50)) ** 3
CURVES = {
    "asinh": visualization.AsinhStretch(0.05), "sqrt": visualization.SqrtStretch(), "linear": visualization.LinearStretch(),
    "log": visualization.LogStretch(),
}  # fmt: skip


@pytest.mark.parametrize("curve", CURVES)
def test_the_stretches_are_those_of_astropy(curve):
    stretch = PictureStretch(curve, 0.05)
    shown = np.moveaxis(np.rint(255 * CURVES[curve](LIGHT)), 0, -1).astype(np.uint8)
    assert np.abs(stretch.pixels(LIGHT).astype(int) - shown).max() <= 1
    assert np.abs(CURVES[curve](stretch.light(shown)) - CURVES[curve](LIGHT)).max() < 0.6 / 255 + 1e-6


def test_lupton_keeps_ratios_and_is_that_of_astropy():
    light = LIGHT[:1] * [[[0.6]], [[0.5]], [[0.4]]]  # none brighter than white
    stretch = PictureStretch("lupton", 0.05)
    shown = visualization.make_lupton_rgb(
        *light, interval=visualization.ManualInterval(0, 1), stretch_object=visualization.AsinhStretch(0.05), output_dtype=float,
    )  # fmt: skip
    assert np.abs(stretch.pixels(light) - 255 * shown).max() <= 0.51
    back = stretch.light(np.rint(255 * shown).astype(np.uint8))
    bright = light.mean(0) > 0.05
    assert back[:, bright] == pytest.approx(light[:, bright], rel=0.08, abs=0.004)
    white = stretch.pixels(np.array([2.0, 1.0, 0.5])[:, None, None])[0, 0]
    assert white[0] == 255
    assert white[1] == pytest.approx(127.5, abs=1)  # the hue stays


@pytest.mark.parametrize("curve", ["lupton", *CURVES])
def test_pictures_come_back_to_the_bit(curve):
    stretch = PictureStretch(curve, 0.1)
    grey = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    assert stretch.light(grey).shape == (1, 16, 16), "a grey picture has one band, and one noise"
    np.testing.assert_array_equal(stretch.pixels(stretch.light(grey)), grey)
    colour = RNG.integers(0, 256, (30, 30, 3), dtype=np.uint8)
    np.testing.assert_array_equal(stretch.pixels(stretch.light(colour)), colour)


def test_limits_may_be_those_of_each_picture():
    fixed, own = PictureStretch("linear"), PictureStretch("linear", limits="file", low=0, high=100)
    faint = 0.2 * LIGHT[:1] + 0.1
    assert fixed.pixels(faint).max() == pytest.approx(255 * faint.max(), abs=1)
    assert (own.pixels(faint).min(), own.pixels(faint).max()) == (0, 255)
    for wrong in ({"softening": 0.0}, {"low": 80.0, "high": 20.0}):
        with pytest.raises(BadInput):
            PictureStretch("asinh", **wrong)
