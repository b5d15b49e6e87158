"""A head that is trained on features computed once is that of the whole model; and so are runs that train parts of one."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from transformers import AutoModel

from hf_galaxy import GalaxyConfig, GalaxyForVotes
from hf_galaxy.data.galaxies import Galaxies
from hf_galaxy.data.views import eval_view
from hf_galaxy.importing.dataset import open_dataset
from hf_galaxy.training.targets.classes import Classes
from hf_galaxy.training.targets.votes import Votes
from tests.forks import TIMEOUT
from tests.training.runs import assert_bit_equal, finish, run, start, wait_for_checkpoints
from tests.training.test_exactness import FSDP, assert_same_curves


@pytest.fixture(scope="module")
def pretrained(mock_dataset, tmp_path_factory):
    """Folders of models with batch norms and with attention, whose weights are those of no run."""
    folder, train = tmp_path_factory.mktemp("pretrained"), open_dataset(str(mock_dataset))["train"]
    for backbone in ("test_resnet", "test_vit"):
        torch.manual_seed(1)
        model = GalaxyForVotes(GalaxyConfig(backbone=backbone, tree=["gz2", "gz_decals_dr5"], image_size=32))
        galaxies = Galaxies(train, model.config.framing, Votes(model.tree))[list(range(len(train)))]
        with torch.no_grad():
            for name, parameter in model.backbone.named_parameters():
                if parameter.ndim == 1 and not name.endswith("bias"):
                    parameter.uniform_(0.5, 1)  # some are 0 at first, and features would not tell galaxies apart
            for layer in model.modules():
                if isinstance(layer, torch.nn.BatchNorm2d):
                    layer.momentum = 1.0
            model.train()(pixel_values=eval_view(galaxies["pixels"], model.config.framing))
        model.save_pretrained(folder / backbone)
    return folder


def backbone_of(folder):
    return {name: w for name, w in load_file(folder / "model.safetensors").items() if name.startswith("backbone.")}


def assert_same_backbone(ours, theirs):
    ours, theirs = backbone_of(ours), backbone_of(theirs)
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        assert torch.equal(values, theirs[name]), name


def test_a_probe_that_has_converged_is_a_logistic_regression(mock_dataset, pretrained, tmp_path):
    """Mean cross-entropy + decay / 2 |W|^2 is what scikit-learn's C = 1 / (galaxies x decay) stands for."""
    opened, decay = open_dataset(str(mock_dataset)), 0.1
    galaxies = len(opened["train"])
    settings = dict(backbone="test_resnet", start=str(pretrained / "test_resnet"), task="classes", label="mock_class")
    record = run(
        tmp_path / "probe", dataset=(str(mock_dataset),), **settings, train="head", optimizer="sgd", weight_decay=decay,
        learning_rate=0.2, batch_size=galaxies, epochs=400, validate_every=400, schedule="constant", clip_norm=1e9,
        head_dropout=0.0, checkpoint_minutes=9,
    )  # fmt: skip
    model = AutoModel.from_pretrained(tmp_path / "probe").eval()
    label = Classes.of_rows(opened["train"], "mock_class", "mock")
    features, labels = {}, {}
    for split in ("train", "validation", "test"):
        batch = Galaxies(opened[split], model.config.framing, label)[list(range(len(opened[split])))]
        with torch.no_grad():
            features[split] = model.features(eval_view(batch["pixels"], model.config.framing)).double().numpy()
        labels[split] = batch["labels"].numpy()
    assert len(label.names) > 2, "of two, scikit-learn penalises but one vector"
    regression = LogisticRegression(C=1 / (galaxies * decay), tol=1e-10, max_iter=100_000)
    regression.fit(features["train"], labels["train"])
    np.testing.assert_allclose(model.head.weight.detach()[regression.classes_], regression.coef_, atol=5e-3)

    def nll(split):
        predicted = np.full((len(labels[split]), len(label.names)), 1e-300)
        predicted[:, regression.classes_] = regression.predict_proba(features[split])
        return -np.log(predicted[np.arange(len(predicted)), labels[split]]).mean()

    assert record.training["losses"][-1][1] == pytest.approx(nll("train"), abs=1e-3)
    assert record.training["history"][-1]["validation_loss"] == pytest.approx(nll("validation"), abs=2e-3)
    assert record.results["test"]["loss"]["model"] == pytest.approx(nll("test"), abs=2e-3)
    assert record.model["parameters"]["trained"] == record.model["parameters"]["head"]
    assert record.training["features"]["bytes"] == (61 + 12) * (4 * 96 + 8), "features, and a label"
    assert_same_backbone(tmp_path / "probe", pretrained / "test_resnet")


def test_on_several_processes_a_probe_is_the_same_and_goes_on(mock_dataset, pretrained, tmp_path):
    settings = dict(
        dataset=(str(mock_dataset),), backbone="test_resnet", start=str(pretrained / "test_resnet"), train="head",
        head_dropout=0.0, learning_rate=0.01, ema_galaxies=64, balance=0.5, epochs=30,
    )  # fmt: skip
    whole = run(tmp_path / "one", **settings)
    started = start(tmp_path / "two", processes=2, **settings)
    wait_for_checkpoints(2, tmp_path / "two", started)
    for process in started:
        process.kill()
        process.join()
    parts = run(tmp_path / "two", processes=2, **settings)
    assert "resuming at step" in (tmp_path / "two.log").read_text()
    assert_same_curves(whole, parts)
    for name in ("one", "two"):
        assert_same_backbone(tmp_path / name, pretrained / "test_resnet")
    assert {f.name for f in (tmp_path / "one").iterdir()} == {f.name for f in (tmp_path / "two").iterdir()}


@pytest.mark.parametrize(
    ("backbone", "train", "options"),
    [
        ("test_resnet", "head", {"drop_path": 0.0}),
        ("test_resnet", "last:2", {"drop_path": 0.1, "layer_decay": 0.5}),
        ("test_vit", "lora:2", {"drop_path": 0.1, "ema_galaxies": 64}),
    ],
)
def test_a_run_that_trains_a_part_and_is_killed_ends_with_the_same_bits(
    mock_dataset, pretrained, tmp_path, backbone, train, options
):
    settings = dict(
        dataset=(str(mock_dataset),), backbone=backbone, start=str(pretrained / backbone), train=train, **options
    )
    whole = run(tmp_path / "whole", **settings)
    started = start(tmp_path / "killed", **settings)
    wait_for_checkpoints(2, tmp_path / "killed", started)
    started[0].kill()
    started[0].join()
    again = run(tmp_path / "killed", **settings)
    log = (tmp_path / "killed.log").read_text()
    assert "resuming at step" in log
    counts = whole.model["parameters"]
    assert f"{counts['backbone']:,} parameters kept; head, 148 x" in log
    assert f"newly initialised; --train {train}: {counts['trained']:,} parameters are trained" in log
    assert_bit_equal(tmp_path / "whole", tmp_path / "killed")
    assert again.training["losses"] == whole.training["losses"]
    assert again.results == whole.results
    assert counts["head"] <= counts["trained"] < counts["backbone"]
    before, after = backbone_of(pretrained / backbone), backbone_of(tmp_path / "whole")
    assert before.keys() == after.keys(), "adapters are merged"
    changed = {name for name, values in after.items() if not torch.equal(values, before[name])}
    assert bool(changed) == (train != "head")
    assert len(changed) < len(before) / 2


def test_adapters_learn_alike_on_two_processes(mock_dataset, pretrained, tmp_path):
    settings = dict(
        dataset=(str(mock_dataset),), backbone="test_vit", start=str(pretrained / "test_vit"), train="lora:4",
        head_dropout=0.0, epochs=2,
    )  # fmt: skip
    assert_same_curves(run(tmp_path / "one", **settings), run(tmp_path / "two", processes=2, **settings))


def test_fsdp_trains_the_last_layers_and_refuses_what_needs_whole_weights(mock_dataset, pretrained, tmp_path):
    settings = dict(
        dataset=(str(mock_dataset),),
        backbone="test_vit",
        start=str(pretrained / "test_vit"),
        head_dropout=0.0,
        epochs=1,
    )
    whole = run(tmp_path / "whole", **settings, train="last:2")
    parts = run(tmp_path / "parts", processes=2, environment=FSDP, **settings, train="last:2")
    assert_same_curves(whole, parts)
    for process in start(tmp_path / "refused", processes=2, environment=FSDP, **settings, train="lora:2"):
        process.join(TIMEOUT)
        assert process.exitcode == 1
    assert "needs whole weights" in (tmp_path / "refused.log").read_text()


def test_a_head_that_is_kept_begins_where_the_run_before_ended(mock_dataset, tmp_path):
    settings = dict(dataset=(str(mock_dataset),), epochs=3)
    first = run(tmp_path / "first", **settings)
    best = min(entry["validation_loss"] for entry in first.training["history"])
    more = dict(start=str(tmp_path / "first"), keep_head=True, learning_rate=1e-9)
    second = run(tmp_path / "second", **settings, **more)
    assert second.training["history"][0]["validation_loss"] == pytest.approx(best, rel=1e-5)
    assert "head, 148 x 64 weights and 148 biases kept; --train all" in (tmp_path / "second.log").read_text()


def test_an_estimate_of_a_probe_leaves_nothing(mock_dataset, pretrained, tmp_path):
    settings = dict(dataset=(str(mock_dataset),), backbone="test_resnet", start=str(pretrained / "test_resnet"))
    started = start(tmp_path / "none", **settings, train="head", batch_size=2, balance=0.5, estimate=True)
    finish(started, tmp_path / "none")
    assert "galaxies/s: about 0 h" in (tmp_path / "none.log").read_text()
    assert not (tmp_path / "none").exists()
