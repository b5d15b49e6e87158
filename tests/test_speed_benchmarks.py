"""The scripts in benchmarks/ still run, and print what they promise; what they measure is not looked at.

But for those that take minutes or need the Space: memory.py, against_zoobot.py, space_load.py.
"""

import os
import runpy
import sys

import pytest

from hf_galaxy.cores import available_cores
from tests.conftest import ROOT
from tests.training.runs import SERVER

TABLES = {
    "likelihood": (["--rounds", 1, "--galaxies", 20, "--threads", 1], ["| hf_galaxy |", "| bare lgamma and digamma |"]),
    "data_loading": (["--galaxies", 64, "--repeats", 1], ["| hf_galaxy |", "| ratio of CPU times |"]),
    "training": (
        ["--backbone", "test_convnext", "--image-size", 32, "--batch-size", 8, "--galaxies", 16, "--steps", 1, "--repeats", 1,
         "--workers", 1, "--cpu"],
        ["| from JPEGs / from memory |", "| likelihood, forward and backward |", "| copy in memory |"],
    ),
    "scale": (
        ["--rows", 1000, 1100, "--tree", "gz_rings", "--metadata", 1],
        [f"| {step} |" for step in ("publish", "check", "combine", "open", "train", "predict", "embed")],
    ),
    "kept_memory": (
        ["--backbones", "test_convnext", "--image-size", 32, "--batch-size", 2, "--steps", 1, "--repeats", 1],
        ["| given back / kept |", "| test_convnext |"],
    ),
    "busy_machine": (
        ["--work", "train", "predict", "space", "--backbones", "test_convnext", "--image-size", 32, "--batch-size", 8, "--seconds", 0.1, "--repeats", 1],
        ["| test_convnext | nothing |", "| test_convnext | a loop in another session |", "| small | nothing |"],
    ),
    "onnx_speed": (
        ["--backbones", "test_convnext", "--image-sizes", 32, "--batches", 1, "--threads", 1, "--rounds", 1],
        ["| test_convnext | 32 |"],
    ),
    "predictions": (
        ["--backbones", "test_resnet", "--image-sizes", 32, "--batch-size", 16, "--galaxies", 20, "--repeats", 1],
        ["| test_resnet | 32 | hf_galaxy |", "| test_resnet | 32 | hf_galaxy, --runtime onnx |"],
    ),
}  # fmt: skip


def script(name, words, log):
    """A script as on the command line."""
    file = open(log, "w")  # noqa: SIM115 (the process ends with it)
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
    sys.argv = [f"benchmarks/{name}.py", *map(str, words)]
    sys.path.insert(0, str(ROOT / "benchmarks"))
    runpy.run_path(str(ROOT / sys.argv[0]), run_name="__main__")


# They take longer than all others together.
LONG = ("training", "busy_machine", "onnx_speed", "scale", "predictions")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.nightly] if name in LONG else []) for name in TABLES]
)
def test_it_runs(name, tmp_path):
    if name == "busy_machine" and len(available_cores()) == 1:
        pytest.skip("one core has no threads that could wait for one another")
    words, promised = TABLES[name]
    process = SERVER.Process(target=script, args=(name, words, tmp_path / "log"))
    process.start()
    process.join(300)
    printed = (tmp_path / "log").read_text()
    assert process.exitcode == 0, printed
    for line in promised:
        assert line in printed
    assert "nan" not in printed.lower().split()
