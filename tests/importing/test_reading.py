"""Files and folders that are not there are refused at once, with what may be meant; what may be on the Hub is not looked for."""

from pathlib import Path

import pytest

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
