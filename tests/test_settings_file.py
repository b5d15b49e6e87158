"""Options from files: --config and --print-config."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import tyro
import yaml

from hf_galaxy.command_line import Command, OutputPath
from hf_galaxy.commands import check, finetune, pretrain, publish, sweep
from hf_galaxy.errors import BadInput


@dataclass(frozen=True)
class Part:
    crop: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is done."""

    name: tuple[str, ...]
    out: OutputPath = Path("here")
    rate: float = 1e-3
    precision: Literal["no", "bf16"] | None = None
    flip: bool = True
    quick: bool = False
    vary: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    part: tyro.conf.OmitArgPrefixes[Part] = field(default_factory=Part)


COMMAND = Command(Options, print)


def read(tmp_path, text, *words, suffix="yaml", command=COMMAND):
    file = tmp_path / f"run.{suffix}"
    file.write_text(text)
    return command.read(["--config", str(file), *words])


def test_options_of_a_file_are_those_of_the_command_line(tmp_path):
    text = "name: [a, b]\noutput-dir: there\nrate: 1e-5\nprecision: no\nflip: false\nquick: true\nvary: [s=1, t=2]\ncrop: 0.5\n"
    by_hand = (
        "--name a b --output-dir there --rate 1e-5 --precision no --no-flip --quick --vary s=1 --vary t=2 --crop 0.5"
    )
    assert read(tmp_path, text) == COMMAND.read(by_hand.split())


@pytest.mark.parametrize(
    ("words", "changed"),
    [
        (["--rate", "1"], {"rate": 1}),
        (["--rate=1"], {"rate": 1}),
        (["--name", "c"], {"name": ("c",)}),
        (["--flip"], {"flip": True}),
        (["--no-quick"], {"quick": False}),
        (["--vary", "u=3"], {"vary": ("u=3",)}),
        (["--out", "elsewhere"], {"out": Path("elsewhere")}),
    ],
)
def test_the_command_line_takes_precedence(tmp_path, words, changed):
    text = "name: [a, b]\nrate: 2\nflip: false\nquick: true\nvary: [s=1]\noutput_dir: there\n"
    found, other = read(tmp_path, text, *words), read(tmp_path, text)
    for name in Options.__dataclass_fields__:
        assert getattr(found, name) == changed.get(name, getattr(other, name))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nam: a", r"nam: there is no such option; did you mean name\\?"),
        ("xyz: a", "xyz: there is no such option; --help lists"),
        ("name: a\nname: b", "name: is there twice"),
        ("- a", "holds no options"),
        ("", "holds no options"),
        ("name: [a", "cannot be read"),
        ("name: {a: 1}", "name: give a value, or a list"),
        ("name: a\nflip: perhaps", "flip: perhaps is neither true nor false"),
        ("{{ x }}: 1", "cannot be read"),
        ("<<: a", "<<: there is no such option"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_what_is_wrong(tmp_path, text, message):
    with pytest.raises(BadInput, match=rf"^--config .*run\.yaml: .*{message}"):
        read(tmp_path, text)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"--config gz2: No such file .*--dataset-config"):
        COMMAND.read(["--config", "gz2"])
    with pytest.raises(BadInput, match="--config: give a file"):
        COMMAND.read(["--config"])


def test_what_is_printed_is_such_a_file(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        COMMAND.read(["--name", "a", "b", "--no-flip", "--crop", "0.5", "--precision", "no", "--print-config"])
    assert not ended.value.code
    text = capsys.readouterr().out
    assert read(tmp_path, text) == Options(name=("a", "b"), flip=False, part=Part(0.5), precision="no")
    assert yaml.safe_load(text)["out"] == "here"


def test_the_record_of_a_run_is_one_too(tmp_path):
    """Its settings are, and options of a recipe come after it."""
    words = [
        "--dataset",
        "data/x",
        "--backbone",
        "resnet18",
        "--recipe",
        "gz_evo",
        "--keep-at",
        "1",
        "2",
        "--out",
        "runs/x",
    ]
    settings = pretrain.command.read(words)
    record = {"format": 1, "settings": vars(settings) | {"an-earlier-option": None}}
    found = read(tmp_path, json.dumps(record, default=str), suffix="json", command=pretrain.command)
    assert found == settings
    with_start = read(
        tmp_path,
        json.dumps(record, default=str),
        "--model",
        "runs/x",
        "--epochs",
        "3",
        suffix="json",
        command=finetune.command,
    )
    assert (with_start.start, with_start.epochs, with_start.backbone) == ("runs/x", 3, "resnet18")


def test_commands_with_subcommands_and_with_a_rest(tmp_path):
    file = tmp_path / "mock.yaml"
    file.write_text("galaxies: 7\nout: data/mock")
    found = publish.command.read(["simulate", "--seed", "3", "--config", str(file)])
    assert (type(found).__name__, found.galaxies, found.seed, found.out) == ("Simulate", 7, 3, Path("data/mock"))
    with pytest.raises(BadInput, match=r"put one of simulate, catalogue, combine, card first"):
        publish.command.read(["--config", str(file)])
    assert read(tmp_path, "vary: ['seed=1,2']\nout: x", command=sweep.command).vary == ("seed=1,2",)


def test_other_tools_names_are_taken(monkeypatch):
    found = pretrain.command.read(
        ["--dataset", "d", "--model", "resnet18", "--output-dir", "o", "--dataset-config", "gz2"]
    )
    assert (found.backbone, found.out, found.config) == ("resnet18", Path("o"), "gz2")
    evo = pretrain.command.read(
        ["--dataset", "d", "--model", "convnext_large", "--output-dir", "o", "--recipe", "gz_evo"]
    )
    assert evo == pretrain.command.read(
        ["--dataset", "d", "--backbone", "convnext_large", "--out", "o", "--recipe", "gz_evo"]
    )
    found = publish.command.read(["simulate", "--out", "o", "--push-to-hub", "lab/mock"])
    assert found.push == "lab/mock"
    line = "hf-galaxy publish simulate --out o"
    for words in (
        ["--push", "lab/mock"],
        ["--push-to-hub", "lab/mock"],
        ["--push=lab/mock"],
        ["--push-to-hub=lab/mock"],
        ["--push_to_hub", "lab/mock"],
    ):
        assert publish.without_push(f"{line} {' '.join(words)} --seed 1") == f"{line} --seed 1"


@pytest.mark.parametrize(
    ("program", "typed"),
    [
        ("/env/bin/hf-galaxy", "hf-galaxy a 'b c'"),
        ("/env/hf_galaxy/commands/main.py", "hf-galaxy a 'b c'"),
        ("/env/hf_galaxy/commands/fit.py", "hf-galaxy fit a 'b c'"),
        ("scripts/fit.py", "python scripts/fit.py a 'b c'"),
    ],
)
def test_a_command_line_is_recorded_as_one_would_type_it(monkeypatch, program, typed):
    from hf_galaxy import command_line

    monkeypatch.setattr(sys, "argv", [program, "a", "--page", "b c"])
    assert command_line.typed("--page") == typed


def test_values_are_the_texts_that_stand_there(tmp_path):
    found = read(tmp_path, "name: [007, 1_000, 1:30, off, 1.10, '~', 2024-01-01]\nrate: null\n")
    assert found.name == ("007", "1_000", "1:30", "off", "1.10", "~", "2024-01-01")
    assert found.rate == 1e-3


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (finetune.command, "--start a --dataset b --dataset-config 1.10 --out o --no-flip --keep-at 1 2"),
        (check.command, "data/x --dataset-config off"),
        (publish.command, "catalogue --images a b --catalogue c --crop 0.5 --rgb 0 1 2 --out o"),
        (publish.command, "card --card c --out o --dataset d --dataset-config gz2"),
        (sweep.command, "--out o --vary seed=1,2 --vary epochs=1,2"),
    ],
)
def test_what_a_command_prints_it_reads(tmp_path, capsys, command, words):
    words = words.split()
    with pytest.raises(SystemExit):
        command.read([*words, "--print-config"])
    first = words[:1] if command is publish.command else []
    (tmp_path / "f.yaml").write_text(capsys.readouterr().out)
    assert command.read([*first, "--config", str(tmp_path / "f.yaml")]) == command.read(words)
    if command is check.command:
        assert command.read(["data/y", "--config", str(tmp_path / "f.yaml")]).dataset == "data/y"
