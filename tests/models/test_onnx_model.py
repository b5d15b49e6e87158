"""A fast model answers as torch does, exports once whatever starts beside it, and serves many at once in the same memory."""

import os
import runpy
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from hf_galaxy import GalaxyConfig, GalaxyForImageClassification, GalaxyForVotes
from hf_galaxy.errors import BadInput
from hf_galaxy.models import onnx_model
from hf_galaxy.models.onnx_model import FastModel
from hf_galaxy.publishing.mock_pictures import draw
from hf_galaxy.publishing.simulate import CAMPAIGNS, draw_morphology
from hf_galaxy.reports.run_record import RunRecord
from tests.conftest import ROOT
from tests.training.runs import SERVER

SIDE = 70


def save(folder, seed=0, model=GalaxyForVotes, finished=True, **options):
    """A run that was never trained, but whose answers differ from galaxy to galaxy."""
    torch.manual_seed(seed)
    options = {"image_size": 32, "crop": 0.7} | options
    made = model(GalaxyConfig(backbone="test_resnet", tree="gz2" if model is GalaxyForVotes else None, **options))
    torch.nn.init.normal_(made.head.weight, std=3.0)
    made.save_pretrained(folder)
    RunRecord(command="", settings={}, dataset={"title": "none"}, finished=finished).save(folder)
    return made.eval()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "votes"
    save(folder)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def fast(run, cache):
    return FastModel(run, cache)


@pytest.fixture(scope="module")
def galaxies(tmp_path_factory):
    """A folder of 64 drawn galaxies, not all square."""
    folder, rng = tmp_path_factory.mktemp("galaxies"), np.random.default_rng(0)
    for i in range(64):
        (folder / f"{i:02}.jpg").write_bytes(draw(draw_morphology(rng), CAMPAIGNS[0].imaging, SIDE, rng))
        if i % 8 == 0:
            picture = Image.open(folder / f"{i:02}.jpg")
            picture.crop((0, 5, SIDE, 60)).save(folder / f"{i:02}.jpg", quality=95)
    return folder


@pytest.fixture(scope="module")
def views(fast, galaxies):
    return np.stack([fast.view(np.asarray(Image.open(file))) for file in sorted(galaxies.iterdir())])


def test_it_says_what_predict_says(run, fast, galaxies, views, tmp_path, monkeypatch):
    options = ["--run", run, "--dataset", galaxies, "--out", tmp_path / "said", "--embeddings", "--workers", 0, "--cpu"]
    monkeypatch.setattr(sys, "argv", ["predict", *map(str, options)])
    runpy.run_path(str(ROOT / "scripts/predict.py"), run_name="__main__")
    table = pq.read_table(tmp_path / "said/part-00000-of-00001.parquet")
    assert table["id_str"].to_pylist() == [f"{i:02}.jpg" for i in range(64)]
    said = fast.answer(views)
    first, second = said.concentrations.swapaxes(0, 1)
    for kind, ours in (("fraction", said.fractions), ("concentration", first), ("concentration_2", second)):
        theirs = np.stack([table[f"{column}_{kind}"].to_numpy() for column in fast.tree.columns], axis=1)
        assert theirs.std(axis=0).min() > 1e-3, "galaxies differ"
        np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    weights = [table[f"{question.name}_weight"].to_numpy() for question in fast.tree.questions]
    np.testing.assert_allclose(said.weights[:, 0], np.stack(weights, axis=1), rtol=1e-4, atol=1e-6)
    embeddings = np.stack(table["embedding"].to_pylist())
    np.testing.assert_allclose(said.features, embeddings, atol=1e-4 * np.abs(embeddings).max())


@pytest.mark.parametrize("head", ["mixture", "softplus", "multinomial"])
@pytest.mark.parametrize("batch", [1, 64])
def test_it_answers_as_torch_does(head, batch, views, cache, tmp_path):
    model = save(tmp_path, **{"likelihood": head} if head == "multinomial" else {"head_activation": head})
    fast = FastModel(tmp_path, cache)
    said = fast.answer(views[:batch])
    assert fast.mixed == (head == "mixture")
    with torch.inference_mode():
        numbers = model.predictions(torch.from_numpy(views[:batch])).numpy()
        features = model.features(torch.from_numpy(views[:batch])).numpy()
    ours = [said.fractions]
    if head != "multinomial":
        ours.append(said.concentrations.reshape(batch, -1))
    if head == "mixture":
        ours.append(said.weights[:, 0])
    assert (said.concentrations is None, said.weights is None) == (head == "multinomial", head != "mixture")
    np.testing.assert_allclose(np.concatenate(ours, axis=1), numbers, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(said.features, features, atol=1e-4 * np.abs(features).max())


def test_it_exports_once_and_again_when_anything_has_changed(run, fast, views, cache, tmp_path, monkeypatch):
    def files():
        return {file.name: file.stat().st_ino for file in cache.glob("*.onnx")}

    before = files()
    FastModel(str(run), cache, threads=1)
    assert files() == before
    save(tmp_path, seed=1)
    other = FastModel(tmp_path, cache)
    assert files().items() > before.items()
    assert np.abs(other.answer(views[:3]).fractions - fast.answer(views[:3]).fractions).max() > 0.01
    digests = {onnx_model._digest(run)}
    for name in onnx_model.LIBRARIES:
        with monkeypatch.context() as patch:
            patch.setattr(onnx_model, "version", lambda asked, name=name: "9.9" if asked == name else "1.0")
            digests.add(onnx_model._digest(run))
    assert len(digests) == 1 + len(onnx_model.LIBRARIES)


def test_what_a_killed_start_has_left_is_in_nobodys_way(run, fast, views, tmp_path):
    name = f"{onnx_model._digest(run)}.onnx"
    (tmp_path / f".{name}.partial").write_text("half a file")
    (tmp_path / name).with_suffix(".lock").touch()
    again = FastModel(run, tmp_path)
    np.testing.assert_array_equal(again.answer(views[:2]).fractions, fast.answer(views[:2]).fractions)
    assert [file.name for file in tmp_path.iterdir() if file.suffix == ".onnx"] == [name]
    assert not list(tmp_path.glob(".*"))
    (tmp_path / name).write_text("not ONNX")
    with pytest.raises(BadInput, match=r"cannot be read .*; remove it"):
        FastModel(run, tmp_path)


def start(run, cache, out):
    np.save(out, FastModel(run, cache).answer(np.full((1, 3, 32, 32), 0.5, np.float32)).fractions)


def test_two_processes_and_two_threads_start_at_once(run, fast, tmp_path):
    cache = tmp_path / "cache"
    processes = [SERVER.Process(target=start, args=(run, cache, tmp_path / f"{i}.npy")) for i in range(2)]
    for process in processes:
        process.start()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda i: start(run, cache, tmp_path / f"{i}.npy"), (2, 3)))
    for process in processes:
        process.join(300)
    expected = fast.answer(np.full((1, 3, 32, 32), 0.5, np.float32)).fractions
    for i in range(4):
        np.testing.assert_allclose(np.load(tmp_path / f"{i}.npy"), expected, rtol=1e-6)
    assert len(list(cache.glob("*.onnx"))) == 1


def test_eight_threads_ask_at_once(fast, views):
    expected = fast.answer(views)

    def ask(i):
        first = i % 60
        said = fast.answer(views[first : first + 1 + i % 4])
        for ours, theirs in zip(said, expected, strict=True):
            np.testing.assert_allclose(ours, theirs[first : first + 1 + i % 4], rtol=1e-4, atol=1e-5)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(200)))


def memory():
    """Bytes that this process holds."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_memory_stays_flat(fast, views):
    def answer(times):
        for i in range(times):
            fast.answer(views[: 1 + i % 9])

    answer(60)
    grown = []
    for _ in range(3):  # else that of other threads of this process would count
        before = memory()
        answer(240)
        grown.append(memory() - before)
    assert min(grown) < 4e6, "the answers' inputs are 40 MB together, their outputs 1 MB"


def test_what_is_refused(run, tmp_path):
    for given, message in ((tmp_path / "none", "reachable Hub id"), (tmp_path, "is not the folder of a finished run")):
        with pytest.raises(BadInput, match=message):
            FastModel(given, tmp_path)
    save(tmp_path / "classes", model=GalaxyForImageClassification, num_labels=3)
    save(tmp_path / "unfinished", seed=2, finished=False)
    for name, message in (("classes", "does not predict votes"), ("unfinished", "is not finished")):
        with pytest.raises(BadInput, match=message):
            FastModel(tmp_path / name, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match=r"file: cannot be written .*; choose another cache"):
        FastModel(run, tmp_path / "file")
