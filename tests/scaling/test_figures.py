"""Figures of a study: the tables hold the study's numbers and no others, and whatever the study lacks, the rest is drawn."""

import dataclasses
import io
import json

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hf_galaxy.errors import BadInput
from hf_galaxy.reports.charts import COLORS
from hf_galaxy.reports.text import interval
from hf_galaxy.scaling.figure_data import BEYOND
from hf_galaxy.scaling.figures import figures_of
from hf_galaxy.scaling.label_budget import LabelBudget
from hf_galaxy.scaling.label_budget_figure import label_budget_figure
from hf_galaxy.scaling.points import points_of
from hf_galaxy.scaling.study import study_of
from tests.scaling.records import BACKBONES, classed_records, law_of, loss_of, voted_records

SIZES = (300, 1_000, 3_000, 10_000, 30_000)
MANY = BACKBONES | {"resnet18": 11_179_077, "mobilenetv3_small_100": 1_522_981}
ONE = {"resnet10t": BACKBONES["resnet10t"]}


def studied(records):
    """As it is read from scaling.json, with its first measure only: the excess of votes, the nll of classes."""
    study = json.loads(json.dumps(study_of(points_of(records)), allow_nan=False))
    measure = study["laws"][0]["measure"]
    return study | {
        key: [each for each in study[key] if each["measure"] == measure]
        for key in ("laws", "parameters", "exponents", "joint")
    }


def table(figure):
    return pd.read_csv(io.StringIO(figure.csv))


def picture(figure):
    return np.asarray(Image.open(io.BytesIO(figure.png)).convert("RGB"))


def colored(figure, color):
    """How many pixels have this colour."""
    return (picture(figure) == [int(color[i : i + 2], 16) for i in (1, 3, 5)]).all(-1).sum()


@pytest.fixture(scope="module")
def study():
    return studied(
        voted_records(questions=("smooth-or-featured", "bar"), backbones=MANY, sizes=SIZES, noise=0.02, replicates=20)
    )


@pytest.fixture(scope="module")
def figures(study):
    return {figure.name: figure for figure in figures_of(study)}


def test_a_page_shows_them_in_this_order(figures):
    assert [*figures] == [
        "curves-excess", "curves-excess-questions", "exponents-excess", "parameters-excess", "parameters-excess-questions", "joint-excess",
    ]  # fmt: skip
    assert all(picture(figure).shape[1] == 1600 for figure in figures.values())


def test_curves_are_those_of_the_study(study, figures):
    rows = pd.concat([table(figures["curves-excess"]), table(figures["curves-excess-questions"])])
    for law in study["laws"]:
        own = rows[(rows["backbone"] == law["backbone"]) & (rows["figure"] == law["figure"])]
        runs, means, drawn, plain = (own[own["kind"] == kind] for kind in ("run", "mean", "law", "plain law"))
        assert runs["loss"].tolist() == [run for point in law["points"] for run in point["runs"]]
        for name, key in (("galaxies", "galaxies"), ("loss", "value"), ("low", "low"), ("high", "high")):
            assert means[name].tolist() == [point[key] for point in law["points"]]
            assert drawn[name].tolist() == law["law"]["curve"][name]
        assert plain["loss"].tolist() == law["plain"]["curve"]["loss"]
        assert len(own) == len(runs) + len(means) + len(drawn) + len(plain)
    levels = rows[rows["kind"] == "baseline"]
    assert set(levels["loss"]) <= {law["baseline"] for law in study["laws"]}


def test_without_noise_the_means_are_the_law():
    study = studied(voted_records(questions=("bar",), backbones=ONE, sizes=SIZES[:2], noise=0))
    for rows in map(table, figures_of(study)):
        means = rows[rows["kind"] == "mean"]
        np.testing.assert_allclose(means["loss"], [loss_of(law_of(0), ONE["resnet10t"], n) for n in SIZES[:2]])


def test_exponents_are_those_of_the_study(study, figures):
    rows = table(figures["exponents-excess"]).set_index(["figure", "backbone"])
    assert len(rows) == len(study["laws"])
    common = {each["figure"]: each for each in study["exponents"] if each["across"] == "backbone"}
    for law in study["laws"]:
        row, b = rows.loc[(law["figure"], law["backbone"])], law["law"]["b"]
        assert (row["b"], row["low"], row["high"]) == (b["value"], b["low"], b["high"])
        assert row["pinned_down"] == (
            not any("exponent" in doubt or "falls" in doubt for doubt in law["law"]["doubts"])
        )
        shared = common[law["figure"]]
        assert (row["common"], row["p"]) == (shared["b"]["value"], shared["p_adjusted"])
    law, alt = study["laws"][0], figures["exponents-excess"].alt
    assert f"{law['figure']}, {law['backbone']}: {interval(law['law']['b'])}" in alt
    assert f"{len(study['laws']) - 2} more in the table" in alt
    assert all(len(figure.alt) < 400 for figure in figures.values()), "a line or two"


def test_trainings_that_have_not_converged_are_points_without_laws(study):
    part = {"laws": [law for law in study["laws"] if law["figure"] == "all"], "parameters": []}
    shown = [
        figures_of(study | part | {"data": study["data"] | {"converged": runs}}) for runs in (study["data"]["runs"], 1)
    ]
    assert [[figure.name for figure in figures] for figures in shown] == [
        ["curves-excess", "exponents-excess", "parameters-excess", "joint-excess"],
        ["curves-excess", "parameters-excess"],
    ]
    (with_laws, points), (drawn, bare) = (table(figures[0]) for figures in shown), (figures[0] for figures in shown)
    assert {"law", "plain law"} < set(with_laws["kind"])
    assert set(points["kind"]) - {"baseline"} == {"run", "mean"}
    assert points["galaxies"].max() == SIZES[-1]
    assert "exponent" in drawn.alt
    assert "exponent" not in bare.alt
    # Hardly any of the lines and bands, and of their entries in the legend, is left.
    assert colored(bare, COLORS[0]) < 0.7 * colored(drawn, COLORS[0])


def test_an_exponent_that_is_not_pinned_down_is_grey():
    study = studied(classed_records(backbones=ONE, sizes=SIZES, seeds=(1,)))
    (law,) = study["laws"]
    colors = {}
    for doubts in ([], ["the exponent, anywhere from 0.1 to 3"], ["whether a loss remains with ever more galaxies"]):
        law["law"]["doubts"] = doubts
        (forest,) = (figure for figure in figures_of(study) if figure.name == "exponents-nll")
        colors[len(colors)] = colored(forest, COLORS[0]) > 50, table(forest)["pinned_down"].item()
        assert ("not constrained" in forest.alt) == (not colors[len(colors) - 1][1])
    assert [*colors.values()] == [(True, True), (False, False), (True, True)]


def test_larger_models_are_those_of_the_study(study, figures):
    rows = pd.concat([table(figures["parameters-excess"]), table(figures["parameters-excess-questions"])])
    last = {(law["figure"], law["backbone"]): law["points"][-1] for law in study["laws"]}
    assert len(rows) == len(last)
    for row in rows.itertuples():
        point = last[row.figure, row.backbone]
        assert (row.loss, row.low, row.high) == (point["value"], point["low"], point["high"])
        assert (row.galaxies, row.parameters) == (SIZES[-1], MANY[row.backbone])
    steps = rows.dropna(subset=["smaller"]).set_index(["figure", "backbone"])
    assert len(steps) == len(study["parameters"])
    for step in study["parameters"]:
        row = steps.loc[(step["figure"], step["large"])]
        assert (row["smaller"], row["change"], row["verdict"]) == (step["small"], step["value"], step["loss"])
    step = next(each for each in study["parameters"] if each["large"] == "resnet10t")
    change = f"{100 * step['relative']['value']:.1f} %"
    assert change.startswith("-")
    assert f"all: resnet10t instead of test_resnet, less: {change}" in figures["parameters-excess"].alt


def test_only_models_with_the_most_galaxies_are_compared():
    records = classed_records(sizes=(300, 1_000))
    records = {name: record for name, record in records.items() if name[:12] != "test_resnet/" or "/300/" in name}
    rows = table(next(figure for figure in figures_of(studied(records)) if figure.name == "parameters-nll"))
    assert set(rows["backbone"]) == {"resnet10t", "mobilenetv3_small_050"}
    assert set(rows["galaxies"]) == {1_000}


def test_the_map_is_that_of_the_study(study, figures):
    rows, (joint,) = table(figures["joint-excess"]), [each for each in study["joint"] if each["figure"] == "all"]
    for name in ("E", "A", "alpha", "B", "beta", "share"):
        row = rows[rows["kind"] == name].iloc[0]
        assert (row["value"], row["low"], row["high"]) == tuple(joint[name].values())
    assert rows.loc[rows["kind"] == "measured", "loss"].tolist() == [point["loss"] for point in joint["points"]]
    frontier = rows[rows["kind"] == "frontier"]
    assert set(frontier["galaxies"]) <= set(joint["frontier"]["galaxies"])
    assert frontier["galaxies"].between(SIZES[0] / BEYOND, SIZES[-1] * BEYOND).all()
    assert BEYOND <= 2
    assert f"alpha {interval(joint['alpha'])}" in figures["joint-excess"].alt


def test_a_frontier_outside_of_the_map_is_not_drawn(study):
    (joint,) = (each for each in study["joint"] if each["figure"] == "all")
    counts = []
    for factor in (1, 1e9):
        frontier = {"parameters": [n * factor for n in joint["frontier"]["parameters"]]}
        moved = joint | {"frontier": joint["frontier"] | frontier}
        (figure,) = figures_of(study | {"laws": study["laws"][:1], "joint": [moved], "parameters": []})[-1:]
        counts.append((table(figure)["kind"] == "frontier").sum())
    assert counts[0] > 1
    assert counts[1] == 0


HARD = {
    "one run": lambda: classed_records(backbones=ONE, sizes=(1_000,), seeds=(1,)),
    "two sizes": lambda: voted_records(questions=("bar",), sizes=(300, 1_000), seeds=(1,)),
    "three sizes": lambda: classed_records(sizes=(300, 1_000, 3_000), seeds=(1,)),
    "noise": lambda: classed_records(sizes=(300, 1_000, 3_000, 10_000), seeds=(1, 2), noise=0.5),
    "starts": lambda: voted_records(
        questions=("bar",), sizes=(300, 1_000, 3_000, 10_000), seeds=(1,), starts=(None, "runs/x")
    ),
    "many backbones": lambda: classed_records(
        backbones={f"{'long-' * i}name": 10 ** (4 + i // 2) for i in range(12)}, sizes=(300, 1_000), seeds=(1,)
    ),
    "many questions": lambda: voted_records(
        questions=tuple(f"clumps-embedded-larger-object-hubble-{i}" for i in range(13)), sizes=(300,), seeds=(1,)
    ),
}


@pytest.mark.parametrize("name", HARD)
def test_hard_cases_are_drawn(name):
    figures = figures_of(studied(HARD[name]()))
    names = [figure.name for figure in figures]
    assert names[0] in ("curves-excess", "curves-nll")
    for figure in figures:
        assert len(table(figure))
        assert 300 < len(picture(figure)) < 2400
        assert any(letter.isdigit() for letter in figure.alt)
    if name == "one run":
        assert names == ["curves-nll"]
    if name == "many questions":
        assert {"curves-excess-questions-1", "curves-excess-questions-2", "parameters-excess-questions-2"} < {*names}
        parts = [table(figure) for figure in figures if figure.name.startswith("curves-excess-questions")]
        assert sum(part["figure"].nunique() for part in parts) == 13
    if name == "starts":
        assert {"joint-excess-random", "joint-excess-x"} < {*names}
        assert set(table(figures[0])["start"].dropna()) == {"random", "x"}


def test_the_same_bytes_whatever_settings_a_machine_has(study, figures):
    part = study | {"laws": study["laws"][:1], "joint": []}
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "red", "savefig.dpi": 30}):
        again = {figure.name: figure for figure in figures_of(part)}
        assert matplotlib.rcParams["font.size"] == 20
    assert {figure.name: figure for figure in figures_of(part)} == again


def test_of_several_datasets_none_is_drawn(study):
    with pytest.raises(BadInput, match="one dataset"):
        figures_of(study | {"data": study["data"] | {"datasets": ["a", "b"]}})


def budget(target=0.38, needed=(60_000.0, 41_000.0, 130_000.0), held=True):
    galaxies = np.geomspace(300, 40_000, 41)
    law = 0.3 + 20 * galaxies**-0.55
    points = [
        {"galaxies": n, "runs": [0.3 + 20 * n**-0.55, 0.31 + 20 * n**-0.55], "value": 0.305 + 20 * n**-0.55,
         "low": None, "high": None}
        for n in (300, 1_000, 3_000)
    ]  # fmt: skip
    held_back = [
        {"galaxies": 10_000, "measured": 0.43, "runs": [0.42, 0.44], "predicted": 0.426, "low": 0.4, "high": 0.45,
         "inside": True}
    ]  # fmt: skip
    fields = {
        "measure": "excess", "figure": "bar", "target": target, "points": points, "held_back": held_back if held else [],
        "curve": {key: (law * by).tolist() for key, by in (("loss", 1), ("low", 0.95), ("high", 1.05))}
        | {"galaxies": galaxies.tolist()},
        "galaxies_for": needed and dict(zip(("value", "low", "high"), needed, strict=True)),
    }  # fmt: skip
    rest = {field.name: None for field in dataclasses.fields(LabelBudget)}
    return LabelBudget(**rest | fields)


@pytest.mark.parametrize(
    ("given", "words", "ends"),
    [
        ({}, "0.380: 60k galaxies [41k, 130k]", [60_000, 41_000, 130_000]),
        ({"needed": (9e6, 2e6, 3e8)}, "9M galaxies [2M, 300M]", [9e6, 2e6, 3e8]),
        ({"needed": (90_000.0, 40_000.0, None)}, "90k galaxies [40k, no upper end]", [90_000, 40_000, np.inf]),
        ({"target": 0.29, "needed": (None, 2e5, None)}, "200k galaxies or more", [np.inf, 2e5, np.inf]),
        ({"target": 0.2, "needed": (None, None, None)}, "not reached", [np.inf] * 3),
        ({"target": None, "needed": None, "held": False}, "against training galaxies", None),
    ],
)
def test_the_label_budget(given, words, ends):
    plan = budget(**given)
    figure = label_budget_figure(plan)
    assert figure.name == "label-budget-excess"
    assert words in figure.alt
    rows = table(figure)
    assert rows.loc[rows["kind"] == "law", "loss"].tolist() == plan.curve["loss"]
    assert rows.loc[rows["kind"] == "mean", "loss"].tolist() == [point["value"] for point in plan.points]
    predicted = rows.loc[rows["kind"] == "held back, predicted", ["loss", "low", "high"]].to_numpy().tolist()
    assert predicted == [[point[key] for key in ("predicted", "low", "high")] for point in plan.held_back]
    assert rows.loc[rows["kind"] == "held back, run", "loss"].tolist() == ([0.42, 0.44] if plan.held_back else [])
    if ends:
        target = rows[rows["kind"] == "target"].iloc[0]
        assert [target[f"galaxies_{key}"] for key in ("value", "low", "high")] == ends
    # An arrow, or the interval, in the colour of what is needed; nothing where no number of galaxies is enough.
    assert (colored(figure, COLORS[2]) > 0) == bool(ends and ends[1] < np.inf)
