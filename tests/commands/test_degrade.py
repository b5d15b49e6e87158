"""`hf-galaxy degrade` predicts the same galaxies again with worse pictures, measures the drift, and corrects it."""

import json
from functools import partial

import galsim
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from astropy.io import fits
from PIL import Image

from hf_galaxy import GalaxyConfig, GalaxyForImageClassification, GalaxyForRegression, GalaxyForVotes
from hf_galaxy.commands.main import module_of
from hf_galaxy.data.band_stretch import BandStretch
from hf_galaxy.data.degrading_steps import Step
from hf_galaxy.data.pictures import Rendering
from hf_galaxy.data.pixels import pixels_of
from hf_galaxy.data.views import Framing
from hf_galaxy.evaluation import drift_measurement
from hf_galaxy.evaluation.drift_correction import Correction
from hf_galaxy.importing.reading import Reading
from hf_galaxy.models import prediction_inputs
from hf_galaxy.models.degraded_inputs import DegradedReader, Degrading, in_step, sampled
from hf_galaxy.models.prediction_inputs import PictureFolder, PictureList, Reader, sources_of
from hf_galaxy.reports.charts import Figure
from tests.fluxes import BANDS, publish_fluxes

SHAPE = "smooth-or-featured-gz2_smooth_fraction"


def saved(model, folder):
    torch.nn.init.normal_(model.head.weight, std=0.3)  # so that galaxies differ
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A model of votes, not trained."""
    torch.manual_seed(0)
    config = GalaxyConfig(backbone="test_convnext", tree="gz2", image_size=32)
    return saved(GalaxyForVotes(config), tmp_path_factory.mktemp("runs") / "votes")


def start(*words):
    module_of("degrade").command([*map(str, words), "--cpu", "--workers", "0"])


def refusal(*words):
    with pytest.raises(SystemExit) as refused:
        start(*words)
    assert isinstance(refused.value.code, str)
    return refused.value.code


@pytest.fixture(scope="module", autouse=True)
def few_replicates():
    """As many of the bootstrap as tell that there are intervals."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drift_measurement, "step_drift", partial(drift_measurement.step_drift, replicates=20))
        yield


@pytest.fixture
def without_figure(monkeypatch):
    """It takes longer to draw than all the rest."""
    drawn = Figure("drift", b"chart", "", "")
    monkeypatch.setattr("hf_galaxy.reports.drift_report.figure_of", lambda *_: drawn)


@pytest.fixture(scope="module")
def outcome(run_folder, mock_dataset, tmp_path_factory):
    """Of the mock survey at two distances; its PSF and pixels are columns."""
    out = tmp_path_factory.mktemp("degraded") / "out"
    options = (
        "--psf-fwhm",
        "psf_fwhm_arcsec",
        "--arcsec-per-pixel",
        "pixel_scale_arcsec",
        "--survey-pixel",
        0.396,
        "--keep",
        "mock_class",
    )
    start(
        "--run", run_folder, "--dataset", mock_dataset, "--distance", 1.5, 3, *options, "--galaxies", 80, "--out", out
    )
    return out


def predictions(out, step):
    return pd.concat(
        [pq.read_table(file).to_pandas() for file in sorted((out / f"predictions/step-{step}").glob("*.parquet"))]
    )


def test_the_folder_has_the_drift_of_every_answer(outcome):
    drift = json.loads((outcome / "drift.json").read_text())
    assert [step["name"] for step in drift["steps"]] == ["distance x 1.5", "distance x 3"]
    before, after = (predictions(outcome, step) for step in (0, 2))
    assert before["id_str"].tolist() == after["id_str"].tolist()
    assert len(before) == drift["steps"][1]["galaxies"] == 80
    assert after["step"].unique().tolist() == ["distance x 3"]
    assert {"mock_class", "psf_fwhm_arcsec", "pixel_scale_arcsec"} <= {*after.columns}
    row = {each["answer"]: each for each in drift["steps"][1]["answers"]}[SHAPE]
    assert row["drift"] == pytest.approx((after[SHAPE] - before[SHAPE]).mean(), abs=1e-6)
    assert row["drift_low"] < row["drift"] < row["drift_high"]
    table = pd.read_csv(outcome / "drift.csv")
    assert table.query("answer == @SHAPE and distance == 3")["drift"].item() == pytest.approx(row["drift"])
    page = (outcome / "README.md").read_text()
    assert "# How answers drift: times farther away" in page
    assert "(drift.png)" in page
    assert "PSF: moffat, FWHM of the pictures `psf_fwhm_arcsec` (arcsec)" in page
    assert (outcome / "drift.png").stat().st_size > 10_000
    corrected = Correction.read(outcome).corrected(after.assign(d=3.0), "d")
    assert corrected[f"{SHAPE}_corrected"].mean() == pytest.approx(before[SHAPE].mean(), abs=0.01)


def test_the_original_pictures_are_predicted_as_by_predict(outcome, run_folder, mock_dataset, tmp_path):
    module_of("predict").command(
        ["--run", str(run_folder), "--dataset", str(mock_dataset), "--out", str(tmp_path / "plain"), "--cpu"]
    )
    plain = pd.concat(map(pd.read_parquet, sorted((tmp_path / "plain").glob("*.parquet")))).set_index("id_str")
    ours = predictions(outcome, 0).set_index("id_str")
    expected = plain.loc[ours.index, [c for c in plain.columns if c.endswith("_fraction")]]
    np.testing.assert_allclose(ours[expected.columns], expected, atol=1e-6)


@pytest.mark.usefixtures("without_figure")
def test_an_interrupted_command_goes_on_with_the_same_galaxies_and_noise(
    run_folder, mock_dataset, tmp_path, monkeypatch
):
    words = ("--run", run_folder, "--dataset", mock_dataset, "--distance", 2, "--psf-fwhm", 2.5, "--galaxies", 60)
    monkeypatch.setattr(prediction_inputs, "ROWS_PER_PART", 16)
    with monkeypatch.context() as patch:
        patch.setattr("hf_galaxy.evaluation.drift_measurement.step_drift", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            start(*words, "--out", tmp_path / "out")
    written = {file: file.stat().st_mtime_ns for file in (tmp_path / ".out.partial").rglob("*.parquet")}
    assert len(written) >= 8
    start(*words, "--out", tmp_path / "out")
    for file, time in written.items():
        assert (tmp_path / "out" / file.relative_to(tmp_path / ".out.partial")).stat().st_mtime_ns == time
    start(*words, "--out", tmp_path / "other", "--batch-size", 7)
    for step in (0, 1):
        ours, theirs = (predictions(tmp_path / name, step) for name in ("out", "other"))
        assert ours["id_str"].tolist() == theirs["id_str"].tolist()
        np.testing.assert_allclose(ours[SHAPE], theirs[SHAPE], atol=1e-5)
    assert "exists already" in refusal(*words, "--out", tmp_path / "out")


@pytest.mark.usefixtures("without_figure")
def test_galaxies_are_moved_to_a_redshift_from_their_own(run_folder, mock_dataset, tmp_path):
    names = pd.concat(map(pd.read_parquet, sorted(mock_dataset.rglob("*.parquet"))))["id_str"].drop_duplicates()
    redshifts = np.linspace(0.04, 0.12, len(names)).round(4)
    pd.DataFrame({"name": names, "z": redshifts}).to_csv(tmp_path / "z.csv", index=False)
    words = (
        "--run", run_folder, "--dataset", mock_dataset, "--join", tmp_path / "z.csv", "--on", "id_str=name", "--redshift", "z",
        "--psf-fwhm", 2.5, "--galaxies", 0,
    )  # fmt: skip
    start(*words, "--to-redshift", 0.1, 0.2, "--out", tmp_path / "out")
    drift = json.loads((tmp_path / "out/drift.json").read_text())
    assert drift["axis"] == "redshift"
    assert drift["reference"] == pytest.approx(np.median(redshifts[redshifts <= 0.1])), "of those that are moved"
    near = predictions(tmp_path / "out", 1)
    back = Correction.read(tmp_path / "out").corrected(near.assign(z=0.1), "z")
    original = predictions(tmp_path / "out", 0).set_index("id_str").loc[near["id_str"], SHAPE]
    assert back[f"{SHAPE}_corrected"].mean() == pytest.approx(original.mean(), abs=0.01)
    near = int((redshifts <= 0.1).sum())
    assert [step["galaxies"] for step in drift["steps"]] == [near, len(names)]
    assert [step["left_out"] for step in drift["steps"]] == [len(names) - near, 0]
    reasons = pd.read_csv(tmp_path / "out/predictions/step-1/unreadable.csv")["reason"]
    assert reasons.str.contains("farther away than 0.1").all()
    assert "surface brightness by (1 + z)^-3" in (tmp_path / "out/README.md").read_text()
    few = refusal(*words, "--to-redshift", 0.02, "--out", tmp_path / "few")
    assert "redshift 0.02: only 0 of 96 galaxies can be degraded so" in few
    assert "the first that cannot is at redshift" in few
    assert not (tmp_path / "few").exists()


def test_fits_files_are_degraded_before_they_are_stretched(tmp_path):
    """A drawn galaxy in a file, against the stretched picture of the galaxy that GalSim draws at twice the distance."""

    def drawn(shrink):
        galaxy = galsim.Exponential(half_light_radius=6 / shrink).withFlux(9000 / shrink**2)
        psf = galsim.Moffat(beta=3.5, fwhm=3.0)
        return galsim.Convolve(galaxy, psf).drawImage(nx=80, ny=80, scale=1, method="sb").array

    (tmp_path / "files").mkdir()
    fits.PrimaryHDU(drawn(1)[::-1]).writeto(tmp_path / "files/a.fits")
    grey = Image.fromarray(np.rint(np.clip(drawn(1) * 4, 0, 255)).astype(np.uint8))
    grey.save(tmp_path / "files/b.png")
    rendering = Rendering(stretch="linear", low=0, high=100, crop=0.8)
    sources = sources_of([tmp_path / "files"], Reading(), rendering=rendering)
    degrading = Degrading(None, 3.0, framing="sky")
    reader = DegradedReader(sources, [], Framing(32), rendering, degrading, Step(2.0))
    (name, content), (other, eight) = sources[0].read(0, 2, 2)
    expected = pixels_of(np.asarray(rendering.stretched(drawn(2)[None])), Rendering(crop=0.8))
    result = reader.picture(sources[0], 0, name, content)
    assert result.shape == expected.shape == (64, 64, 3)
    assert np.abs(result.astype(int) - expected).max() <= 4
    dark = reader.picture(sources[0], 1, other, eight)  # with fixed limits it is darker
    assert 0.1 * expected.max() < dark.max() < 0.9 * expected.max()
    plain = DegradedReader(sources, [], Framing(32), rendering, degrading, Step())
    for row, (name, content) in enumerate(sources[0].read(0, 2, 2)):
        ours, theirs = (
            each.picture(sources[0], row, name, content)
            for each in (plain, Reader(sources, [], Framing(32), rendering))
        )
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.usefixtures("without_figure")
def test_fluxes_in_bands_are_degraded_as_they_are(tmp_path):
    data = publish_fluxes(tmp_path / "fluxes", 70)
    stretch = BandStretch((5.0, 10.0, 15.0, 20.0), (1.0, 2.0, 3.0, 4.0), (100.0,) * 4)
    torch.manual_seed(0)
    config = GalaxyConfig(
        backbone="test_convnext", image_size=32, bands=list(BANDS), band_stretch=stretch.to_dict(), pixel_mean=[0.0] * 4,
        pixel_std=[1.0] * 4, num_labels=2,
    )  # fmt: skip
    run = saved(GalaxyForImageClassification(config), tmp_path / "run")
    start("--run", run, "--dataset", data, "--pixels", 2, "--shallower", 0.5, "--out", tmp_path / "out")
    drift = json.loads((tmp_path / "out/drift.json").read_text())
    assert drift["steps"][0]["name"] == "shallower by 0.5, pixels x 2"
    assert drift["how"]["light"] == "fluxes, exact"
    assert drift["steps"][0]["galaxies"] == 70
    (split, *_) = sources_of([data], Reading(bands=BANDS))
    reader = DegradedReader(
        [split], [], Framing(32, bands=BANDS), Rendering(), Degrading(None, 0.0), Step(pixels=2.0, magnitudes=0.5)
    )
    for row, (name, content) in enumerate(split.read(0, len(split), len(split))):
        planes = reader.picture(split, row, name, content)
        assert planes.shape == (4, 40, 40)
        assert np.isnan(planes[3]).all() == (int(name.split()[1]) % 10 == 0), "a band without values stays so"


def test_a_sample_depends_on_names_alone(tmp_path):
    for i in range(30):
        Image.new("L", (8, 8), i).save(tmp_path / f"{i}.png")
    some = sampled([PictureFolder(str(tmp_path))], 10)
    assert len(some[0].ids) == 10
    assert some[0].ids == sorted(some[0].ids, key=PictureFolder(str(tmp_path)).ids.index)
    assert {*some[0].ids} < {*sampled([PictureFolder(str(tmp_path))], 20)[0].ids}
    for name, file in zip(some[0].ids, some[0].files, strict=True):
        assert file.name == name
    pictures = [np.full((8, 8), i, np.uint8) for i in range(30)]
    chosen = sampled([PictureList(pictures)], 5)[0]
    assert [int(each[1][0, 0]) for each in chosen.read(0, 5, 5)] == [int(name) for name in chosen.ids]
    assert in_step(chosen, Step(2.0)).joined["step"].to_pylist() == ["distance x 2"] * 5
    assert chosen.joined is None


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--distance", 2), "--psf-fwhm: is needed, as what is farther away is blurred more"),
        (("--to-redshift", 0.1, "--psf-fwhm", 1), "--to-redshift: needs the redshifts of the galaxies"),
        (("--distance", 2, "--psf-fwhm", 1, "--redshift", "z"), "--redshift: is for --to-redshift"),
        (("--shallower", 1, "--galaxies", 10), "--galaxies 10: so few show no drift"),
        (("--distance", 2, "--psf-fwhm", -1), "--psf-fwhm -1: must be at least 0"),
        (("--shallower", 1, "--campaign", "gz3"), "--campaign gz3: the model has gz2"),
        ((), "nothing would change"),
        (("--distance", 1, "--psf-fwhm", 1), "--distance: nothing would change"),
        (("--new-psf-fwhm", 2, "--psf-fwhm", 2), "PSF 2: nothing would change"),
        (("--distance", 2, "--psf-fwhm", "inf"), "--psf-fwhm inf: give a number"),
        (("--distance", 2, "--psf-fwhm", "nan"), "--psf-fwhm nan: give a number"),
        (("--distance", 2, "--psf-fwhm", "id_str"), "--psf-fwhm id_str: holds the names of galaxies"),
        (("--distance", 2, "--psf-fwhm", "seeing"), "--psf-fwhm seeing: "),
        (
            ("--distance", 2, "--psf-fwhm", 1, "--survey-pixel", 0.4),
            "--survey-pixel: is in arcsec; give --arcsec-per-pixel, too",
        ),
        (
            ("--to-redshift", 0.3, 0.1, "--redshift", 0.2, "--psf-fwhm", 1),
            "redshift 0.1: a galaxy is at redshift 0.2, farther away than 0.1",
        ),
        (("--new-psf-fwhm", 1, "--psf-fwhm", 2), "PSF 1: a galaxy would need a sharper PSF than its 2 pixels"),
    ],
)
def test_options_that_nothing_can_be_degraded_with_are_refused(run_folder, mock_dataset, tmp_path, words, reason):
    assert reason in refusal("--run", run_folder, "--dataset", mock_dataset, "--out", tmp_path / "out", *words)
    assert not [*tmp_path.iterdir()]


def test_values_are_refused_as_they_may_change_themselves(mock_dataset, tmp_path):
    config = GalaxyConfig(backbone="test_convnext", image_size=32, values=["magnitude"])
    run = saved(GalaxyForRegression(config), tmp_path / "run")
    refused = refusal("--run", run, "--dataset", mock_dataset, "--shallower", 1, "--out", tmp_path / "out")
    assert "--run: predicts magnitude, values that may change with distance themselves" in refused
