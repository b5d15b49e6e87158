"""A run as an object: its parts are those of its folder, and what it shows is whole in itself and harmless."""

import json
import shutil
from html.parser import HTMLParser
from unittest import mock

import pytest
from safetensors.torch import load_file

import hf_galaxy
from hf_galaxy.calls import page
from hf_galaxy.publishing import hub

ALLOWED = {"div", "h3", "h4", "p", "ul", "li", "table", "tr", "th", "td", "img", "details", "summary"}


class Page(HTMLParser):
    """Tags, addresses and the text of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.sources, self.attributes, self.text = [], [], set(), ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attributes}
        self.sources += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.text += data


def test_a_run_shows_the_tables_and_figures_of_its_card(run):
    shown = Page(run._repr_html_())
    assert set(shown.tags) <= ALLOWED
    assert shown.tags.count("img") == 2
    assert all(source.startswith("data:image/png;base64,") for source in shown.sources)
    assert shown.attributes <= {"style", "src", "alt"}
    assert "test_convnext, trained on Mock survey" in shown.text
    for row in ("balanced_accuracy", "Calibration", "How it was trained"):
        assert row in shown.text
    assert (
        shown.tags.count("table") == run.card[: run.card.index("## Limits")].count("\n| --- |") - 1
    )  # without its head


def test_a_long_table_is_folded():
    short, long = (
        page.markdown("\n".join(["| a | b |", "| --- | --- |", *["| 1 | 2 |"] * rows]), {}) for rows in (12, 13)
    )
    assert "details" not in short
    assert long.startswith("<details><summary>a: 13 rows</summary><table>")


def test_nothing_in_a_record_becomes_part_of_the_page(run, tmp_path):
    hostile = '<script src="http://evil.example/x.js"></script><img src=http://evil.example/y onerror=alert(1)>"\'&'
    folder = shutil.copytree(run.folder, tmp_path / "<b>run")
    record = json.loads((folder / "run.json").read_text())
    record["dataset"]["title"] = record["model"]["backbone"] = hostile
    record["dataset"]["classes"] = [f"{hostile}![x](http://evil.example/z)" for _ in record["dataset"]["classes"]]
    record["results"][hostile] = record["results"].pop("test")
    (folder / "run.json").write_text(json.dumps(record))
    opened = hf_galaxy.Run(folder)
    for html in (opened._repr_html_(), opened.results._repr_html_()):
        shown = Page(html)
        assert set(shown.tags) <= ALLOWED
        assert all(source.startswith("data:image/png;base64,") for source in shown.sources)
        assert shown.attributes <= {"style", "src", "alt"}
        assert hostile in shown.text


def test_the_parts_of_a_run_are_those_of_its_folder(run):
    opened = hf_galaxy.Run(str(run.folder))
    record = json.loads((run.folder / "run.json").read_text())
    assert opened.results == record["results"]
    assert opened.record.settings == record["settings"]
    assert opened.card == (run.folder / "README.md").read_text()
    weights = load_file(run.folder / "model.safetensors")
    assert all((values == weights[name]).all() for name, values in opened.model.state_dict().items())
    assert not opened.model.training
    assert repr(opened).startswith(f"Run('{run.folder}'): test_convnext on 61 galaxies of Mock survey")
    assert "| balanced_accuracy |" in repr(opened.results)
    assert "<table>" in opened.results._repr_html_()
    assert "'bootstrap': <replicates of loss, accuracy," in repr(opened.results["test"])


def test_a_run_that_is_not_finished_says_so_and_has_no_model(run, tmp_path):
    record = json.loads((run.folder / "run.json").read_text()) | {"finished": False, "results": {}, "training": {}}
    (tmp_path / "run.json").write_text(json.dumps(record))
    unfinished = hf_galaxy.Run(tmp_path)
    assert "not finished" in repr(unfinished)
    assert "not finished" in unfinished._repr_html_()
    assert (unfinished.results, unfinished.card) == ({}, "")
    assert "no results" in unfinished.results._repr_html_()
    with pytest.raises(hf_galaxy.BadInput, match="the run is not finished"):
        unfinished.model  # noqa: B018
    with pytest.raises(hf_galaxy.BadInput, match="is no run folder"):
        hf_galaxy.Run(tmp_path / "nothing")


def test_a_run_is_pushed_as_the_command_pushes_it(run, tmp_path):
    copy = hf_galaxy.Run(shutil.copytree(run.folder, tmp_path / "run"))
    with mock.patch.object(hub, "push", return_value="https://hub.example/me/rings") as push:
        assert copy.push("me/rings", license="mit", datasets="me/mock") == "https://hub.example/me/rings"
    push.assert_called_once_with(copy.folder, "me/rings", "model")
    assert copy.record.publication == {"repo": "me/rings", "license": "mit", "datasets": ["me/mock"]}
    assert "me/rings" in copy.card
    with pytest.raises(hf_galaxy.BadInput, match=r"^repo a/b/c: is not ORG/NAME"):
        copy.push("a/b/c")
