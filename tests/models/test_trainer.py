"""transformers' own Trainer trains and evaluates our models as it does any other."""

import re

import numpy as np
import pytest
import torch
from transformers import AutoModel, Trainer, TrainingArguments

from hf_galaxy import GalaxyConfig, GalaxyForImageClassification, GalaxyForVotes, load_tree
from hf_galaxy.importing.dataset import open_dataset
from tests.conftest import ROOT
from tests.galaxies import votes_of

# Upstream: Trainer asks for pinned memory also where there is no accelerator.
pytestmark = pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true")
TREE = load_tree(["gz2", "gz_decals_dr5"])


def votes_model(**options):
    torch.manual_seed(0)
    return GalaxyForVotes(GalaxyConfig(backbone="test_convnext", tree=TREE, image_size=32, head_dropout=0, **options))


def class_model(**options):
    torch.manual_seed(0)
    return GalaxyForImageClassification(
        GalaxyConfig(backbone="test_convnext", image_size=32, num_labels=3, head_dropout=0, **options)
    )


def galaxies(targets, size=8, seed=0):
    """Noise, in the form in which Trainer takes a dataset."""
    rng = np.random.default_rng(seed)
    drawn = {"votes": rng.integers(0, 30, (size, len(TREE.columns))), "labels": rng.integers(0, 3, size)}
    pixels = rng.random((size, 3, 32, 32), dtype=np.float32)
    return [{"pixel_values": pixels[i], **({targets: drawn[targets][i]} if targets else {})} for i in range(size)]


def trainer_of(model, folder, rows, **arguments):
    arguments = {"report_to": "none", "save_strategy": "no", "disable_tqdm": True, "label_names": ["votes"]} | arguments
    return Trainer(model, TrainingArguments(str(folder), remove_unused_columns=False, **arguments), train_dataset=rows)


def test_the_example_of_the_documentation_learns_and_its_model_loads_again(mock_dataset, tmp_path, monkeypatch):
    votes_model().save_pretrained(tmp_path / "pretrained")
    (code,) = re.findall(r"```python\n(import evaluate.*?)```", (ROOT / "docs/transformers.md").read_text(), re.DOTALL)
    for name, path in (
        ("data/mock", mock_dataset),
        ("runs/survey", tmp_path / "pretrained"),
        ("runs/", tmp_path),
    ):
        assert name in code
        code = code.replace(name, f"{path}/" if name == "runs/" else str(path))
    monkeypatch.chdir(ROOT)
    names = {}
    exec(code, names)
    trainer, model = names["trainer"], names["model"]

    history = {"eval_loss": [], "eval_rmse_gz2": []}
    for log in trainer.state.log_history:
        for name in history.keys() & log.keys():
            history[name].append(log[name])
    untrained = Trainer(
        votes_model(), trainer.args, eval_dataset=names["galaxies"]["validation"], compute_metrics=names["figures"]
    ).evaluate()
    assert history["eval_loss"][-1] < 0.9 * untrained["eval_loss"]
    assert history["eval_rmse_gz2"][-1] < untrained["eval_rmse_gz2"]

    validation = names["galaxies"]["validation"][:]
    stored = votes_of(open_dataset(str(mock_dataset))["validation"], TREE)
    np.testing.assert_array_equal(validation["votes"], stored)
    loaded = AutoModel.from_pretrained(tmp_path / "trainer").eval()
    assert {path.name for path in (tmp_path / "trainer").glob("*.json")} >= {"config.json", "preprocessor_config.json"}
    with torch.no_grad():
        before, after = (each.eval()(validation["pixel_values"], torch.from_numpy(stored)) for each in (model, loaded))
    assert torch.equal(before.concentrations, after.concentrations)
    # the mean over galaxies, not over batches of unequal size
    assert history["eval_loss"][-1] == pytest.approx(after.loss.item(), rel=1e-5)


@pytest.mark.parametrize(("make", "targets"), [(votes_model, "votes"), (class_model, "labels")])
def test_accumulated_batches_train_as_whole_ones_do(make, targets, tmp_path):
    """One step of gradient descent over 8 galaxies at once, or 4 and 4."""
    trained = []
    for batch, accumulated in ((8, 1), (4, 2)):
        model = make()
        trainer = trainer_of(
            model, tmp_path, galaxies(targets), label_names=[targets], max_steps=1, logging_steps=1, optim="sgd",
            learning_rate=1e-3, max_grad_norm=0, per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulated,
        )  # fmt: skip
        trainer.train()
        trained.append((model.head.weight.detach(), trainer.state.log_history[0]["loss"]))
    (whole, loss), (parts, loss_of_parts) = trained
    assert loss == pytest.approx(loss_of_parts, rel=1e-4)
    step = whole - make().head.weight.detach()
    assert step.abs().max() > 0
    torch.testing.assert_close(parts - whole, torch.zeros_like(whole), atol=1e-3 * step.abs().max().item(), rtol=0)


@pytest.mark.parametrize("likelihood", ["dirichlet_multinomial", "multinomial"])
def test_galaxies_without_votes_are_predicted(likelihood, tmp_path):
    model = votes_model(likelihood=likelihood)
    out = trainer_of(model, tmp_path, None).predict(galaxies(None, 11))
    assert out.label_ids is None
    fractions = out.predictions[1] if isinstance(out.predictions, tuple) else out.predictions
    pixels = torch.from_numpy(np.stack([row["pixel_values"] for row in galaxies(None, 11)]))
    with torch.no_grad():
        np.testing.assert_allclose(fractions, model.eval()(pixels).fractions.numpy(), atol=1e-6)


def test_a_training_goes_on_from_a_checkpoint(tmp_path):
    """Four steps, or two and then two more: the same weights."""
    options = {"max_steps": 4, "per_device_train_batch_size": 4, "save_strategy": "steps", "save_steps": 2}
    whole = votes_model()
    trainer_of(whole, tmp_path, galaxies("votes", 16), **options).train()
    again = votes_model()
    trainer_of(again, tmp_path, galaxies("votes", 16), **options).train(str(tmp_path / "checkpoint-2"))
    for name, values in whole.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], values, msg=name)
