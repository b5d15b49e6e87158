"""Tables that ONNX Runtime computes hold the numbers of torch, whatever is asked for; they say so, and are of one runtime only."""

import sys

import numpy as np
import pyarrow as pa
import pytest
import torch

import hf_galaxy
from hf_galaxy import GalaxyForVotes
from hf_galaxy.commands.predict import command
from hf_galaxy.data.views import eval_view
from hf_galaxy.models.export import TOLERANCE
from hf_galaxy.models.familiarity import Descriptors, Familiarity, looks_of
from hf_galaxy.models.onnx_features import check_onnx_runtime
from tests.commands.test_predict import files_of, start
from tests.commands.test_predict_catalogue import about, dataset, predict, refused, table_of  # noqa: F401
from tests.forks import TIMEOUT
from tests.models.test_onnx_model import save

ONNX = ("--runtime", "onnx")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A model of votes, not trained, with the file of hf-galaxy familiarity."""
    folder = tmp_path_factory.mktemp("runs") / "votes"
    model = save(folder)
    canvases = torch.randint(0, 256, (300, 3, 46, 46), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    views = eval_view(canvases, model.config.framing)
    with torch.inference_mode():
        seen = Descriptors(model.features(views).numpy(), looks_of(views.numpy()))
    Familiarity.fit(Descriptors(*(each[:100] for each in seen)), Descriptors(*(each[100:] for each in seen))).save(
        folder
    )
    return folder


def check_equal(ours, torchs):
    """Numbers to the tolerance of the export, relative to the largest of a column; all else to the letter."""
    assert ours.column_names == torchs.column_names
    differ = 0
    for name in ours.column_names:
        if pa.types.is_floating(ours[name].type) or pa.types.is_fixed_size_list(ours[name].type):
            numbers, expected = (np.stack(each[name].to_numpy()) for each in (ours, torchs))
            np.testing.assert_allclose(numbers, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max(), err_msg=name)
            differ += not np.array_equal(numbers, expected)
        else:
            assert ours[name].equals(torchs[name]), name
    assert differ, "another program has added up in another order"


OPTIONS = ("--embeddings", "--credible", 0.9, "--answers", "--keep", "ra")


@pytest.fixture(scope="module")
def of_onnx(run, dataset, tmp_path_factory):  # noqa: F811
    """All that can be had of one model."""
    out = tmp_path_factory.mktemp("predictions") / "onnx"
    predict(run, dataset, out, *OPTIONS, *ONNX)
    return out


def test_everything_that_is_computed_of_a_model_is_the_same(run, dataset, of_onnx, tmp_path):  # noqa: F811
    of_torch, ours = predict(run, dataset, tmp_path / "torch", *OPTIONS), table_of(of_onnx)
    assert {"ood_score", "unfamiliar", "embedding", "ra"} < {*ours.column_names}
    check_equal(ours, of_torch)
    assert (about(tmp_path / "torch") | {"runtime": "onnx"}) == about(of_onnx)
    assert "| Computed with | ONNX Runtime, equal to torch" in (of_onnx / "_columns.md").read_text()
    assert "Computed with" not in (tmp_path / "torch/_columns.md").read_text()


@pytest.mark.nightly  # as with torch
def test_two_processes_write_the_same_bytes(run, dataset, of_onnx, tmp_path):  # noqa: F811
    log, out = tmp_path / "log", tmp_path / "two"
    started = start(log, run, "--dataset", dataset, "--out", out, "--workers", 0, "--cpu", *OPTIONS, *ONNX, processes=2)
    for process in started:
        process.join(TIMEOUT)
    assert [process.exitcode for process in started] == [0] * 2, log.read_text()
    assert files_of(out) == files_of(of_onnx)


def test_several_runs_and_views_are_the_same(run, dataset, tmp_path):  # noqa: F811
    save(tmp_path / "other", seed=1)
    options = ("--run", run, tmp_path / "other", "--views", 4)
    of_onnx = predict(run, dataset, tmp_path / "onnx", *options, *ONNX)
    check_equal(of_onnx, predict(run, dataset, tmp_path / "torch", *options))


def test_a_model_that_is_loaded_stays_as_it_was(run, dataset):  # noqa: F811
    model = GalaxyForVotes.from_pretrained(run).train()
    features = hf_galaxy.embed(model, dataset, runtime="onnx", cpu=True)
    assert model.training
    assert "features" not in vars(model)
    expected = hf_galaxy.embed(model, dataset, cpu=True)
    np.testing.assert_allclose(features, expected, rtol=0, atol=TOLERANCE * np.abs(expected).to_numpy().max())
    assert not features.equals(expected)


def test_an_interrupted_prediction_goes_on_with_the_same_runtime_only(run, dataset, tmp_path):  # noqa: F811
    words = ("--run", run, "--dataset", dataset, "--out", tmp_path / "out", "--cpu", "--part")
    command([*map(str, words), "1/2"], "predict")
    assert "with other settings" in refused(run, dataset, tmp_path / "out", "--part", "2/2", *ONNX)


def test_what_it_cannot_do_is_refused(run, dataset, tmp_path, monkeypatch):  # noqa: F811
    with pytest.raises(hf_galaxy.BadInput, match="computes in float32, and not in bf16; add --precision no"):
        check_onnx_runtime(torch.device("cpu"), "bf16")
    with pytest.raises(hf_galaxy.BadInput, match="is for CPUs, and there is a GPU"):
        check_onnx_runtime(torch.device("cuda"), "no")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    line = refused(run, dataset, tmp_path / "out", *ONNX)
    assert "--runtime onnx needs onnxruntime, which is not installed: pip install 'hf_galaxy[onnx]'" in line
