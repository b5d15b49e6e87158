"""A saved model brings its code: from a folder or the Hub it answers alike where hf_galaxy is not installed."""

import ast
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForImageClassification, pipeline

from hf_galaxy import GalaxyConfig, GalaxyForImageClassification, GalaxyForRegression, GalaxyForVotes
from hf_galaxy.models.remote_code import MODULES
from tests.fake_hub import FakeHub
from tests.forks import run_code

STRANGER = """
import json
import sys
from pathlib import Path
sys.modules["hf_galaxy"] = None  # to import it fails, as if it were not installed
sys.modules["astropy"] = None
import torch
from transformers import AutoModel, AutoModelForImageClassification, pipeline

out, trusted, answers = sys.argv[1], {"trust_remote_code": True}, []
images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
picture = (images[0].permute(1, 2, 0) * 255).byte().numpy()
for folder in sys.argv[2:]:
    try:
        AutoModel.from_pretrained(folder + "votes", trust_remote_code=False)
    except ValueError as error:
        assert "trust_remote_code=True" in str(error), error
    else:
        raise AssertionError("code was run that nobody trusted")
    votes = AutoModel.from_pretrained(folder + "votes", **trusted)
    classes = AutoModelForImageClassification.from_pretrained(folder + "classes", **trusted)
    assert votes.__module__.startswith("transformers_modules."), votes.__module__
    values = AutoModel.from_pretrained(folder + "values", **trusted)
    said = pipeline("galaxy-morphology", model=folder + "votes", **trusted)(picture)
    answers.append((votes(images).fractions.tolist(), classes(images).logits.tolist(), values(images).std.tolist(), said))
votes.save_pretrained(out + "/again")
assert type(AutoModel.from_pretrained(out + "/again", **trusted)).__name__ == "GalaxyForVotes"
with open(out + "/answers.json", "w") as file:
    json.dump(answers, file)
"""


RENDERING = {"crop": 0.75, "size": 20}  # which needs the saved code, too
WORDS, NUMBERS = re.compile(r'"[^"]*"'), re.compile(r"-?\d+\.\d+(?:e-?\d+)?")


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(2)
    of_classes = dict(id2label={0: "ring", 1: "none"}, label2id={"ring": 0, "none": 1})
    made = {
        "votes": GalaxyForVotes(
            GalaxyConfig(backbone="test_convnext", tree="gz_rings", image_size=32, rendering=RENDERING)
        ),
        "classes": GalaxyForImageClassification(GalaxyConfig(backbone="test_vit", image_size=32, **of_classes)),
        "values": GalaxyForRegression(GalaxyConfig(backbone="test_resnet", image_size=32, values=["z"])),
    }
    made["values"].set_spread(0.2 * torch.randn(1, made["values"].head.in_features), torch.zeros(1))
    return {name: model.eval() for name, model in made.items()}


def test_a_stranger_gets_the_same_answers_from_a_folder_and_from_the_hub(models, tmp_path):
    for name, model in models.items():
        model.save_pretrained(tmp_path / name)
    with FakeHub(tmp_path / "hub") as hub:
        for name, model in models.items():
            model.save_pretrained(hub.folder("models", f"lab/{name}"))
        environment = os.environ | hub.environment | {"HF_HOME": str(tmp_path / "home")}
        done = run_code(STRANGER, tmp_path, f"{tmp_path}/", "lab/", environment=environment)
    assert done.returncode == 0, done.stderr
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    picture = (images[0].permute(1, 2, 0) * 255).byte().numpy()
    with torch.no_grad():
        expected = [models["votes"](images).fractions.tolist(), models["classes"](images).logits.tolist()]
        expected.append(models["values"](images).std.tolist())
    # Of a folder with code, by its path: nobody who has hf_galaxy need trust it.
    expected.append(pipeline("galaxy-morphology", model=str(tmp_path / "votes"))(picture))
    for answered in json.loads((tmp_path / "answers.json").read_text()):
        assert WORDS.findall(json.dumps(answered)) == WORDS.findall(json.dumps(expected))
        # Weights that lie elsewhere in memory are added up in another order (`export._aligned`).
        numbers = ([float(each) for each in NUMBERS.findall(json.dumps(said))] for said in (answered, expected))
        np.testing.assert_allclose(*numbers, atol=1e-6)


def test_whoever_has_hf_galaxy_gets_its_own_classes(models, tmp_path):
    for name, model in models.items():
        model.save_pretrained(tmp_path / name)
    assert type(AutoModel.from_pretrained(tmp_path / "votes", trust_remote_code=True)) is GalaxyForVotes
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path / "classes")
    assert type(loaded) is GalaxyForImageClassification
    loaded.save_pretrained(tmp_path / "saved_again")
    for file in (tmp_path / "classes").iterdir():
        assert (tmp_path / "saved_again" / file.name).read_bytes() == file.read_bytes()


def test_the_modules_are_all_that_they_import(models, tmp_path):
    models["votes"].save_pretrained(tmp_path)
    beside = {Path(name).name for name in MODULES}
    assert {file.stem for file in tmp_path.glob("*.py")} == beside
    for file in tmp_path.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                assert "hf_galaxy" not in {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                # An import left absolute would work wherever hf_galaxy is installed, and nowhere else.
                assert (node.module or "").split(".")[0] != "hf_galaxy", f"{file.name}:{node.lineno}"
                assert not node.level or node.module in beside
    names = json.loads((tmp_path / "config.json").read_text())["auto_map"]
    assert {"AutoConfig", "AutoModel", "AutoModelForImageClassification"} == names.keys()
    assert (tmp_path / "model.py").read_text().count(f"class {names['AutoModel'].split('.')[1]}(") == 1
