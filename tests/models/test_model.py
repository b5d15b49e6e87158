"""The models are transformers models: they say what they mean, save it, and load it again through the Auto classes."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification

from hf_galaxy import GalaxyConfig, GalaxyForImageClassification, GalaxyForRegression, GalaxyForVotes, load_tree
from hf_galaxy.data.views import Framing, eval_view, to_canvases
from hf_galaxy.errors import BadInput
from hf_galaxy.evaluation.constant_votes import ConstantVotes
from hf_galaxy.losses import dirichlet_multinomial_nll
from hf_galaxy.models.start import resolve_start

IMAGES = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
CLASSES = {"id2label": {0: "ring", 1: "no-ring", 2: "unsure"}, "label2id": {"ring": 0, "no-ring": 1, "unsure": 2}}


def votes_model(**options):
    return GalaxyForVotes(
        GalaxyConfig(backbone="test_convnext", tree=["gz2", "gz_hubble"], image_size=64, **options)
    ).eval()


def class_model(**options):
    config = GalaxyConfig(backbone="test_convnext", image_size=64, **CLASSES, **options)
    return GalaxyForImageClassification(config).eval()


def values_model(**options):
    scale = dict(value_mean=[0.1, 0.7], value_std=[0.05, 0.2]) | options
    config = GalaxyConfig(backbone="test_convnext", image_size=64, values=["redshift", "radius"], **scale)
    return GalaxyForRegression(config).eval()


def weighted_class_model():
    return class_model(label_smoothing=0.1, class_weights=[1, 2, 0.5])


def fractions_model():
    return values_model(unit_interval=True)


@pytest.mark.parametrize("likelihood", ["dirichlet_multinomial", "multinomial"])
def test_votes_model_answers_in_the_trees_order(likelihood):
    model = votes_model(likelihood=likelihood)
    tree = load_tree(["gz2", "gz_hubble"])
    assert model.tree == tree
    votes = torch.randint(0, 9, (3, len(tree.columns)))
    out = model(pixel_values=IMAGES, votes=votes)
    for where in tree.slices:
        torch.testing.assert_close(out.fractions[:, where].sum(1), torch.ones(3))
    assert out.loss.item() == pytest.approx(out.nll.sum(1).mean().item())
    if likelihood == "dirichlet_multinomial":
        assert out.concentrations.min() > 0
        torch.testing.assert_close(out.nll, dirichlet_multinomial_nll(votes, out.concentrations, tree, out.weights))
        torch.testing.assert_close(out.weights.sum(1), torch.ones(3, len(tree.questions)))
    assert model(pixel_values=IMAGES).loss is None


def test_class_model_answers_with_cross_entropy():
    out = class_model()(pixel_values=IMAGES, labels=torch.tensor([0, 2, 1]))
    expected = -out.logits.log_softmax(1)[[0, 1, 2], [0, 2, 1]].mean()
    torch.testing.assert_close(out.loss, expected)


def test_label_smoothing_and_class_weights_are_of_the_training_loss_alone():
    labels, model = torch.tensor([0, 2, 1]), weighted_class_model().eval()
    plain = class_model().eval()
    plain.load_state_dict(model.state_dict())
    expected = plain(pixel_values=IMAGES, labels=labels)
    measured = model(pixel_values=IMAGES, labels=labels)
    assert torch.equal(measured.logits, expected.logits)
    torch.testing.assert_close(measured.loss, expected.loss)
    out = model.train()(pixel_values=IMAGES, labels=labels)
    log_shares = out.logits.log_softmax(1)
    w, each = torch.tensor([1, 2, 0.5]), torch.arange(3)
    expected = -0.9 * w[labels] * log_shares[each, labels] - 0.1 / 3 * (w * log_shares).sum(1)
    torch.testing.assert_close(out.loss, expected.mean())


@pytest.mark.parametrize("unit_interval", [False, True])
def test_regression_answers_in_the_units_of_the_labels_and_starts_at_the_mean(unit_interval):
    model = values_model(unit_interval=unit_interval)
    labels = torch.tensor([[0.2, torch.nan], [torch.nan, 0.5], [0.05, 0.9]])
    with torch.autocast("cpu", torch.bfloat16):
        out = model(pixel_values=IMAGES, labels=labels)
    assert out.values.dtype == out.loss.dtype == torch.float32
    assert out.values.shape == (3, 2)
    squares = ((out.values - labels) / torch.tensor([0.05, 0.2])) ** 2
    expected = (squares[0, 0] + squares[1, 1] + squares[2].mean()) / 3
    torch.testing.assert_close(out.loss, expected)
    outputs = model.head(model.features(IMAGES))
    out = model(pixel_values=IMAGES)
    if unit_interval:
        torch.testing.assert_close(out.values, torch.special.expit(torch.logit(torch.tensor([0.1, 0.7])) + outputs))
        with torch.no_grad():
            model.head.bias.copy_(torch.tensor([50.0, -50.0]))
        assert model(pixel_values=IMAGES).values.round().tolist() == [[1, 0]] * 3
    else:
        torch.testing.assert_close(out.values, torch.tensor([0.1, 0.7]) + torch.tensor([0.05, 0.2]) * outputs)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.zero_()
    torch.testing.assert_close(model(pixel_values=IMAGES).values, torch.tensor([[0.1, 0.7]] * 3))


def test_regression_learns_values_in_their_units_and_is_not_led_astray_by_missing_ones():
    torch.manual_seed(0)
    model = values_model(head_dropout=0.0)
    labels = torch.tensor([[0.2, torch.nan], [torch.nan, 0.5], [0.05, 0.9]])
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    for _ in range(60):
        optimizer.zero_grad()
        model(pixel_values=IMAGES, labels=labels).loss.backward()
        optimizer.step()
    found = model(pixel_values=IMAGES).values
    known = ~labels.isnan()
    torch.testing.assert_close(found[known], labels[known], rtol=0, atol=0.02)


def test_what_a_regression_model_answers_can_be_indexed_like_other_outputs_and_exported():
    model = values_model()
    out = model(pixel_values=IMAGES, labels=torch.ones(3, 2))
    assert (out["loss"] is out.loss, out[1] is out.values, len(out[:]), out["values"] is out.values) == (
        True,
        True,
        2,
        True,
    )
    values = model(pixel_values=IMAGES)[0]
    exported = torch.export.export(model, (), {"pixel_values": IMAGES}).module()
    torch.testing.assert_close(exported(pixel_values=IMAGES).values, values)


@pytest.mark.parametrize("make", [votes_model, class_model, weighted_class_model, values_model, fractions_model])
def test_saved_models_keep_their_outputs_and_their_meaning(make, tmp_path):
    model = make()
    model.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.bin"))
    for loader in (type(model), AutoModel):
        loaded = loader.from_pretrained(tmp_path).eval()
        assert type(loaded) is type(model)
        with torch.no_grad():
            for ours, theirs in zip(model(pixel_values=IMAGES)[:], loaded(pixel_values=IMAGES)[:], strict=True):
                assert torch.equal(ours, theirs)
        assert loaded.config.id2label == model.config.id2label
        for name in ("tree", "values", "value_mean", "value_std", "unit_interval", "label_smoothing", "class_weights"):
            assert getattr(loaded.config, name) == getattr(model.config, name)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), GalaxyConfig)


def test_class_model_loads_as_image_classifier(tmp_path):
    class_model().save_pretrained(tmp_path)
    assert isinstance(AutoModelForImageClassification.from_pretrained(tmp_path), GalaxyForImageClassification)


@pytest.mark.parametrize("make", [values_model, votes_model])
def test_two_values_or_answers_are_never_taken_for_two_classes(make, tmp_path):
    make().save_pretrained(tmp_path)
    with pytest.raises(BadInput, match="this config is of a model of votes or values"):
        AutoModelForImageClassification.from_pretrained(tmp_path)


def test_a_model_with_class_weights_gives_its_backbone_to_other_classes(tmp_path):
    weighted_class_model().save_pretrained(tmp_path)
    options = dict(num_labels=5, class_weights=None, ignore_mismatched_sizes=True)
    assert AutoModelForImageClassification.from_pretrained(tmp_path, **options).head.out_features == 5
    with pytest.raises(BadInput, match="one number above 0 for each of the 5 classes"):
        AutoModelForImageClassification.from_pretrained(tmp_path, num_labels=5, ignore_mismatched_sizes=True)


def test_the_tree_is_saved_whole(tmp_path):
    """A later change of a tree's file does not change what the columns of a saved model mean."""
    votes_model().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    names = [f"{q['name']}_{answer}" for q in config["tree"]["questions"] for answer in q["answers"]]
    assert names == load_tree(["gz2", "gz_hubble"]).columns


@pytest.mark.parametrize(("size", "crop"), [(64, 0.5), (48, 0.7), (64, 1.0)])
def test_the_saved_processor_frames_pictures_as_the_evaluation_does(size, crop, tmp_path):
    votes_model(crop=crop).config.save_pretrained(tmp_path)
    model = GalaxyForVotes(GalaxyConfig(backbone="test_convnext", tree="gz2", image_size=size, crop=crop))
    model.save_pretrained(tmp_path)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (160, 160, 3), dtype=np.uint8))
    processor = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    framing = Framing(size, crop)
    expected = eval_view(to_canvases([np.asarray(picture.convert("RGB"))], framing), framing)
    # One level of brightness: Pillow rounds the weights of its filter a little otherwise.
    torch.testing.assert_close(
        processor(picture, return_tensors="pt")["pixel_values"], expected, atol=1.01 / 255, rtol=0
    )


@pytest.mark.parametrize("head", ["mixture", "softplus", "multinomial"])
def test_an_untrained_model_can_start_from_the_constant_prediction(head):
    model = votes_model(**{"likelihood": head} if head == "multinomial" else {"head_activation": head})
    a = len(model.tree.columns)
    concentrations = 0.1 + 20 * torch.rand(a)
    fractions = torch.cat([torch.full((w.stop - w.start,), 1 / (w.stop - w.start)) for w in model.tree.slices])
    model.start_from_constant(concentrations, fractions)
    with torch.no_grad():
        model.head.weight.zero_()
        out = model(pixel_values=IMAGES)
    if head == "softplus":
        torch.testing.assert_close(out.concentrations[0], concentrations, rtol=1e-3, atol=1e-3)
    elif head == "mixture":
        torch.testing.assert_close(out.concentrations[0, 0], 2 * concentrations, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(out.concentrations[0, 1], concentrations / 2, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(out.weights, torch.full_like(out.weights, 0.5))
    else:
        torch.testing.assert_close(out.fractions[0], fractions)


@pytest.mark.parametrize("constant", [1e-4, 1e4])
def test_distributions_of_a_mixture_start_apart_also_from_constants_out_of_reach(constant):
    model = votes_model()
    concentrations = torch.full((len(model.tree.columns),), constant)
    model.start_from_constant(concentrations, torch.ones_like(concentrations))
    first, second = model.distributions(model.head.bias[None])[0][0]
    torch.testing.assert_close(first, 2 * second, rtol=0.01, atol=0)


def test_parameters_are_counted_by_group():
    counts = votes_model().parameter_counts()
    tree = load_tree(["gz2", "gz_hubble"])
    assert counts["head"] == (64 + 1) * (2 * len(tree.columns) + len(tree.questions))
    assert counts["backbone"] > 200_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "convnext_nothing"}, "timm has no such architecture"),
        ({"backbone": "test_convnext", "tree": "gz3"}, "no decision tree gz3"),
        ({"backbone": "test_convnext", "likelihood": "normal"}, "choose dirichlet_multinomial"),
        ({"backbone": "test_convnext", "crop": 1.5}, r"in \(0, 1\]"),
        ({"backbone": "test_convnext", "label_smoothing": 1.0}, "label_smoothing 1.0: must be a share"),
        (
            {"backbone": "test_convnext", **CLASSES, "class_weights": [1, 2]},
            "class_weights 1 2: .*one .* the 3 classes ring, no",
        ),
        ({"backbone": "test_convnext", **CLASSES, "class_weights": [1, 2, 0]}, "one number above 0"),
        ({"backbone": "test_convnext", "values": []}, "one or several different names"),
        ({"backbone": "test_convnext", "values": ["z", "z"]}, "values z z: must be one or several different"),
        ({"backbone": "test_convnext", "values": ["z"], "value_std": [0.0]}, "for each of z, with no std of 0"),
        ({"backbone": "test_convnext", "values": ["z", "m"], "value_mean": [1.0]}, "one number for each of z, m"),
        ({"backbone": "test_convnext", "values": ["z"], "value_mean": [1.0], "unit_interval": True}, "in .0, 1."),
    ],
)
def test_wrong_configurations_are_refused(options, message):
    with pytest.raises(BadInput, match=message):
        GalaxyForImageClassification(GalaxyConfig(**options))
    with pytest.raises(BadInput, match="needs a config with a tree"):
        GalaxyForVotes(GalaxyConfig(backbone="test_convnext"))
    with pytest.raises(BadInput, match="needs a config with values"):
        GalaxyForRegression(GalaxyConfig(backbone="test_convnext"))


def test_a_run_folder_with_another_backbone_is_refused(tmp_path):
    votes_model(crop=0.5).save_pretrained(tmp_path)
    fields, _ = resolve_start(None, str(tmp_path), None)
    assert (fields["image_size"], fields["crop"]) == (64, 0.5), "pictures are framed as the run framed them"
    with pytest.raises(BadInput, match="has backbone test_convnext, not test_resnet"):
        resolve_start("test_resnet", str(tmp_path), None)
    (tmp_path / "model.safetensors").write_text("damaged")
    with pytest.raises(BadInput, match="reachable Hub id of a finished run"):
        resolve_start(None, str(tmp_path), None)


@pytest.mark.parametrize(
    ("backbone", "start", "message"),
    [
        (None, None, "pass --backbone"),
        (None, "weights.pth", "pass their architecture with --backbone"),
        ("test_convnext", "folder/weights.pth", "folder/weights.pth: no such file"),
        (None, "ORG/NAME", "reachable Hub id"),
        (None, "test_convnekst.r160", "timm has no such architecture"),
        ("test_convnext", "test_convnext.r160_in1k", "cannot be loaded into test_convnext"),
    ],
)
def test_starts_that_do_not_exist_are_refused(backbone, start, message):
    with pytest.raises(BadInput, match=message):
        resolve_start(backbone, start, 64)


def test_constant_votes_survive_a_run_record():
    tree = load_tree("gz_rings")
    constant = ConstantVotes.of([np.array([[3, 4], [10, 2]])], tree, min_votes=5)
    again = ConstantVotes.from_dict(json.loads(json.dumps(constant.to_dict())))
    assert torch.equal(again.fractions, constant.fractions)
    assert torch.equal(again.concentrations, constant.concentrations)
