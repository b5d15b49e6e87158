"""Training on fluxes in bands: as on pictures, and with the stretch of the training galaxies."""

import json
import logging

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from astropy.io import fits
from safetensors.torch import load_file

import hf_galaxy
from hf_galaxy.data.band_stretch import BandStretch
from hf_galaxy.data.fluxes import encode_fluxes
from hf_galaxy.data.views import eval_view, to_canvases
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.dataset import open_dataset
from hf_galaxy.models.start import load_model
from hf_galaxy.training.stretch import measured_fields, warn_if_far
from tests.fluxes import BANDS, galaxy, picture, publish_fluxes
from tests.training.runs import assert_bit_equal, finish, run, start, wait_for_checkpoints

CLASSES = dict(task="classes", label="kind", bands=BANDS, backbone="test_resnet")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return str(publish_fluxes(tmp_path_factory.mktemp("fluxes") / "set"))


@pytest.fixture(scope="module")
def trained(drawn, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "run"
    return out, run(out, dataset=(drawn,), **CLASSES)


def test_the_stretch_is_that_of_the_training_galaxies(drawn, trained):
    out, record = trained
    config = load_model(out).config
    names = open_dataset(drawn)["train"].select_columns(["id_str"])[:]["id_str"].to_pylist()
    planes = []
    for c, band in enumerate(BANDS):
        galaxies = [galaxy(number)[band].ravel() for name in names if (number := int(name.split()[1])) % 10 or c < 3]
        planes.append(np.concatenate(galaxies))
    expected = BandStretch.of(planes, BANDS)  # but for the few pixels without a value, all that was drawn
    measured = BandStretch.from_dict(config.band_stretch)
    for attribute in ("sky", "noise", "saturation"):
        np.testing.assert_allclose(getattr(measured, attribute), getattr(expected, attribute), rtol=0.01)
    shown = expected.brightness(torch.from_numpy(np.stack([plane[: len(planes[3])] for plane in planes]))[..., None])
    np.testing.assert_allclose(config.pixel_mean, shown.mean(dim=(1, 2)), rtol=0.1)
    np.testing.assert_allclose(config.pixel_std, shown.std(dim=(1, 2)), rtol=0.1)
    assert record.model["bands"] == list(BANDS)
    card = (out / "README.md").read_text()
    assert "| input | fluxes in g, r, i, z, 32 x 32 pixels" in card
    assert "--dataset ... --bands g r i z`" in card, "finetuning refuses such a start without its bands"


def test_it_learns(trained):
    assert trained[1].results["test"]["accuracy"]["model"] > 0.9, "round and flat galaxies are easily told apart"


def test_a_killed_run_ends_with_the_bits_of_an_undisturbed_one(drawn, trained, tmp_path):
    started = start(tmp_path / "killed", dataset=(drawn,), **CLASSES)
    wait_for_checkpoints(1, tmp_path / "killed", started)
    for process in started:
        process.kill()
        process.join()
    run(tmp_path / "killed", dataset=(drawn,), **CLASSES)
    assert_bit_equal(tmp_path / "killed", trained[0])


def test_two_processes_train_what_one_does(drawn, trained, tmp_path):
    finish(start(tmp_path / "two", processes=2, dataset=(drawn,), **CLASSES), tmp_path / "two")
    one, two = (load_file(out / "model.safetensors") for out in (trained[0], tmp_path / "two"))
    for name, values in one.items():
        if name.startswith(("band_", "pixel_")):
            assert torch.equal(values, two[name]), "both measure the same galaxies"


AUGMENTED = dict(shear=10.0, erase=0.5, blur=2.0, noise=1.0, mixup=0.4, cutmix=1.0, head_dropout=0.0, epochs=2)


@pytest.fixture(scope="module")
def augmented(drawn, tmp_path_factory):
    out = tmp_path_factory.mktemp("augmented") / "run"
    return out, run(out, dataset=(drawn,), **CLASSES, **AUGMENTED)


def test_with_every_augmentation_a_killed_run_ends_with_the_same_bits_and_workers_do_not_matter(
    drawn, augmented, tmp_path
):
    options = dict(dataset=(drawn,), **CLASSES, **AUGMENTED, workers=1)
    started = start(tmp_path / "killed", **options)
    wait_for_checkpoints(1, tmp_path / "killed", started)
    for process in started:
        process.kill()
        process.join()
    again = run(tmp_path / "killed", **options)
    assert "resuming at step" in (tmp_path / "killed.log").read_text()
    assert_bit_equal(tmp_path / "killed", augmented[0])
    assert again.training["losses"] == augmented[1].training["losses"]


def test_with_every_augmentation_losses_do_not_depend_on_how_a_batch_is_divided(drawn, tmp_path):
    options = dict(dataset=(drawn,), **CLASSES, **AUGMENTED) | dict(backbone="test_convnext")  # without batch norms
    whole, divided = run(tmp_path / "whole", **options), run(tmp_path / "both", **options, processes=2, device_batch=4)
    ours, theirs = (torch.tensor(record.training["losses"]) for record in (whole, divided))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=0)


def test_galaxies_are_not_divided_so_that_pairs_are_torn(drawn, tmp_path):
    (process,) = start(tmp_path / "odd", dataset=(drawn,), **CLASSES, mixup=0.2, batch_size=18, device_batch=9)
    process.join()
    assert (
        "--mixup: mixes pairs of galaxies, but of --batch-size 18 each process has 9 at once"
        in (tmp_path / "odd.log").read_text()
    )


def test_a_head_learns_on_features_of_fluxes(drawn, trained, tmp_path):
    record = run(
        tmp_path / "head", dataset=(drawn,), task="values", values=("size",), bands=BANDS, start=str(trained[0]), backbone=None,
        train="head",
    )  # fmt: skip
    ours, theirs = (load_file(out / "model.safetensors") for out in (tmp_path / "head", trained[0]))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours if name.startswith(("backbone.", "band_")))
    assert record.finished


def test_a_survey_with_other_units_is_noticed(drawn, caplog):
    rows = [open_dataset(drawn)["train"]]
    kept = measured_fields(rows, BANDS)["band_stretch"]
    with caplog.at_level(logging.WARNING):
        warn_if_far(kept, rows, BANDS)
        assert not caplog.text
        other = {name: [1000 * each for each in values] for name, values in kept.items()}
        warn_if_far(other, rows, BANDS)
    assert "these galaxies differ" in caplog.text
    assert "the noise in g by a factor of 0.001" in caplog.text
    assert "--measure-stretch" in caplog.text


def test_another_sky_is_said_and_a_band_without_sources_needs_no_stretch_of_its_own(drawn, caplog):
    rows = [open_dataset(drawn)["train"]]
    kept = measured_fields(rows, BANDS)["band_stretch"]
    with caplog.at_level(logging.WARNING):
        warn_if_far(
            kept | {"sky": [sky - 10 * noise for sky, noise in zip(kept["sky"], kept["noise"], strict=True)]},
            rows,
            BANDS,
        )
        assert "the sky in g by 10 times the noise" in caplog.text
        caplog.clear()
        warn_if_far(kept, [_OneBand()], BANDS)
    assert "band r: has no values in the training set; the stretch of --start is kept for it" in caplog.text
    assert "these galaxies differ" not in caplog.text


class _OneBand:
    """Galaxies with fluxes in g alone, that tell how many are read at once."""

    column_names = ("flux",)
    most = 0

    def __len__(self):
        return 120

    def select_columns(self, names):
        return self

    def with_format(self, kind):
        return self

    def __getitem__(self, indices):
        type(self).most = max(self.most, len(indices))
        planes = [
            {band: plane if band == "g" else plane * np.nan for band, plane in galaxy(i).items()} for i in indices
        ]
        return pa.table({"flux": pa.array([{"bytes": encode_fluxes(each)} for each in planes])})


def test_of_a_band_without_values_it_is_said_what_to_do():
    with pytest.raises(BadInput, match="band r: has no values in the training set; leave it out of --bands"):
        measured_fields([_OneBand()], BANDS)


def test_a_stretch_is_measured_with_few_galaxies_in_memory():
    measured_fields([_OneBand()], ["g"])
    assert 0 < _OneBand.most <= 16


def test_the_stretch_of_a_start_is_kept_or_measured_anew(drawn, trained, tmp_path):
    folder = publish_fluxes(tmp_path / "other", 60)
    options = dict(dataset=(str(folder),), task="classes", label="kind", bands=BANDS, start=str(trained[0]), backbone=None, epochs=1)  # fmt: skip
    run(tmp_path / "kept", **options)
    run(tmp_path / "anew", **options, measure_stretch=True)
    first, kept, anew = (
        json.loads((out / "config.json").read_text()) for out in (trained[0], tmp_path / "kept", tmp_path / "anew")
    )
    for name in ("band_stretch", "pixel_mean", "pixel_std"):
        assert kept[name] == first[name] != anew[name]


def test_predictions_are_those_of_the_bands_that_it_was_trained_on(drawn, trained):
    model = load_model(trained[0]).eval()
    table = hf_galaxy.predict(trained[0], drawn, split="test").set_index("id_str")
    for name in table.index[:6]:
        planes = np.stack(list(galaxy(int(name.split()[1])).values()))
        if int(name.split()[1]) % 7 and int(name.split()[1]) % 10:
            fluxes = eval_view(to_canvases([planes], model.config.framing), model.config.framing)
            with torch.no_grad():
                expected = model.predictions(fluxes)[0]
            np.testing.assert_allclose(table.loc[name, ["round_probability", "flat_probability"]].to_list(), expected, rtol=1e-4)  # fmt: skip
    again = hf_galaxy.predict(model, drawn, split="test", bands=["z", "i", "r", "g"]).set_index("id_str")
    pd.testing.assert_frame_equal(table, again)
    with pytest.raises(BadInput, match="bands g r: the model needs i, z, too"):
        hf_galaxy.predict(trained[0], drawn, bands=["g", "r"])
    features = hf_galaxy.embed(trained[0], drawn, split="test")
    assert features.index.tolist() == table.index.tolist()


def write_fits(planes, file):
    """A file with an extension for each band."""
    hdus = [fits.ImageHDU(plane, name=band) for band, plane in planes.items()]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(file)


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    """A table of galaxies, and their FITS files."""
    folder = tmp_path_factory.mktemp("survey")
    (folder / "cutouts").mkdir()
    for i in range(60):
        write_fits(galaxy(i), folder / f"cutouts/J{i:03}.fits")
    kinds = "\n".join(f"J{i:03},{['round', 'flat'][i % 2]}" for i in range(60))
    (folder / "survey.csv").write_text(f"id,kind\n{kinds}\n")
    return folder


def test_every_door_sees_the_same_fluxes(survey, tmp_path):
    table = str(survey / "survey.csv")
    images = (survey / "cutouts",)
    run(tmp_path / "run", dataset=(table,), images=images, **CLASSES)
    of_table = hf_galaxy.predict(tmp_path / "run", table, images=images[0]).set_index("id_str").sort_index()
    columns = ["flat_probability", "round_probability"]
    expected = of_table[columns].to_numpy()
    of_folder = hf_galaxy.predict(tmp_path / "run", survey / "cutouts", workers=0).sort_values("id_str")
    assert of_folder["id_str"].tolist() == [f"J{i:03}.fits" for i in range(60)]
    np.testing.assert_array_equal(of_folder[columns], expected)
    files = [survey / f"cutouts/J{i:03}.fits" for i in range(60)]
    in_memory = [np.stack(list(galaxy(i).values())) for i in range(60)]
    for pictures in (files, [file.read_bytes() for file in files], in_memory):
        np.testing.assert_array_equal(hf_galaxy.predict(tmp_path / "run", pictures, workers=0)[columns], expected)
    # In another order, the names in the files tell.
    for i in range(60):
        planes = dict(reversed(galaxy(i).items()))
        (tmp_path / "turned").mkdir(exist_ok=True)
        write_fits(planes, tmp_path / f"turned/J{i:03}.fits")
    turned = hf_galaxy.predict(tmp_path / "run", tmp_path / "turned", workers=0).sort_values("id_str")
    np.testing.assert_array_equal(turned[columns], expected)


def test_files_without_the_bands_of_a_model_are_listed(survey, trained, tmp_path):
    (tmp_path / "pictures").mkdir()
    write_fits(galaxy(1), tmp_path / "pictures/good.fits")
    write_fits({band: galaxy(1)[band] for band in "gri"}, tmp_path / "pictures/three.fits")
    (tmp_path / "pictures/colour.png").write_bytes(picture(galaxy(1)))
    table = hf_galaxy.predict(trained[0], tmp_path / "pictures")
    assert table["id_str"].tolist() == ["good.fits"]
    reasons = {each["id_str"]: each["reason"] for each in table.attrs["unreadable"]}
    assert "has no band z; it has G, R, I" in reasons["three.fits"]
    assert reasons.keys() == {"three.fits", "colour.png"}


def test_planes_without_names_are_those_that_the_option_names(trained, tmp_path):
    """In another order than those of the model, and with another band among them, at every door."""
    columns = ["flat_probability", "round_probability"]
    own = [np.stack(list(galaxy(i).values())) for i in range(1, 5)]
    expected = hf_galaxy.predict(trained[0], own)[columns].to_numpy()
    others = [np.stack([cube[3], cube[0] * 0 + 7, *cube[2::-1]]) for cube in own]
    (tmp_path / "cubes").mkdir()
    for i, cube in enumerate(others):
        np.save(tmp_path / f"cubes/{i}.npy", cube)
    bands = ["z", "y", "i", "r", "g"]
    turned = hf_galaxy.predict(trained[0], [cube[::-1] for cube in own], bands=BANDS[::-1])
    np.testing.assert_array_equal(turned[columns].to_numpy(), expected)
    for pictures in (others, tmp_path / "cubes", sorted((tmp_path / "cubes").iterdir())):
        table = hf_galaxy.predict(trained[0], pictures, bands=bands)
        np.testing.assert_array_equal(table[columns].to_numpy(), expected)
