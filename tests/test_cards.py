"""The card of a model is a pure function of its record, and what that lacks it calls not measured."""

from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import ModelCard

from hf_galaxy import cards, load_tree
from hf_galaxy.errors import BadInput
from hf_galaxy.metrics import ConstantVotes, VoteMetrics
from hf_galaxy.run_record import RunRecord

TREE = load_tree("gz_rings")


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
    assert "after 2 of at most 3 epochs" in text
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


def test_a_card_of_values_shows_each_beside_its_constant():
    figures = {"rmse": {"model": 0.0123456, "baseline": 12345.6}, "mae": {"model": 2.0, "baseline": None}}
    value = {"galaxies": 6, **figures, "r2": {"model": 0.75, "baseline": -0.01}}
    of_values = record(task="values")
    of_values.dataset["values"] = ["redshift"]
    of_values.results = {"test": {"galaxies": 7, "loss": {"model": 0.25, "baseline": 1}, "values": {"redshift": value}}}
    text = cards.model_card(of_values)
    assert "| redshift | 6 | 0.01235 | 1.235e+04 | 2 | not measured | 0.7500 | -0.0100 |" in text
    assert "All 7 galaxies: loss 0.2500, baseline 1.0000." in text
    assert "Predicts numbers from a galaxy's picture, in the units of the dataset: redshift." in text
    assert "dict(zip(model.config.values, answer.values[0].tolist()))" in text
    assert "for MAE (mean absolute error) its median" in text


@pytest.mark.parametrize("setting", [{"label_smoothing": 0.1}, {"class_weights": "balanced"}, {}])
def test_a_card_of_classes_says_that_its_loss_is_the_plain_one_where_it_was_not_learnt_by(setting):
    of_classes = record(task="classes")
    of_classes.dataset["classes"] = ["a", "b"]
    of_classes.settings |= setting
    of_classes.results = {}
    said = "The loss is the plain cross-entropy, without the label smoothing and class weights" in cards.model_card(
        of_classes
    )
    assert said == bool(setting)


def test_a_file_that_is_no_run_record_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"is no run folder \(it has no run.json\)"):
        RunRecord.load(tmp_path)
    (tmp_path / "run.json").write_text('{"steps": 3}')
    with pytest.raises(BadInput, match=r"run.json: is no run record .*steps"):
        RunRecord.load(tmp_path)
