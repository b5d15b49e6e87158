"""Runs from their settings to their run folders: what they learn from, and what their records say of it."""

import pytest
import torch
from datasets import load_dataset
from transformers import AutoModel

from hf_galaxy.data import open_dataset
from hf_galaxy.model import GalaxyConfig, GalaxyForVotes
from hf_galaxy.settings import Settings
from hf_galaxy.sources import open_sources
from tests.conftest import Rows, published, votes_of
from tests.runs import run


@pytest.fixture(scope="module")
def rings(tmp_path_factory):
    """A dataset of another campaign."""
    folder = tmp_path_factory.mktemp("rings") / "rings"
    folder.mkdir()
    published(Rows(40), folder)
    return folder


def test_several_datasets_are_learnt_by_weight_each_by_its_own_questions(mock_dataset, rings, tmp_path):
    record = run(tmp_path / "run", dataset=(str(mock_dataset), str(rings)), weights=(1.0, 3.0), epochs=1)
    opened = [open_dataset(str(folder)) for folder in (mock_dataset, rings)]
    for split, galaxies in record.dataset["splits"].items():
        assert galaxies == sum(len(each[split]) for each in opened)
    assert record.dataset["title"] == "Mock survey of drawn galaxies and Rings"
    assert record.dataset["questions"][-1] == "ring"
    results = record.results["test"]
    asked = votes_of(opened[1]["test"], Rows.tree).any(axis=1).sum()
    assert results["questions"]["ring"]["galaxies_asked"] == asked
    smooth = results["questions"]["smooth-or-featured-gz2"]["galaxies_asked"]
    assert 0 < smooth <= len(opened[0]["test"])
    model = AutoModel.from_pretrained(tmp_path / "run")
    assert model.tree.campaigns.keys() == {"gz2", "gz_decals_dr5", "gz_rings"}
    assert record.model["flops"] == operations_of(model, record.model["image_size"])
    again = results["bootstrap"]["loss"]["model"]
    assert min(again) < results["loss"]["model"] < max(again)


def operations_of(model, size):
    """Two for each weight of a convolution or a linear layer, as often as it is used on one picture."""
    seen = []
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            layer.register_forward_hook(lambda layer, _, out: seen.append(2 * layer.weight[0].numel() * out.numel()))
    model.eval()(pixel_values=torch.zeros(1, 3, size, size))
    return sum(seen)


def test_a_subset_of_balanced_classes(mock_dataset, tmp_path):
    settings = dict(dataset=(str(mock_dataset),), task="classes", label="mock_class", subset=0.5, epochs=1)
    record = run(tmp_path / "run", **settings, balance=1.0)
    train = load_dataset(str(mock_dataset), split="train")
    assert record.dataset["splits"]["train"] == round(0.5 * len(train))
    sources = open_sources(Settings(**settings, out=tmp_path / "none"), print)
    counts = torch.bincount(torch.tensor(sources.splits["train"][0][:]["mock_class"].to_pylist())).clamp_min(0.5)
    priors = (counts / counts.sum()).log()  # of the subset, not of what balancing shows
    torch.testing.assert_close(torch.tensor(record.baseline["log_priors"]), priors)
    whole = open_sources(Settings(**(settings | {"subset": 1.0}), out=tmp_path / "none"), print)
    some, all_names = (s.splits["train"][0][:]["id_str"].to_pylist() for s in (sources, whole))
    assert set(some) < set(all_names)


def test_balancing_leaves_out_galaxies_without_votes_and_makes_them_no_campaign(rings, tmp_path):
    said = []
    settings = dict(dataset=(str(rings),), out=tmp_path / "none")
    plain = open_sources(Settings(**settings), print).splits["train"][0]
    empty = sum(not votes.any() for votes in votes_of(plain, Rows.tree))
    balanced = open_sources(Settings(**settings, balance=1.0), said.append)
    assert empty == 1, "galaxy-0 has no votes"
    assert said[-1] == "1 training galaxies without votes are left out"
    assert len(balanced.splits["train"][0]) == len(plain) - 1
    assert set(balanced.strata[0]) == {1}


def test_views_optimiser_and_decay_as_set_are_what_trains(mock_dataset, tmp_path):
    """Each option changes the curve, so none is lost on the way."""
    settings = dict(dataset=(str(mock_dataset),), epochs=1)
    curves = [run(tmp_path / "plain", **settings).training["losses"]]
    options = [dict(optimizer="lion"), dict(layer_decay=0.5), dict(rotate=False), dict(flip=False), dict(zoom=(1.0, 1.5)),
               dict(shift=0.3), dict(schedule="constant"), dict(weight_decay=0.9), dict(clip_norm=0.01), dict(subset=0.9)]  # fmt: skip
    for number, option in enumerate(options):
        curves.append(run(tmp_path / str(number), **settings, **option).training["losses"])
        assert curves[-1] not in curves[:-1], option


def test_a_compiled_backbone_keeps_the_names_of_its_weights_and_its_answers():
    torch.manual_seed(0)
    model = GalaxyForVotes(GalaxyConfig(backbone="test_convnext", tree="gz2", image_size=32)).eval()
    names, pictures = list(model.state_dict()), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = model(pixel_values=pictures).concentrations
        model.backbone.compile(backend="aot_eager")  # inductor would take a minute; the names are the same
        torch.testing.assert_close(model(pixel_values=pictures).concentrations, expected)
    assert list(model.state_dict()) == names
