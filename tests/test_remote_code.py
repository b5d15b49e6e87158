"""A saved model brings its code: from a folder or the Hub it answers alike where hf_galaxy is not installed."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fake_hub import FakeHub
from transformers import AutoModel, AutoModelForImageClassification

from hf_galaxy import GalaxyConfig, GalaxyForImageClassification, GalaxyForVotes
from hf_galaxy.remote_code import MODULES

STRANGER = """
import sys
sys.modules["hf_galaxy"] = None  # to import it fails, as if it were not installed
import torch
from transformers import AutoModel, AutoModelForImageClassification, pipeline

folder, images = sys.argv[1], torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
try:
    AutoModel.from_pretrained(folder + "votes", trust_remote_code=False)
except ValueError as error:
    assert "trust_remote_code=True" in str(error), error
else:
    raise AssertionError("code was run that nobody trusted")
trusted = {"trust_remote_code": True}
votes = AutoModel.from_pretrained(folder + "votes", **trusted)
classes = AutoModelForImageClassification.from_pretrained(folder + "classes", **trusted)
assert votes.__module__.startswith("transformers_modules."), votes.__module__
torch.save((votes(images).fractions.detach(), classes(images).logits.detach()), sys.argv[2])
votes.save_pretrained(sys.argv[3])
assert type(AutoModel.from_pretrained(sys.argv[3], **trusted)).__name__ == "GalaxyForVotes"
"""


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(2)
    of_classes = dict(id2label={0: "ring", 1: "none"}, label2id={"ring": 0, "none": 1})
    made = {
        "votes": GalaxyForVotes(GalaxyConfig(backbone="test_convnext", tree="gz_rings", image_size=32)),
        "classes": GalaxyForImageClassification(GalaxyConfig(backbone="test_vit", image_size=32, **of_classes)),
    }
    return {name: model.eval() for name, model in made.items()}


def ask_a_stranger(folder, models, tmp_path, environment):
    """Compare what models answer with what they do as saved, in a process that has no hf_galaxy."""
    environment = os.environ | {"HF_HOME": str(tmp_path / "home")} | environment
    command = [sys.executable, "-c", STRANGER, folder, str(tmp_path / "answers.pt"), str(tmp_path / "again")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    fractions, logits = torch.load(tmp_path / "answers.pt")
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(models["votes"](images).fractions, fractions)
        assert torch.equal(models["classes"](images).logits, logits)


def test_from_a_folder(models, tmp_path):
    for name, model in models.items():
        model.save_pretrained(tmp_path / name)
    ask_a_stranger(f"{tmp_path}/", models, tmp_path, {})
    # Whoever has hf_galaxy gets its own classes, trusting or not.
    assert type(AutoModel.from_pretrained(tmp_path / "votes", trust_remote_code=True)) is GalaxyForVotes
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path / "classes")
    assert type(loaded) is GalaxyForImageClassification
    loaded.save_pretrained(tmp_path / "saved_again")
    for file in (tmp_path / "classes").iterdir():
        assert (tmp_path / "saved_again" / file.name).read_bytes() == file.read_bytes()


def test_from_the_hub(models, tmp_path):
    with FakeHub(tmp_path / "hub") as hub:
        for name, model in models.items():
            model.save_pretrained(hub.folder("models", f"lab/{name}"))
        ask_a_stranger("lab/", models, tmp_path, hub.environment)


def test_the_modules_are_all_that_they_import(models, tmp_path):
    models["votes"].save_pretrained(tmp_path)
    assert {file.stem for file in tmp_path.glob("*.py")} == set(MODULES)
    for file in tmp_path.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                assert "hf_galaxy" not in {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.module != "hf_galaxy"
                assert not node.level or node.module in MODULES
    names = json.loads((tmp_path / "config.json").read_text())["auto_map"]
    assert {"AutoConfig", "AutoModel", "AutoModelForImageClassification"} == names.keys()
    assert Path(tmp_path / "model.py").read_text().count(f"class {names['AutoModel'].split('.')[1]}(") == 1
