"""Whatever stands for a number in an option of any command, or for a name, the answer is one line, never a traceback."""

import dataclasses
import typing
from pathlib import Path

import pytest

import hf_galaxy
from hf_galaxy import BadInput
from hf_galaxy.commands.main import COMMANDS, module_of
from hf_galaxy.commands.predict import Predict
from hf_galaxy.plain_values import number, share, whole_number
from hf_galaxy.settings_file import _bare, _options
from hf_galaxy.training.settings import Settings
from hf_galaxy.typed_options import checked

NO_NUMBERS = (
    "nan",
    "inf",
    "-inf",
    "1e400",
    "1_000",
    "٣",
    "٣/٤",
    "",
    " 3",
    "3 ",
    "0x10",
    "1e",
    "--",
    "9" * 5000,
    "½",
    "True",
)
NO_WHOLE_NUMBERS = ("1.0", "1e3", "9223372036854775808")
EXTREME = ("2147483648", "9223372036854775807", "-9223372036854775807", "-1", "0")


def kinds_of(command):
    """The dataclasses of a command, with the word that names each."""
    settings = module_of(command).command.settings
    if isinstance(settings, type):
        return [((), settings)]
    return [((kind.__name__.lower(),), kind) for kind in typing.get_args(settings)]


def numbers_in(kind):
    """The number types that a type allows."""
    kind = _bare(kind)
    if kind in (int, float):
        return {kind}
    return set().union(*map(numbers_in, typing.get_args(kind)))


def how_many(kind):
    """How many words an option takes at least."""
    kind = _bare(kind)
    if typing.get_origin(kind) is tuple:
        return 1 if ... in typing.get_args(kind) else len(typing.get_args(kind))
    return max(map(how_many, typing.get_args(kind)), default=1)


def required_by(kind, folder):
    """Words for the options that have no default: of files that are not there."""
    words = []
    for field in dataclasses.fields(kind):
        if field.default is field.default_factory is dataclasses.MISSING:
            option = _options(kind)[field.name]
            value = {"vary": "seed=1", "survey": "legacy-dr10"}.get(field.name, str(folder / f"no {field.name}"))
            words += [value] if option.is_positional else [f"--{option.name.replace('_', '-')}", value]
    return [*words, "--galaxies", "1"] if kind.__name__ == "Simulate" else words


CASES = [
    (command, words, kind, option)
    for command in COMMANDS
    for words, kind in kinds_of(command)
    for option in {each.name: each for each in _options(kind).values()}.values()
    if numbers_in(option.kind)
]


@pytest.mark.parametrize(
    ("command", "words", "kind", "option"), CASES, ids=[f"{c} {' '.join(w)} {o.name}" for c, w, _, o in CASES]
)
def test_what_is_no_plain_number_is_refused_by_every_option(command, words, kind, option, tmp_path, capsys):
    flag = f"--{option.name.replace('_', '-')}"
    required = [*words, *required_by(kind, tmp_path)]
    plain = module_of(command).command.read([*required, flag, *["1"] * how_many(option.kind)])
    assert plain
    for text in ("1_000", "nan", *(["1e3"] if numbers_in(option.kind) == {int} else [])):
        with pytest.raises(SystemExit) as refused:
            module_of(command).command.read([*required, flag, *[text] * how_many(option.kind)])
        assert refused.value.code == 2, text
        assert flag in capsys.readouterr().err


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_what_python_reads_as_a_number_but_nobody_means_is_none(text):
    for read in (number, share, whole_number):
        with pytest.raises(ValueError, match=r"give a|is too large"):
            read(text)


@pytest.mark.parametrize("text", NO_WHOLE_NUMBERS)
def test_whole_numbers_are_without_a_point_and_of_64_bits(text):
    with pytest.raises(ValueError, match=r"give a whole number|too large"):
        whole_number(text)


def test_plain_numbers_are_what_python_reads():
    for text in ("1", "-1", "+1.", ".5", "1e-3", "-1.5E+10", "007"):
        assert number(text) == share(text) == float(text)
    assert [whole_number(text) for text in ("12", "-3", "+4", "9223372036854775807")] == [12, -3, 4, 2**63 - 1]
    assert [share(text) for text in ("1/64", "-3/4")] == [1 / 64, -0.75]
    for text in ("1/0", "1/2/3", "1.5/2", "1/-"):
        with pytest.raises(ValueError, match=r"give a whole number|must not be 0"):
            share(text)


@pytest.mark.parametrize(
    ("command", "words", "kind", "option"), CASES, ids=[f"{c} {' '.join(w)} {o.name}" for c, w, _, o in CASES]
)
def test_no_number_ends_a_command_in_a_traceback(command, words, kind, option, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flag = f"--{option.name.replace('_', '-')}"
    for value in EXTREME:
        required = required_by(kind, tmp_path / value)
        if (kind.__name__, option.name) == ("Simulate", "seed") and not value.startswith("-"):
            continue  # it is a seed, of galaxies that would be drawn
        with pytest.raises(SystemExit) as ended:  # nothing that the command asks for is there
            module_of(command).command([*words, *required, flag, *[value] * how_many(option.kind)])
        code = ended.value.code
        assert code == 2 or (code.startswith("error: ") and "\n" not in code), value


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 2147483648.0}, "--epochs 2147483648.0: is more than 1,000,000"),
        ({"batch_size": 2147483648}, "--batch-size 2147483648: is more than 1,000,000"),
        ({"validate_every": 1e-300}, "--validate-every 1e-300: gives more than 1,000,000 validations"),
        ({"seed": -1}, "--seed -1: is a whole number from 0"),
        ({"seed": 2**32}, "--seed 4294967296: is a whole number from 0"),
        ({"workers": 2147483648}, "--workers 2147483648: is a number of processes, from 0 to 1024"),
        ({"image_size": 2147483648}, "--image-size 2147483648: is more than 8,192 pixels"),
    ],
)
def test_a_number_that_no_training_can_have_is_refused_before_it_begins(options, message):
    with pytest.raises(BadInput, match=message):
        Settings(dataset=("x",), out=Path("y"), **options).check()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 2**63}, "batch_size: the number is too large"),
        ({"crop": float("nan")}, "crop: give a number"),
        ({"crop": float("inf")}, "crop: the number is too large"),
        ({"crop": 10**400}, "crop: the number is too large"),
        ({"split": "a\0b"}, "split: has a NUL character"),
        ({"dataset": ["a", "b\0"]}, "dataset: has a NUL character"),
        ({"out": "x/" + "é" * 128}, "out éééé.*is too long a name: file systems allow 255 bytes"),
    ],
)
def test_calls_refuse_the_same(options, message):
    with pytest.raises(BadInput, match=message):
        checked(Predict, options)


@pytest.mark.parametrize("text", ['{"seed": 1e400}', '{"learning-rate": NaN}', '{"epochs": "1_000"}', '{"seed": 1.5}'])
def test_files_of_settings_refuse_the_same(text, tmp_path, capsys):
    (tmp_path / "options.json").write_text(text)
    with pytest.raises(SystemExit) as refused:
        hf_galaxy.commands.finetune.command.read(
            ["--dataset", "x", "--out", "y", "--start", "a.b", "--config", str(tmp_path / "options.json")]
        )
    assert refused.value.code == 2


@pytest.mark.parametrize(
    "words",
    [
        ("publish", "simulate", "--out", "a" * 256),
        ("publish", "simulate", "--out", "a" * 250),  # with what is added to a temporary name
        ("publish", "simulate", "--out", "ü" * 200 + "/out"),
        ("pretrain", "--dataset", "a" * 300, "--backbone", "test_resnet", "--out", "x"),
        ("finetune", "--dataset", "a" * 300, "--start", "b" * 300, "--out", "x", "--label", "c" * 300),
        ("predict", "--run", "a" * 300, "--dataset", "x", "--out", "y"),
        ("check", "a" * 5000),
        ("fit", "--runs", "a" * 300, "--out", "y"),
        ("benchmark", "--out", "x", "--starts", "a=" + "b" * 300, "--tasks", "c" * 300),
    ],
    ids=" ".join,
)
def test_a_name_that_is_too_long_is_refused_in_one_line(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as refused:
        module_of(words[0]).command([*words[1:], *(["--galaxies", "1"] if "simulate" in words else [])])
    assert refused.value.code.startswith("error: ")
    assert "\n" not in refused.value.code
    assert not [*tmp_path.rglob("*.parquet")]


def test_a_file_of_settings_with_a_nul_character_is_refused(tmp_path):
    (tmp_path / "options.json").write_text('{"out": "a\\u0000b"}')
    with pytest.raises(SystemExit, match="error: --out: has a NUL character"):
        module_of("publish").command(["simulate", "--config", str(tmp_path / "options.json")])


@pytest.mark.parametrize("words", [["--class-weights", ""], ["--class-weights", "1", "nan"], ["--weights", ""]])
def test_lists_with_something_else_than_numbers_are_refused(words, capsys):
    with pytest.raises(SystemExit) as refused:
        module_of("finetune").command.read(["--dataset", "x", "--out", "y", "--start", "a.b", "--label", "c", *words])
    assert refused.value.code == 2
    assert words[0] in capsys.readouterr().err
