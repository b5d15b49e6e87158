"""The Croissant description is valid, and its reference reader finds every galaxy by it."""

import json
import warnings
from datetime import date

import pytest

from hf_galaxy.publishing.croissant import croissant
from hf_galaxy.publishing.dataset_card import Prose
from tests.conftest import Rows, published

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its own parser is built with what Python deprecates
    import mlcroissant


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # its own use of rdflib
def test_mlcroissant_accepts_the_description_and_reads_the_galaxies(tmp_path):
    source = Rows(40, campaigns=["gz_rings"] * 20 + ["gz2"] * 20)
    *_, configs = published(source, tmp_path)
    prose = Prose(title="Rings", license="mit", text="Rings.\n\n## Citation\n\nA paper.")
    text = json.dumps(croissant("lab/rings", prose, configs, date(2026, 1, 2)))
    (tmp_path / "croissant.json").write_text(text)
    dataset = mlcroissant.Dataset(jsonld=tmp_path / "croissant.json")
    assert not dataset.metadata.issues.errors
    assert not dataset.metadata.issues.warnings
    assert {records.id for records in dataset.metadata.record_sets} == {"default", "gz_rings", "gz2", "tiny"}
    records = {record["default/id_str"].decode(): record for record in dataset.records("default")}
    assert records.keys() == set(source.ids)
    for i, name in enumerate(source.ids):
        row = source.row(i).columns
        assert (records[name]["default/ring_yes"], records[name]["default/ra"]) == (row["ring_yes"], row["ra"])
        assert records[name]["default/image"].size == (64, 64)
