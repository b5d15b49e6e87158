"""The table of several pictures holds what the model says, under predict.py's names, alike in CSV and Parquet."""

import numpy as np
import pandas as pd
import pyarrow.csv
import pytest
import torch
from scipy.stats import beta

from hf_galaxy import GalaxyConfig, GalaxyForVotes, load_tree
from hf_galaxy.errors import BadInput
from hf_galaxy.losses import expected_fractions
from hf_galaxy.models.morphology import morphology
from several import Galaxy, table_of, write_tables

TREE = load_tree(["gz2", "gz_candels"])
RNG = np.random.default_rng(8)


def answers():
    """Fractions and concentrations of one galaxy."""
    concentrations = RNG.uniform(0.5, 20, len(TREE.columns)).astype(np.float32)
    totals = np.add.reduceat(concentrations, [where.start for where in TREE.slices])
    return concentrations / totals[TREE.question_of_answer], concentrations


GALAXIES = [
    Galaxy("a.png", *answers(), unlikeness=0.5),
    Galaxy("b <b>.png", *answers(), unlikeness=1.25, note="it is unlike the others"),
    Galaxy("c.svg", note='This file holds no picture, "really", that can be read.'),
    Galaxy("Größe, ü\".png", *answers()),
]  # fmt: skip


def model_columns(**options):
    config = GalaxyConfig(backbone="test_convnext", tree=["gz2", "gz_candels"], image_size=32, **options)
    return GalaxyForVotes(config).prediction_columns


def test_mixtures_have_two_concentrations_and_weights():
    first, second = answers()[1], answers()[1]
    weights = RNG.uniform(0.1, 0.9, len(TREE.questions))
    fractions = expected_fractions(torch.from_numpy(first), TREE).numpy()
    galaxies = [Galaxy("a", fractions, np.stack([first, second]), np.stack([weights, 1 - weights])), GALAXIES[2]]
    frames = [table_of(galaxies, TREE, campaign, mixed=True) for campaign in ("gz2", "gz_candels")]
    ours = [name for frame in frames for name in frame if not name.endswith(("_low", "_high"))]
    assert sorted(set(ours)) == sorted([*model_columns(), "name", "campaign", "description", "unlikeness", "note"])
    row = frames[0].iloc[0]
    for q, question in enumerate(load_tree("gz2").questions):
        assert row[f"{question.name}_weight"] == pytest.approx(weights[q], rel=1e-6)
        for a, column in enumerate(question.columns, TREE.slices[q].start):
            both = row[f"{column}_concentration"], row[f"{column}_concentration_2"]
            assert both == pytest.approx((first[a], second[a]), rel=1e-6)
            ends = [row[f"{column}_low"], row[f"{column}_high"]]
            of_each = [beta(own[a], own[TREE.slices[q]].sum() - own[a]).cdf(ends) for own in (first, second)]
            np.testing.assert_allclose(np.array([weights[q], 1 - weights[q]]) @ of_each, [0.05, 0.95], atol=1e-4)
    assert frames[0].iloc[1].filter(regex="_(concentration_2|weight)$").isna().all()
    rejected = table_of(GALAXIES[2:3], TREE, "gz2", mixed=True)
    assert [*rejected] == [*frames[0]], "also of pictures that are all rejected"
    with pytest.raises(BadInput, match="campaign 'gz3'"):
        table_of(galaxies, TREE, "gz3", mixed=True)


def test_numbers_stand_under_the_names_that_predict_gives_them():
    named = model_columns(head_activation="softplus")
    first, second = (table_of(GALAXIES, TREE, campaign) for campaign in ("gz2", "gz_candels"))
    ours = [name for frame in (first, second) for name in frame if name.endswith(("_fraction", "_concentration"))]
    assert sorted(ours) == sorted(named)
    assert [*first][:5] == ["name", "campaign", "description", "unlikeness", "note"]
    for galaxy, row in zip(GALAXIES, first.to_dict("records"), strict=True):
        for a, column in enumerate(TREE.columns):
            if f"{column}_fraction" in first:
                values = [row[f"{column}_{kind}"] for kind in ("fraction", "concentration", "low", "high")]
                if galaxy.fractions is None:
                    assert np.isnan(values).all()
                    continue
                where = TREE.slices[TREE.question_of_answer[a]]
                alpha = float(galaxy.concentrations[a])
                rest = galaxy.concentrations[where].astype(float).sum() - alpha
                interval = beta(alpha, rest).ppf([0.05, 0.95])
                np.testing.assert_allclose(values, [galaxy.fractions[a], alpha, *interval], rtol=1e-5)


def test_words_are_those_of_the_campaign():
    for campaign in ("gz2", "gz_candels"):
        frame = table_of(GALAXIES, TREE, campaign)
        assert set(frame["campaign"]) == {campaign}
        [said] = morphology(GALAXIES[0].fractions, GALAXIES[0].concentrations, TREE, campaign=campaign)
        assert frame["description"][0] == said["description"]
        assert frame["description"].isna().tolist() == [False, False, True, False]
        assert frame["note"].tolist() == [galaxy.note for galaxy in GALAXIES]
        np.testing.assert_array_equal(frame["unlikeness"], np.array([0.5, 1.25, np.nan, np.nan], np.float32))
    with pytest.raises(BadInput, match="campaign 'gz3'"):
        table_of(GALAXIES, TREE, "gz3")
    with pytest.raises(BadInput, match="credible 2"):
        table_of(GALAXIES, TREE, "gz2", credible=2)


def test_without_concentrations_there_are_no_intervals():
    frame = table_of([Galaxy("a", answers()[0])], TREE, "gz2")
    assert frame.filter(regex="_fraction$").notna().all(axis=None)
    assert frame.filter(regex="_(low|high|concentration)$").isna().all(axis=None)


def test_csv_and_parquet_hold_the_same(tmp_path):
    frame = table_of(GALAXIES, TREE, "gz2")
    files = write_tables(frame, tmp_path)
    assert [file.name for file in files] == ["galaxies.csv", "galaxies.parquet"]
    from_parquet = pd.read_parquet(files[1])
    from_csv = pd.read_csv(files[0], dtype=dict.fromkeys(frame.columns[5:], np.float32) | {"unlikeness": np.float32},
                           keep_default_na=False, na_values={name: [""] for name in frame.columns if name != "note"})  # fmt: skip
    assert [*from_csv] == [*from_parquet] == [*frame]
    for name in frame:
        assert from_parquet[name].isna().tolist() == from_csv[name].isna().tolist() == frame[name].isna().tolist()
        known = frame[name].notna()
        if frame[name].dtype == np.float32:
            np.testing.assert_array_equal(from_parquet[name], frame[name])
            np.testing.assert_array_equal(from_csv[name].astype(np.float32), frame[name])
        else:
            assert from_parquet[name][known].tolist() == from_csv[name][known].tolist() == frame[name][known].tolist()


@pytest.mark.parametrize(
    "name", ["=1+1", "+1", "-1", "@SUM(A1)", " =1", '=HYPERLINK("http://x","y")', "\N{FULLWIDTH EQUALS SIGN}1", "\t=1"]
)
def test_a_name_is_no_formula(name, tmp_path):
    files = write_tables(table_of([Galaxy(name)], TREE, "gz2"), tmp_path)
    for read in (pa_csv(files[0]), pd.read_parquet(files[1])):
        assert read["name"].tolist() == [f"'{name}"]


def pa_csv(file):
    return pyarrow.csv.read_csv(file).to_pandas()


def test_no_picture_gives_an_empty_table(tmp_path):
    files = write_tables(table_of([], TREE, "gz2"), tmp_path)
    assert len(pd.read_parquet(files[1])) == len(pd.read_csv(files[0])) == 0
    assert [*pd.read_parquet(files[1])] == [*pd.read_csv(files[0])]


def test_a_table_where_every_picture_was_refused(tmp_path):
    frame = table_of([Galaxy("a", note="no"), Galaxy("b", note="no")], TREE, "gz2")
    read = pd.read_parquet(write_tables(frame, tmp_path)[1])
    assert read["note"].tolist() == ["no", "no"]
    assert read["description"].isna().all()
