"""Files and folders that are not there are refused at once, with what may be meant; what may be on the Hub is not looked for. Options say how
files become pictures."""

from dataclasses import replace
from pathlib import Path

import pytest

from hf_galaxy.data.pictures import Rendering
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.reading import Reading


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    (tmp_path / "survey.csv").write_text("")
    (tmp_path / "cutouts").mkdir()
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("surve.csv", r"^--dataset surve\.csv: no such file; did you mean survey\.csv\?$"),
        ("SURVEYS.FITS", r"^--dataset SURVEYS\.FITS: no such file$"),
        ("./cutout", r"^--dataset \./cutout: no such folder; did you mean cutouts\?$"),
        ("data/deep/mock", r"^--dataset data/deep/mock: no such folder$"),
    ],
)
def test_a_dataset_that_is_not_there(name, message):
    with pytest.raises(BadInput, match=message):
        Reading().check_there(["survey.csv", name])


def test_what_is_there_or_may_be_on_the_hub_passes():
    reading = Reading(images=(Path("cutouts"),), join=Path("survey.csv"))
    reading.check_there(
        ["survey.csv", "cutouts", "mwalmsley/gz_evo", "imagenet", "https://x.org/a/b.jpg", "org/data.v1"]
    )


def test_pictures_and_tables_beside_it_are_looked_for():
    with pytest.raises(BadInput, match=r"--images cutout: no such folder or zip file; did you mean cutouts\?"):
        Reading(images=(Path("cutout"),)).check_there([])
    with pytest.raises(BadInput, match=r"--join z\.csv: no such file$"):
        Reading(join=Path("z.csv")).check_there([])


def test_options_that_are_given_replace_those_of_a_rendering_one_by_one():
    model = Rendering(crop=0.8, size=64, stretch="lupton", low=1.0, lupton_q=5.0)
    assert Reading().rendering() == Reading(bands=("g", "r")).rendering() == Rendering()
    assert Reading().rendering(model) == model
    assert Reading(low=0.0, rgb=(0, 1, 2)).rendering(model) == replace(model, low=0.0, rgb=(0, 1, 2))
    with pytest.raises(BadInput, match=r"^pictures: low 99\.8 and high 99\.75 are not increasing"):
        Reading(low=99.8).rendering(model)


def test_fluxes_are_not_stretched():
    with pytest.raises(
        BadInput, match=r"^--lupton-q: is for 8-bit pictures; fluxes in bands \(g r\) are read as they are"
    ):
        Reading(bands=("g", "r"), lupton_q=5.0).rendering()
    with pytest.raises(BadInput, match=r"^--stretch: is for 8-bit pictures"):
        Reading(stretch="sqrt").for_model(["g", "r"])
