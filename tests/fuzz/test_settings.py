"""Files of settings, column maps, tasks and command lines of anybody: what they say is what is read, and the rest is refused with its name."""

import contextlib
import io
import json
import math

import yaml
from hypothesis import example
from hypothesis import strategies as st

from hf_galaxy.commands.main import COMMANDS, module_of
from hf_galaxy.decision_tree import load_tree
from hf_galaxy.downstream.tasks import load_tasks
from hf_galaxy.importing.catalogues import Catalogue
from hf_galaxy.importing.column_map import ColumnMap
from hf_galaxy.settings_file import read, with_file
from hf_galaxy.targets import TARGETS, target_class
from hf_galaxy.training.settings import Settings
from tests.fuzz.cases import Refused, answer, fuzz, memory_for, own_folder
from tests.fuzz.mutations import ODD, TEXTS, changed, damaged

FOLDER = own_folder()
for task in TARGETS:  # imported by the first options that name one, whose seconds they would be
    target_class(task)


def written(content, name):
    path = FOLDER / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode(errors="replace"))
    return path


OPTIONS = {
    "epochs": 3,
    "learning-rate": 1e-3,
    "dataset": ["a", "b"],
    "out": "x",
    "tree": ["gz2"],
    "rotate": True,
    "seed": 7,
    "label": None,
}


@fuzz(changed(OPTIONS), st.sampled_from([".json", ".yaml"]))
@example({"settings": {"epochs": 1}}, ".json")
def test_options_in_a_file_are_those_of_the_command_line_or_refused_with_its_name(options, suffix):
    text = json.dumps(options) if suffix == ".json" else yaml.safe_dump(options)
    path = written(text, f"options{suffix}")
    content = answer(read, path, place=str(path))
    words = answer(with_file, Settings, ["--config", str(path)], place=str(path))
    if isinstance(content, Refused):
        assert isinstance(words, Refused)
        return
    if not isinstance(words, Refused):
        assert all(isinstance(word, str) for word in words)
        for key, value in content.items():
            if key == "epochs" and isinstance(value, str | int | float) and not isinstance(value, bool):
                assert words[words.index("--epochs") + 1] == str(value)


@fuzz(
    damaged(
        st.sampled_from(
            [
                json.dumps(OPTIONS).encode(),
                yaml.safe_dump(OPTIONS).encode(),
                b"a: &x [1]\nb: *x\n",
                b"!!python/object:os.system x\n",
            ]
        )
    ),
    st.sampled_from([".json", ".yaml"]),
)
@example(b"[" * 50_000, ".json")
@example(b"[" * 1_000, ".yaml")
@example(b"{a: &a [x,x], b: &b [*a,*a], c: &c [*b,*b], d: &d [*c,*c]}", ".yaml")
@example(
    (
        "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40)) + "dataset: *a39"
    ).encode(),
    ".yaml",
)
@example(b"epochs: " + b"9" * 10_000, ".json")
@example(b"? [a]\n: 1\n", ".yaml")
def test_bytes_that_are_no_options_are_refused_with_their_file(content, suffix):
    path = written(content, f"options{suffix}")
    with memory_for(2**29):
        answer(read, path, place=str(path))
        answer(with_file, Settings, ["--config", str(path)], place=str(path))


MAP = {
    "id_str": "name",
    "image": "{name}.jpg",
    "votes": {"ring_yes": "n_ring", "ring_no": "n_none"},
    "classes": {"type": {"column": "kind", "names": {"k1": "odd", "k0": "even"}}},
    "values": {"y": "z"},
    "metadata": {"mass": {"column": "z", "dtype": "float32"}},
}
TABLE = "name,n_ring,n_none,kind,z\na,1,2,k0,0.5\nb,3,4,k1,\n"
RINGS = load_tree("gz_rings")


class Anything:
    """Pictures of any name."""

    def __contains__(self, name):
        return True

    def __str__(self):
        return "here"


@fuzz(changed(MAP))
@example(MAP | {"image": "{name:1000000000}"})
@example(MAP | {"image": "{name.__class__}.jpg"})
@example(MAP | {"image": "{0}.jpg"})
@example(MAP | {"image": "{name!r}"})
@example(MAP | {"image": "{name:{z}}"})
@example([])
def test_a_column_map_reads_a_table_or_is_refused(fields):
    path, table = written(json.dumps(fields), "map.json"), written(TABLE, "table.csv")
    columns = answer(ColumnMap.load, path, place="--columns")
    if isinstance(columns, Refused):
        return
    with memory_for(2**28):
        catalogue = answer(Catalogue.read, table, Anything(), columns, RINGS)
    if not isinstance(catalogue, Refused):
        assert len(catalogue) == 2
        assert catalogue.tree is None or catalogue.total_votes.shape == (2,)
        assert len(catalogue.features) == len(set(catalogue.features))


@fuzz(damaged(st.just(json.dumps(MAP).encode())))
@example(b"[" * 100_000)
def test_bytes_that_are_no_column_map_are_refused_with_their_file(content):
    path = written(content, "map.json")
    answer(ColumnMap.load, path, place=str(path))


TASKS = {
    "rings": {
        "title": "Rings",
        "dataset": "data/rings",
        "label": "ring",
        "measure": "error",
        "folds": True,
        "note": "x",
    },
    "z": {"dataset": "data/z", "values": ["z"], "unit_interval": True, "min_votes": 3},
}


def toml(value):
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return '"null"' if value is None else json.dumps(value)


@fuzz(changed(TASKS))
@example({"a": {"dataset": "x", "task": []}})
@example({"a": {"dataset": "x", "label": "y", "title": []}})
@example({"a": {"dataset": "x", "label": "y", "measure": {}}})
@example({"a": {"dataset": "x", "label": "y", "same_galaxy_arcsec": "x"}})
def test_tasks_are_those_of_the_file_or_refused_with_their_table(tables):
    text = (
        "".join(f"{json.dumps(str(key))} = {toml(each)}\n" for key, each in tables.items())
        if isinstance(tables, dict)
        else toml(tables)
    )
    path = written(text, "tasks.toml")
    tasks = answer(load_tasks, str(path), place="--tasks")
    if not isinstance(tasks, Refused):
        assert list(tasks) == list(map(str, tables))
        for task in tasks.values():
            assert isinstance(task.title, str)
            assert isinstance(task.folds, bool)
            assert task.measure is None or isinstance(task.measure, str)


@fuzz(damaged(st.just(b"".join(f"{key} = {toml(each)}\n".encode() for key, each in TASKS.items()))))
@example(b"a = " + b"[" * 20_000)
def test_bytes_that_are_no_tasks_are_refused_with_their_file(content):
    path = written(content, "tasks.toml")
    answer(load_tasks, str(path), place=str(path))


WORDS = TEXTS | ODD.map(str) | st.sampled_from(
    ["--dataset", "--out", "--config", "--print-config", "--help", "--bands", "-h", "--", "--epochs=1", "--no-flip", "--rgb", "2 1 0", "@file",
     "catalogue", "simulate", "--push", "--tree", "gz2", "--subset", "1/64"]
)  # fmt: skip


@fuzz(st.sampled_from(COMMANDS), st.lists(WORDS, max_size=5))
def test_words_of_a_command_line_are_options_or_end_with_the_usage(command, words):
    reader = module_of(command).command
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            assert answer(reader.read, [word for word in words if word != "--config"]) is not None
        except SystemExit as stopped:
            code = stopped.code
        else:
            code = 0
    assert code in (0, 2, None)
