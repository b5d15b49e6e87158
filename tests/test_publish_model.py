"""A run folder goes to the Hub as it is, is loaded from there, and nothing that a person wrote or that could harm goes with it.

The script and what loads from the fake Hub run in processes of their own.
"""

import json
import os
import shutil
import subprocess
import sys

import pytest
import yaml
from fake_hub import FakeHub
from huggingface_hub import ModelCard, parse_eval_result_entries

from hf_galaxy import cards
from hf_galaxy.run_folder import rewrite
from hf_galaxy.run_record import RunRecord
from tests.runs import run as trained

MADE = {"README.md", "config.json", "model.safetensors", "preprocessor_config.json", "run.json"}
DRAWN = {"figures/loss.png", "figures/calibration.png"}


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with FakeHub(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


@pytest.fixture(scope="module")
def environment(hub, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return os.environ | hub.environment | {"HF_HOME": str(cache), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, mock_dataset):
    """A run folder as training leaves it."""
    out = tmp_path_factory.mktemp("runs") / "mock"
    trained(out, dataset=(str(mock_dataset),), epochs=1, keep_at=(1,))
    return out


@pytest.fixture
def folder(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def run(environment, *command):
    command = [sys.executable, *map(str, command)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def publish(environment, folder, *options, error=None):
    done = run(environment, "scripts/publish_model.py", "--run", folder, *options)
    assert done.returncode == (error is not None), done.stderr
    if error is not None:
        assert error in done.stderr.splitlines()[-1]
    return done.stdout


def asked_of(environment, program, *arguments):
    done = run(environment, __file__, program.__name__, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def files_of(folder):
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != ".gitattributes"]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def test_training_leaves_a_card_with_its_figures(finished):
    assert files_of(finished).keys() == MADE | DRAWN | {"kept-checkpoint-000000004.pt"}
    record = RunRecord.load(finished)
    assert (finished / "README.md").read_text() == cards.model_card(record)
    assert record.dataset["cards"][0]["license"] == "apache-2.0"
    assert record.dataset["cards"][0]["telescope"].startswith("none: drawn with GalSim")
    assert ModelCard.load(finished / "README.md").data.license == "apache-2.0"


def loaded(name, picture):
    import torch
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModel

    from hf_galaxy import GalaxyForVotes

    models = AutoModel.from_pretrained(name).eval(), GalaxyForVotes.from_pretrained(name).eval()
    pixels = AutoImageProcessor.from_pretrained(name)(Image.open(picture).convert("RGB"), return_tensors="pt")
    with torch.no_grad():
        return [model(**pixels).fractions[0].tolist() for model in models]


def test_what_is_pushed_is_the_folder_and_loads_from_the_hub(hub, environment, folder, mock_dataset, tmp_path):
    said = publish(environment, folder, "--push", "lab/model", "--datasets", "lab/survey")
    assert f"pushed to {hub.url}/lab/model" in said
    there, here = files_of(hub.folder("models", "lab/model")), files_of(folder)
    assert there == {path: content for path, content in here.items() if not path.endswith(".pt")}
    assert there.keys() == MADE | DRAWN | {".eval_results/survey.yaml"}
    card = ModelCard(there["README.md"].decode())
    assert card.data.datasets == ["lab/survey"]
    assert 'model="lab/model"' in card.text
    entries = parse_eval_result_entries(yaml.safe_load(there[".eval_results/survey.yaml"]))
    assert {entry.task_id for entry in entries} >= {"gz2_rmse", "gz_decals_dr5_accuracy"}

    picture = mock_dataset / "contact_sheet.jpg"
    local = asked_of(environment, loaded, folder, picture)
    assert asked_of(environment, loaded, "lab/model", picture) == local
    assert local[0] == local[1]

    # And it can be trained on from there, which the new run's card says.
    start = ("--start", "lab/model", "--dataset", mock_dataset, "--task", "classes", "--label", "mock_class")
    more = ("--epochs", 1, "--workers", 0, "--cpu", "--out", tmp_path / "finetuned")
    done = run(environment | {"HF_DATASETS_OFFLINE": "1"}, "scripts/finetune.py", *start, *more)
    assert done.returncode == 0, done.stderr
    assert ModelCard.load(tmp_path / "finetuned/README.md").data.base_model == "lab/model"


def test_a_push_that_broke_off_goes_on_and_the_card_comes_last(hub, environment, folder):
    hub.fail(after=1)
    publish(environment, folder, "--push", "lab/broken", error="the model is whole in")
    assert "README.md" not in files_of(hub.folder("models", "lab/broken"))
    hub.heal()
    publish(environment, folder, "--push", "lab/broken")
    assert files_of(hub.folder("models", "lab/broken"))["README.md"] == (folder / "README.md").read_bytes()


def test_only_safetensors_are_published(environment, folder):
    (folder / "extra").mkdir()
    (folder / "extra/head.pkl").write_bytes(b"cos")
    publish(environment, folder, error="extra/head.pkl can run anything when loaded")
    publish(environment, folder, "--allow-pickle", "head.pkl", error="--allow-pickle head.pkl: there is no such file")
    publish(environment, folder, "--allow-pickle", "extra/head.pkl")
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    publish(environment, folder, "--allow-pickle", "extra/head.pkl", error="has no weights in safetensors")


def test_what_cannot_be_published_is_refused_and_left_as_it_was(environment, folder):
    before = files_of(folder)
    publish(environment, folder, "--push", "lab/mock/2", error="--push lab/mock/2: is no ORG/NAME")
    publish(environment, folder, "--datasets", "../d", error="--datasets ../d: is no ORG/NAME")
    publish(environment, folder, "--license", "all mine", error="--license all mine: is no identifier")
    assert files_of(folder) == before
    record = RunRecord.load(folder)
    record.dataset["cards"][0]["license"] = None
    record.save(folder)
    publish(environment, folder, "--push", "lab/none", error="--license: the cards of the training data state none")
    record.finished = False
    record.save(folder)
    publish(environment, folder, error="the run is not finished")
    (folder / "model.safetensors").write_bytes(b"broken")
    record.finished = True
    record.save(folder)
    publish(environment, folder, "--license", "mit", error="is no folder or reachable Hub id of a finished run")
    assert not RunRecord.load(folder).publication


def test_a_card_that_a_person_edited_stays_and_is_what_is_pushed(hub, environment, folder):
    (folder / "README.md").write_text("My own words.")
    (folder / "figures/loss.png").unlink()
    assert "stays as it is" in publish(environment, folder, "--license", "mit", "--push", "lab/edited")
    assert files_of(hub.folder("models", "lab/edited"))["README.md"] == b"My own words."
    assert (folder / "figures/loss.png").exists()
    (folder / "README.md").unlink()
    assert "made of" in publish(environment, folder)
    assert ModelCard.load(folder / "README.md").data.license == "mit"


def test_a_card_that_an_older_version_made_is_made_anew(folder, monkeypatch):
    monkeypatch.setattr(cards, "model_card", lambda record: "what a newer version says")
    assert rewrite(folder, lambda record: None)
    assert (folder / "README.md").read_text() == "what a newer version says"
    (folder / "README.md").write_text("what a newer version says, and a person")
    assert not rewrite(folder, lambda record: None)


def test_figures_are_drawn_again_only_if_they_would_differ(folder):
    stamps = {path: (folder / path).stat().st_mtime_ns for path in DRAWN}
    rewrite(folder, lambda record: record.results.update(validation={}) or record.results.pop("validation"))
    assert {path: (folder / path).stat().st_mtime_ns for path in DRAWN} == stamps
    rewrite(folder, lambda record: record.training["history"][0].update(training_loss=99.0))
    assert (folder / "figures/loss.png").stat().st_mtime_ns > stamps["figures/loss.png"]


if __name__ == "__main__":
    print("\n" + json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
