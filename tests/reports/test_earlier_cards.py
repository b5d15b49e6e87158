"""The card of an earlier version is recognised by its mark in the record and replaced; one that a person edited stays."""

import hashlib

import pytest

from hf_galaxy.reports.model_card import model_card
from hf_galaxy.reports.run_folder import rewrite
from hf_galaxy.reports.run_record import RunRecord
from tests.reports.test_model_card import record as new_record


@pytest.fixture
def earlier(tmp_path):
    """A run whose card has other words than those of today."""
    card, record = "# A model\n\nIn other words.\n", new_record()
    record.card = hashlib.sha256(card.encode()).hexdigest()
    record.save(tmp_path)
    (tmp_path / "README.md").write_text(card)
    return tmp_path


def test_the_card_of_an_earlier_version_is_replaced(earlier):
    assert rewrite(earlier, lambda record: None)
    card, record = (earlier / "README.md").read_text(), RunRecord.load(earlier)
    assert card == model_card(record)
    assert rewrite(earlier, lambda record: record.publication.update(license="mit"))
    assert "license: mit" in (earlier / "README.md").read_text()


def test_an_edited_card_of_an_earlier_version_stays(earlier):
    edited = (earlier / "README.md").read_text() + "\nMine.\n"
    (earlier / "README.md").write_text(edited)
    assert not rewrite(earlier, lambda record: record.publication.update(license="mit"))
    assert (earlier / "README.md").read_text() == edited
    assert RunRecord.load(earlier).publication == {"license": "mit"}
