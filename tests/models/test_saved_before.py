"""A run folder saved when all modules of hf_galaxy stood in one folder gives the answers that it gave then.

tests/fixtures/run_before_rooms.tar.xz was made at commit e00f4f2: one epoch on a mock survey, a ConvNeXt of 8 to 32 channels, the
code of that time beside the weights, and in expected.json its answers of that time to the pictures of `pixels`.
"""

import json
import tarfile

import numpy as np
import pytest
import torch
from transformers import AutoModel, pipeline

from hf_galaxy import GalaxyForVotes
from hf_galaxy.models.start import load_run
from tests.conftest import ROOT
from tests.forks import run_code

# The program of somebody who has no hf_galaxy, and trusts the code beside the weights.
STRANGER = """
import json
import sys
sys.modules["hf_galaxy"] = None  # importing it fails, as if it were not installed
import torch
from transformers import AutoModel

model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True).eval()
pixels = (torch.arange(2 * 3 * 32 * 32) % 97 / 96).reshape(2, 3, 32, 32)
with torch.inference_mode():
    print(json.dumps([type(model).__module__, model(pixel_values=pixels).concentrations.tolist()]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("before")
    with tarfile.open(ROOT / "tests/fixtures/run_before_rooms.tar.xz") as archive:
        archive.extractall(out, filter="data")
    return out / "run_before_rooms"


@pytest.fixture(scope="module")
def expected(folder):
    return json.loads((folder / "expected.json").read_text())


def pixels():
    return (torch.arange(2 * 3 * 32 * 32) % 97 / 96).reshape(2, 3, 32, 32)


@pytest.mark.parametrize("cls", [GalaxyForVotes, AutoModel])
def test_its_answers_are_those_of_then(folder, expected, cls):
    model = cls.from_pretrained(folder).eval()
    assert type(model) is GalaxyForVotes
    assert model.columns == expected["columns"]
    with torch.inference_mode():
        concentrations = model(pixel_values=pixels()).concentrations
    np.testing.assert_allclose(concentrations, expected["concentrations"], rtol=1e-5)


def test_its_record_and_its_pipeline_load(folder):
    _, record = load_run(folder)
    assert record.finished
    assert record.results["test"]["loss"]["model"] > 0
    galaxy = (pixels()[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    ((campaign,),) = pipeline("galaxy-morphology", model=str(folder))([galaxy])
    assert campaign["campaign"] == "gz2"


def test_a_stranger_gets_the_same_from_the_code_beside_the_weights(folder, expected):
    done = run_code(STRANGER, folder)
    assert done.returncode == 0, done.stderr
    module, concentrations = json.loads(done.stdout.splitlines()[-1])
    assert module.startswith("transformers_modules.")
    np.testing.assert_allclose(concentrations, expected["concentrations"], rtol=1e-5)
