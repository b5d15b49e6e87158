"""A call trains what the command trains, to the bit; finds the target by the type of its column; and leaves the process as it was."""

import dataclasses
import inspect
import logging
import random
import re
import shlex
import sys
import threading
import warnings
from pathlib import Path
from unittest import mock

import datasets
import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

import hf_galaxy
from hf_galaxy.calls.finetune import OWN, _settings
from hf_galaxy.calls.options import command_of
from hf_galaxy.calls.process_state import python_names
from hf_galaxy.calls.target import with_target
from hf_galaxy.commands.embed import Embed
from hf_galaxy.commands.finetune import Finetune, command
from hf_galaxy.commands.predict import Predict
from hf_galaxy.commands.push import Publish
from hf_galaxy.training.engines import WholeModel
from hf_galaxy.training.recipe import recipe_by_name
from hf_galaxy.training.settings import to_record
from hf_galaxy.typed_options import checked
from tests.calls.conftest import OPTIONS
from tests.training.runs import assert_bit_equal


def test_a_call_is_the_command_to_the_bit(mock_dataset, start, run, run_script, tmp_path):
    typed = [
        "--task",
        "classes",
        "--label",
        "mock_class",
        "--cpu",
        "--epochs",
        "1",
        "--batch-size",
        "16",
        "--train",
        "head",
        "--learning-rate",
        "1e-3",
    ]
    out = tmp_path / "typed"
    run_script("finetune", "--dataset", mock_dataset, "--start", start, *typed, "--out", out)
    theirs = hf_galaxy.Run(out)
    assert_bit_equal(theirs.folder, run.folder)
    ours, theirs = dataclasses.asdict(run.record), dataclasses.asdict(theirs.record)
    for record, folder in ((ours, run.folder), (theirs, out)):
        assert record["settings"].pop("out") == str(folder)
    for name in ("settings", "dataset", "model", "baseline", "environment", "results"):
        assert ours[name] == theirs[name], name
    assert [each["validation_loss"] for each in ours["training"]["history"]] == [
        each["validation_loss"] for each in theirs["training"]["history"]
    ]


def test_the_record_names_the_command_that_does_the_same(run):
    program, name, *words = shlex.split(run.record.command)
    assert (program, name) == ("hf-galaxy", "finetune")
    typed = to_record(command.read(words))
    chosen = {"precision", "workers"}  # by the machine
    assert {name: value for name, value in typed.items() if name not in chosen} == {
        name: value for name, value in run.record.settings.items() if name not in chosen
    }


def test_options_of_every_form_are_words_of_a_command():
    options = dict(
        dataset=("a b", "c"), start="x", config="gz2", exact=False, zoom=(1.0, 1.5), keep_at=(), class_weights=(1.0, 2.0),
        learning_rate=1e-5, device_batch=None, leave_out=Path("l.csv"), subset=1 / 3,
    )  # fmt: skip
    words = shlex.split(command_of("finetune", Finetune, checked(Finetune, options | {"out": "runs/x"})))[2:]
    typed = vars(command.read(words))
    assert {name: typed[name] for name in options} == options


@pytest.mark.parametrize(
    ("call", "command", "own"),
    [
        ("finetune", Finetune, OWN),
        ("predict", Predict, ("run", "dataset", "out", "part")),
        ("embed", Embed, ("model", "dataset", "out", "part")),
    ],
)
def test_a_call_has_the_options_and_defaults_of_its_command(call, command, own):
    parameters = inspect.signature(getattr(hf_galaxy, call)).parameters
    fields = {field.name: field.default for field in dataclasses.fields(command) if field.name not in own}
    for option in () if call == "finetune" else command.of_rendering:
        del fields[option]  # `rendering` has them
    assert fields == {name: parameters[name].default for name in fields}
    assert parameters.keys() - fields.keys() <= {"data", "start", "target", "model", "out", "rendering"}


@pytest.mark.usefixtures("no_figures")
def test_the_same_call_resumes_and_then_returns_its_run(mock_dataset, start, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO", "hf_galaxy")
    with mock.patch.object(WholeModel, "test", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        hf_galaxy.finetune(mock_dataset, start=start, **OPTIONS)
    assert "not finished" in repr(hf_galaxy.Run("runs/mock-votes"))
    finished = hf_galaxy.finetune(mock_dataset, start=start, **OPTIONS)
    assert str(finished.folder) == "runs/mock-votes"
    assert "resuming at step 4 of 4" in caplog.text
    before = (finished.folder / "run.json").read_bytes()
    again = hf_galaxy.finetune(mock_dataset, start=start, **OPTIONS)
    assert again.folder == finished.folder
    assert "holds this run, finished" in caplog.text
    assert (finished.folder / "run.json").read_bytes() == before
    other = hf_galaxy.finetune(mock_dataset, start=start, **OPTIONS | {"seed": 1})
    assert str(other.folder) == "runs/mock-votes-2"
    with pytest.raises(hf_galaxy.BadInput, match=r"^out runs/mock-votes: holds a finished run; choose another"):
        hf_galaxy.finetune(mock_dataset, start=start, out="runs/mock-votes", **OPTIONS | {"seed": 1})


def test_no_weights_are_loaded_for_a_finished_run_or_a_wrong_target(mock_dataset, start, run, tmp_path, caplog):
    caplog.set_level("INFO", "hf_galaxy")
    with mock.patch("hf_galaxy.training.context.resolve_start", side_effect=AssertionError("loads weights")):
        again = hf_galaxy.finetune(mock_dataset, target="mock_class", start=start, out=run.folder, **OPTIONS)
        assert again.folder == run.folder
        assert "holds this run, finished" in caplog.text
        for wrong in (
            {"label": "mock_clas"},
            {"label": "mock_class=none"},
            {"values": "magnitud"},
            {"labels": "magnitude"},
        ):
            with pytest.raises(hf_galaxy.BadInput, match=r"has no |is no label"):
                hf_galaxy.finetune(mock_dataset, start=start, out=tmp_path / "out", **wrong, **OPTIONS)


def state_of_process():
    return {
        "threads": torch.get_num_threads(),
        "watched": {thread.name for thread in threading.enumerate() if "waiting" in thread.name},
        "torch": torch.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),
        "python": random.getstate(),
        "filters": list(warnings.filters),
        "log": (logging.getLogger("hf_galaxy").level, list(logging.getLogger("hf_galaxy").handlers)),
        "precision": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "accelerate": dict(AcceleratorState._shared_state),
    }


@pytest.mark.usefixtures("no_figures")
def test_two_precisions_in_one_process_that_stays_as_it_was(mock_dataset, start, tmp_path, monkeypatch, capsys, caplog):
    caplog.set_level("WARNING", "hf_galaxy")  # commands of other tests show their log in this process
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)  # as in a notebook
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)  # not what a run takes
    try:
        before = state_of_process()
        for precision in ("no", "bf16"):
            out = tmp_path / precision
            done = hf_galaxy.finetune(mock_dataset, start=start, out=out, precision=precision, **OPTIONS)
            assert done.record.environment["precision"] == precision
            assert state_of_process() == before
    finally:
        torch.set_num_threads(threads)
    assert capsys.readouterr().out.count("epoch 1.05: training loss") == 2  # an interactive session sees the log


@pytest.fixture(scope="module")
def columns(tmp_path_factory):
    """A dataset with columns of every type."""
    folder = tmp_path_factory.mktemp("columns") / "columns"
    kinds = datasets.ClassLabel(names=["a", "b", "c"])
    content = {
        "id_str": (["x", "y"], datasets.Value("string")),
        "image": ([None, None], datasets.Image()),
        "kind": ([0, 1], kinds),
        "ring": ([0, 1], datasets.ClassLabel(names=["no", "yes"])),
        "word": (["a", "b"], datasets.Value("string")),
        "z": ([0.1, 0.2], datasets.Value("float32")),
        "mass": ([0.1, 0.2], datasets.Value("float64")),
        "bar": ([True, False], datasets.Value("bool")),
        "merger": ([0, -1], datasets.Value("int8")),
        "gaps": ([1.0, float("nan")], datasets.Value("float64")),
        "count": ([0, 2], datasets.Value("int64")),
        "ring_yes": ([0, 1], datasets.Value("int32")),
        "position": ([[1.0], [2.0]], datasets.List(datasets.Value("float32"))),
    }
    features = datasets.Features({name: kind for name, (_, kind) in content.items()})
    rows = datasets.Dataset.from_dict({name: values for name, (values, _) in content.items()}, features)
    (folder / "data").mkdir(parents=True)
    for split in ("train", "validation", "test"):
        rows.to_parquet(str(folder / f"data/{split}.parquet"))
    return str(folder)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("votes", {}),
        ("kind", {"task": "classes", "label": "kind"}),
        ("ring", {"task": "classes", "label": "ring"}),
        ("kind=b", {"task": "classes", "label": "kind=b"}),
        ("word", {"task": "classes", "label": "word"}),
        ("z", {"task": "values", "values": ("z",)}),
        (["z", "mass"], {"task": "values", "values": ("z", "mass")}),
        ("bar", {"task": "classes", "label": "bar"}),
        ("merger", {"task": "classes", "label": "merger"}),
        ("gaps", {"task": "classes", "label": "gaps"}),
        ("count=2", {"task": "classes", "label": "count=2"}),
        (["bar"], {"task": "labels", "labels": ("bar",)}),
        (["bar", "ring", "merger"], {"task": "labels", "labels": ("bar", "ring", "merger")}),
    ],
)
def test_the_type_of_a_column_says_what_is_learnt(target, expected, columns):
    given = {"dataset": (columns,), "epochs": 1.0}
    assert with_target(target, given) == given | expected


def test_a_choice_by_the_content_of_a_column_is_logged(columns, caplog):
    caplog.set_level("INFO", "hf_galaxy")
    with_target("kind", {"dataset": (columns,)})
    assert not caplog.messages
    with_target("merger", {"dataset": (columns,)})
    assert caplog.messages == [
        "target 'merger': a column of int8, learnt as classes; for a yes/no label give a list, ['merger'], "
        "for numbers task='values'"
    ]


@pytest.mark.parametrize(
    ("target", "options", "expected"),
    [
        ("merger", {"task": "values"}, {"task": "values", "values": ("merger",)}),
        ("merger", {"task": "labels"}, {"task": "labels", "labels": ("merger",)}),
        ("ring", {"task": "labels"}, {"task": "labels", "labels": ("ring",)}),
        ("votes", {"label": "kind"}, {"task": "classes", "label": "kind"}),
        ("votes", {"task": "values", "values": ("z",)}, {"task": "values", "values": ("z",)}),
    ],
)
def test_a_task_or_an_option_of_the_command_leaves_no_choice(target, options, expected):
    assert with_target(target, options | {"dataset": ("nowhere",)}) == expected | {"dataset": ("nowhere",)}


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("count", {}, "target 'count': a column of int64 can be .*: task='classes' or task='values' or task='labels'"),
        ("ring_yes", {}, "for the votes of volunteers, target='votes'"),
        (["merger"], {}, r"a column of int8 can be numbers .* or yes/no labels .*: task='values' or task='labels'"),
        ("position", {}, r"target 'position': a column of List is no target"),
        (["z", "bar"], {}, r"target \['z', 'bar'\]: a column of float32, a column of bool is no target"),
        (["kind"], {}, "a ClassLabel of 3 classes is no target"),
        (
            "rng",
            {},
            r"target 'rng': .*columns has no such column; did you mean 'ring'\? it has kind, ring, word, z, mass",
        ),
        ("gz2", {}, "for the votes of this campaign give target='votes', tree='gz2'"),
        ("ring", {"label": "kind"}, "target 'ring' and label 'kind': name the target once"),
        ("votes", {"label": "kind", "values": ("z",)}, "--label and --values: each names a target; give one of them"),
        ("ring", {"task": "votes"}, "has a column, but task='votes' has none"),
        (["ring", "kind"], {"task": "classes"}, "names 2 columns, but classes have one"),
        ([], {}, r"target \[\]: give 'votes', a column, or a list of columns"),
    ],
)
def test_a_target_that_leaves_a_choice_is_refused_in_words(target, options, message, columns):
    with pytest.raises(hf_galaxy.BadInput, match=message):
        with_target(target, options | {"dataset": (columns,)})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rat": 1e-3}, r"learning_rat: there is no such option; did you mean learning_rate\?"),
        ({"learning_rate": "fast"}, "learning_rate: 'fast' has the wrong type; give a number"),
        ({"epochs": True}, "epochs: True has the wrong type; give a number"),
        ({"batch_size": 1.5}, "batch_size: 1.5 has the wrong type; give a whole number"),
        ({"schedule": "linear"}, "schedule: 'linear' has the wrong type; give one of 'cosine', 'wsd', 'constant'"),
        ({"zoom": (1, 2, 3)}, r"zoom: \(1, 2, 3\) has the wrong type; give a list of 2, each a number"),
        ({"values": [1]}, r"values: \[1\] has the wrong type; give a list, each a text or None"),
        ({"start": 3}, "start: 3 has the wrong type; give a text"),
        ({"estimate": True}, "estimate: is an option of the command"),
        ({"epochs": 0}, "^epochs 0.0: must be more than 0"),
        ({"recipe": "none"}, "^recipe none: there are gz_evo"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_made(options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(hf_galaxy.BadInput, match=message):
        hf_galaxy.finetune("nowhere", **{"start": "test_convnext"} | options)
    assert not list(tmp_path.iterdir())


def test_a_recipe_sets_defaults_that_options_replace():
    published = recipe_by_name("gz_evo_finetune")["settings"]
    given = {"dataset": ("x",), "start": "convnext_nano.d1h_in1k", "recipe": "gz_evo_finetune", "epochs": 3.0}
    settings = vars(_settings(given, "out"))
    same = {name: value for name, value in published.items() if name != "epochs"}
    assert {name: settings[name] for name in same} == {
        n: tuple(v) if isinstance(v, list) else v for n, v in same.items()
    }
    assert settings["epochs"] == 3.0 != published.get("epochs", 20)


def test_a_dataset_without_votes_names_what_it_has(columns, start, tmp_path):
    with pytest.raises(
        hf_galaxy.BadInput,
        match=r"^data .*: the columns do not hold .* label with one of kind, ring, bar, .* or values with one of z, mass,",
    ):
        hf_galaxy.finetune(columns, start=start, out=tmp_path / "out", **OPTIONS)


@pytest.mark.parametrize(
    ("command", "typed", "shown"),
    [
        (
            Finetune,
            "--dataset a--b: give --learning-rate or --no-exact, not --dataset-config x-y",
            "data a--b: give learning_rate or exact=False, not config x-y",
        ),
        (Finetune, "--out a: add --cpu, `hf-galaxy launch --cpu`", "out a: add cpu, `hf-galaxy launch --cpu`"),
        (Predict, "--dataset my --mask: needs --size, not --start", "data my --mask: needs size, not --start"),
        (Embed, "--start x: needs --backbone", "model x: needs backbone"),
        (Publish, "--run x: no --license, --push y", "model x: no license, repo y"),
    ],
)
def test_messages_have_the_names_of_python(command, typed, shown):
    with pytest.raises(hf_galaxy.BadInput, match=f"^{re.escape(shown)}$"), python_names(command):
        raise hf_galaxy.BadInput(typed)


def test_an_unknown_option_is_answered_with_those_that_there_are(start):
    with pytest.raises(hf_galaxy.BadInput, match="xyz: there is no such option; the options are ") as caught:
        hf_galaxy.finetune("x", start=start, xyz=1)
    offered = str(caught.value).partition("the options are ")[2].split(", ")
    assert not set(OWN) & set(offered)
    assert {"epochs", "learning_rate"} <= set(offered)
