"""The package as others get it: as a wheel, and in an environment that knows of no checkout."""

import site
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from tests.forks import ROOT


def built_wheel(folder: Path) -> tuple[set[str], Path]:
    """Names of the files of the package, and the wheel that pip makes of them, in a folder."""
    checkout = folder / "checkout"
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
        str(folder),
    ]
    command = [sys.executable, "-m", "pip", "wheel", *options, str(checkout)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {path.relative_to(ROOT).as_posix() for path in files}, next(folder.glob("*.whl"))


def programs_with(wheel: Path, environment: Path) -> Path:
    """Folder of the programs of a fresh environment with a wheel; the libraries that it needs are those of this environment."""
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
        str(wheel),
    ]
    done = subprocess.run(
        [*command, "--disable-pip-version-check"], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return programs
