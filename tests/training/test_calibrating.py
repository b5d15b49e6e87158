"""The calibration at the end of a run: what it is fitted to, and that nothing else of the run depends on it."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hf_galaxy import load_tree
from hf_galaxy.losses import dirichlet_multinomial_nll, expected_fractions
from hf_galaxy.training import calibrating
from hf_galaxy.training.calibrating import HeldOut
from hf_galaxy.training.run import run_training
from hf_galaxy.training.settings import Settings
from hf_galaxy.training.targets.votes import Votes
from tests.training.runs import assert_bit_equal, run

TREE = load_tree("gz_rings")
CONFIG = SimpleNamespace(likelihood="dirichlet_multinomial", is_mixed=False)
MIXED = SimpleNamespace(likelihood="dirichlet_multinomial", is_mixed=True)


def batches(galaxies, size=7):
    """Batches of galaxies whose votes are less certain than their predictions, and the outputs of a model for them."""
    rng = np.random.default_rng(0)
    fractions = rng.beta(2, 2, galaxies)
    votes = torch.from_numpy(np.stack([k := rng.binomial(20, fractions), 20 - k], 1))
    concentrations = torch.from_numpy(30 * np.stack([fractions, 1 - fractions], 1)) + 1
    keys = torch.from_numpy(rng.integers(0, 2**62, galaxies))
    for first in range(0, galaxies, size):
        rows = slice(first, first + size)
        yield (
            {"votes": votes[rows], "keys": keys[rows]},
            SimpleNamespace(concentrations=concentrations[rows], weights=None),
        )


def test_processes_collect_what_one_process_collects():
    one, *parts = (HeldOut(Votes(TREE), CONFIG) for _ in range(3))
    for i, (batch, outputs) in enumerate(batches(100)):
        one.update(batch, outputs)
        parts[i % 2].update(batch, outputs)
    assert (parts[1].cpu() + parts[0].cpu()).fit().numbers == one.fit().numbers
    assert one.fit().helps


def test_what_is_kept_of_a_mixture_is_what_the_model_predicts():
    target, rng = Votes(TREE), np.random.default_rng(1)
    concentrations = torch.from_numpy(np.exp(rng.normal(1, 1, (30, 2, 2))))
    first = torch.from_numpy(rng.uniform(0.1, 0.9, (30, 1, 1)))
    weights, votes = torch.cat([first, 1 - first], dim=1), torch.from_numpy(rng.integers(1, 20, (30, 2)))
    outputs = SimpleNamespace(concentrations=concentrations, weights=weights)
    held_out = HeldOut(target, MIXED)
    held_out.update({"votes": votes, "keys": torch.arange(30)}, outputs)
    kept, predictions, _ = held_out.sample()
    again = target.predicted(kept, predictions, MIXED)
    torch.testing.assert_close(again.nll, dirichlet_multinomial_nll(kept, concentrations, TREE, weights))
    torch.testing.assert_close(again.fractions, expected_fractions(concentrations, TREE, weights))
    assert held_out.fit().predictions.shape == predictions.shape == (30, 2, 3)


def test_of_very_many_galaxies_a_random_sample_is_kept(monkeypatch):
    monkeypatch.setattr(calibrating, "MOST", 30)
    held_out, most = HeldOut(Votes(TREE), CONFIG), 0
    for batch, outputs in batches(400):
        held_out.update(batch, outputs)
        most = max(most, sum(len(keys) for *_, keys in held_out.parts))
    assert most <= 2 * 30 + 7
    kept = set(held_out.sample()[-1].tolist())
    smallest = sorted(key for batch, _ in batches(400) for key in batch["keys"].tolist())[:30]
    assert kept == set(smallest)


def test_galaxies_without_votes_count_for_nothing():
    held_out = HeldOut(Votes(TREE), CONFIG)
    for batch, outputs in batches(20):
        held_out.update({**batch, "votes": batch["votes"] * (torch.arange(len(batch["votes"])) % 2)[:, None]}, outputs)
    assert len(held_out) == 9


@pytest.fixture(scope="module")
def runs(mock_dataset, tmp_path_factory):
    """Two runs, with and without a calibration; of as few galaxies as they have."""
    folder = tmp_path_factory.mktemp("calibrating")
    options = dict(
        dataset=(str(mock_dataset),), backbone="test_convnext", image_size=32, batch_size=16, min_votes=3, workers=0, cpu=True, epochs=1,
        learning_rate=1e-2, precision="no",
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Votes, "least", 5)
        return {
            name: (folder / name, run_training(Settings(out=folder / name, calibrate=name == "with", **options)))
            for name in ("with", "without")
        }


def test_weights_do_not_depend_on_the_calibration(runs):
    assert_bit_equal(runs["with"][0], runs["without"][0])


def test_the_record_says_what_the_calibration_brings_and_the_model_has_it(runs):
    folder, record = runs["with"]
    about = record.training["calibration"]
    assert about["galaxies"] == record.dataset["splits"]["validation"]
    assert about["used"]
    assert about["gain"] > 0
    assert json.loads((folder / "config.json").read_text())["calibration"] is not None
    before = record.results["test"]["calibration"]["uncalibrated"]
    assert before["loss"] == pytest.approx(runs["without"][1].results["test"]["loss"]["model"], rel=1e-5)
    assert record.results["test"]["loss"]["model"] < before["loss"], "a network after one epoch is not calibrated"


def test_a_run_without_one_has_none(runs):
    folder, record = runs["without"]
    assert "calibration" not in record.training
    assert json.loads((folder / "config.json").read_text())["calibration"] is None
    assert "uncalibrated" not in record.results["test"]["calibration"]


def test_few_galaxies_are_no_calibration(mock_dataset, tmp_path):
    record = run(tmp_path / "run", dataset=(str(mock_dataset),), epochs=1)
    assert record.training["calibration"] == {"galaxies": record.dataset["splits"]["validation"], "used": False}
    assert json.loads((tmp_path / "run/config.json").read_text())["calibration"] is None
