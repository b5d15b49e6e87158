"""`hf-galaxy launch`: the launcher's configuration for this machine. That a launched run is the same is in test_scripts."""

import subprocess
import sys

import accelerate.commands.config.config_args
import accelerate.commands.launch
import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file

from hf_galaxy.commands import launch


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Sets the number of GPUs; the file of `accelerate config` is not there."""
    default = tmp_path / "default_config.yaml"
    monkeypatch.setattr(accelerate.commands.config.config_args, "default_config_file", str(default))

    def machine(gpus):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        return default

    return machine


@pytest.mark.parametrize(
    ("gpus", "processes", "file"),
    [(0, None, "cpu1"), (0, 2, "cpu2"), (1, None, "gpu1"), (4, None, "gpu8"), (4, 1, "gpu1")],
)
def test_the_configuration_is_that_for_this_machine(machine, gpus, processes, file):
    machine(gpus)
    assert launch.configuration(launch.Launch(num_processes=processes)).stem == file


def started(monkeypatch, words):
    """What the launcher is given, read by its own parser."""
    monkeypatch.setattr(accelerate.commands.launch, "main", lambda: None)
    monkeypatch.setattr(sys, "argv", ["hf-galaxy", "launch", *words])
    launch.command(words)
    return accelerate.commands.launch.launch_command_parser().parse_args(sys.argv[1:])


def test_the_launcher_is_given_the_command_and_its_options(monkeypatch, machine):
    machine(4)
    words = ["finetune", "--start", "runs/a", "--dataset", "d", "--out", "predict", "--config", "run.yaml"]
    given = started(monkeypatch, words)
    assert (given.module, given.training_script) == (True, "hf_galaxy.commands.finetune")
    assert given.training_script_args == words[1:]
    assert given.num_processes == 4, "one for each GPU, not the eight of the file"
    words = [
        "--config-file",
        "nodes2",
        "--machine-rank",
        "1",
        "--main-process-ip",
        "host",
        "--num-processes",
        "24",
        "pretrain",
    ]
    given = started(monkeypatch, words)
    assert (given.machine_rank, given.main_process_ip, given.num_processes) == (1, "host", 24)
    assert load_config_from_file(given.config_file).num_machines == 2


def test_the_configuration_of_accelerate_config_is_taken_if_there_is_one(monkeypatch, machine):
    machine(0).write_text("num_processes: 1")
    assert started(monkeypatch, ["evaluate", "--run", "x"]).config_file is None
    assert started(monkeypatch, ["--num-processes", "2", "evaluate", "--run", "x"]).config_file.endswith("cpu2.yaml")


@pytest.mark.parametrize(
    ("gpus", "words", "message"),
    [
        (0, [], "name the command to start: pretrain"),
        (0, ["finetuen", "--start", "x"], r"finetuen: no command that is launched; did you mean finetune\?"),
        (0, ["--config-file", "gpu8", "pretrain"], "--config-file gpu8: this machine has no GPU"),
        (0, ["--config-file", "gpu9", "pretrain"], "gpu9: there is no such file; those of the package are cpu1, cpu2"),
        (2, ["--num-processes", "3", "pretrain"], "this machine has 2 GPUs"),
        (2, ["--num-processes", "0", "pretrain"], "must be at least 1"),
    ],
)
def test_what_cannot_be_launched_is_refused(monkeypatch, machine, gpus, words, message):
    machine(gpus)
    with pytest.raises(SystemExit, match=message):
        started(monkeypatch, words)


def test_a_launched_command_that_fails_is_not_followed_by_a_traceback(monkeypatch, machine):
    machine(0)

    def fail():
        raise subprocess.CalledProcessError(143, "python")

    monkeypatch.setattr(accelerate.commands.launch, "main", fail)
    monkeypatch.setattr(sys, "argv", ["hf-galaxy"])
    with pytest.raises(SystemExit) as ended:
        launch.command(["evaluate", "--run", "x"])
    assert ended.value.code == 143
