"""What is installed: every file of the package, its commands, and libraries in versions that have what is used of them."""

import ast
import os
import re
import site
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

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
    checkout, out = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("wheel")
    files = [path for path in (ROOT / "hf_galaxy").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    for path in (*files, *(ROOT / name for name in ("pyproject.toml", "README.md", "LICENSE"))):
        copy = checkout / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    options = [
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--disable-pip-version-check",
        "--wheel-dir",
        str(out),
    ]
    command = [sys.executable, "-m", "pip", "wheel", *options, str(checkout)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {path.relative_to(ROOT).as_posix() for path in files}, next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Folder of the programs of a fresh environment with the wheel; the libraries that it needs are those of this environment."""
    environment = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(environment)
    scheme = {"base": str(environment), "platbase": str(environment)}
    packages = Path(sysconfig.get_path("purelib", "venv", scheme))
    # One line for each folder: files in them that put this checkout on the path, as of `pip install -e`, are not read there.
    ours = [*map(Path, site.getsitepackages())]
    (packages / "libraries.pth").write_text("".join(f"{folder}\n" for folder in ours))
    for mending in (file for folder in ours for file in folder.glob("torchvision_beside*.pth")):
        (packages / mending.name).write_bytes(mending.read_bytes())
    programs = Path(sysconfig.get_path("scripts", "venv", scheme))
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(environment),
        "install",
        "--no-deps",
        "--no-index",
        str(wheel[1]),
    ]
    done = subprocess.run(
        [*command, "--disable-pip-version-check"], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return programs


def test_the_wheel_has_every_file_of_the_package_and_nothing_else(wheel):
    files, packed = wheel[0], set(zipfile.ZipFile(wheel[1]).namelist())
    assert {name for name in packed if not name.startswith("hf_galaxy-")} == files
    for name in ("py.typed", "commands/pretrain.py", "trees/gz2.json", "training/recipes/zoobot2.json"):
        assert f"hf_galaxy/{name}" in packed
    assert any(name.endswith(".jinja") for name in packed)
    assert any(name.startswith("hf_galaxy/downstream/task_sets/") for name in packed)


def test_an_installed_package_works_without_the_checkout(installed, tmp_path):
    """Its command draws galaxies, and its code is that of the wheel."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}

    def run(program, *words):
        done = subprocess.run(
            [str(installed / program), *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "\nTrain:\n  finetune     Finetune a pretrained backbone" in run("hf-galaxy")
    where = run("python", "-c", "import hf_galaxy; print(hf_galaxy.__file__)")
    assert Path(where).is_relative_to(installed.parent)
    run("hf-galaxy", "publish", "simulate", "--galaxies", "8", "--size", "32", "--out", "data/mock")
    assert "Nothing in it is real" in (tmp_path / "data/mock/README.md").read_text()


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
