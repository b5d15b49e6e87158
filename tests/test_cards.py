"""Cards are pure functions of records and statistics, and what they lack they call not measured."""

from types import SimpleNamespace

import datasets
import pytest
import torch
from huggingface_hub import DatasetCard, ModelCard

from hf_galaxy import cards, load_tree
from hf_galaxy.data import open_dataset, row_features, write_dataset
from hf_galaxy.errors import BadInput
from hf_galaxy.metrics import ConstantVotes, VoteMetrics
from hf_galaxy.run_record import RunRecord
from tests.conftest import jpeg_bytes

TREE = load_tree("gz_rings")


def dataset(folder, galaxies=30):
    rows = (
        {
            "id_str": str(i),
            "image": {"bytes": jpeg_bytes(), "path": "x.jpg"},
            "ring_yes": 2,
            "ring_no": 5,
            "kind": "spiral",
        }
        for i in range(galaxies)
    )
    published = write_dataset(rows, row_features(TREE, {"kind": ["spiral", "other"]}), folder)
    text = cards.dataset_card(published, "Rings", "Galaxies with rings.", "python publish", "mit", TREE)
    (folder / "README.md").write_text(text)
    return published, text


def test_the_yaml_of_a_dataset_card_is_what_load_dataset_checks(tmp_path):
    published, _ = dataset(tmp_path)
    builder = datasets.load_dataset_builder(str(tmp_path))
    assert builder.info.features == published.features
    assert {s: i.num_examples for s, i in builder.info.splits.items()} == {
        s: i.num_examples for s, i in published.splits.items()
    }
    assert sum(len(split) for split in open_dataset(str(tmp_path)).values()) == 30
    wrong = (tmp_path / "README.md").read_text().replace("num_examples: ", "num_examples: 9", 1)
    (tmp_path / "README.md").write_text(wrong)
    with pytest.raises(datasets.exceptions.NonMatchingSplitsSizesError):
        datasets.load_dataset(str(tmp_path))


def test_a_dataset_card_tells_what_was_counted(tmp_path):
    _, text = dataset(tmp_path)
    card = DatasetCard(text)
    assert card.data.license == "mit"
    assert card.data.pretty_name == "Rings"
    assert "| ring | 210 | yes 60, no 150 |" in text
    assert "| spiral | 30 |" in text
    assert "| other | 0 |" in text


def record(task="votes"):
    metrics = VoteMetrics(
        TREE, ConstantVotes(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 1.0]), torch.tensor([0.5, 0.5])), min_votes=20
    )
    out = SimpleNamespace(fractions=torch.tensor([[0.25, 0.75]]), nll=torch.tensor([[1.5]]))
    metrics.update({"votes": torch.tensor([[2, 6]])}, out)
    return RunRecord(
        command="scripts/pretrain.py --dataset d",
        settings={"task": task, "epochs": 3, "label": None, "likelihood": "dirichlet_multinomial"},
        dataset={
            "name": "d",
            "title": "Rings",
            "tree": "gz_rings",
            "questions": ["ring"],
            "splits": {"train": 70, "validation": 10, "test": 1},
        },
        model={
            "backbone": "test_convnext",
            "start": None,
            "image_size": 64,
            "crop": 0.5,
            "parameters": {"backbone": 1234567, "head": 10},
        },
        environment={"device": "CPU", "processes": 1},
        training={"best_epoch": 2, "history": [{}, {}, {}], "seconds": 12.3},
        results={"test": metrics.cpu().compute()},
        finished=True,
    )


def test_a_model_card_is_a_function_of_its_record(tmp_path):
    text = cards.model_card(record())
    assert "| ring | 1 | 1.5000 | " in text
    assert "| 0 | not measured | not measured |" in text, "one galaxy, with fewer votes than enough"
    assert "epoch 2 of 3" in text
    assert "64 x 64 pixels, the middle 50 %" in text
    assert "1,234,567 parameters" in text
    assert ModelCard(text).data.license == "apache-2.0"
    record().save(tmp_path)
    assert RunRecord.load(tmp_path) == record()
    assert cards.model_card(RunRecord.load(tmp_path)) == text


def test_a_class_table_shows_each_figure_beside_its_baseline():
    results = {"galaxies": 7, "accuracy": {"model": 0.8, "baseline": 0.5}, "auc": {"model": None, "baseline": None}}
    table = cards.metrics_table(results | {"confusion": [[1]]})
    assert "| accuracy | 0.8000 | 0.5000 |" in table
    assert "| auc | not measured | not measured |" in table
    assert "confusion" not in table


def test_a_file_that_is_no_run_record_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"is no run folder \(it has no run.json\)"):
        RunRecord.load(tmp_path)
    (tmp_path / "run.json").write_text('{"steps": 3}')
    with pytest.raises(BadInput, match=r"run.json: is no run record .*steps"):
        RunRecord.load(tmp_path)
