"""What is packed: every file of the package, and libraries in versions that have what is used of them."""

import ast
import re
import tomllib
import zipfile

import pytest

from tests.conftest import ROOT
from tests.installed import built_wheel

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Modules that their packages do not document, besides those whose names begin with an underscore.
UNDOCUMENTED = (
    "datasets.arrow_reader",
    "datasets.packaged_modules",
    "datasets.table",
    "datasets.utils",
    "gradio.processing_utils",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Names of the files of the package, and the wheel that pip makes of them."""
    return built_wheel(tmp_path_factory.mktemp("wheel"))


def test_the_wheel_has_every_file_of_the_package_and_nothing_else(wheel):
    files, packed = wheel[0], set(zipfile.ZipFile(wheel[1]).namelist())
    assert {name for name in packed if not name.startswith("hf_galaxy-")} == files
    for name in ("py.typed", "commands/pretrain.py", "trees/gz2.json", "training/recipes/zoobot2.json"):
        assert f"hf_galaxy/{name}" in packed
    assert any(name.endswith(".jinja") for name in packed)
    assert any(name.startswith("hf_galaxy/downstream/task_sets/") for name in packed)


def test_packages_of_which_undocumented_modules_are_used_have_an_upper_bound():
    requirements = [
        *PROJECT["dependencies"],
        *(r for extra in PROJECT["optional-dependencies"].values() for r in extra),
    ]
    bounded = {re.match(r"[\w.-]+", each)[0] for each in requirements if "<" in each}
    used = set()
    for folder in ("hf_galaxy", "spaces_app"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and node.level == 0:
                    names = [f"{node.module}.{alias.name}" for alias in node.names]
                used |= {name for name in names if "._" in name or name.startswith(UNDOCUMENTED)}
    assert used  # else the list above has gone stale
    ours = {name for name in used if name.split(".")[0] != "hf_galaxy"}
    assert {name.split(".")[0] for name in ours} <= bounded, ours
