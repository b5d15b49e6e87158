"""The loop: its exact resume, its checkpoints, its moving average, and what it does when the loss is not finite."""

import contextlib
import copy
import dataclasses
import itertools
import math
import os
import resource
import signal
import sqlite3
import sys
import warnings
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from hf_galaxy.errors import BadInput, Interrupted
from hf_galaxy.training import checkpoints
from hf_galaxy.training.checkpoint_files import list_checkpoints, step_of
from hf_galaxy.training.lengths import Lengths
from hf_galaxy.training.loop import Checkpointing, Trainer, _batch_norms_in_words
from hf_galaxy.training.processes import start_accelerator, start_tracker
from hf_galaxy.training.recipe import Recipe
from hf_galaxy.training.schedule import Schedule
from hf_galaxy.training.task import evaluate
from tests.forks import run_code

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


def batches(recipe, accumulate=1):
    def of(steps):
        for step in steps:
            whole = batch_at(step, recipe.batch_size)
            for part in range(accumulate):
                yield {name: values.chunk(accumulate)[part] for name, values in whole.items()}

    return of


def optimizer_of(model, name="adamw"):
    kinds = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
    return kinds[name]([{"params": list(model.parameters()), "lr_scale": 1.0}], lr=0.0)


def validation_loss(model):
    with torch.no_grad():
        return model.eval()(**batch_at(10_000, 64)).loss.item()


@dataclasses.dataclass
class Data:
    """As `loop.TrainingData`."""

    accumulate: int
    batches: Callable
    validate: Callable

    def to_inputs(self, batch):
        return batch


def train(
    folder, recipe=RECIPE, model=None, source=None, validate=validation_loss, accumulate=1, optimizer="adamw", minutes=10.0,
    keep=2, keep_at=(),
):  # fmt: skip
    model = model or Regression()
    folder.mkdir(exist_ok=True)
    data = Data(accumulate, source or batches(recipe, accumulate), validate)
    checkpointing, lengths = Checkpointing(folder, minutes, keep), Lengths(recipe, 64, keep_at)
    trainer = Trainer(model, optimizer_of(model, optimizer), lengths, data, Accelerator(cpu=True), checkpointing)
    return model, trainer.run()


def cut_off_at(*steps):
    """Batches that end with an exception before these steps, each once."""
    left = set(steps)

    def of(wanted):
        for step, batch in zip(wanted, batches(RECIPE)(wanted), strict=True):
            if step in left:
                left.remove(step)
                raise CutOff
            yield batch

    return of


class CutOff(Exception):
    pass


def whole_and_cut_off(folder, recipe, stop_at):
    """What a training returns, and what one does that was cut off before these steps: both end with the same weights."""
    expected, training = train(folder / "whole", recipe)
    source = cut_off_at(*stop_at)
    for _ in stop_at:
        with pytest.raises(CutOff):
            train(folder / "cut", recipe, source=source, minutes=0)
    resumed, again = train(folder / "cut", recipe, source=source)
    assert_equal(expected, resumed)
    assert again["losses"] == training["losses"]
    return training, again


def assert_equal(ours, theirs):
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for name, values in ours.state_dict().items():
        assert torch.equal(values, theirs.state_dict()[name]), name


@pytest.mark.parametrize(
    ("epochs", "every", "galaxies", "expected"),
    [
        (2, 1, 80, {10, 20}),
        (2, 0.5, 80, {5, 10, 15, 20}),
        (3, 2, 80, {20, 30}),  # and at the end
        (0.5, 1, 80, {5}),
        (
            1,
            0.25,
            84,
            {3, 5, 8, 10},
        ),  # 2.625, 5.25, 7.875 and 10.5 batches, to the nearest step, the last to the even one
        (2, 1, 2, {1}),  # less than a batch
    ],
)
def test_a_schedule_validates_after_the_steps_nearest_to_its_intervals(epochs, every, galaxies, expected):
    schedule = Schedule.of(Recipe(epochs=epochs, validate_every=every, batch_size=8), galaxies)
    assert schedule.validate_after == expected
    assert schedule.steps == max(expected)
    assert schedule.length == epochs * galaxies / 8


def test_a_schedule_pauses_every_ten_steps_and_wherever_it_saves():
    schedule = Schedule.of(Recipe(epochs=4, batch_size=8), 64, keep_at=(0.5, 2.25))
    assert schedule.keep_after == {4, 18}
    assert [step for step in range(1, 33) if schedule.saves_after(step)] == [4, 8, 16, 18, 24, 32]
    assert [step for step in range(1, 33) if schedule.pauses_after(step)] == [4, 8, 10, 16, 18, 20, 24, 30, 32]


def test_training_learns_and_keeps_the_best_epoch(tmp_path):
    untrained = validation_loss(Regression())
    model, training = train(tmp_path / "run")
    history = training["history"]
    assert [entry["galaxies"] for entry in history] == [64, 128, 192, 256]
    losses = [entry["validation_loss"] for entry in history]
    assert losses[-1] < untrained / 5
    assert training["best_epoch"] == losses.index(min(losses)) + 1
    with torch.no_grad():
        assert model.eval()(**batch_at(10_000, 64)).loss.item() == min(losses)
    checkpoints.discard(tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize("options", [{}, {"ema_galaxies": 32}, {"schedule": "wsd"}])
@pytest.mark.parametrize("stop_at", [(9,), (17, 18), (25, 30)])
def test_a_run_that_was_cut_off_ends_with_the_same_weights(tmp_path, stop_at, options):
    training, again = whole_and_cut_off(tmp_path, dataclasses.replace(RECIPE, **options), stop_at)
    for ours, theirs in zip(again["history"], training["history"], strict=True):
        for name in ("galaxies", "training_loss", "validation_loss"):
            assert ours[name] == theirs[name]


def test_checkpoints_are_written_between_epochs_too_and_only_so_many_are_kept(tmp_path):
    recipe = dataclasses.replace(RECIPE, batch_size=2, epochs=1)  # 32 steps
    seen = []

    def watched(steps):
        for batch in batches(recipe)(steps):
            seen.append([step_of(path) for path in list_checkpoints(tmp_path / "run")])
            yield batch

    train(tmp_path / "run", recipe, source=watched, minutes=0, keep=2)
    assert seen[9] == []
    assert seen[10] == [10]
    assert seen[31] == [20, 30]
    assert [step_of(path) for path in list_checkpoints(tmp_path / "run")] == [30, 32]


def test_without_a_hurry_checkpoints_are_written_after_epochs(tmp_path):
    train(tmp_path / "run", RECIPE, keep=9, keep_at=(0.5, 2))
    assert [step_of(path) for path in list_checkpoints(tmp_path / "run")] == [4, 8, 16, 24, 32]
    checkpoints.discard(tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "kept-checkpoint-000000004.pt",
        "kept-checkpoint-000000016.pt",
    ]


def test_sigterm_saves_and_stops(tmp_path):
    def terminated(steps):
        for step, batch in zip(steps, batches(RECIPE)(steps), strict=True):
            if step == 10:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="stopped after step 16 of 32; the same command resumes from there"):
        train(tmp_path / "cut", source=terminated)
    assert signal.getsignal(signal.SIGTERM) is before
    expected, _ = train(tmp_path / "whole")
    resumed, _ = train(tmp_path / "cut")
    assert_equal(expected, resumed)


@pytest.mark.parametrize("limit", [0, 1000])
def test_a_disk_that_is_full_leaves_the_checkpoint_before(tmp_path, limit, capsys):  # capsys: no output to a file
    expected, _ = train(tmp_path / "whole")
    with pytest.raises(CutOff):
        train(tmp_path / "full", source=cut_off_at(12))
    before = {path.name: path.read_bytes() for path in (tmp_path / "full").iterdir()}
    assert list(before) == ["checkpoint-000000008.pt"]
    allowed = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, allowed[1]))  # files of this process cannot grow beyond it
    try:
        with pytest.raises(
            BadInput, match=r"checkpoint-000000016.pt cannot be written: File too large; let files be larger"
        ):
            train(tmp_path / "full")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, allowed)
    assert {path.name: path.read_bytes() for path in (tmp_path / "full").iterdir()} == before
    resumed, _ = train(tmp_path / "full")
    assert_equal(expected, resumed)


def test_what_a_kill_left_half_written_is_removed(tmp_path):
    (tmp_path / "run").mkdir()
    for name in (".checkpoint-000000099.pt.partial", ".kept-checkpoint-000000099.pt.partial"):
        (tmp_path / "run" / name).write_bytes(b"PK")
    train(tmp_path / "run")
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == [
        path.name for path in sorted((tmp_path / "run").iterdir())
    ]


def test_a_damaged_checkpoint_is_named(tmp_path):
    with pytest.raises(CutOff):
        train(tmp_path / "run", source=cut_off_at(12))
    (checkpoint,) = list_checkpoints(tmp_path / "run")
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1000])
    with pytest.raises(BadInput, match=r"checkpoint-000000008.pt: cannot be read .*; remove it"):
        train(tmp_path / "run")


def test_the_moving_average_is_what_is_validated_and_kept(tmp_path):
    """Against an average taken by hand, with the decay that ModelEmaV3 documents."""
    recipe = dataclasses.replace(RECIPE, ema_galaxies=32, epochs=1)
    model, after_each_step = Regression(), []

    def watched(steps):
        for batch in batches(recipe)(steps):
            after_each_step.append(copy.deepcopy(model.state_dict()))
            yield batch

    raw = {}

    def validate(average):
        raw.update(copy.deepcopy(model.state_dict()))
        assert average is not model
        return validation_loss(average)

    train(tmp_path / "run", recipe, model, source=watched, validate=validate)
    weights = [*after_each_step[1:], raw]  # after steps 0, 1, ...
    average = weights[0]
    for step, now in enumerate(weights):
        decay = 0.0 if step <= 1 else min(1 - 8 / 32, 1 - (1 + step - 1) ** (-2 / 3))
        average = {name: decay * average[name] + (1 - decay) * now[name] for name in now}
    for name, values in model.state_dict().items():
        torch.testing.assert_close(values, average[name])
        assert not torch.allclose(values, raw[name], rtol=1e-6)


def test_accumulation_does_not_change_the_losses(tmp_path):
    class NoDropout(Regression):
        def __init__(self):
            super().__init__()
            self.layers[3].p = 0.0

    curves = [train(tmp_path / str(k), model=NoDropout(), accumulate=k)[1]["losses"] for k in (1, 2, 4)]
    for curve in curves[1:]:
        assert [seen for seen, _ in curve] == [seen for seen, _ in curves[0]]
        assert [loss for _, loss in curve] == pytest.approx([loss for _, loss in curves[0]], rel=1e-4)


def test_patience_stops_training(tmp_path, caplog):
    caplog.set_level("INFO")
    values = iter([3.0, 2.0, 2.5, 2.2, 1.0])
    recipe = Recipe(epochs=5, batch_size=8, patience=2)
    _, training = train(tmp_path / "run", recipe, validate=lambda model: next(values))
    assert [entry["validation_loss"] for entry in training["history"]] == [3.0, 2.0, 2.5, 2.2]
    assert training["best_epoch"] == 2
    assert "stopped early, after 2 validations without a lower loss; the weights are those of epoch 2," in caplog.text


def test_validation_has_an_interval_of_its_own(tmp_path):
    values = iter([3.0, 1.0, 2.0])
    recipe = Recipe(epochs=5, batch_size=8, validate_every=2)
    _, training = train(tmp_path / "run", recipe, validate=lambda model: next(values))
    assert [entry["galaxies"] for entry in training["history"]] == [128, 256, 320], "and at the end"
    assert training["best_epoch"] == 4


@pytest.mark.parametrize("bad_step", [3, 20])
def test_a_loss_that_is_not_finite_stops_and_names_the_step(tmp_path, bad_step):
    def poisoned(steps):
        for step, batch in zip(steps, batches(RECIPE)(steps), strict=True):
            yield batch | {"y": batch["y"] * math.nan} if step == bad_step else batch

    with pytest.raises(FloatingPointError, match=f"the training loss is nan at step {bad_step} "):
        train(tmp_path / "run", source=poisoned)
    for checkpoint in list_checkpoints(tmp_path / "run"):
        assert all(torch.isfinite(t).all() for t in torch.load(checkpoint)["model"].values())


def test_a_gradient_that_is_not_finite_stops_before_its_weights_are_saved(tmp_path):
    """Though every loss until then was finite: at step 9 is the last one before a checkpoint."""
    model, steps = Regression(), itertools.count()
    model.layers[0].weight.register_hook(lambda gradient: gradient * math.nan if next(steps) == 9 else gradient)
    with pytest.raises(FloatingPointError, match="the gradient's norm is nan at step 9 "):
        train(tmp_path / "run", dataclasses.replace(RECIPE, validate_every=4), model, minutes=0)
    assert not list_checkpoints(tmp_path / "run")


def test_with_wsd_patience_begins_with_the_cool_down(tmp_path):
    values = iter([3.0, *[4.0] * 9])
    recipe = Recipe(epochs=10, batch_size=8, patience=2, schedule="wsd", cooldown=0.4)
    _, training = train(tmp_path / "run", recipe, validate=lambda model: next(values))
    assert len(training["history"]) == 8


def followed(folder, tracker):
    """Train with a tracker; it gets the losses as scalars by galaxies seen."""
    accelerator = start_accelerator("no", cpu=True, tracker=tracker, logs=folder / "logs")
    (folder / "run").mkdir()
    start_tracker(accelerator, tracker, folder / "run", {"epochs": 4.0, "tree": ("gz2",)})
    model = Regression()
    data, lengths = Data(1, batches(RECIPE), validation_loss), Lengths(RECIPE, 64)
    Trainer(model, optimizer_of(model), lengths, data, accelerator, Checkpointing(folder / "run")).run()
    accelerator.end_training()


def test_tensorboard_gets_the_losses(tmp_path):
    followed(tmp_path, "tensorboard")
    events = EventAccumulator(str(tmp_path / "logs/run")).Reload()
    assert set(events.Tags()["scalars"]) == {"training loss", "learning rate", "validation loss"}
    assert [event.step for event in events.Scalars("validation loss")] == [64, 128, 192, 256]


def test_trackio_gets_the_losses(tmp_path):
    """In a process of its own, because trackio writes in threads until its process ends."""
    program = f"from pathlib import Path; from tests.training.test_loop import followed; followed(Path({str(tmp_path)!r}), 'trackio')"
    environment = os.environ | {"TRACKIO_DIR": str(tmp_path / "trackio")}
    done = run_code(program, environment=environment)
    assert done.returncode == 0, done.stderr
    (base,) = (tmp_path / "trackio").glob("*.db")
    with contextlib.closing(sqlite3.connect(base)) as trackio:
        rows = trackio.execute("select run_name, step, metrics from metrics order by step").fetchall()
    validated = [(name, step) for name, step, metrics in rows if b"validation loss" in metrics]
    assert validated == [("run", 64), ("run", 128), ("run", 192), ("run", 256)]


def test_a_tracker_that_is_not_there_is_refused():
    with pytest.raises(BadInput, match=r"--tracker papertape: is not installed.*tensorboard"):
        start_accelerator("no", cpu=True, tracker="papertape")


def test_deepspeed_is_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(BadInput, match="DeepSpeed is not supported"):
        start_accelerator("no")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of glibc")
def test_on_a_cpu_memory_that_a_step_frees_is_there_for_the_next():
    start_accelerator("no", cpu=True)
    faults = []
    for _ in range(9):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(2**24).sum()  # 64 MB, 2**14 pages
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    # Where other threads of this process have taken of the freed memory, a step must ask for more, but not every step.
    assert min(faults) < 2**10, "each time all its pages anew"


def test_training_leaves_the_filters_of_warnings_as_they_were(tmp_path):
    before = list(warnings.filters)
    train(tmp_path / "run")
    assert list(warnings.filters) == before


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
    monkeypatch.setenv("LOCAL_RANK", "-1")  # what Accelerate takes for a process alone
    with pytest.raises(BadInput, match="2 processes were started but 1 work together"):
        start_accelerator("no")


def test_processes_that_no_launcher_started_do_not_wait_for_each_other(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(BadInput, match=r"^WORLD_SIZE=4 .* no launcher started .*hf-galaxy launch"):
        start_accelerator("no")


def test_batch_norms_without_anything_to_average_are_answered_in_words():
    with pytest.raises(BadInput, match=r"larger --batch-size .*--image-size"), _batch_norms_in_words():
        torch.nn.BatchNorm2d(3).train()(torch.ones(1, 3, 1, 1))
    with pytest.raises(ValueError, match="another"), _batch_norms_in_words():
        raise ValueError("another")
