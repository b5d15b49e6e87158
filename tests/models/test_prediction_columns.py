"""What stands beside predicted votes and classes: intervals, the probability of being asked, the most expected answer."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy import stats

from hf_galaxy import GalaxyConfig, GalaxyForImageClassification, GalaxyForRegression, GalaxyForVotes
from hf_galaxy.decision_tree import DecisionTree, Question, load_tree
from hf_galaxy.errors import BadInput
from hf_galaxy.models.prediction_columns import NAMES, PredictionColumns, unit_of

SMALL = dict(backbone="test_convnext", image_size=32)


def votes(tree="gz2", **options):
    return GalaxyForVotes(GalaxyConfig(**SMALL, tree=tree, **options))


def classes(names=("spiral", "elliptical", "merger"), **options):
    labels = dict(enumerate(names))
    config = GalaxyConfig(**SMALL, id2label=labels, label2id={name: i for i, name in labels.items()}, **options)
    return GalaxyForImageClassification(config)


def values(names=("z",)):
    return GalaxyForRegression(
        GalaxyConfig(**SMALL, values=list(names), value_mean=[0.0] * len(names), value_std=[1.0] * len(names))
    )


def table_of(columns, numbers):
    return pa.table(columns.arrays(np.asarray(numbers, np.float32)[None]), columns.names)


def drawn(tree, galaxies, seed=0):
    """(B, 2 A) fractions and concentrations, from a hundredth to thousands."""
    drawn = np.exp(np.random.default_rng(seed).uniform(np.log(0.011), np.log(3000), (galaxies, len(tree.columns))))
    drawn = drawn.astype(np.float32)
    fractions = [drawn[:, where] / drawn[:, where].sum(axis=1, keepdims=True) for where in tree.slices]
    return np.concatenate([*fractions, drawn], axis=1)


def test_intervals_are_the_quantiles_of_the_beta_distributions():
    columns, tree = PredictionColumns(votes(head_activation="softplus"), credible=0.8), load_tree("gz2")
    numbers = drawn(tree, 50)
    table = table_of(columns, numbers)
    assert table.schema.types == [pa.float32()] * 4 * len(tree.columns)
    concentrations = numbers[:, len(tree.columns) :].astype(float)
    for q, question in enumerate(tree.questions):
        own = concentrations[:, tree.slices[q]]
        for a, name in enumerate(question.columns):
            others = own.sum(axis=1) - own[:, a]
            for end, tail in (("low", 0.1), ("high", 0.9)):
                expected = stats.beta.ppf(tail, own[:, a], others)
                np.testing.assert_allclose(table[f"{name}_{end}"], expected, rtol=1e-4, atol=1e-7)
            np.testing.assert_array_equal(table[f"{name}_concentration"], own[:, a].astype(np.float32))


def test_the_columns_of_a_mixture_are_its_numbers_and_its_quantiles():
    columns, tree = PredictionColumns(votes(), credible=0.8), load_tree("gz2")
    rng, answers = np.random.default_rng(0), len(tree.columns)
    one, two = (drawn(tree, 20, seed)[:, answers:] for seed in (0, 1))
    weights = rng.uniform(0.001, 0.999, (20, len(tree.questions))).astype(np.float32)
    table = table_of(columns, np.concatenate([one, one, two, weights], axis=1))
    meanings = {column.name: column.meaning for column in columns.columns}
    for q, question in enumerate(tree.questions):
        where = tree.slices[q]
        np.testing.assert_array_equal(table[f"{question.name}_weight"], weights[:, q])
        assert "first of the two" in meanings[f"{question.name}_weight"]
        for a, name in enumerate(question.columns):
            for kind, own in (("concentration", one), ("concentration_2", two)):
                np.testing.assert_array_equal(table[f"{name}_{kind}"], own[:, where][:, a])
            for end, tail in (("low", 0.1), ("high", 0.9)):
                x = table[f"{name}_{end}"].to_numpy().astype(float)
                below = [
                    w * stats.beta.cdf(x + shift, own[:, where][:, a], own[:, where].sum(axis=1) - own[:, where][:, a])
                    for shift in (-1e-6, 1e-6)
                    for w, own in ((weights[:, q], one), (1 - weights[:, q], two))
                ]
                assert (below[0] + below[1] <= tail + 1e-5).all()
                assert (below[2] + below[3] >= tail - 1e-5).all()


def test_columns_that_nobody_asks_for_are_not_there():
    model = votes()
    assert PredictionColumns(model).names == model.prediction_columns
    both = PredictionColumns(model, credible=0.9, answers=True)
    assert both.names[: len(model.prediction_columns)] == model.prediction_columns
    assert len(both.names) == 5 * len(model.columns) + 3 * len(model.tree.questions)
    assert all(column.meaning for column in (*NAMES, *both.columns))


def test_the_probability_of_being_asked_is_the_product_along_the_path():
    tree = DecisionTree(
        "t",
        (
            Question("shape", ("smooth", "disk"), (), "t"),
            Question("edge-on", ("yes", "no"), ("shape_disk",), "t"),
            Question("bar", ("yes", "no"), ("edge-on_no",), "t"),
            Question("odd", ("yes", "no"), ("shape_smooth", "edge-on_no"), "t"),
        ),
    )
    model = GalaxyForVotes(GalaxyConfig(**SMALL, tree=tree.to_dict(), likelihood="multinomial"))
    table = table_of(
        PredictionColumns(model, answers=True),
        [[0.25, 0.75, 0.4, 0.6, 0.5, 0.5, 0.1, 0.9], [1, 0, 0, 1, 0.2, 0.8, np.nan, np.nan]],
    )
    np.testing.assert_allclose(table["shape_asked"], [1, 1])
    np.testing.assert_allclose(table["edge-on_asked"], [0.75, 0])
    np.testing.assert_allclose(table["bar_asked"], [0.45, 0], rtol=1e-6)
    np.testing.assert_allclose(table["odd_asked"], [0.25 + 0.45, 1], rtol=1e-6)
    assert table["shape_answer"].to_pylist() == ["disk", "smooth"]
    assert table["bar_answer"].to_pylist() == ["yes", "no"], "the first of equal ones; also where it is not asked"
    assert table["odd_answer"].to_pylist() == ["no", None]


def test_the_most_probable_class_is_named():
    table = table_of(PredictionColumns(classes(), answers=True), [[0.2, 0.5, 0.3], [0.9, 0.1, 0], [np.nan] * 3])
    assert table.column_names[-1] == "class"
    assert table["class"].to_pylist() == ["elliptical", "spiral", None]
    assert table["class"].type == pa.string()


def test_no_galaxies_have_the_columns_too():
    for columns in (PredictionColumns(votes(), 0.9, True), PredictionColumns(classes(), answers=True)):
        arrays = columns.arrays(np.empty((1, 0, len(columns.model.prediction_columns)), np.float32))
        assert [array.type for array in arrays] == [column.type for column in columns.columns]


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (votes, {"credible": 1.0}, r"^--credible 1: must be a probability between 0 and 1, such as 0\.9$"),
        (votes, {"credible": 0.0}, r"must be a probability"),
        (lambda: votes(likelihood="multinomial"), {"credible": 0.9}, r"this model predicts fractions alone: leave it out"),
        (classes, {"credible": 0.9}, r"this model predicts neither: leave it out"),
        (values, {"answers": True}, r"^--answers: is for models of votes, .* this model predicts z: leave it out"),
        (lambda: classes(problem_type="multi_label_classification"), {"answers": True}, r"spiral_probability, .*leave it"),
        (lambda: values(("z", "id_str")), {}, r"would have two columns id_str; rename"),
    ],
)  # fmt: skip
def test_what_a_model_has_not_is_refused(model, options, message):
    with pytest.raises(BadInput, match=message):
        PredictionColumns(model(), **options)


@pytest.mark.parametrize("head", ["mixture", "softplus"])
def test_intervals_of_extreme_concentrations_are_numbers(head):
    model = votes(head_activation=head)
    a = len(model.tree.columns)
    numbers = np.ones((4, len(model.prediction_columns)), np.float32)
    concentrations = numbers[:, a : (3 if head == "mixture" else 2) * a]
    concentrations[0], concentrations[1], concentrations[2, ::2] = 0.01, 1e6, 1e-2
    concentrations[3, :a], concentrations[3, a:] = 1e6, 0.01
    if head == "mixture":
        numbers[:, 3 * a :] = np.array([[0.5], [0.001], [0.999], [0.5]])
    table = table_of(PredictionColumns(model, credible=0.9), numbers)
    for name in model.columns:
        low, high = (table[f"{name}_{end}"].to_numpy() for end in ("low", "high"))
        assert ((low >= 0) & (low <= high) & (high <= 1)).all()


def test_units_are_those_in_the_names():
    names = ("ra", "Dec", "radius_arcsec", "arcsec", "r_mag", "degree")
    assert [unit_of(name) for name in names] == ["deg", "deg", "arcsec", "", "mag", ""]


def test_predictions_of_a_model_fit_its_columns():
    torch.manual_seed(0)
    for model in (votes(), votes(likelihood="multinomial"), classes(), values()):
        with torch.no_grad():
            numbers = model.eval().predictions(torch.rand(2, 3, 32, 32)).numpy()
        columns = PredictionColumns(model)
        for array, expected in zip(columns.arrays(numbers[None]), numbers.T, strict=True):
            np.testing.assert_array_equal(array, expected)
