"""A run is a function of its settings, its data and its seed: however often it is killed, on however many processes."""

import errno
import os
import random
import signal
import time
from pathlib import Path

import psutil
import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file

from hf_galaxy.errors import BadInput
from hf_galaxy.reports.run_record import RunRecord
from hf_galaxy.training import run_folder
from hf_galaxy.training.checkpoint_files import list_checkpoints
from tests.conftest import ROOT
from tests.forks import TIMEOUT
from tests.training.runs import assert_bit_equal, finish, run, start, wait_for_checkpoints

CONFIG = load_config_from_file(str(ROOT / "hf_galaxy/training/launch/fsdp2.yaml")).fsdp_config
FSDP = {name.upper(): str(value) for name, value in CONFIG.items()} | {"ACCELERATE_USE_FSDP": "true"}
FSDP["FSDP_MIN_NUM_PARAMS"] = "30000"  # so that small models are taken apart too


def kill(started, out, moment, chance):
    """While a checkpoint is written, as soon as it is, somewhat later, or at any of these moments or soon after the start.

    False if the run ended before.
    """
    before = set(list_checkpoints(out))

    def runs():
        return all(process.is_alive() for process in started)

    if moment == "saving":
        while runs() and not list(out.glob(".checkpoint-*")):
            time.sleep(0.0005)
    elif moment != "any" or chance.random() < 0.8:
        while runs() and set(list_checkpoints(out)) <= before:
            time.sleep(0.001)
    if moment in ("later", "any"):
        chance.choice(started).join(chance.uniform(0, 0.3))
    killed = runs()
    for process in chance.sample(started, len(started)):
        process.kill()
    for process in started:
        process.join()
    return killed


@pytest.mark.parametrize(
    "moments", [["saving", "saved", "later", "any"], pytest.param(["any"] * 10, marks=pytest.mark.nightly)]
)
@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.nightly)])
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(mock_dataset, tmp_path, processes, moments):
    # With batch norms, whose statistics differ between processes, where there are several.
    backbone = {1: "test_convnext", 2: "test_resnet"}[processes]
    settings = dict(
        dataset=(str(mock_dataset),), processes=processes, backbone=backbone, drop_path=0.1, ema_galaxies=64, workers=1
    )
    whole = run(tmp_path / "whole", **settings)
    chance, left, runs = random.Random(processes), list(moments), [tmp_path / "0"]
    while left:
        if kill(start(runs[-1], **settings), runs[-1], left[0], chance):
            left.pop(0)
        if (runs[-1] / "run.json").exists() and RunRecord.load(runs[-1]).finished:
            runs.append(tmp_path / str(len(runs)))
    finish(start(runs[-1], **settings), runs[-1])
    resumed = sum(Path(f"{out}.log").read_text().count("resuming at step") for out in runs)
    assert resumed >= 3
    for out in runs:
        assert_bit_equal(tmp_path / "whole", out)
        again = RunRecord.load(out)
        assert again.training["losses"] == whole.training["losses"]
        assert again.results == whole.results
        assert {file.name for file in out.iterdir()} == {file.name for file in (tmp_path / "whole").iterdir()}


def curve(record):
    return record.training["losses"], [entry["validation_loss"] for entry in record.training["history"]]


def assert_same_curves(ours, theirs, rtol=1e-4):
    for one, other in zip(curve(ours), curve(theirs), strict=True):
        torch.testing.assert_close(torch.tensor(one), torch.tensor(other), rtol=rtol, atol=0)
    one, other = (record.results["test"] for record in (ours, theirs))
    assert one["galaxies"] == other["galaxies"]
    assert one["loss"]["model"] == pytest.approx(other["loss"]["model"], rel=rtol)


def test_how_a_batch_is_shared_out_does_not_matter(mock_dataset, tmp_path):
    """1 x 16 = 2 processes x 8 = 2 micro-batches of 8 = 2 processes x 2 micro-batches of 4, loss for loss."""
    settings = dict(
        dataset=(str(mock_dataset),), head_dropout=0.0, epochs=2
    )  # dropout is drawn by each process for itself
    whole = run(tmp_path / "1x16", **settings)
    assert_same_curves(whole, run(tmp_path / "2x8", processes=2, **settings))
    assert_same_curves(whole, run(tmp_path / "accumulated", device_batch=8, **settings))
    assert_same_curves(whole, run(tmp_path / "both", processes=2, device_batch=4, **settings))


def test_a_run_goes_on_with_another_number_of_processes(mock_dataset, tmp_path):
    settings = dict(dataset=(str(mock_dataset),), head_dropout=0.0)
    whole = run(tmp_path / "whole", **settings)
    started = start(tmp_path / "moved", processes=2, **settings)
    wait_for_checkpoints(2, tmp_path / "moved", started)
    # SIGTERM to every process of the job, as schedulers send it: a checkpoint is written, and the run stops.
    for process in started:
        for each in [*psutil.Process(process.pid).children(), process]:
            os.kill(each.pid, signal.SIGTERM)
    for process in started:
        process.join(TIMEOUT)
    assert not RunRecord.load(tmp_path / "moved").finished
    assert "the same command resumes from there" in (tmp_path / "moved.log").read_text()
    assert_same_curves(whole, run(tmp_path / "moved", **settings))
    assert "resuming at step" in (tmp_path / "moved.log").read_text()
    assert "started with processes 2, resuming with 1: " in (tmp_path / "moved.log").read_text()


def test_a_model_that_fsdp2_shares_out_learns_like_a_whole_one_and_goes_on(mock_dataset, tmp_path):
    settings = dict(dataset=(str(mock_dataset),), backbone="test_vit", head_dropout=0.0, epochs=2)
    whole = run(tmp_path / "whole", **settings)
    settings |= dict(processes=2, environment=FSDP, device_batch=4, gradient_checkpointing=True)
    started = start(tmp_path / "parts", **settings)
    wait_for_checkpoints(1, tmp_path / "parts", started)
    for process in started:
        process.kill()
        process.join()
    parts = run(tmp_path / "parts", **settings)
    assert "resuming at step" in (tmp_path / "parts.log").read_text()
    assert_same_curves(whole, parts)
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    for name, values in ours.items():
        torch.testing.assert_close(values, theirs[name], rtol=1e-3, atol=1e-4)


@pytest.mark.nightly  # as in float32
def test_with_bf16_fsdp2_computes_what_other_processes_do(mock_dataset, tmp_path):
    """Batch norms and the likelihood are in float32 there, too."""
    settings = dict(
        dataset=(str(mock_dataset),), processes=2, backbone="test_resnet", head_dropout=0.0, precision="bf16", epochs=2
    )
    whole, parts = run(tmp_path / "whole", **settings), run(tmp_path / "parts", environment=FSDP, **settings)
    assert whole.environment["precision"] == "bf16"
    assert_same_curves(whole, parts, rtol=2**-8)  # the rounding of bf16, whose products are summed in another order
    assert any(loss != torch.tensor(loss).bfloat16().item() for _, loss in parts.training["losses"])


def test_with_fsdp2_a_compiled_run_that_could_not_be_repeated_is_refused(mock_dataset, tmp_path):
    settings = dict(dataset=(str(mock_dataset),), processes=2, environment=FSDP, compile=True)
    for process in start(tmp_path / "refused", **settings):
        process.join(TIMEOUT)
        assert process.exitcode == 1
    assert "add --no-exact" in (tmp_path / "refused.log").read_text()


def test_what_a_launchers_configuration_says_is_not_done_twice(mock_dataset, tmp_path):
    launcher = {"ACCELERATE_DYNAMO_BACKEND": "EAGER", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}
    run(tmp_path / "plain", dataset=(str(mock_dataset),))
    run(tmp_path / "launched", dataset=(str(mock_dataset),), environment=launcher)
    assert_bit_equal(tmp_path / "plain", tmp_path / "launched")


def test_a_run_that_branches_off_is_to_the_bit_one_from_the_beginning(mock_dataset, tmp_path):
    settings = dict(dataset=(str(mock_dataset),), schedule="wsd", cooldown=0.25)
    run(tmp_path / "trunk", **settings, epochs=6, warmup=1 / 6, keep_at=(1, 3))
    run(tmp_path / "whole", **settings, epochs=4, warmup=1 / 4)
    run(tmp_path / "branch", **settings, epochs=4, warmup=1 / 4, branch_of=tmp_path / "trunk")
    assert "resuming at step" in (tmp_path / "branch.log").read_text()
    assert_bit_equal(tmp_path / "whole", tmp_path / "branch")

    # One that was killed needs its trunk no more.
    options = settings | dict(epochs=4, warmup=1 / 4, branch_of=tmp_path / "trunk")
    (process,) = started = start(tmp_path / "killed", **options)
    wait_for_checkpoints(2, tmp_path / "killed", started)
    process.kill()
    process.join()
    (tmp_path / "trunk").rename(tmp_path / "gone")
    run(tmp_path / "killed", **options)
    assert_bit_equal(tmp_path / "whole", tmp_path / "killed")


def test_a_run_until_converged_is_to_the_bit_one_of_its_longest_length(mock_dataset, tmp_path):
    settings = dict(dataset=(str(mock_dataset),), schedule="wsd", cooldown=0.25)
    run(tmp_path / "whole", **settings, epochs=4, warmup=1 / 8, validate_every=2)
    doubling = settings | dict(epochs=2, warmup=1 / 4, until_converged=True, max_doublings=1)
    (process,) = started = start(tmp_path / "doubled", **doubling)
    wait_for_checkpoints(2, tmp_path / "doubled", started)
    process.kill()
    process.join()
    run(tmp_path / "doubled", **doubling)
    assert_bit_equal(tmp_path / "whole", tmp_path / "doubled")
    record = RunRecord.load(tmp_path / "doubled")
    lengths = record.training["convergence"]["lengths"]
    assert [each["epochs"] for each in lengths] == [2, 4]
    assert 0 < record.training["convergence"]["least"] < lengths[-1]["validation_loss"]
    assert "It was trained for 2 and 4 epochs" in (tmp_path / "doubled/README.md").read_text()
    assert not list(tmp_path.glob("doubled/*checkpoint*"))


def test_a_full_disk_at_the_very_beginning_is_reported_in_one_line(tmp_path, monkeypatch):
    def full(record, folder):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(RunRecord, "save", full)
    with pytest.raises(BadInput, match=r"run: cannot be written: No space left on device; make room"):
        run_folder.claim(tmp_path / "run", RunRecord("", {}, {}, {}, {}, {}))


def test_a_run_that_was_killed_once_it_had_finished_is_tidied_up(mock_dataset, tmp_path):
    run(tmp_path / "run", dataset=(str(mock_dataset),), epochs=1)
    whole = {file.name for file in (tmp_path / "run").iterdir()}
    for left in ("checkpoint-000000010.pt", ".lock"):
        (tmp_path / "run" / left).touch()
    (again,) = start(tmp_path / "run", dataset=(str(mock_dataset),), epochs=1)
    again.join(TIMEOUT)
    assert "holds a finished run" in (tmp_path / "run.log").read_text()
    assert {file.name for file in (tmp_path / "run").iterdir()} == whole


def test_two_trainings_of_one_run_at_the_same_time_are_refused(mock_dataset, tmp_path):
    settings = dict(dataset=(str(mock_dataset),), epochs=600)
    first = start(tmp_path / "run", **settings)
    wait_for_checkpoints(1, tmp_path / "run", first)
    (second,) = start(tmp_path / "run", **settings)
    second.join(TIMEOUT)
    assert second.exitcode == 1
    assert "another command trains this run at this moment" in (tmp_path / "run.log").read_text()
    first[0].kill()
    first[0].join()
