"""`hf-galaxy`: every command under one name."""

import subprocess
import sys

import pytest

from hf_galaxy.commands import main
from tests.conftest import ROOT


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["/env/bin/hf-galaxy", *words])
    main.main()


def test_every_module_of_a_command_is_in_the_overview_and_no_other():
    modules = {path.stem for path in (ROOT / "hf_galaxy/commands").glob("[a-z]*.py")} - {"main"}
    assert set(main.COMMANDS) == modules
    assert len(main.COMMANDS) == len(modules)


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",), ("help",)])
def test_the_overview_has_a_sentence_and_an_example_of_each(monkeypatch, capsys, words):
    run(monkeypatch, *words)
    shown = capsys.readouterr().out
    for name in main.COMMANDS:
        sentence, example = main.described(name)
        assert f"\n  {name:<12} {' '.join(sentence.split()[:4])}" in shown
        assert sentence.endswith(".")
        assert example.startswith(f"hf-galaxy {name} ")
    assert max(map(len, shown.splitlines())) <= 130


@pytest.mark.parametrize("name", main.COMMANDS)
def test_the_options_of_an_example_exist(name):
    """Each example is read as a command line, but not run."""
    program, _, words = main.described(name)[1].partition(f" {name} ")
    assert program == "hf-galaxy"
    command = main.module_of(name).command
    words = words.replace("...", "").replace('"CEERS, 100 to 2,900 galaxies"', "title").split()
    command.read(words[: command.rest_at(words)] if command.rest_at else words)


def test_a_wrong_name_is_answered_with_the_nearest(monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "finetun", "--start", "x")
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "error: finetun: there is no such command; did you mean finetune? (hf-galaxy --help lists them)\n"
    )


def test_a_command_has_its_own_name_in_its_help(monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "check", "--help")
    assert not ended.value.code
    assert capsys.readouterr().out.startswith("usage: hf-galaxy check ")


def test_the_version(monkeypatch, capsys):
    import hf_galaxy

    run(monkeypatch, "--version")
    assert capsys.readouterr().out == f"hf_galaxy {hf_galaxy.__version__}\n"


def test_a_shell_completes_commands_and_options(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, "--tyro-print-completion", "bash")
    script = capsys.readouterr().out
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    for word in ("finetune", "--learning-rate", "simulate", "--galaxies", "onnx"):
        assert word in script
    with pytest.raises(SystemExit, match="name a shell"):
        run(monkeypatch, "--tyro-print-completion")


def test_combine_is_the_combine_of_publish(monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match=r"error: .*no-such"):
        run(monkeypatch, "combine", "--parts", str(tmp_path / "no-such"), "--out", str(tmp_path / "out"))
