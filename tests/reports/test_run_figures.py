"""Figures of a run say in which units its loss is, and what training and validation losses are of."""

import pytest
from matplotlib.text import Text

from hf_galaxy.reports import run_figures
from hf_galaxy.reports.run_record import RunRecord


@pytest.fixture
def drawn(monkeypatch):
    """All texts that matplotlib draws."""
    texts, draw = set(), Text.draw

    def noted(self, renderer):
        texts.add(self.get_text())
        draw(self, renderer)

    monkeypatch.setattr(Text, "draw", noted)
    return texts


def record(training=None, **settings):
    history = [{"galaxies": 70 * n, "training_loss": 4 / n, "validation_loss": 3 + (n - 2) ** 2} for n in (1, 2, 3)]
    return RunRecord(
        command="scripts/pretrain.py",
        settings={"task": "classes"} | settings,
        dataset={"splits": {"train": 70}},
        training={"history": history, "losses": [[10, 9.0], [70, 5.0], [210, 4.0]]} | (training or {}),
    )


@pytest.mark.parametrize(
    ("task", "unit"),
    [("votes", "nats per galaxy"), ("classes", "nats per galaxy"), ("values", "squared standard deviations")],
)
def test_a_loss_has_the_units_of_its_task(task, unit, drawn):
    assert run_figures.figures(record(task=task)).keys() == {run_figures.LOSS}
    assert {text for text in drawn if text.startswith("loss")} == {f"loss, {unit}"}
    assert {"training, with random views and dropout", "validation"} <= drawn


@pytest.mark.parametrize(
    ("settings", "training"),
    [
        ({"label_smoothing": 0.1}, "random views, dropout and label smoothing"),
        ({"class_weights": "balanced"}, "random views, dropout and class weights"),
        (
            {"label_smoothing": 0.1, "class_weights": [1, 2]},
            "random views, dropout, label smoothing and class weights",
        ),
    ],
)
def test_losses_on_other_terms_are_told_apart(settings, training, drawn):
    run_figures.figures(record(**settings))
    assert {f"training, with {training}", "validation, the plain cross-entropy"} <= drawn
    assert "validation" not in drawn


def test_a_head_on_features_learns_from_no_random_views(drawn):
    run_figures.figures(record(training={"features": {"seconds": 1.0, "bytes": 10}}, label_smoothing=0.0))
    assert {"training, with dropout", "validation"} <= drawn
