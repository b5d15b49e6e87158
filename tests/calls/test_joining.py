"""The columns of a table come to what is learnt, and to predictions, beside which they stand."""

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

import hf_galaxy
from hf_galaxy.commands import evaluate as evaluate_command
from hf_galaxy.commands import predict as predict_command
from hf_galaxy.models import prediction_inputs
from tests.calls.conftest import OPTIONS
from tests.galaxies import Rows, jpeg_bytes, published


@pytest.fixture(scope="module")
def names(mock_dataset):
    return [name for rows in load_dataset(str(mock_dataset)).values() for name in rows["id_str"]]


@pytest.fixture
def specz(names, tmp_path):
    """Redshifts of all galaxies but every fifth, and a column that the predictions have, too."""
    i = np.arange(len(names))
    table = pd.DataFrame({"objid": names, "z": i / 100, "plate": i + 10**17 + 1, "id_str": "theirs"})
    table.drop(range(0, len(names), 5)).to_csv(tmp_path / "specz.csv", index=False)
    return tmp_path / "specz.csv"


def redshifts(names):
    return {name: np.nan if i % 5 == 0 else i / 100 for i, name in enumerate(names)}


def test_joined_columns_stand_beside_predictions(start, mock_dataset, specz, names, tmp_path, monkeypatch):
    monkeypatch.setattr(prediction_inputs, "ROWS_PER_PART", 16)
    joined = dict(join=specz, on="id_str=objid")
    table = hf_galaxy.predict(start, mock_dataset, cpu=True, **joined)
    plain = hf_galaxy.predict(start, mock_dataset, cpu=True)
    pd.testing.assert_frame_equal(table[plain.columns], plain, check_exact=True)
    assert list(table.columns[-3:]) == ["z", "plate", "id_str_joined"]
    assert table["plate"].dropna().isin(np.arange(len(names)) + 10**17 + 1).all(), "no digit is lost"
    np.testing.assert_allclose(table["z"], [redshifts(names)[name] for name in table["id_str"]], rtol=1e-6)
    settings = predict_command.Predict(
        run=str(start), dataset=(str(mock_dataset),), out=tmp_path / "out", cpu=True, csv=True, **joined
    )
    predict_command.main(settings)
    written = pd.concat([pq.read_table(file).to_pandas() for file in sorted((tmp_path / "out").glob("part-*.parquet"))])
    pd.testing.assert_frame_equal(written.reset_index(drop=True), table, check_dtype=False)
    as_csv = pd.read_csv(tmp_path / "out/predictions.csv")
    np.testing.assert_allclose(as_csv["z"], table["z"], rtol=1e-6)
    assert as_csv["id_str_joined"].count() == table["id_str_joined"].count() == 76


def test_pictures_are_joined_by_the_names_of_their_files_and_bad_ones_shift_nothing(start, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in (0, 2, 3):
        (folder / f"{i}.jpg").write_bytes(jpeg_bytes(i))
    (folder / "1.jpg").write_text("a text")
    pd.DataFrame({"name": [3, 2, 1], "z": [0.3, 0.2, 0.1]}).to_csv(tmp_path / "t.csv", index=False)
    table = hf_galaxy.predict(start, folder, cpu=True, join=tmp_path / "t.csv", on="id_str=name")
    assert table["id_str"].tolist() == ["0.jpg", "2.jpg", "3.jpg"]
    np.testing.assert_allclose(table["z"], [np.nan, 0.2, 0.3], rtol=1e-6)
    features = hf_galaxy.embed(start, folder, cpu=True, join=tmp_path / "t.csv", on="id_str=name")
    assert list(features.columns[-2:]) == ["feature_63", "z"]
    np.testing.assert_array_equal(features["z"], table["z"])
    only = hf_galaxy.predict(start, folder / "1.jpg", cpu=True, join=tmp_path / "t.csv", on="id_str=name")
    assert only.empty
    assert "z" in only
    with pytest.raises(hf_galaxy.BadInput, match=r"^on_sky: .*t\.csv has no column ra"):
        hf_galaxy.predict(start, folder, cpu=True, join=tmp_path / "t.csv", on_sky="1arcsec")


def test_positions_of_a_dataset_are_compared_whatever_split_is_predicted(start, tmp_path):
    published(Rows(20), tmp_path / "rings")
    pd.DataFrame({"ra": [1 / 7, 2 / 7], "dec": [-1 / 9, -2 / 9 + 1e-5], "z": [1, 2]}).to_csv(tmp_path / "t.csv")
    joined = dict(join=tmp_path / "t.csv", on_sky="1arcsec", cpu=True)
    whole = hf_galaxy.predict(start, tmp_path / "rings", **joined)
    assert dict(whole.dropna()[["id_str", "z"]].to_numpy()) == {"galaxy-1": 1, "galaxy-2": 2}
    assert whole["separation_arcsec"].max() == pytest.approx(0.036, rel=1e-3)
    part = hf_galaxy.predict(start, tmp_path / "rings", split="train", **joined)
    pd.testing.assert_frame_equal(part, whole[whole["split"] == "train"].reset_index(drop=True))


def test_a_joined_column_is_learnt_and_evaluated_again(mock_dataset, start, specz, tmp_path, no_figures, caplog):
    caplog.set_level("INFO")
    run = hf_galaxy.finetune(
        mock_dataset, target="z", start=start, out=tmp_path / "run", join=specz, on="id_str=objid", **OPTIONS
    )
    assert "galaxies of split train" in caplog.text
    settings = json.loads((run.folder / "run.json").read_text())["settings"]
    assert (settings["join"], settings["on"]) == (str(specz), "id_str=objid")
    evaluate_command.main(evaluate_command.Evaluate(run=run.folder, split="validation", cpu=True))
    results = json.loads((run.folder / "run.json").read_text())["results"]
    assert results["validation"]["galaxies"] == 10
    assert results["test"]["galaxies"] == 18
