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


@pytest.mark.parametrize("modules", [{}, {"ipykernel": sys}])
def test_a_variable_hides_the_bar_also_of_the_first_process(modules, monkeypatch):
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert progress(total=1, disable=False).disable
    monkeypatch.setenv("TQDM_DISABLE", "0")
    assert not progress(total=1, disable=False).disable
