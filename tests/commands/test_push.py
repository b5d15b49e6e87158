"""A run folder goes to the Hub as it is, is loaded from there, and nothing that a person wrote or that could harm goes with it.

The script and what loads from the fake Hub run in processes of their own.
"""

import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from hf_galaxy.models.remote_code import MODULES
from hf_galaxy.reports import model_card
from hf_galaxy.reports.run_folder import rewrite
from hf_galaxy.reports.run_record import RunRecord
from tests.conftest import ROOT
from tests.forks import LIBRARIES, run_forked
from tests.training.runs import run as trained

MADE = {"README.md", "config.json", "model.safetensors", "preprocessor_config.json", "run.json"}
MADE |= {f"{Path(name).name}.py" for name in MODULES}
DRAWN = {"figures/loss.png", "figures/calibration.png"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, mock_dataset):
    """A run folder as training leaves it."""
    out = tmp_path_factory.mktemp("runs") / "mock"
    trained(out, dataset=(str(mock_dataset),), epochs=1, keep_at=(1,), draws=True)
    return out


@pytest.fixture
def folder(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def publish(monkeypatch, capsys):
    """The script, without a Hub; returns what it says, in the end why it refuses."""

    def publish(folder, *options):
        monkeypatch.setattr(sys, "argv", ["publish_model.py", "--run", str(folder), *options])
        try:
            runpy.run_path(str(ROOT / "scripts/publish_model.py"), run_name="__main__")
        except SystemExit as refused:
            return refused.code
        return capsys.readouterr().out

    return publish


def files_of(folder):
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != ".gitattributes"]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def test_training_leaves_a_card_with_its_figures(finished):
    assert files_of(finished).keys() == MADE | DRAWN | {"kept-checkpoint-000000004.pt"}
    record = RunRecord.load(finished)
    assert (finished / "README.md").read_text() == model_card.model_card(record)
    assert record.dataset["cards"][0]["license"] == "apache-2.0"
    assert record.dataset["cards"][0]["telescope"].startswith("none: drawn with GalSim")
    assert ModelCard.load(finished / "README.md").data.license == "apache-2.0"


def loaded(picture, *names):
    import torch
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModel

    from hf_galaxy import GalaxyForVotes

    answers = []
    for name in names:
        pixels = AutoImageProcessor.from_pretrained(name)(Image.open(picture).convert("RGB"), return_tensors="pt")
        for kind in (AutoModel, GalaxyForVotes):
            with torch.no_grad():
                answers.append(kind.from_pretrained(name).eval()(**pixels).fractions[0].tolist())
    return answers


def test_what_is_pushed_is_the_folder_and_loads_from_the_hub(
    hub, run_with_hub, returned_with_hub, hub_environment, folder, mock_dataset, tmp_path
):
    options = ("--push", "lab/model", "--datasets", "lab/survey")
    done = run_with_hub("scripts/publish_model.py", "--run", folder, *options)
    assert f"pushed to {hub.url}/lab/model" in done.stdout, done.stderr
    there, here = files_of(hub.folder("models", "lab/model")), files_of(folder)
    assert there == {path: content for path, content in here.items() if not path.endswith(".pt")}
    assert there.keys() == MADE | DRAWN | {".eval_results/survey.yaml"}
    card = ModelCard(there["README.md"].decode())
    assert card.data.datasets == ["lab/survey"]
    assert 'model="lab/model"' in card.text
    entries = parse_eval_result_entries(yaml.safe_load(there[".eval_results/survey.yaml"]))
    assert {entry.task_id for entry in entries} >= {"gz2_rmse", "gz_decals_dr5_accuracy"}

    here, *others = returned_with_hub(loaded, mock_dataset / "contact_sheet.jpg", folder, "lab/model")
    assert others == [here] * 3

    # And it can be trained on from there, which the new run's card says.
    start = ("--start", "lab/model", "--dataset", mock_dataset, "--task", "classes", "--label", "mock_class")
    more = ("--epochs", 1, "--workers", 0, "--cpu", "--out", tmp_path / "finetuned")
    own = hub_environment | {"HF_DATASETS_OFFLINE": "1"}
    done = run_forked("scripts/finetune.py", *start, *more, environment=own, server=LIBRARIES)
    assert done.returncode == 0, done.stderr
    assert ModelCard.load(tmp_path / "finetuned/README.md").data.base_model == "lab/model"


def pushed_twice(folder, there):
    from hf_galaxy.errors import BadInput
    from hf_galaxy.publishing import hub

    try:
        hub.push(Path(folder), "lab/broken", "model")
    except BadInput as error:
        before = [file.name for file in Path(there).rglob("*")]
        return str(error), before, hub.push(Path(folder), "lab/broken", "model")


def test_a_push_that_broke_off_goes_on_and_the_card_comes_last(hub, returned_with_hub, folder):
    there = hub.folder("models", "lab/broken")
    shutil.rmtree(hub.root / "lfs", ignore_errors=True)  # nothing has been sent before
    hub.fail(after=len(DRAWN) + 2, times=1)  # the pictures, the weights and one commit
    error, before, address = returned_with_hub(pushed_twice, folder, there)
    assert f"the model is complete in {folder}" in error
    assert "model.safetensors" in before
    assert "README.md" not in before
    assert address == f"{hub.url}/lab/broken"
    assert (there / "README.md").read_bytes() == (folder / "README.md").read_bytes()


def test_only_safetensors_are_published(publish, folder):
    (folder / "extra").mkdir()
    (folder / "extra/head.pkl").write_bytes(b"cos")
    assert "extra/head.pkl can run any code when loaded" in publish(folder)
    assert "--allow-pickle head.pkl: there is no such file" in publish(folder, "--allow-pickle", "head.pkl")
    assert "written from" in publish(folder, "--allow-pickle", "extra/head.pkl")
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    assert "has no weights in safetensors" in publish(folder, "--allow-pickle", "extra/head.pkl")


@pytest.mark.parametrize("path", ["model.PKL", "extra/checkpoint-000000004.pt", "extra/x.pickle.gz", ".hidden/.Joblib"])
def test_a_pickle_is_refused_wherever_it_is_and_however_it_is_written(publish, folder, path):
    (folder / path).parent.mkdir(exist_ok=True)
    (folder / path).write_bytes(b"cos")
    assert f" {path} can run any code when loaded" in publish(folder)
    assert "written from" in publish(folder, "--allow-pickle", path)


def test_what_stays_behind_cannot_be_allowed(publish, folder):
    (folder / ".git").mkdir()
    (folder / ".git/x.pkl").write_bytes(b"cos")
    for path in (".git/x.pkl", "kept-checkpoint-000000004.pt"):
        said = publish(folder, "--allow-pickle", path)
        assert f"--allow-pickle {path}: there is no such file among" in said
    assert "written from" in publish(folder)


def pushed_again(folder):
    from huggingface_hub import HfApi

    from hf_galaxy.publishing import hub

    def change(record):
        record.publication["datasets"] = ["lab/other"]
        del record.results["test"]["calibration"]

    folder, there = Path(folder), []
    for each in (None, change):
        if each:
            rewrite(folder, each)
        hub.push(folder, "lab/again", "model")
        there.append(HfApi().list_repo_files("lab/again"))
    return there


def test_what_is_published_again_leaves_nothing_of_what_it_was(hub, returned_with_hub, publish, folder):
    own = {"extra/checkpoint-1.pt", "figures/own.png", ".eval_results/own.yaml"}
    for path in own:
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(path)
    assert "written from" in publish(folder, "--datasets", "lab/survey", "--allow-pickle", "extra/checkpoint-1.pt")
    before, after = returned_with_hub(pushed_again, folder)
    made = MADE | own | {".gitattributes"}
    assert {*before} == made | DRAWN | {".eval_results/survey.yaml"}, "what was allowed is sent"
    assert {*after} == made | {"figures/loss.png", ".eval_results/other.yaml"}
    here = {path: text for path, text in files_of(folder).items() if not path.startswith("kept-checkpoint")}
    assert files_of(hub.folder("models", "lab/again")) == here


def test_what_cannot_be_published_is_refused_and_left_as_it_was(publish, folder):
    before = files_of(folder)
    assert "--push lab/mock/2: is not ORG/NAME" in publish(folder, "--push", "lab/mock/2")
    assert "--datasets ../d: is not ORG/NAME" in publish(folder, "--datasets", "../d")
    assert "--license all mine: is not an identifier" in publish(folder, "--license", "all mine")
    assert files_of(folder) == before
    record = RunRecord.load(folder)
    record.dataset["cards"][0]["license"] = None
    record.save(folder)
    assert "--license: the cards of the training data state no license" in publish(folder, "--push", "lab/none")
    record.finished = False
    record.save(folder)
    assert "the run is not finished" in publish(folder)
    (folder / "model.safetensors").write_bytes(b"broken")
    record.finished = True
    record.save(folder)
    assert "model.safetensors: is not as the run has written it" in publish(folder, "--license", "mit")
    assert not RunRecord.load(folder).publication


def test_a_card_that_a_person_edited_stays(publish, folder):
    (folder / "README.md").write_text("My own words.")
    (folder / "figures/loss.png").unlink()
    assert "not changed" in publish(folder, "--license", "mit")
    assert (folder / "README.md").read_text() == "My own words."
    assert (folder / "figures/loss.png").exists()
    (folder / "README.md").unlink()
    assert "written from" in publish(folder)
    assert ModelCard.load(folder / "README.md").data.license == "mit"


def test_a_card_that_an_older_version_made_is_made_anew(folder, monkeypatch):
    monkeypatch.setattr(model_card, "model_card", lambda record: "what a newer version says")
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
