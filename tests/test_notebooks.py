"""The notebooks run, here smaller than their text says, and hold no outputs."""

import json
import os
import re

import pytest

from tests.conftest import ROOT
from tests.documentation import NOTEBOOKS, run_story

CONTENTS = {path.stem: json.loads(path.read_text()) for path in NOTEBOOKS}


def linked(folder):
    """A folder that has what a notebook finds in the repository."""
    for name in ("spaces_app", "results"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_cells_of_a_notebook_run(path, tmp_path):
    run_story(path, linked(tmp_path))


@pytest.mark.nightly
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore")  # of Jupyter
def test_a_notebook_runs_in_jupyter(path, tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if "install" not in cell.metadata.get("tags", ())]
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": linked(tmp_path)}}
    ).execute()
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in shown)
    printed = "".join(output.get("text", "") for output in shown)
    if wrong := re.search(r"(\d+) of (\d+) are wrong", printed):
        assert int(wrong[1]) < int(wrong[2]) / 2


@pytest.mark.parametrize("name", CONTENTS)
def test_a_notebook_is_valid_and_stripped(name):
    import nbformat

    nbformat.validate(nbformat.from_dict(CONTENTS[name]))
    for cell in CONTENTS[name]["cells"]:
        assert not cell.get("outputs"), "strip the outputs: jupyter nbconvert --clear-output --inplace"
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("name", CONTENTS)
def test_a_notebook_has_a_badge_of_its_own_and_one_cell_that_installs(name):
    cells = CONTENTS[name]["cells"]
    (badge,) = re.findall(r"\(https://colab\.research\.google\.com/github/([^)]*)\)", "".join(cells[0]["source"]))
    assert badge.endswith(f"/notebooks/{name}.ipynb")
    (install,) = [cell for cell in cells if "install" in cell["metadata"].get("tags", ())]
    assert cells[1] == install
    assert "https://github.com/" + "/".join(badge.split("/")[:2]) in "".join(install["source"])
