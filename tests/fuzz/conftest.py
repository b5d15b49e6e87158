"""What all tests of this folder have."""

import warnings

import pytest


@pytest.fixture(autouse=True)
def quiet(recwarn):
    """As users have it: oddities of inputs are warned of, and are no errors."""
    warnings.simplefilter("ignore")
