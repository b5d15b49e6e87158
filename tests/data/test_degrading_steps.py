"""Steps are what was typed, and dimming is that of cosmology."""

import re

import numpy as np
import pytest

from hf_galaxy.data.degrading_steps import Facts, Step, axis_of, moved, steps_of
from hf_galaxy.errors import BadInput


def test_a_galaxy_at_a_higher_redshift_is_smaller_and_dimmer_as_cosmology_has_it(c_loader_off):
    from astropy.cosmology import Planck18  # reads a file

    shrink, dimming = moved(0.05, 0.15, 4)
    assert dimming == pytest.approx((1.05 / 1.15) ** 4)
    assert dimming == pytest.approx(0.69500, abs=1e-4), "by hand"
    # Independent: the flux of all light falls with the square of the luminosity distance.
    ratio = (Planck18.luminosity_distance(0.05) / Planck18.luminosity_distance(0.15)).value ** 2
    assert dimming / shrink**2 == pytest.approx(ratio, rel=1e-3)
    kpc = Planck18.arcsec_per_kpc_proper([0.05, 0.15]).value
    assert shrink == pytest.approx(kpc[0] / kpc[1], rel=5e-4)
    # Per unit frequency, in one band: magnitudes without K correction are fainter by -2.5 log10(1 + z) less.
    _, in_band = moved(0.05, 0.15, 3)
    assert -2.5 * np.log10(in_band / dimming) == pytest.approx(-2.5 * np.log10(1.15 / 1.05))
    assert moved(0.1, 0.1, 3) == (1, 1)
    with pytest.raises(BadInput, match=r"is at redshift 0\.2, farther away than 0\.1"):
        moved(0.2, 0.1, 3)
    with pytest.raises(BadInput, match="has no redshift"):
        moved(None, 0.1, 3)


def test_steps_are_those_of_the_options():
    steps = steps_of([1.5, 2], None, None, [1], None)
    assert steps == [Step(), Step(1.5, magnitudes=1), Step(2, magnitudes=1)]
    assert [step.name for step in steps] == [
        "original",
        "distance x 1.5, shallower by 1",
        "distance x 2, shallower by 1",
    ]
    assert axis_of(steps[1:]) == ("distance", [1.5, 2])
    assert steps_of([1, 2], None, None, None, None) == [Step(), Step(2)], "the original is always there, once"
    assert axis_of(steps_of(None, [0.1, 0.2], [1, 1.4], None, None)[1:]) == ("redshift", [0.1, 0.2])
    assert axis_of([Step(2, magnitudes=1), Step(1.5, magnitudes=2)]) == ("magnitudes", [1, 2])
    assert axis_of([Step(2), Step(magnitudes=2), Step(pixels=2)]) == ("step_number", [1, 2, 3])
    assert axis_of(steps_of(None, None, None, [1], None)[1:]) == ("magnitudes", [1]), "of a single step, too"
    assert axis_of(steps_of(None, None, None, None, [2])[1:]) == ("pixels", [2])
    assert axis_of(steps_of([3, 2], None, None, [1, 2], None)[1:]) == ("distance", [2, 3]), "in increasing order"
    change = Step(2, psf_fwhm=1.8, magnitudes=2.5, pixels=2).change(Facts(None, 1.2, 0.4), 3, "gaussian", "sky")
    assert (change.shrink, change.psf_fwhm, change.pixels) == (2, pytest.approx(3), 2)
    assert change.new_psf_fwhm == pytest.approx(4.5)
    assert change.depth == pytest.approx(10)
    assert change.reduced == 1
    assert Step(2).change(Facts(None, 1.2, 0.4, 0.1), 3, "gaussian", "galaxy").reduced == pytest.approx(4)
    assert Step(2).change(Facts(None, 1.2, 0.4, 0.8), 3, "gaussian", "galaxy").reduced == 1, "enlarged"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ((None, None, None, None, None), "nothing would change; give steps with --distance"),
        (([1], None, None, [0], None), "--distance --shallower: nothing would change"),
        (([2], [0.1], None, None, None), "are two ways to say"),
        (([2, 3], None, None, [1, 2, 3], None), "--distance: has 2 values and --shallower 3; give one for all"),
        (([0.5], None, None, None, None), "--distance 0.5: is a factor"),
        ((None, [-1], None, None, None), "--to-redshift -1: is a redshift"),
        (([2, 2], None, None, None, None), "--distance: gives the same step twice"),
    ],
)
def test_steps_that_are_none_are_refused(options, reason):
    with pytest.raises(BadInput, match=re.escape(reason)):
        steps_of(*options)
