"""A table without a column map gets one proposed: what it holds publishes, and what somebody has edited stays."""

import json

import pytest

from hf_galaxy.data.picture_files import Pictures
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.catalogues import Catalogue
from hf_galaxy.importing.column_map import ColumnMap
from hf_galaxy.importing.proposal import Proposal, is_standard
from hf_galaxy.importing.reading import Reading
from hf_galaxy.importing.tables import open_table
from tests.galaxies import jpeg_bytes

NUMBER = 12


@pytest.fixture
def survey(tmp_path):
    (tmp_path / "cutouts").mkdir()
    for i in range(NUMBER):
        (tmp_path / f"cutouts/g{i}.jpg").write_bytes(jpeg_bytes(i))
    rows = [f"g{i}.jpg,g{i},{i % 3},{'ab'[i % 2]},0.{i},{i},{i}" for i in range(NUMBER)]
    table = tmp_path / "survey.csv"
    table.write_text("\n".join(["file,name,ring,kind,z,Ring_Yes_count,Ring_No_count", *rows]))
    return table


def test_the_proposal_publishes_as_it_is(survey):
    proposal = Proposal.of(survey, [survey.parent / "cutouts"], None)
    assert proposal.tree == "gz_rings"
    assert proposal.sentence == f"{survey}: picture: file; name: name; classes: ring, kind; votes of gz_rings"
    proposal.write(survey.parent / "columns.json")
    columns = ColumnMap.load(survey.parent / "columns.json")
    assert columns.votes == {"ring_yes": "Ring_Yes_count", "ring_no": "Ring_No_count"}
    assert columns.class_names == {"ring": ["0", "1", "2"], "kind": ["a", "b"]}
    assert columns.metadata["z"].dtype == "float32"
    assert Catalogue.read(survey, Pictures([survey.parent / "cutouts"]), columns).ids[1] == "g1"


def test_a_file_that_is_there_stays(survey):
    edited = survey.parent / "columns.json"
    edited.write_text("{}")
    with pytest.raises(BadInput, match=r"columns\.json exists already: use it with --columns .*columns\.json"):
        Proposal.of(survey, [survey.parent / "cutouts"], None).write(edited)
    assert edited.read_text() == "{}"


def test_names_of_files_are_names_if_there_are_no_others(survey):
    survey.write_text(survey.read_text().replace("name", "note").replace(",g1,", ",g0,"))
    proposal = Proposal.of(survey, [survey.parent / "cutouts"], None)
    assert proposal.columns["id_str"] is None
    assert "; name: name of the picture's file;" in proposal.sentence
    proposal.write(survey.parent / "columns.json")
    columns = ColumnMap.load(survey.parent / "columns.json")
    published = Catalogue.read(survey, Pictures([survey.parent / "cutouts"]), columns)
    imported = open_table(str(survey), Reading(images=(survey.parent / "cutouts",)))
    assert list(published.ids) == list(imported.ids) == [f"g{i}" for i in range(NUMBER)]  # so the splits are the same


def test_a_table_with_the_columns_of_datasets_needs_no_map(tmp_path, survey):
    (tmp_path / "standard.csv").write_text("id_str,image\na,a.jpg\n")
    assert is_standard(tmp_path / "standard.csv")
    assert is_standard(tmp_path / "missing.csv")
    assert not is_standard(survey)


def test_publish_proposes_and_says_how_to_go_on(survey, run_script):
    images, out = survey.parent / "cutouts", survey.parent / "data"
    done = run_script(
        "publish_dataset", "catalogue", "--images", images, "--catalogue", survey, "--out", out, expect=1
    )  # fmt: skip
    proposed = survey.parent / "survey.csv.columns.json"
    assert json.loads(proposed.read_text())["classes"]["ring"]["names"] == {"0": "0", "1": "1", "2": "2"}
    assert "picture: file; name: name" in done.stdout
    assert f"--out {out} --columns {proposed} --tree gz_rings" in done.stderr
    assert not out.exists()
