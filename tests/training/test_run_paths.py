"""The datasets of a run are where they were beside its folder, from wherever it is used."""

import shutil

import pytest

from hf_galaxy.importing.reading import VotesReading
from hf_galaxy.training.run_paths import is_same_dataset, located, located_reading, recorded_paths


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with a dataset, pictures and a run, in which somebody is."""
    folder = tmp_path / "project"
    for name in ("data/rings", "data/cutouts", "runs/one", "elsewhere"):
        (folder / name).mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


def test_relative_paths_are_recorded_and_found_from_another_folder_also_after_a_move(project, monkeypatch):
    run, names = project / "runs/one", ["data/rings", "lab/galaxies", str(project / "data/rings")]
    reading = VotesReading(images=("data/cutouts",))
    paths = recorded_paths(names, reading, run)
    assert paths == {"data/rings": "../../data/rings", "data/cutouts": "../../data/cutouts"}
    assert located("data/rings", run, paths) == "data/rings"
    monkeypatch.chdir(project / "elsewhere")
    assert [located(name, run, paths) for name in names] == [names[2], names[1], names[2]]
    assert located_reading(reading, run, paths).images == (project / "data/cutouts",)
    moved = shutil.move(project, project.with_name("moved"))
    assert located("data/rings", moved / "runs/one", paths) == str(moved / "data/rings")
    shutil.rmtree(moved / "data")
    assert located("data/rings", moved / "runs/one", paths) == "data/rings"


def test_the_dataset_beside_the_run_goes_before_another_of_its_name(project, monkeypatch):
    paths = recorded_paths(["data/rings"], VotesReading(), project / "runs/one")
    (project / "elsewhere/data/rings").mkdir(parents=True)
    monkeypatch.chdir(project / "elsewhere")
    assert located("data/rings", project / "runs/one", paths) == str(project / "data/rings")


def test_a_run_folder_that_is_a_link_is_followed(project, tmp_path):
    (tmp_path / "scratch/deep").mkdir(parents=True)
    (project / "runs/two").symlink_to(tmp_path / "scratch/deep")
    paths = recorded_paths(["data/rings"], VotesReading(), project / "runs/two")
    assert paths == {"data/rings": "../../project/data/rings"}
    assert located("data/rings", project / "runs/two", paths) == "data/rings"


def test_a_dataset_is_the_same_by_any_spelling(project):
    (project / "link").symlink_to(project / "data/rings")
    for name in ("data/rings/", "./data/../data/rings", "link", str(project / "data/rings")):
        assert is_same_dataset(name, "data/rings")
    assert not is_same_dataset("data/cutouts", "data/rings")
    assert is_same_dataset("Lab/Galaxies", "lab/galaxies")
    assert not is_same_dataset("lab/galaxies", "lab/rings")
    assert not is_same_dataset("data/rings", "lab/rings")


def test_a_dataset_on_another_drive_is_recorded_as_it_was_typed(tmp_path, monkeypatch):
    def other_drive(path, start):
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.chdir(tmp_path)
    (tmp_path / "survey").mkdir()
    monkeypatch.setattr("os.path.relpath", other_drive)  # as on Windows
    assert recorded_paths(["survey"], VotesReading(), tmp_path / "run") == {}
