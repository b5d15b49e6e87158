"""What `predict` writes for a catalogue beside the predictions: the command, the call and the files hold the same."""

import json
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from astropy.io import fits
from astropy.table import Table
from PIL import Image
from scipy import stats

import hf_galaxy
from hf_galaxy import GalaxyConfig, GalaxyForImageClassification, GalaxyForVotes
from hf_galaxy.commands.predict import command
from hf_galaxy.models import prediction_inputs, predictions
from hf_galaxy.safe_text import cells_of
from tests.conftest import ROOT
from tests.galaxies import Rows, jpeg_bytes, published


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A model of votes, not trained."""
    return saved_votes(tmp_path_factory.mktemp("runs") / "votes")


def saved_votes(folder, seed=0):
    torch.manual_seed(seed)
    model = GalaxyForVotes(GalaxyConfig(backbone="test_convnext", tree="gz2", image_size=32))
    torch.nn.init.normal_(model.head.weight, std=0.3)  # so that galaxies differ
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """24 galaxies with a class, votes and positions."""
    folder = tmp_path_factory.mktemp("published") / "rings"
    published(Rows(24), folder)
    return folder


def predict(run, dataset, out, *options):
    """The table that the command writes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prediction_inputs, "ROWS_PER_PART", 16)
        words = ("--run", run, "--dataset", dataset, "--out", out, "--workers", 0, "--cpu", *options)
        command([*map(str, words)], "predict")
    return table_of(out)


def refused(run, dataset, out, *options):
    """The line with which it ends; nothing is written."""
    with pytest.raises(SystemExit) as stopped:
        predict(run, dataset, out, *options)
    assert not out.exists()
    assert "\n" not in stopped.value.code
    return stopped.value.code


def table_of(out):
    return pa.concat_tables(
        pq.read_table(file).replace_schema_metadata() for file in sorted(out.glob("part-*.parquet"))
    )


def about(out):
    return json.loads(pq.read_schema(next(iter(sorted(out.glob("part-*"))))).metadata[predictions.KEY])


def assert_low_is_the_quantile(rows, question, column):
    """Of 5 %, in the mixture of the two distributions in the table, to the last digits of the lower end of the interval."""
    around = [below(rows, question, column, shift) for shift in (-2e-6, 2e-6)]
    assert (around[0] <= 0.05 + 1e-5).all()
    assert (around[1] >= 0.05 - 1e-5).all()


def below(rows, question, column, shift):
    """The probability of fractions below the lower end of the interval."""
    first, total = rows[f"{question.name}_weight"].to_numpy(float), 0
    for weight, kind in ((first, "concentration"), (1 - first, "concentration_2")):
        own = rows[[f"{name}_{kind}" for name in question.columns]].to_numpy(float)
        a = own[:, question.columns.index(column)]
        total += weight * stats.beta.cdf(rows[f"{column}_low"].to_numpy(float) + shift, a, own.sum(axis=1) - a)
    return total


def test_intervals_and_answers_are_of_the_votes_beside_them(run, dataset, tmp_path):
    plain = predict(run, dataset, tmp_path / "plain")
    table = predict(run, dataset, tmp_path / "out", "--credible", 0.9, "--answers", "--embeddings")
    assert table.column_names[: len(plain.column_names)] == plain.column_names
    assert table.select(plain.column_names).equals(plain)
    assert table.column_names[-1] == "embedding"
    assert (about(tmp_path / "out")["credible"], "credible" in about(tmp_path / "plain")) == (0.9, False)
    rows = table.to_pandas()
    tree = hf_galaxy.load_tree("gz2")
    for question in tree.questions:
        for column in question.columns:
            assert_low_is_the_quantile(rows, question, column)
        fractions = rows[[f"{column}_fraction" for column in question.columns]].to_numpy()
        assert rows[f"{question.name}_answer"].tolist() == [question.answers[a] for a in fractions.argmax(axis=1)]
    first, second = tree.questions[0].name, tree.questions[1]
    assert set(rows[f"{first}_asked"]) == {1.0}
    parents = sum(rows[f"{parent}_fraction"] for parent in second.parents)
    np.testing.assert_allclose(rows[f"{second.name}_asked"], parents, rtol=1e-6)


def test_the_call_has_the_same_columns(run, dataset, tmp_path):
    written = predict(run, dataset, tmp_path / "out", "--credible", 0.5, "--answers").to_pandas()
    called = hf_galaxy.predict(run, dataset, credible=0.5, answers=True, cpu=True)
    pd.testing.assert_frame_equal(called, written, check_exact=True)
    with pytest.raises(hf_galaxy.BadInput, match=r"^credible 1: must be a probability between 0 and 1"):
        hf_galaxy.predict(run, dataset, credible=1, cpu=True)
    with pytest.raises(hf_galaxy.BadInput, match=r"^credible: '0\.9' has the wrong type; give a number or None"):
        hf_galaxy.predict(run, dataset, credible="0.9", cpu=True)


def test_what_a_model_has_not_is_refused_before_anything_is_written(run, dataset, tmp_path):
    assert "--credible 90: must be a probability" in refused(run, dataset, tmp_path / "out", "--credible", 90)


def test_columns_of_the_galaxies_are_kept_in_their_types(run, dataset, tmp_path):
    table = predict(run, dataset, tmp_path / "out", "--keep", "dec", "kind", "ring_no", "ra", "--csv")
    assert table.column_names[-4:] == ["dec", "kind", "ring_no", "ra"]
    assert table.schema.types[-4:] == [pa.float64(), pa.string(), pa.int32(), pa.float64()]
    for row in table.select(["id_str", "ra", "dec", "kind", "ring_no"]).to_pylist():
        i = int(row["id_str"].removeprefix("galaxy-"))
        assert list(row.values())[1:] == [i / 7, -i / 9, "ab"[i % 2], 2 * i]
    assert pd.read_csv(tmp_path / "out/predictions.csv")["ra"].tolist() == table["ra"].to_pylist()
    features = hf_galaxy.embed(run, dataset, keep="ra", cpu=True)
    assert list(features.columns[-2:]) == ["feature_63", "ra"]
    called = hf_galaxy.predict(run, dataset, keep=["dec", "kind", "ring_no", "ra"], split="test", cpu=True)
    test = table.to_pandas().query("split == 'test'").reset_index(drop=True)
    pd.testing.assert_frame_equal(called, test, check_exact=True)


def test_kept_columns_stand_beside_joined_ones(run, dataset, tmp_path):
    pd.DataFrame({"id_str": ["galaxy-3"], "ra": [1.5], "z": [0.1]}).to_csv(tmp_path / "t.csv", index=False)
    options = ("--keep", "ra", "--join", tmp_path / "t.csv", "--on", "id_str")
    table = predict(run, dataset, tmp_path / "out", *options).to_pandas().set_index("id_str")
    assert list(table.columns[-3:]) == ["ra", "ra_joined", "z"]
    assert table.loc["galaxy-3", ["ra", "ra_joined"]].tolist() == [3 / 7, 1.5]
    assert table["z"].count() == 1


def folder_of(folder, table, name="metadata.csv"):
    """Three pictures, and a table of them."""
    (folder / "deep").mkdir(parents=True)
    for i, file in enumerate(("a.jpg", "deep/b.jpg", "c.jpg")):
        (folder / file).write_bytes(jpeg_bytes(i))
    (folder / name).write_text(table)
    return folder


def test_the_table_beside_pictures_has_columns_to_keep(run, tmp_path, caplog):
    folder = folder_of(tmp_path / "pictures", "file_name,z,name\nc.jpg,0.3,x\ndeep/b.jpg,,007\ngone.jpg,9,y\n")
    table = predict(run, folder, tmp_path / "out", "--keep", "z", "name")
    assert table.select(["id_str", "z", "name"]).to_pylist() == [
        {"id_str": "a.jpg", "z": None, "name": None},
        {"id_str": "c.jpg", "z": 0.3, "name": "x"},
        {"id_str": "deep/b.jpg", "z": None, "name": "007"},
    ]
    assert "left out" not in caplog.text
    twice = folder_of(tmp_path / "twice", "file_name,z\na.jpg,1\na.jpg,2\n")
    assert "metadata.csv names a.jpg twice" in refused(run, twice, tmp_path / "no", "--keep", "z")


def test_a_table_of_galaxies_has_columns_to_keep(run, tmp_path):
    folder = folder_of(tmp_path / "pictures", "id,file,ra,dec,n\ng1,a.jpg,10.25,-1,5\ng2,c.jpg,11.5,-2,\n", "t.csv")
    table = predict(run, folder / "t.csv", tmp_path / "out", "--keep", "ra", "n")
    assert sorted(table.select(["id_str", "ra", "n"]).to_pandas().itertuples(index=False, name=None))[0] == (
        "g1",
        10.25,
        5,
    )
    assert table["n"].null_count == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--keep", "ra", "Dec"), "--keep Dec: {dataset} has no such column; did you mean dec?"),
        (("--keep", "redshift"), "--keep redshift: {dataset} has no such column, only id_str, image, ring_yes"),
        (
            ("--keep", "image"),
            "--keep image: holds pictures in {dataset}; columns of numbers, texts, classes and dates",
        ),
        (("--keep", "id_str"), "--keep id_str: it stands beside every prediction already"),
    ],
)
def test_what_cannot_be_kept_is_refused(options, message, run, dataset, tmp_path):
    assert message.format(dataset=dataset) in refused(run, dataset, tmp_path / "out", *options)


LITE0 = ROOT / "spaces_app/models/lite0"


def test_scores_are_of_the_weights_that_predict(run, dataset, tmp_path):
    mine = tmp_path / "mine"
    shutil.copytree(LITE0, mine)
    model = GalaxyForVotes.from_pretrained(run)
    model.save_pretrained(mine)
    line = refused(mine, dataset, tmp_path / "out")
    assert "belongs to other weights than those here; write it again with hf-galaxy familiarity" in line
    table = predict(mine, dataset, tmp_path / "out", "--no-ood")
    assert table.column_names == predict(run, dataset, tmp_path / "plain").column_names


def test_a_name_that_is_taken_and_types_that_differ_are_refused(run, dataset, tmp_path):
    column = "bar-gz2_yes_fraction"
    first = folder_of(tmp_path / "first", f"file_name,{column},n\na.jpg,1,1\n")
    line = refused(run, first, tmp_path / "out", "--keep", "n", column)
    assert f"--keep {column}: the predictions have a column {column}, too; " in line
    assert f"bring it as {column}_joined with --join TABLE --on id_str" in line
    other = folder_of(tmp_path / "whole", "file_name,n\na.jpg,1\nc.jpg,2\ndeep/b.jpg,3\n")
    text = folder_of(tmp_path / "text", "file_name,n\na.jpg,x\n")
    with pytest.raises(
        hf_galaxy.BadInput, match=r"^keep n: is int64 in .*whole and string in .*text; predict them separately"
    ):
        hf_galaxy.predict(run, [other, text], keep=["n"], cpu=True)
    plain = folder_of(tmp_path / "plain", "", "notes.txt")
    assert "is a folder of pictures without a table metadata.csv; predict" in refused(
        run, plain, tmp_path / "out", "--keep", "n"
    )
    with pytest.raises(hf_galaxy.BadInput, match=r"^keep n: single pictures have no columns; bring them with join"):
        hf_galaxy.predict(run, [jpeg_bytes()], keep=["n"], cpu=True)


def rows_of(out):
    """The names, types, units and meanings in _columns.md."""
    lines = (out / "_columns.md").read_text().splitlines()
    return [cells_of(line) for line in lines[lines.index("| column | type | unit | meaning |") + 2 :]]


def test_the_dictionary_says_what_every_column_holds(run, dataset, tmp_path):
    options = ("--credible", 0.8, "--answers", "--embeddings", "--keep", "ra", "kind", "--split", "test")
    out = tmp_path / "out"
    table = predict(run, dataset, out, *options)
    rows = rows_of(out)
    assert [name.strip("`") for name, *_ in rows] == table.column_names
    assert all(meaning for *_, meaning in rows)
    kinds = {name.strip("`"): (kind, unit) for name, kind, unit, _ in rows}
    assert kinds["ra"] == ("float64", "deg")
    assert kinds["kind"] == kinds["bar-gz2_answer"] == ("text", "")
    assert kinds["embedding"] == ("64 numbers of float32", "")
    assert kinds["bar-gz2_asked"] == ("float32", "")
    text = (out / "_columns.md").read_text()
    assert about(out)["weights_sha256"] in text
    assert "| Probability of the credible intervals | 0.8 |" in text
    assert f"| Galaxies of {dataset}, split test | {len(table)} |" in text.replace("\\", "")
    predict(run, dataset, tmp_path / "again", *options)
    assert (tmp_path / "again/_columns.md").read_text() == text


def test_fits_and_votable_hold_the_same_as_parquet(run, dataset, tmp_path):
    options = ("--credible", 0.9, "--answers", "--embeddings", "--keep", "ra", "kind", "ring_no")
    out = tmp_path / "out"
    table = predict(run, dataset, out, *options, "--format", "fits", "votable", "csv").drop_columns("embedding")
    assert {file.suffix for file in out.iterdir()} == {".parquet", ".md", ".fits", ".vot", ".csv"}
    for file in ("predictions.fits", "predictions.vot", "predictions.csv"):
        read = Table.read(out / file)
        in_fits = [name.replace("-", "_") for name in table.column_names]
        assert read.colnames == (in_fits if file.endswith("fits") else table.column_names), file
        assert read["ra"].unit == (None if file.endswith("csv") else "deg"), file
        for name, named in zip(table.column_names, read.colnames, strict=True):
            expected = table[name].to_pylist()
            if pa.types.is_floating(table[name].type):
                np.testing.assert_allclose(read[named], expected, rtol=1e-6 if file.endswith("csv") else 0, atol=1e-40)
            else:
                assert list(read[named]) == expected, (file, name)
    with fits.open(out / "predictions.fits") as hdus:
        assert about(out)["weights_sha256"] in "".join(hdus[1].header["COMMENT"])
    called = hf_galaxy.predict(run, dataset, out=tmp_path / "called", keep=["ra", "kind", "ring_no"], credible=0.9, answers=True,
                               embeddings=True, csv=True, format=["fits", "votable"], cpu=True, workers=0)  # fmt: skip
    for file in ("predictions.fits", "predictions.vot", "predictions.csv", "_columns.md"):
        assert (called / file).read_bytes() == (out / file).read_bytes(), file


def test_a_format_that_cannot_be_written_is_refused_before_anything_is_predicted(run, dataset, tmp_path):
    pd.DataFrame({"id_str": ["galaxy-1"], "RA": [1]}).to_csv(tmp_path / "t.csv", index=False)
    options = ("--keep", "ra", "--join", tmp_path / "t.csv", "--on", "id_str", "--format", "fits")
    assert "does not tell the columns ra and RA apart" in refused(run, dataset, tmp_path / "out", *options)
    with pytest.raises(hf_galaxy.BadInput, match=r"^format: is for a folder `out`"):
        hf_galaxy.predict(run, dataset, format="fits", cpu=True)
    with pytest.raises(
        hf_galaxy.BadInput, match=r"^format: 'hdf5' has the wrong type; give a list, each one of 'parquet'"
    ):
        hf_galaxy.predict(run, dataset, out=tmp_path / "out", format="hdf5", cpu=True)


def test_a_kept_column_may_have_the_name_of_one_that_is_not_asked_for(run, tmp_path):
    folder = folder_of(tmp_path / "pictures", "file_name,embedding,ood_score\na.jpg,7,x\n")
    out = tmp_path / "out"
    predict(run, folder, out, "--keep", "embedding", "ood_score", "--csv", "--format", "fits")
    for file in ("predictions.csv", "predictions.fits"):
        first = Table.read(out / file)[0]
        assert (first["embedding"], first["ood_score"]) == (7, "x"), file


def test_the_calibration_is_in_the_intervals_and_in_what_is_said_of_the_model(run, dataset, tmp_path):
    model = GalaxyForVotes.from_pretrained(run)
    model.config.calibration = {"scales": [1.1] * len(model.tree.questions), "shifts": [0.1] * len(model.columns)}
    model.save_pretrained(tmp_path / "calibrated")
    table = predict(tmp_path / "calibrated", dataset, tmp_path / "out", "--credible", 0.9).to_pandas()
    predict(run, dataset, tmp_path / "plain")
    assert about(tmp_path / "out")["weights_sha256"] == about(tmp_path / "plain")["weights_sha256"]
    assert about(tmp_path / "out")["calibration"] == model.config.calibration
    assert "| Calibrated | yes |" in (tmp_path / "out/_columns.md").read_text()
    assert "| Calibrated | no |" in (tmp_path / "plain/_columns.md").read_text()
    [question] = [q for q in model.tree.questions if q.name == "bar-gz2"]
    assert_low_is_the_quantile(table, question, question.columns[0])


def test_names_that_spreadsheets_and_markdown_would_act_on_do_nothing(tmp_path):
    names = ("=1+1", "a|b `c`", "<b>")
    labels = dict(enumerate(names))
    config = GalaxyConfig(
        backbone="test_convnext", image_size=32, id2label=labels, label2id={name: i for i, name in labels.items()}
    )
    GalaxyForImageClassification(config).save_pretrained(tmp_path / "run")
    folder = folder_of(tmp_path / "pictures", "file_name,=x\na.jpg,=2\n")
    out = tmp_path / "out"
    table = predict(tmp_path / "run", folder, out, "--answers", "--keep", "=x", "--format", "csv", "fits", "votable")
    assert table.column_names[3:] == ["=1+1_probability", "a|b `c`_probability", "<b>_probability", "class", "=x"]
    head, first = (out / "predictions.csv").read_text().splitlines()[:2]
    assert head.startswith('"dataset","split","id_str","\'=1+1_probability"')
    assert first.endswith('"\'=2"')
    assert [name.replace("`", "") for name, *_ in rows_of(out)] == [
        name.replace("`", "") for name in table.column_names
    ]
    in_fits = ["_1_1_probability", "a_b__c__probability", "_b__probability", "class", "_x"]
    assert Table.read(out / "predictions.fits").colnames[3:] == in_fits
    assert len(Table.read(out / "predictions.vot")) == 3


def test_runs_are_averaged_in_any_order(run, dataset, tmp_path):
    other = saved_votes(tmp_path / "other", seed=1)
    options = ("--credible", 0.9, "--answers", "--keep", "ra")
    table = predict(run, dataset, tmp_path / "both", *options, "--run", run, other)
    single = [predict(each, dataset, tmp_path / f"of_{each.name}", *options) for each in (run, other)]
    assert table.column_names == single[0].column_names
    for name in table.column_names:
        if name.endswith("_fraction"):
            mean = np.mean([each[name].to_numpy() for each in single], axis=0)
            np.testing.assert_allclose(table[name], mean, rtol=1e-5, atol=1e-7)
    for name in ("model", "weights_sha256", "backbone"):
        assert about(tmp_path / "both")[name] == [about(tmp_path / f"of_{each.name}")[name] for each in (run, other)]
    swapped = hf_galaxy.predict([other, run], dataset, credible=0.9, answers=True, keep=["ra"], cpu=True)
    for name in swapped.columns[3:]:
        if swapped[name].dtype == np.float32:
            np.testing.assert_allclose(swapped[name], table[name], rtol=1e-4, atol=1e-6)
    assert f"{run}, {other}" in (tmp_path / "both/_columns.md").read_text().replace("\\", "")


def test_views_make_predictions_that_a_turn_of_the_picture_does_not_change(run, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    for name, turned in (("a", pixels), ("b", np.rot90(pixels)), ("c", np.rot90(pixels, 2)), ("d", pixels[:, ::-1])):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        Image.fromarray(np.ascontiguousarray(turned)).save(tmp_path / f"pictures/{name}.png")
    options = ("--embeddings", "--no-ood")
    tables = {
        views: predict(run, tmp_path / "pictures", tmp_path / f"{views}", *options, "--views", views).to_pandas()
        for views in (1, 4, 8)
    }
    numbers = {
        views: table.drop(columns=["dataset", "split", "embedding"]).set_index("id_str")
        for views, table in tables.items()
    }
    assert np.abs(numbers[1].loc["a.png"] - numbers[1].loc["b.png"]).max() > 0.01
    for views, same in ((4, "bc"), (8, "bcd")):
        for other in same:
            np.testing.assert_allclose(numbers[views].loc[f"{other}.png"], numbers[views].loc["a.png"], rtol=1e-4)
            features = tables[views].set_index("id_str")["embedding"]
            np.testing.assert_allclose(features[f"{other}.png"], features["a.png"], rtol=1e-3, atol=1e-5)
    assert about(tmp_path / "8")["views"] == 8


def test_embeddings_of_half_the_size(run, dataset, tmp_path):
    whole = predict(run, dataset, tmp_path / "whole", "--embeddings")
    half = predict(run, dataset, tmp_path / "half", "--embeddings", "--embeddings-dtype", "float16")
    assert half.schema.field("embedding").type == pa.list_(pa.float16(), 64)
    expected = np.stack(whole["embedding"].to_numpy()).astype(np.float16)
    np.testing.assert_array_equal(np.stack(half["embedding"].to_numpy()), expected)
    features = hf_galaxy.embed(run, dataset, embeddings_dtype="float16", cpu=True)
    assert set(features.dtypes) == {np.dtype(np.float16)}
    np.testing.assert_array_equal(features, expected)
    model = GalaxyForVotes.from_pretrained(run)
    with torch.no_grad():
        list(model.backbone.parameters())[-1].fill_(1e6)
    with pytest.raises(hf_galaxy.BadInput, match=r"^embeddings_dtype float16: a feature of galaxy-\d+ is 1e\+06, more"):
        hf_galaxy.embed(model, dataset, embeddings_dtype="float16", cpu=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--run", "{run}", "{run}"), "--run {run}: has the weights of {run}; an ensemble needs different ones"),
        (("--run", "{run}", "{other}", "--embeddings"), "--embeddings: are of one run, not of 2; write those of each with hf-galaxy embed"),
        (("--embeddings-dtype", "float16"), "--embeddings-dtype float16: is for --embeddings; give that, too"),
        (("--run", "hf_hub:timm/x"), "is an encoder without a head, which predicts nothing; its features are written by hf-galaxy embed"),
        (("--run", "convnext_atto.d2_in1k"), "--run convnext_atto.d2_in1k: is an encoder without a head"),
        (("--run",), "--run: names no run"),
    ],
)  # fmt: skip
def test_runs_that_cannot_predict_so_are_refused(options, message, run, dataset, tmp_path):
    places = dict(run=run, other=saved_votes(tmp_path / "other", seed=1))
    line = refused(run, dataset, tmp_path / "out", *(str(each).format(**places) for each in options))
    assert message.format(**places) in line
