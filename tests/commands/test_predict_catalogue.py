"""What `predict` writes for a catalogue beside the predictions: the command, the call and the files hold the same."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scipy import stats

import hf_galaxy
from hf_galaxy import GalaxyConfig, GalaxyForVotes
from hf_galaxy.commands.predict import command
from hf_galaxy.models import prediction_inputs, predictions
from tests.galaxies import Rows, published


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A model of votes, not trained."""
    return saved_votes(tmp_path_factory.mktemp("runs") / "votes")


def saved_votes(folder, seed=0):
    torch.manual_seed(seed)
    model = GalaxyForVotes(GalaxyConfig(backbone="test_convnext", tree="gz2", image_size=32))
    torch.nn.init.normal_(model.head.weight, std=0.3)  # so that galaxies differ
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """24 galaxies with a class, votes and positions."""
    folder = tmp_path_factory.mktemp("published") / "rings"
    published(Rows(24), folder)
    return folder


def predict(run, dataset, out, *options):
    """The table that the command writes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prediction_inputs, "ROWS_PER_PART", 16)
        words = ("--run", run, "--dataset", dataset, "--out", out, "--workers", 0, "--cpu", *options)
        command([*map(str, words)], "predict")
    return table_of(out)


def refused(run, dataset, out, *options):
    """The line with which it ends; nothing is written."""
    with pytest.raises(SystemExit) as stopped:
        predict(run, dataset, out, *options)
    assert not out.exists()
    assert "\n" not in stopped.value.code
    return stopped.value.code


def table_of(out):
    return pa.concat_tables(
        pq.read_table(file).replace_schema_metadata() for file in sorted(out.glob("part-*.parquet"))
    )


def about(out):
    return json.loads(pq.read_schema(next(iter(sorted(out.glob("part-*"))))).metadata[predictions.KEY])


def test_intervals_and_answers_are_of_the_votes_beside_them(run, dataset, tmp_path):
    plain = predict(run, dataset, tmp_path / "plain")
    table = predict(run, dataset, tmp_path / "out", "--credible", 0.9, "--answers", "--embeddings")
    assert table.column_names[: len(plain.column_names)] == plain.column_names
    assert table.select(plain.column_names).equals(plain)
    assert table.column_names[-1] == "embedding"
    assert (about(tmp_path / "out")["credible"], "credible" in about(tmp_path / "plain")) == (0.9, False)
    rows = table.to_pandas()
    tree = hf_galaxy.load_tree("gz2")
    for question in tree.questions:
        own = rows[[f"{column}_concentration" for column in question.columns]].to_numpy(float)
        for a, column in enumerate(question.columns):
            low = stats.beta.ppf(0.05, own[:, a], own.sum(axis=1) - own[:, a])
            np.testing.assert_allclose(rows[f"{column}_low"], low, rtol=1e-4, atol=1e-6)
        fractions = rows[[f"{column}_fraction" for column in question.columns]].to_numpy()
        assert rows[f"{question.name}_answer"].tolist() == [question.answers[a] for a in fractions.argmax(axis=1)]
    first, second = tree.questions[0].name, tree.questions[1]
    assert set(rows[f"{first}_asked"]) == {1.0}
    parents = sum(rows[f"{parent}_fraction"] for parent in second.parents)
    np.testing.assert_allclose(rows[f"{second.name}_asked"], parents, rtol=1e-6)


def test_the_call_has_the_same_columns(run, dataset, tmp_path):
    written = predict(run, dataset, tmp_path / "out", "--credible", 0.5, "--answers").to_pandas()
    called = hf_galaxy.predict(run, dataset, credible=0.5, answers=True, cpu=True)
    pd.testing.assert_frame_equal(called, written, check_exact=True)
    with pytest.raises(hf_galaxy.BadInput, match=r"^credible 1: must be a probability between 0 and 1"):
        hf_galaxy.predict(run, dataset, credible=1, cpu=True)
    with pytest.raises(hf_galaxy.BadInput, match=r"^credible: '0\.9' has the wrong type; give a number or None"):
        hf_galaxy.predict(run, dataset, credible="0.9", cpu=True)


def test_what_a_model_has_not_is_refused_before_anything_is_written(run, dataset, tmp_path):
    assert "--credible 90: must be a probability" in refused(run, dataset, tmp_path / "out", "--credible", 90)
