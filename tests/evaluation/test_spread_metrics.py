"""How well predicted standard deviations agree with errors: against scipy, and for distributions that are true or too narrow."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import norm
from scipy.stats import t as student

from hf_galaxy.evaluation.spread_metrics import Distributions
from hf_galaxy.evaluation.value_metrics import ConstantValues, ValueMetrics
from hf_galaxy.reports.value_report import ValueReport

NAMES = ["z", "mass"]
CONSTANTS = ConstantValues(*(torch.tensor(each) for each in ([0.1, 3.0], [0.2, 2.0], [0.1, 3.0])))


def galaxies(number, wide=1.0):
    """Labels, and the predicted distributions, which are `wide` times as wide as the true ones; some values are missing."""
    rng = np.random.default_rng(0)
    logs = rng.normal(-1, 0.4, (number, 2))
    centres = rng.normal(CONSTANTS.mean, CONSTANTS.std, (number, 2))
    labels = centres + CONSTANTS.std.numpy() * np.exp(logs) * student.rvs(8, size=(number, 2), random_state=rng)
    labels[::3, 1] = np.nan
    predicted = Distributions(*map(torch.from_numpy, (centres, logs + np.log(wide), np.full((number, 2), 1 / 8))))
    return torch.from_numpy(labels), predicted


def measured(labels, predicted, parts=1, **options):
    metrics = [ValueMetrics(NAMES, CONSTANTS, lambda outputs: outputs, **options) for _ in range(parts)]
    for i, rows in enumerate(np.array_split(np.arange(len(labels)), 5)):
        batch = {"labels": labels[rows], "keys": torch.from_numpy(rows)}
        metrics[i % parts].update(batch, Distributions(*(each[rows] for each in predicted)))
    return sum((each.cpu() for each in metrics[1:]), start=metrics[0].cpu()).compute()["calibration"]


def test_true_distributions_have_flat_places_and_intervals_that_hold():
    labels, predicted = galaxies(6000)
    found = measured(labels, predicted)
    for k, name in enumerate(NAMES):
        own, known = found["values"][name], ~np.isnan(labels[:, k].numpy())
        assert own["galaxies"] == known.sum()
        y, centres, logs = (each[known, k].numpy() for each in (labels, *predicted[:2]))
        unit = CONSTANTS.std[k].item()
        expected = -student.logpdf((y - centres) / unit, 8, scale=np.exp(logs)).mean()
        assert own["nll"]["model"] == pytest.approx(expected, rel=1e-6)
        assert own["nll"]["baseline"] == pytest.approx(
            -norm.logpdf((y - CONSTANTS.mean[k].item()) / unit).mean(), rel=1e-6
        )
        assert own["std"]["model"] == pytest.approx(unit * student.std(8, scale=np.exp(logs)).mean(), rel=1e-6)
        assert sum(own["places"]) == pytest.approx(1, abs=1e-4)
        for level, share in own["coverage"].items():
            low, high = own["coverage_interval"][level]
            assert share == pytest.approx(int(level) / 100, abs=0.025)
            assert low < share < high < low + 0.05
        assert own["nll_interval"][0] < own["nll"]["model"] < own["nll_interval"][1]
        bins = own["bins"]
        assert sum(bins["galaxies"]) == known.sum()
        filled = [b for b, count in enumerate(bins["galaxies"]) if count > 300]
        np.testing.assert_allclose([bins["error"][b] / bins["predicted"][b] for b in filled], 1, atol=0.15)
    total = sum(found["values"][name]["nll"]["model"] * found["values"][name]["galaxies"] for name in NAMES)
    assert found["loss"]["model"] == pytest.approx(total / 6000, rel=1e-6)


def test_processes_measure_what_one_process_measures():
    labels, predicted = galaxies(200)
    one, several = (measured(labels, predicted, parts) for parts in (1, 3))
    assert several["values"]["mass"]["places"] == pytest.approx(one["values"]["mass"]["places"])
    assert several["loss"] == pytest.approx(one["loss"])
    assert several["values"]["z"]["coverage_interval"] == one["values"]["z"]["coverage_interval"]


def test_what_it_was_before_a_calibration_is_measured_and_shown():
    labels, predicted = galaxies(900)
    labels[:, 1] = torch.nan
    narrow = lambda found: found._replace(logs=found.logs - np.log(2))  # noqa: E731
    found = measured(labels, predicted, uncalibrated=narrow)
    assert list(found["values"]) == ["z"], "nobody has the other one"
    before = found["uncalibrated"]["values"]["z"]
    assert before["coverage"]["90"] < 0.7
    assert before["nll"]["model"] > found["values"]["z"]["nll"]["model"]
    report = ValueReport()
    header, _, row = report.calibration_table(found).splitlines()
    assert header.endswith("| before: in the 90 % interval |")
    assert row.startswith("| z | 900 |")
    assert "before that the likelihood loss was" in report.calibration_text(found)
    assert report.calibration_chart(found, "the test split").startswith(b"\x89PNG")


def test_a_model_of_values_alone_has_no_such_figures():
    metrics = ValueMetrics(NAMES, CONSTANTS)
    labels, predicted = galaxies(9)
    metrics.update({"labels": labels, "keys": torch.arange(9)}, SimpleNamespace(values=predicted.values))
    assert "calibration" not in metrics.compute()
