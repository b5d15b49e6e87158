"""How unfamiliar a picture is: hf-galaxy predict says what the Space says of it."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import hf_galaxy
from galaxy_models import MODELS, GalaxyModel
from hf_galaxy.commands.predict import command
from hf_galaxy.models.predictions import KEY
from picture import read_picture
from tests.conftest import ROOT


def test_scores_of_predictions_are_those_of_the_space(tmp_path):
    pictures, out = tmp_path / "pictures", tmp_path / "out"
    pictures.mkdir()
    shutil.copy(ROOT / "spaces_app/examples/two_arms.jpg", pictures)
    noise = np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).save(pictures / "noise.png")
    words = ("--run", MODELS / "lite0", "--dataset", pictures, "--out", out, "--batch-size", 2, "--cpu")
    command([*map(str, words)], "predict")
    table = pq.read_table(out / "part-00000-of-00001.parquet")
    scores = dict(zip(table["id_str"].to_pylist(), table["ood_score"].to_pylist(), strict=True))
    model = GalaxyModel(MODELS / "lite0")
    for file in pictures.iterdir():
        assert scores[file.name] == pytest.approx(model.predict(read_picture(file)).unlikeness, rel=1e-3)
    unfamiliar = dict(zip(table["id_str"].to_pylist(), table["unfamiliar"].to_pylist(), strict=True))
    assert unfamiliar == {"two_arms.jpg": False, "noise.png": True}
    said = json.loads(table.schema.metadata[KEY])["ood"]
    assert said == {"threshold": 1.0, "level": 0.99, "sha256": model.familiarity.digest}
    called = hf_galaxy.predict(MODELS / "lite0", pictures, ood=False, cpu=True)
    assert "ood_score" not in called
