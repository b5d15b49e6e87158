"""The scripts as a user runs them: the whole path, the same curve on two processes, and going on after a kill."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from datasets import load_dataset
from huggingface_hub import DatasetCard
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModel

import hf_galaxy
from hf_galaxy.models.remote_code import MODULES
from tests.conftest import ROOT
from tests.forks import SERVER, TIMEOUT, run_file

TINY = ("--backbone", "test_convnext", "--image-size", 32, "--batch-size", 16, "--min-votes", 3, "--workers", 0)
TWO_PROCESSES = ("-m", "accelerate.commands.launch", "--config_file", "hf_galaxy/training/launch/cpu2.yaml")


def record_of(run):
    return json.loads((run / "run.json").read_text())


@pytest.fixture(scope="module")
def pretrained(mock_dataset, run_script, tmp_path_factory):
    """The run folder of a short pretraining."""
    out = tmp_path_factory.mktemp("runs") / "pretrained"
    options = (*TINY, "--epochs", 3, "--head-dropout", 0, "--out", out)
    done = run_script("pretrain", "--dataset", mock_dataset, *options)
    assert "gz2" in done.stderr
    assert "baseline" in done.stderr
    return out


def test_the_mock_survey_says_that_it_is_one(mock_dataset):
    rows = load_dataset(str(mock_dataset))
    assert sum(len(split) for split in rows.values()) == 96
    assert all(name.startswith("mock") for name in rows["train"]["id_str"][:])
    card = DatasetCard.load(mock_dataset / "README.md")
    assert "Nothing in it is real" in card.text
    assert "mock" in card.data.tags
    assert card.data["annotations_creators"] == ["machine-generated"]
    assert rows["train"][0]["image"].size == (48, 48)
    with Image.open(mock_dataset / "contact_sheet.jpg") as sheet:
        assert sheet.size == (8 * 144, 6 * 160)


def test_a_run_folder_holds_all_that_is_uploaded_and_nothing_else(pretrained):
    files = {path.name for path in pretrained.iterdir()}
    code = {f"{Path(name).name}.py" for name in MODULES}
    uploaded = {"config.json", "model.safetensors", "preprocessor_config.json", "run.json", "README.md", "figures"}
    assert files == code | uploaded
    record = record_of(pretrained)
    assert record["finished"]
    assert len(record["training"]["history"]) == 3
    assert "--dataset" in record["command"]
    results = record["results"]["test"]
    assert len(results["questions"]) == 20
    assert results["galaxies"] == record["dataset"]["splits"]["test"]


def test_a_run_folder_reloads_through_the_auto_classes(pretrained, mock_dataset):
    model, processor = AutoModel.from_pretrained(pretrained).eval(), AutoImageProcessor.from_pretrained(pretrained)
    assert isinstance(model, hf_galaxy.GalaxyForVotes)
    assert model.tree.columns == hf_galaxy.load_tree(["gz2", "gz_decals_dr5"]).columns
    picture = load_dataset(str(mock_dataset), split="test")[0]["image"]
    assert isinstance(picture, Image.Image)
    with torch.no_grad():
        out = model(**processor(picture, return_tensors="pt"))
    assert out.fractions.shape == (1, len(model.tree.columns))


def test_evaluate_finds_the_figures_of_the_run_again(pretrained, run_script, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(pretrained, run)
    before, card = record_of(run), (run / "README.md").read_text()
    done = run_script("evaluate", "--run", run)
    assert "| smooth-or-featured-gz2 |" in done.stdout
    after = record_of(run)["results"]["test"]
    assert after["loss"]["model"] == pytest.approx(before["results"]["test"]["loss"]["model"], rel=1e-5)
    assert after["galaxies"] == before["results"]["test"]["galaxies"]
    run_script("evaluate", "--run", run, "--split", "validation")
    assert set(record_of(run)["results"]) == {"test", "validation"}
    assert "### validation" in (run / "README.md").read_text()
    assert "### validation" not in card


def test_evaluate_leaves_a_card_that_a_person_edited(pretrained, run_script, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(pretrained, run)
    (run / "README.md").write_text("My own words.")
    run_script("evaluate", "--run", run, "--split", "validation")
    assert (run / "README.md").read_text() == "My own words."


def test_finetuning_starts_from_the_run_folder(pretrained, mock_dataset, run_script, tmp_path):
    out = tmp_path / "finetuned"
    run_script(
        "finetune", "--start", pretrained, "--dataset", mock_dataset, "--task", "classes", "--label", "mock_class",
        "--image-size", 32, "--epochs", 1, "--learning-rate", 1e-9, "--workers", 0, "--out", out,
    )  # fmt: skip
    before, after = load_file(pretrained / "model.safetensors"), load_file(out / "model.safetensors")
    name = "backbone.stem.0.weight"
    torch.testing.assert_close(before[name], after[name], atol=1e-6, rtol=0)
    results = record_of(out)["results"]["test"]
    assert set(results) == {
        "galaxies",
        "loss",
        "accuracy",
        "balanced_accuracy",
        "auc",
        "average_precision",
        "calibration",
        "confusion",
        "bootstrap",
    }
    model = AutoModel.from_pretrained(out)
    assert list(model.config.id2label.values()) == load_dataset(str(mock_dataset))["train"].features["mock_class"].names


@pytest.mark.nightly  # as tests/training/test_exactness.py, for a whole run
def test_two_processes_give_the_curve_of_one(pretrained, mock_dataset, run_script, tmp_path):
    out = tmp_path / "two"
    words = ("--dataset", mock_dataset, *TINY, "--epochs", 3, "--head-dropout", 0, "--out", out)
    command = [
        sys.executable,
        "-m",
        "hf_galaxy.commands.main",
        "launch",
        "--num-processes",
        "2",
        "pretrain",
        *map(str, words),
    ]
    # As a user, who has told nobody that there is no GPU.
    own = {name: value for name, value in os.environ.items() if name != "ACCELERATE_USE_CPU"}
    done = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 0, done.stderr
    one, two = record_of(pretrained), record_of(out)
    assert two["environment"]["processes"] == 2
    assert two["command"].startswith("hf-galaxy pretrain --dataset ")
    for (seen, ours), (also_seen, theirs) in zip(one["training"]["losses"], two["training"]["losses"], strict=True):
        assert seen == also_seen
        assert ours == pytest.approx(theirs, rel=1e-4)
    for ours, theirs in zip(one["training"]["history"], two["training"]["history"], strict=True):
        assert ours["validation_loss"] == pytest.approx(theirs["validation_loss"], rel=1e-4)
    assert one["results"]["test"]["loss"]["model"] == pytest.approx(two["results"]["test"]["loss"]["model"], rel=1e-4)
    assert one["results"]["test"]["galaxies"] == two["results"]["test"]["galaxies"]


def test_batch_norms_are_shared_before_they_are_validated(mock_dataset, run_script, tmp_path):
    """The weights that did best are the weights that are saved, running statistics of batch norms included."""
    out = tmp_path / "two"
    options = (*TINY, "--backbone", "test_efficientnet", "--epochs", 2, "--precision", "bf16", "--no-calibrate")
    run_script("pretrain", "--dataset", mock_dataset, *options, "--out", out, "--cpu", processes=2)
    run_script("evaluate", "--run", out, "--split", "validation", "--precision", "bf16")
    record = record_of(out)
    best = min(entry["validation_loss"] for entry in record["training"]["history"])
    assert record["results"]["validation"]["loss"]["model"] == pytest.approx(best, rel=1e-5)


def test_a_run_that_was_told_to_stop_says_so_and_goes_on(mock_dataset, run_script, tmp_path, monkeypatch):
    """SIGKILL at any moment, and equality to the bit: tests/training/test_exactness.py."""
    out = tmp_path / "stopped"
    command = [*map(str, ("--dataset", mock_dataset, *TINY, "--epochs", 6, "--checkpoint-minutes", 0, "--out", out))]
    log = tmp_path / "log"
    process = SERVER.Process(target=run_file, args=(dict(os.environ), log, log, "scripts/pretrain.py", command))
    process.start()
    while not list(out.glob("checkpoint-*")) and process.is_alive():
        time.sleep(0.005)
    process.terminate()
    process.join(TIMEOUT)
    assert process.exitcode == 143
    assert re.search(r"stopped after step \d+ of 2\d; the same command resumes from there\n$", log.read_text())
    line = called(monkeypatch, "evaluate", "--run", out)
    assert "the run is not finished; run the same command" in line
    line = called(monkeypatch, "pretrain", *command, "--learning-rate", 0.5)
    assert "holds an unfinished run with another --learning-rate (0.001); give the same" in line
    assert "resuming at step" in run_script("pretrain", *command).stderr
    assert "holds a finished run" in called(monkeypatch, "pretrain", *command)


def test_an_estimate_says_what_a_run_needs_and_makes_nothing(mock_dataset, run_script, tmp_path):
    done = run_script(
        "pretrain",
        "--dataset",
        mock_dataset,
        *TINY,
        "--epochs",
        100,
        "--estimate",
        "--out",
        tmp_path / "run",
    )
    found = re.search(r"([\d,]+) steps at ([\d,.]+) galaxies/s: about (\d+) h (\d+) min", done.stderr)
    steps, speed, hours, minutes = (float(number.replace(",", "")) for number in found.groups())
    galaxies = len(load_dataset(str(mock_dataset), split="train"))
    assert steps == round(100 * galaxies / 16)
    assert 60 * hours + minutes >= int(steps * 16 / speed / 60)
    megabytes = float(re.search(r"checkpoints of ([\d,]+) MB", done.stderr)[1])
    assert 3 <= megabytes <= 7  # 0.2 million parameters, weights and best weights, two moments: 4 * 4 bytes of each
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "config", sorted((ROOT / "hf_galaxy/training/launch").glob("*.yaml")), ids=lambda path: path.stem
)
def test_launch_configs_are_read_as_they_are_meant(config):
    read = load_config_from_file(str(config))
    assert read.distributed_type == {"fsdp2": "FSDP", "gpu1": "NO", "cpu1": "NO"}.get(config.stem, "MULTI_GPU")
    assert read.num_processes == {"cpu1": 1, "cpu2": 2, "gpu1": 1, "nodes2": 16}.get(config.stem, 8)
    assert read.use_cpu == config.stem.startswith("cpu")
    assert (config.stem == "fsdp2") == bool(read.fsdp_config)


def test_ceers_is_published_from_the_map_in_this_repository(shared_data, run_script, tmp_path):
    out = tmp_path / "ceers"
    done = run_script(
        "publish_dataset", "catalogue", "--images", shared_data / "ceers", "--catalogue", shared_data / "ceers/votes.csv",
        "--tree", "gz_jwst_ceers", "--columns", "dataset_cards/gz_jwst_ceers/columns.json", "--num-proc", 1, "--out", out,
    )  # fmt: skip
    assert "460,675 votes" in done.stdout
    splits = load_dataset(str(out), columns=hf_galaxy.load_tree("gz_jwst_ceers").columns)
    assert sum(len(rows) for rows in splits.values()) == 4119
    assert sum(sum(rows[column]) for rows in splits.values() for column in rows.column_names) == 460_675


def called(monkeypatch, script, *arguments):
    """Exit status and error line of a script, run in this process to save the start of another."""
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / "scripts" / f"{script}.py"), run_name="__main__")
    return stopped.value.code


def spoil_missing_picture(folder):
    (folder / "pictures/3.jpg").unlink()


def spoil_column(folder):
    (folder / "votes.csv").write_text((folder / "votes.csv").read_text().replace("n_ring", "rings"))


def spoil_negative(folder):
    (folder / "votes.csv").write_text((folder / "votes.csv").read_text().replace("2.jpg,2", "2.jpg,-2"))


def spoil_fraction(folder):
    (folder / "votes.csv").write_text((folder / "votes.csv").read_text().replace("2.jpg,2", "2.jpg,2.5"))


def spoil_text(folder):
    (folder / "pictures/3.jpg").write_text("a text file")


def spoil_truncated(folder):
    content = (folder / "pictures/3.jpg").read_bytes()
    (folder / "pictures/3.jpg").write_bytes(content[: len(content) // 2])


def spoil_empty(folder):
    (folder / "votes.csv").write_text((folder / "votes.csv").read_text().splitlines()[0] + "\n")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_missing_picture, "votes.csv, row 4, column file: '3.jpg' is not a picture in"),
        (spoil_column, "votes.csv: has no column 'n_ring'"),
        (spoil_negative, "votes.csv, row 3, column n_ring: '-2' is not a number of votes"),
        (spoil_fraction, "votes.csv, row 3, column n_ring: '2.5' is not a number of votes"),
        (spoil_text, "votes.csv, row 4 (id_str g3): "),
        (spoil_truncated, "votes.csv, row 4 (id_str g3): "),
        (spoil_empty, "votes.csv: has no rows"),
    ],
)
def test_bad_input_ends_in_one_line_and_leaves_nothing(catalogue_folder, spoil, message, monkeypatch):
    folder = catalogue_folder
    spoil(folder)
    before = sorted(folder.rglob("*"))
    line = called(
        monkeypatch, "publish_dataset", "catalogue", "--images", folder / "pictures", "--catalogue",
        folder / "votes.csv", "--columns", folder / "map.json", "--tree", "gz_rings", "--out", folder / "published",
    )  # fmt: skip
    assert line.startswith("error: ")
    assert message in line
    assert "\n" not in line
    assert sorted(folder.rglob("*")) == before, "nothing half-written"


@pytest.mark.parametrize("wrong", [("--galaxies", 0), ("--size", 0), ("--seed", -1)])
def test_a_survey_that_cannot_be_drawn_is_refused(wrong, tmp_path, monkeypatch):
    line = called(monkeypatch, "publish_dataset", "simulate", *wrong, "--out", tmp_path / "mock")
    assert line == "error: --galaxies must be from 1 to 100,000,000, --size from 16 to 4096, --seed not negative"
    assert not (tmp_path / "mock").exists()


def test_votes_without_a_tree_are_not_passed_over(catalogue_folder, monkeypatch):
    line = called(
        monkeypatch, "publish_dataset", "catalogue", "--images", catalogue_folder / "pictures", "--catalogue",
        catalogue_folder / "votes.csv", "--columns", catalogue_folder / "map.json", "--out", catalogue_folder / "out",
    )  # fmt: skip
    assert "name their campaign with --tree" in line


def test_output_that_cannot_be_written_is_refused(catalogue_folder, monkeypatch):
    folder = catalogue_folder
    arguments = ("--images", folder / "pictures", "--catalogue", folder / "votes.csv", "--columns", folder / "map.json",
                 "--tree", "gz_rings", "--out")  # fmt: skip
    line = called(monkeypatch, "publish_dataset", "catalogue", *arguments, folder / "votes.csv/out")
    assert "votes.csv/out cannot be written: File exists" in line
    line = called(monkeypatch, "publish_dataset", "catalogue", *arguments, folder / "pictures")
    assert "exists already; remove it or choose another --out" in line
    assert len(list((folder / "pictures").iterdir())) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dataset", "nowhere", "--backbone", "test_convnext"), "--dataset nowhere: cannot be loaded"),
        (("--dataset", "{mock}"), "pass --backbone"),
        (("--dataset", "{mock}", "--backbone", "test_convnext", "--epochs", "0"), "--epochs 0.0: must be more than 0"),
        (
            ("--dataset", "{mock}", "--backbone", "test_convnext", "--device-batch", "0"),
            "--device-batch 0: must be at least 1",
        ),
        (("--dataset", "{mock}", "--backbone", "test_convnext", "--optimizer", "fusedadam"), "lion, muon, nadamw and"),
        (("--dataset", "{mock}", "--backbone", "test_convnext", "--subset", "1/1000"), "leave at least one"),
        (("--dataset", "{mock}", "--backbone", "test_convnext", "--zoom", "2", "1"), "--zoom 2.0 1.0: must be"),
        (
            ("--dataset", "{mock}", "{mock}", "--backbone", "test_convnext", "--weights", "1", "0"),
            "one number above 0 for each of 2",
        ),
        (
            ("--dataset", "{mock}", "--backbone", "test_convnext", "--recipe", "paper"),
            "there are gz_evo, gz_evo_finetune",
        ),
        (
            ("--dataset", "{mock}", "--backbone", "test_convnext", "--tracker", "paper"),
            "--tracker paper: is not installed",
        ),
        (("--dataset", "{mock}", "--backbone", "test_convnext", "--branch-of", "{mock}"), "is no run folder"),
        (("--dataset", "{mock}", "--backbone", "test_convnext", "--crop", "0"), "crop 0.0: must be a share"),
        (
            ("--dataset", "{mock}", "--backbone", "test_convnext", "--min-votes", "0"),
            "--min-votes 0: must be at least 1",
        ),
        (
            ("--dataset", "{mock}", "--backbone", "test_convnext", "--image-size", "1"),
            "does not work with pictures of 1 px",
        ),
        (("--dataset", "{mock}", "--backbone", "resnet"), "timm has no such architecture"),
        (
            ("--dataset", "{mock}", "--backbone", "test_convnext", "--task", "classes"),
            "name its class label with --label",
        ),
        (("--dataset", "{mock}", "--backbone", "test_convnext", "--tree", "gz_hubble"), "lacks 40 of the 40"),
        (("--dataset", "{mock}", "--backbone", "test_convnext", "--start", "no.pth"), "no.pth: no such file"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_made(arguments, message, mock_dataset, tmp_path, monkeypatch):
    filled = [str(argument).format(mock=mock_dataset) for argument in arguments]
    line = called(monkeypatch, "pretrain", "--image-size", 32, *filled, "--out", tmp_path / "run")
    assert line.startswith("error: ")
    assert message in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "script", ["publish_dataset", "check_dataset", "find_overlap", "pretrain", "finetune", "evaluate"]
)
def test_help_explains_every_option(script, monkeypatch, capsys):
    assert called(monkeypatch, script, *(["catalogue"] if script == "publish_dataset" else []), "--help") == 0
    _, *options = re.split(r"(?m)(?=^.? {1,2}--\w)", capsys.readouterr().out)
    assert len(options) >= 3
    for option in options:
        words = re.findall(r"\b[a-z]+\b", option.split("(default")[0])
        assert len(words) >= 3, f"what is this? {option}"
