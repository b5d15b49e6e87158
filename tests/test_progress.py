"""The bar of long work shows itself where somebody looks at it."""

import sys

import pytest

from hf_galaxy.progress import progress


@pytest.mark.parametrize(("modules", "seconds"), [({}, 30), ({"ipykernel": None}, 0.5)])
def test_a_notebook_sees_the_bar_more_often_than_a_log_file(modules, seconds, monkeypatch):
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    for name in modules:
        monkeypatch.setitem(sys.modules, name, sys)
    with progress(total=3, desc="work") as bar:
        assert (bar.mininterval, bar.total) == (seconds, 3)
    assert list(progress(range(3), disable=True)) == [0, 1, 2]
