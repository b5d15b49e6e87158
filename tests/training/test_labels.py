"""Several yes/no labels at once: from columns of any binary type to a run, its card, evaluation and predictions."""

import json

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from huggingface_hub import ModelCard

from hf_galaxy.errors import BadInput
from hf_galaxy.importing.dataset import open_dataset
from hf_galaxy.models.start import load_model
from hf_galaxy.reports.run_record import RunRecord
from hf_galaxy.training.settings import Settings
from hf_galaxy.training.targets.labels import Labels
from tests.galaxies import jpeg_bytes
from tests.training.runs import run
from tests.training.test_finetuning import classifier

RING = datasets.ClassLabel(names=["no", "yes"])
FEATURES = datasets.Features(
    {"id_str": datasets.Value("string"), "image": datasets.Image(), "ring": RING, "bar": datasets.Value("bool")}
    | {"merger": datasets.Value("int8"), "votes": datasets.Value("int32")}
)


def rows(count, **changes):
    """Galaxies of which every third is a ring and every other one has a bar; some labels are missing, of galaxy 1 all."""
    columns = {
        "id_str": [f"g{i}" for i in range(count)],
        "image": [{"bytes": jpeg_bytes(i), "path": None} for i in range(count)],
        "ring": [-1 if i == 1 else int(i % 3 == 0) for i in range(count)],
        "bar": [None if i in (1, 4) else i % 2 == 0 for i in range(count)],
        "merger": [-1 if i == 1 else int(i == 5) for i in range(count)],
        "votes": [i for i in range(count)],
    }
    return datasets.Dataset.from_dict(columns | changes, features=FEATURES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A dataset with two binary labels."""
    folder = tmp_path_factory.mktemp("labels") / "rings"
    (folder / "data").mkdir(parents=True)
    for split, count in (("train", 24), ("validation", 9), ("test", 12)):
        rows(count).to_parquet(folder / f"data/{split}.parquet")
    return folder


@pytest.mark.parametrize("streaming", [False, True], ids=["copied", "streamed"])
def test_columns_of_any_binary_type_are_labels_and_missing_ones_are_nan(folder, streaming):
    split = open_dataset(str(folder), streaming=streaming)["test"]
    labels = Labels.of_rows(split, ("ring", "bar", "merger"), "x")
    having, strata = labels.labelled(split, "--dataset x: split test")
    names = having.select_columns(["id_str"]).with_format("arrow")[:]["id_str"].to_pylist()
    assert names == [f"g{i}" for i in range(12) if i != 1], "which has none"
    table = having.select_columns(list(labels.columns)).with_format("arrow")[:]
    batch = labels.tensors(table, having.features)["labels"]
    expected = [[i % 3 == 0, np.nan if i == 4 else i % 2 == 0, i == 5] for i in range(12) if i != 1]
    np.testing.assert_array_equal(batch, np.array(expected, np.float32))
    assert batch.dtype == torch.float32
    assert strata[:3].tolist() == [2 + 3 * 2 + 9, 1 + 3 * 2 + 9, 2 + 3 * 1 + 9]
    assert strata[names.index("g4")] == 1 + 0 + 9
    assert labels.strata(table, having.features).tolist() == strata.tolist()


def test_columns_that_hold_no_labels_are_refused():
    for wrong in ("id_str", "image", "disk"):
        with pytest.raises(BadInput, match=f"no yes/no column .* '{wrong}'; .*: ring, bar, merger, votes"):
            Labels.of_rows(rows(3), ("ring", wrong), "x")
    with pytest.raises(BadInput, match="to learn without --labels"):
        Labels.of_rows(rows(3), (), "x")
    with pytest.raises(BadInput, match=r"split train, id_str g2, column votes: 2 is no label: 0, 1, or missing"):
        Labels(("ring", "votes")).labelled(rows(4), "--dataset x: split train")
    with pytest.raises(BadInput, match="none of its 1 galaxies has ring or bar"):
        Labels(("ring", "bar")).labelled(rows(2).select([1]), "split dev")
    settings = Settings(dataset=("x",), out="none", task="labels")
    with pytest.raises(BadInput, match="--labels merger: 0 training galaxies have it and 4 do not"):
        Labels(("merger",)).baseline(settings, [rows(5)], None)
    with pytest.raises(BadInput, match="--labels: is for --task labels; --task votes has --tree"):
        Settings(dataset=("x",), out="none", labels=("ring",)).check()
    with pytest.raises(BadInput, match="--labels ring ring: names a column twice"):
        Settings(dataset=("x",), out="none", task="labels", labels=("ring", "ring")).check()


def test_a_run_of_two_labels_from_training_to_predictions(folder, tmp_path, run_script):
    settings = dict(dataset=(str(folder),), task="labels", labels=("ring", "bar"))
    record = run(tmp_path / "run", **settings, epochs=6, patience=1, learning_rate=0.05)
    assert record.dataset["labels"] == ["ring", "bar"]
    assert record.dataset["splits"] == {"train": 23, "validation": 8, "test": 11}
    assert record.baseline == {"rates": pytest.approx([8 / 23, 11 / 22])}
    assert len(record.training["history"]) - 1 < 6, "stopped early"
    history = [entry for entry in record.training["history"] if entry]
    losses = [entry["validation_loss"] for entry in history]
    assert record.training["best_epoch"] == pytest.approx(history[np.argmin(losses)]["galaxies"] / 23, abs=0.01)

    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    model = load_model(tmp_path / "run").eval()
    assert model.columns == ["ring", "bar"]

    card = (tmp_path / "run/README.md").read_text()
    figures = record.results["test"]["labels"]["bar"]
    assert (figures["galaxies"], figures["positive"]) == (10, 5)
    [row] = [line for line in card.splitlines() if line.startswith("| bar |")]
    assert row.startswith("| bar | 10 | 5 |")
    assert "| label | galaxies | positive | error | baseline | average precision | baseline |" in card
    assert "multi-label classification" in card
    header = ModelCard(card).data
    assert header.pipeline_tag == "image-classification"
    assert {result.metric_name for result in header.eval_results} >= {"average precision of ring", "error of bar"}

    run_script("evaluate", "--run", tmp_path / "run", "--split", "validation", "--cpu")
    run_script("evaluate", "--run", tmp_path / "run", "--cpu")
    again = RunRecord.load(tmp_path / "run").results
    assert again["test"]["loss"] == pytest.approx(record.results["test"]["loss"])
    assert again["validation"]["loss"]["model"] == pytest.approx(min(losses))

    run_script("predict", "--run", tmp_path / "run", "--dataset", folder, "--split", "test", "--out", tmp_path / "out")
    table = pq.read_table(tmp_path / "out")
    assert table.column_names == ["dataset", "split", "id_str", "ring_probability", "bar_probability"]
    assert (table.num_rows, min(table["bar_probability"].to_pylist()) > 0) == (12, True)
    right = [i % 3 == 0 for i in range(12) if i != 1]
    predicted = dict(zip(table["id_str"].to_pylist(), table["ring_probability"].to_pylist(), strict=True))
    wrong = np.mean([(predicted[f"g{i}"] > 0.5) != yes for i, yes in zip([0, *range(2, 12)], right, strict=True)])
    assert record.results["test"]["labels"]["ring"]["error"]["model"] == pytest.approx(wrong)

    more = settings | {"labels": ("bar", "merger"), "start": str(tmp_path / "run"), "backbone": None, "keep_head": True}
    finetuned = run(tmp_path / "more", **more, train="head", epochs=1, learning_rate=1e-9)
    ours, theirs = load_model(tmp_path / "more"), model
    assert torch.allclose(ours.head.weight[0], theirs.head.weight[1], atol=1e-6)
    assert finetuned.finished


def test_labels_of_their_own_are_no_exclusive_classes(tmp_path):
    from hf_galaxy.training.finetuning import keep_head

    labels = classifier("ring", "bar")
    labels.config.problem_type = "multi_label_classification"
    labels.save_pretrained(tmp_path)
    with pytest.raises(BadInput, match="has labels of their own, whose outputs mean something else"):
        keep_head(classifier("ring", "bar"), str(tmp_path))


def test_the_loss_of_the_model_is_the_masked_cross_entropy_and_the_pipeline_gives_every_label(tmp_path):
    from PIL import Image
    from transformers import pipeline

    model = classifier("ring", "bar").eval()
    model.config.problem_type = "multi_label_classification"
    pictures, labels = torch.rand(2, 3, 64, 64), torch.tensor([[1, float("nan")], [0, 1]])
    answer = model(pixel_values=pictures, labels=labels)
    shares = answer.logits.sigmoid()
    expected = (-shares[0, 0].log() - ((1 - shares[1, 0]).log() + shares[1, 1].log()) / 2) / 2
    assert answer.loss.item() == pytest.approx(expected.item())
    assert torch.allclose(model.predictions(pictures), shares)
    model.save_pretrained(tmp_path)
    given = pipeline("image-classification", model=str(tmp_path))(Image.new("RGB", (64, 64), "white"))
    assert {each["label"] for each in given} == {"ring", "bar"}
    assert sum(each["score"] for each in given) != pytest.approx(1), "not a softmax"
