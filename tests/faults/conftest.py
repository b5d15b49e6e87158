"""What the tests of faults share: materials, and the outcome of each job that nobody disturbs."""

import pytest

from tests.faults.jobs import Materials


@pytest.fixture(scope="session")
def materials(mock_dataset):
    return Materials(mock_dataset)
