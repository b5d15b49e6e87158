"""The loop: its schedule, its parameter groups, its exact resume, and what it does when the loss is not finite."""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from hf_galaxy.errors import BadInput
from hf_galaxy.train import (
    Recipe,
    discard_checkpoints,
    evaluate,
    fit,
    learning_rate_at,
    parameter_groups,
    start_accelerator,
)

RECIPE = Recipe(epochs=4, batch_size=8, learning_rate=0.05, seed=1)
TRUTH = torch.tensor([[1.0, -2.0, 0.5]])


class Regression(nn.Module):
    """A model with dropout and a norm: small, but with everything that makes resuming hard."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(3, 16), nn.LayerNorm(16), nn.GELU(), nn.Dropout(0.1), nn.Linear(16, 1))

    def forward(self, x, y):
        return SimpleNamespace(loss=((self.layers(x) - y) ** 2).mean())


def batch_at(step, size):
    x = torch.randn(size, 3, generator=torch.Generator().manual_seed(step))
    return {"x": x, "y": x @ TRUTH.T}


def batches(recipe):
    def of(steps):
        for step in steps:
            whole = batch_at(step, recipe.batch_size)
            for part in range(recipe.accumulate):
                yield {name: values.chunk(recipe.accumulate)[part] for name, values in whole.items()}

    return of


def train(folder, recipe=RECIPE, model=None, galaxies=64, source=None, validate=None):
    model = model or Regression()
    folder.mkdir(exist_ok=True)

    def loss():
        with torch.no_grad():
            model.eval()
            return model(**batch_at(10_000, 64)).loss.item()

    training = fit(
        model,
        recipe,
        galaxies,
        source or batches(recipe),
        lambda batch: batch,
        validate or loss,
        Accelerator(cpu=True),
        folder,
    )
    return model, training


def test_schedule_warms_up_and_ends_at_zero():
    recipe = Recipe(warmup=0.1, learning_rate=2.0)
    rates = [learning_rate_at(p / 1000, recipe) for p in range(1001)]
    assert rates[0] == 0
    assert rates[50] == pytest.approx(1.0)
    assert max(rates) == rates[100] == 2.0
    assert rates[550] == pytest.approx(1.0)
    assert rates[1000] == pytest.approx(0)
    assert all(a >= b for a, b in itertools.pairwise(rates[100:]))


def test_parameter_groups_hold_every_parameter_once_and_spare_vectors():
    model = Regression()
    model.layers[0].bias.requires_grad_(False)
    decayed, spared = parameter_groups(model, 0.3)
    assert {p.ndim for p in decayed["params"]} == {2}
    assert {p.ndim for p in spared["params"]} == {1}
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.3, 0.0)
    expected = {id(p) for p in model.parameters() if p.requires_grad}
    assert sorted(expected) == sorted(id(p) for group in (decayed, spared) for p in group["params"])


def test_training_learns_and_keeps_the_best_epoch(tmp_path):
    model, training = train(tmp_path / "run")
    history = training["history"]
    assert [entry["galaxies"] for entry in history] == [64, 128, 192, 256]
    losses = [entry["validation_loss"] for entry in history]
    assert losses[-1] < losses[0] / 2
    assert training["best_epoch"] == losses.index(min(losses)) + 1
    with torch.no_grad():
        assert model.eval()(**batch_at(10_000, 64)).loss.item() == min(losses)
    discard_checkpoints(tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize("stop_at", [9, 17, 25])
def test_a_run_that_was_cut_off_ends_with_the_same_weights(tmp_path, stop_at):
    expected, _ = train(tmp_path / "whole")

    class CutOff(Exception):
        pass

    def interrupted(steps):
        for step, batch in zip(steps, batches(RECIPE)(steps), strict=True):
            if step == stop_at:
                raise CutOff
            yield batch

    with pytest.raises(CutOff):
        train(tmp_path / "cut", source=interrupted)
    resumed, training = train(tmp_path / "cut")
    for ours, theirs in zip(expected.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    assert len(training["history"]) == 4


def test_accumulation_does_not_change_the_losses(tmp_path):
    class NoDropout(Regression):
        def __init__(self):
            super().__init__()
            self.layers[3].p = 0.0

    curves = [
        train(tmp_path / str(k), Recipe(epochs=4, batch_size=8, learning_rate=0.05, accumulate=k), NoDropout())[1][
            "losses"
        ]
        for k in (1, 2, 4)
    ]
    for curve in curves[1:]:
        assert [seen for seen, _ in curve] == [seen for seen, _ in curves[0]]
        assert [loss for _, loss in curve] == pytest.approx([loss for _, loss in curves[0]], rel=1e-4)


def test_patience_stops_training(tmp_path):
    values = iter([3.0, 2.0, 2.5, 2.2, 1.0])
    recipe = Recipe(epochs=5, batch_size=8, patience=2)
    _, training = train(tmp_path / "run", recipe, validate=lambda: next(values))
    assert [entry["validation_loss"] for entry in training["history"]] == [3.0, 2.0, 2.5, 2.2]
    assert training["best_epoch"] == 2


@pytest.mark.parametrize("bad_step", [3, 20])
def test_a_loss_that_is_not_finite_stops_and_names_the_step(tmp_path, bad_step):
    def poisoned(steps):
        for step, batch in zip(steps, batches(RECIPE)(steps), strict=True):
            yield batch | {"y": batch["y"] * math.nan} if step == bad_step else batch

    with pytest.raises(FloatingPointError, match=f"the training loss is nan at step {bad_step} "):
        train(tmp_path / "run", source=poisoned)
    for checkpoint in (tmp_path / "run").glob("checkpoint-*/model.safetensors"):
        from safetensors.torch import load_file

        assert all(torch.isfinite(t).all() for t in load_file(checkpoint).values())


def test_evaluation_leaves_training_mode_as_it_was():
    class Count:
        def __init__(self):
            self.seen = []

        def update(self, inputs, outputs):
            self.seen.append((len(inputs["x"]), outputs.loss.requires_grad))

        def cpu(self):
            return self

    model = Regression().train()
    metrics = evaluate(model, [batch_at(0, 4), batch_at(1, 3)], lambda b: b, Count(), Accelerator(cpu=True))
    assert metrics.seen == [(4, False), (3, False)]
    assert model.training


def test_two_processes_that_would_train_alone_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(BadInput, match="2 processes were started but 1 work together"):
        start_accelerator("no")
