"""Figures of yes/no labels agree with scikit-learn's, label by label, over the galaxies that have the label."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, log_loss, zero_one_loss

from hf_galaxy.evaluation import bootstrap
from hf_galaxy.evaluation.label_metrics import LabelMetrics

RNG = np.random.default_rng(0)
RATES = [0.3, 0.8]
LABELS = (RNG.random((60, 2)) < RATES).astype(float)
LABELS[RNG.random((60, 2)) < 0.2] = np.nan
LOGITS = np.float64(np.float32(RNG.normal(size=(60, 2)).round(1) + np.nan_to_num(LABELS)))  # some scores are equal
KEYS = np.arange(60)


def metrics(rows=slice(None), keys=True):
    metrics = LabelMetrics(["ring", "bar"], torch.tensor(RATES))
    batch = {"labels": torch.tensor(LABELS[rows]).float()} | ({"keys": torch.tensor(KEYS[rows])} if keys else {})
    metrics.update(batch, SimpleNamespace(logits=torch.tensor(LOGITS[rows]).float()))
    return metrics


def test_figures_are_those_of_sklearn_beside_the_constant_rates():
    results = metrics(keys=False).compute()
    assert "bootstrap" not in results
    for k, name in enumerate(("ring", "bar")):
        has = ~np.isnan(LABELS[:, k])
        labels, scores = LABELS[has, k], LOGITS[has, k]
        figures = results["labels"][name]
        assert (figures["galaxies"], figures["positive"]) == (has.sum(), labels.sum())
        assert figures["average_precision"]["model"] == pytest.approx(average_precision_score(labels, scores))
        assert figures["error"]["model"] == pytest.approx(zero_one_loss(labels, scores > 0))
        assert figures["average_precision"]["baseline"] == pytest.approx(labels.mean())
        assert figures["error"]["baseline"] == pytest.approx(
            zero_one_loss(labels, np.full(len(labels), RATES[k] > 0.5))
        )
    losses = {"model": [], "baseline": []}
    for own, logits in zip(LABELS, LOGITS, strict=True):
        has = ~np.isnan(own)
        for who, shares in (("model", 1 / (1 + np.exp(-logits))), ("baseline", np.array(RATES))):
            each = [log_loss([y], [p], labels=[0, 1]) for y, p in zip(own[has], shares[has], strict=True)]
            losses[who].append(np.mean(each) if each else 0)
    for who, each in losses.items():
        assert results["loss"][who] == pytest.approx(np.mean(each), rel=1e-5)
    assert metrics().loss == pytest.approx(results["loss"]["model"], rel=1e-6)


def test_each_replicate_counts_galaxies_as_the_bootstrap_says():
    drawn, counts = metrics().compute()["bootstrap"], bootstrap.counts(KEYS)
    has = ~np.isnan(LABELS[:, 1])
    for r in (0, 7, 199):
        times = counts[has, r]
        precision = average_precision_score(LABELS[has, 1], LOGITS[has, 1], sample_weight=times)
        assert drawn["labels"]["bar"]["average_precision"]["model"][r] == pytest.approx(precision, rel=1e-5)
        wrong = (LOGITS[has, 1] > 0) != LABELS[has, 1]
        assert drawn["labels"]["bar"]["error"]["model"][r] == pytest.approx(times @ wrong / times.sum(), rel=1e-5)
    assert len(drawn["loss"]["model"]) == bootstrap.REPLICATES


def test_parts_of_a_split_add_up_to_the_whole():
    parts = metrics(slice(0, 25)).cpu() + metrics(slice(25, None)).cpu()
    assert parts.compute() == metrics().compute()


def test_a_label_without_positive_galaxies_has_no_average_precision():
    few = LabelMetrics(["ring"], torch.tensor([0.5]))
    few.update({"labels": torch.zeros(3, 1)}, SimpleNamespace(logits=torch.tensor([[-1.0], [1.0], [0.0]])))
    assert few.compute()["labels"]["ring"] == {
        "galaxies": 3, "positive": 0, "error": {"model": 1 / 3, "baseline": 0}, "average_precision": {"model": None, "baseline": None},
    }  # fmt: skip
