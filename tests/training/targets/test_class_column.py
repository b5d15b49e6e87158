"""Columns of whole numbers, bools and texts are classes as a ClassLabel is, to the bit; what is missing is left out and counted."""

import datasets
import numpy as np
import pytest
import torch

from hf_galaxy.commands import evaluate
from hf_galaxy.data.galaxies import Galaxies
from hf_galaxy.data.splits import strata_of
from hf_galaxy.data.views import Framing
from hf_galaxy.errors import BadInput
from hf_galaxy.models.start import resolve_start
from hf_galaxy.training.settings import Settings
from hf_galaxy.training.sources import open_sources
from hf_galaxy.training.targets.classes import Classes
from hf_galaxy.training.targets.labels import Labels
from hf_galaxy.training.task import model_and_baseline
from tests.galaxies import jpeg_bytes
from tests.training.runs import run

RINGS = [int(i % 3 == 0) if i % 7 else None for i in range(60)]  # some are missing


def held_as(kind, values):
    """The values of a column of some type, with what the type has for a missing one."""
    missing = {"int64": -1, "float32": float("nan"), "string": " "}.get(kind)
    into = {"bool": bool, "string": str, "float32": float}.get(kind, int)
    return [missing if value is None else into(value) for value in values]


KINDS = {"named": None, "whole": "int64", "unsigned": "uint8", "pandas": "float32", "flag": "bool", "text": "string"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A dataset with the same label in columns of all types."""
    folder = tmp_path_factory.mktemp("kinds")
    for split, where in (("train", slice(0, 36)), ("validation", slice(36, 46)), ("test", slice(46, 60))):
        rings = RINGS[where]
        columns = {"id_str": [f"g{i}" for i in range(where.start, where.stop)]}
        columns["image"] = [{"bytes": jpeg_bytes(i), "path": None} for i in range(len(rings))]
        features = {"id_str": datasets.Value("string"), "image": datasets.Image()}
        for name, kind in KINDS.items():
            columns[name] = held_as(kind, rings)
            features[name] = datasets.Value(kind) if kind else datasets.ClassLabel(names=["0", "1"])
        datasets.Dataset.from_dict(columns, datasets.Features(features)).to_parquet(folder / f"data/{split}.parquet")
    return folder


def opened(folder, label, **options):
    settings = Settings(dataset=(str(folder),), task="classes", label=label, out=folder / "none", **options)
    return settings, open_sources(settings)


@pytest.mark.parametrize(
    "options", [{}, {"streaming": True}, {"fold": 2, "subset": 0.5}], ids=["whole", "streamed", "part"]
)
@pytest.mark.parametrize("label", ["{}", "{}={}"], ids=["classes", "one class"])
def test_a_label_of_any_type_is_learnt_as_a_class_label_is(folder, label, options, caplog):
    caplog.set_level("INFO", "hf_galaxy")
    _, expected = opened(folder, label.format("named", "1"), **options)
    counted = [message.replace("named", "it") for message in caplog.messages]
    assert len(counted) == 4, "of each split, and what is left in all"
    for name, kind in KINDS.items():
        caplog.clear()
        one = {"bool": "true"}.get(kind, "1")
        _, sources = opened(folder, label.format(name, one), **options)
        assert [message.replace(name, "it") for message in caplog.messages] == counted
        if kind != "bool":
            assert sources.target.names == expected.target.names
        assert sources.strata[0].tolist() == expected.strata[0].tolist()
        for split in expected.splits:
            (rows,), (theirs,) = sources.splits[split], expected.splits[split]
            assert strata_of(rows, sources.target).tolist() == strata_of(theirs, expected.target).tolist()
            batch, same = (Galaxies(r, Framing(8), s.target)[[1, 0]] for r, s in ((rows, sources), (theirs, expected)))
            assert batch.keys() == same.keys()
            assert all(torch.equal(batch[key], same[key]) for key in batch)


def test_a_model_of_a_whole_number_is_that_of_a_class_label(folder):
    models = []
    for name in ("named", "whole"):
        settings, sources = opened(folder, name, class_weights="balanced", image_size=32)
        models.append(model_and_baseline(settings, sources, resolve_start("test_resnet", None, 32)[0]))
    (named, baseline), (whole, same) = models
    assert same == baseline
    assert whole.config.to_dict() == named.config.to_dict()
    theirs = named.state_dict()
    assert all(torch.equal(values, theirs[name]) for name, values in whole.state_dict().items())


def test_an_evaluation_counts_what_it_leaves_out(folder, tmp_path, capsys, caplog):
    record = run(tmp_path / "run", dataset=(str(folder),), task="classes", label="whole", epochs=1)
    assert record.dataset["classes"] == ["0", "1"]
    caplog.set_level("INFO", "hf_galaxy")
    evaluate.command(["--run", str(tmp_path / "run"), "--workers", "0", "--cpu"])
    assert "| 12 galaxies | model |" in capsys.readouterr().out
    assert f"2 of the 14 galaxies of split test of {folder} have no 'whole'; they are left out" in caplog.messages


def rows_of(values, kind):
    features = datasets.Features({"id_str": datasets.Value("string"), "x": datasets.Value(kind)})
    return datasets.Dataset.from_dict({"id_str": [f"g{i}" for i in range(len(values))], "x": values}, features)


@pytest.mark.parametrize(
    ("values", "kind", "names", "indices"),
    [
        ([12, 3, 7, 3, None], "int16", ("3", "7", "12"), [2, 0, 1, 0, -1]),
        ([10, 9, -1, 9], "int64", ("9", "10"), [1, 0, -1, 0]),
        ([2.0, 10.0, float("nan"), -1.0], "float64", ("2", "10"), [0, 1, -1, -1]),
        ([True, None, False], "bool", ("false", "true"), [1, -1, 0]),
        (["b", "", None, " \t", "a", "NaN"], "large_string", ("a", "b"), [1, -1, -1, -1, 0, -1]),
    ],
)
def test_classes_are_named_by_their_values_in_the_order_of_numbers(values, kind, names, indices):
    rows = rows_of(values, kind)
    target = Classes.of_rows(rows, "x", "d")
    assert target == Classes("x", names)
    assert strata_of(rows, target).tolist() == indices
    last = len(names) - 1
    one = Classes.of_rows(rows, f"x={names[-1]}", "d")
    assert strata_of(rows, one).tolist() == [-1 if index < 0 else int(index == last) for index in indices]


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        ([0, 1, -2], "int32", "--dataset d, id_str g2, column x: -2 is no class; of negative numbers -1 alone"),
        ([0.0, 1.0, 0.5], "float32", "id_str g2, column x: 0.5 is no class; .* numbers to estimate give --values x"),
        ([0.0, float("inf")], "float64", "id_str g1, column x: inf is no class"),
        ([float("nan"), 3.0], "float64", "column 'x' holds 1 different numbers; classes are 2 to 1,000"),
        (list(range(1_001)), "int64", "holds 1,001 different numbers; .* numbers to estimate give --values x"),
        (
            [b"a", b"b"],
            "binary",
            "column 'x' holds binary, but classes are a ClassLabel, texts, whole numbers or bools",
        ),
    ],
)
def test_a_column_without_classes_is_refused_by_row_and_column(values, kind, message):
    with pytest.raises(BadInput, match=message):
        Classes.of_rows(rows_of(values, kind), "x", "d")


@pytest.mark.parametrize(("kind", "into"), [("string", str), ("int64", int)])
def test_a_column_of_names_is_no_column_of_classes(kind, into):
    rows = rows_of([into(i % 30) for i in range(50)], kind)
    target = Classes.of_rows(rows, "x", "d")
    with pytest.raises(
        BadInput, match=r"split train: column 'x' has 30 different .* in 50 galaxies, too many to be classes"
    ):
        target.labelled(rows, "split train", training=True)
    assert len(target.labelled(rows, "split test")[0]) == 50
    assert len(target.labelled(datasets.concatenate_datasets([rows, rows]), "split train", training=True)[0]) == 100


def test_a_class_that_is_not_learnt_is_named(caplog):
    caplog.set_level("INFO", "hf_galaxy")
    kept, _ = Classes("x", ("0", "1")).labelled(rows_of([0, 5, None, 1], "int64"), "split test")
    assert len(kept) == 2
    assert caplog.messages == ["split test: no training galaxy has the x 5: those that have it are left out"]
    Classes("x", ("not 1", "1"), "1").labelled(rows_of([0, 5, None, 1], "int64"), "split test")
    assert len(caplog.messages) == 1, "another class is one of the rest"


def test_a_wrong_number_in_another_split_is_refused_by_its_name():
    with pytest.raises(BadInput, match="split test, id_str g1, column x: -9 is no class"):
        Classes("x", ("0", "1")).labelled(rows_of([0, -9], "int64"), "split test")


def test_yes_and_no_may_be_floats_with_gaps():
    rows = rows_of([0.0, 1.0, float("nan"), -1.0, None], "float64")
    labels = Labels.of_rows(rows, ("x",), "d")
    kept, strata = labels.labelled(rows, "split train")
    assert (kept["id_str"][:], strata.tolist()) == (["g0", "g1"], [1, 2])
    np.testing.assert_array_equal(labels.numbers(rows.with_format("arrow")[:])[:, 0], [0, 1, *[np.nan] * 3])
    with pytest.raises(
        BadInput, match=r"split train, id_str g1, column x: 0.5 is no label: 0, 1, or missing \(null, NaN or -1\)"
    ):
        labels.labelled(rows_of([1.0, 0.5], "float64"), "split train")
