"""What the tests of the calls share: a start, and a run that a call has finetuned from it."""

from unittest import mock

import pytest
import torch

import hf_galaxy
from hf_galaxy import GalaxyConfig, GalaxyForVotes

# Of a head alone: seconds.
OPTIONS = dict(cpu=True, epochs=1, batch_size=16, train="head", learning_rate=1e-3)


@pytest.fixture(scope="session")
def start(tmp_path_factory):
    """A model of votes, not trained, to start from."""
    folder = tmp_path_factory.mktemp("start") / "votes"
    torch.manual_seed(0)
    model = GalaxyForVotes(GalaxyConfig(backbone="test_convnext", tree="gz2", image_size=32))
    torch.nn.init.normal_(model.head.weight, std=0.3)  # so that galaxies differ
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def no_figures():
    """Figures take longer than the training."""
    with mock.patch("hf_galaxy.reports.run_figures.figures", return_value={}):
        yield


@pytest.fixture(scope="session")
def run(mock_dataset, start, tmp_path_factory):
    """A run of classes, with its figures."""
    out = tmp_path_factory.mktemp("runs") / "classes"
    return hf_galaxy.finetune(mock_dataset, target="mock_class", start=start, out=out, **OPTIONS)
