"""What is known of galaxies decides which steps they can make."""

import numpy as np
import pyarrow as pa
import pytest

from hf_galaxy.data.degrading_steps import Step
from hf_galaxy.models.degraded_inputs import Degrading
from hf_galaxy.models.prediction_inputs import PictureList


def test_galaxies_without_plain_numbers_cannot_make_a_step():
    source = PictureList([np.zeros((8, 8), np.uint8)] * 4)
    source.joined = pa.table({"fwhm": ["1.5", "1.350 arcsec", None, "nan"]})
    first, *others = Degrading(None, "fwhm").reasons(Step(2.0), [source])
    assert first is None
    assert others == [
        f"--psf-fwhm fwhm: is {value} for it; a plain number is needed" for value in ("'1.350 arcsec'", "None", "'nan'")
    ]


def test_the_reference_is_that_of_galaxies_that_can_be_moved():
    source = PictureList([np.zeros((8, 8), np.uint8)] * 5)
    source.joined = pa.table({"z": [-9.0, 0.0, 0.02, 0.04, 0.3]})
    assert Degrading("z", 0.0).reference("redshift", [source], 0.1) == pytest.approx(0.03)
