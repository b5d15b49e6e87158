"""What strangers may write into titles, classes, ids and names of files does nothing where it is shown, and is unchanged for programs."""

import logging
import re
from html.parser import HTMLParser

import pyarrow.csv
import pytest
from huggingface_hub import DatasetCard, ModelCard
from markdown_it import MarkdownIt

from hf_galaxy import command_line
from hf_galaxy.calls import page
from hf_galaxy.commands.main import module_of
from hf_galaxy.data.card_facts import DatasetFacts
from hf_galaxy.errors import BadInput
from hf_galaxy.models.prediction_files import for_people
from hf_galaxy.publishing.dataset_card import Prose, dataset_card
from hf_galaxy.reports.model_card import model_card
from hf_galaxy.safe_text import (
    cells_of,
    code,
    csv_cell,
    csv_rows,
    fenced,
    from_markdown,
    markdown,
    prose,
    visible,
)
from tests.galaxies import Rows, published
from tests.reports.test_model_card import record

HOSTILE = (
    "<script>alert(1)</script>", "| a | b |", "`code` ```", "x](javascript:alert(1))", "[x](javascript:alert(1))", "![x](data:text/html,y)",
    "---\nlicense: mit", "=HYPERLINK(\"http://x\")", "\x1b[31mred", "a\u202egpj.exe", "&lt;img src=x onerror=alert(1)&gt;", "a\\", "a\r\nb",
    "<img src=x onerror=alert(1)>", "# title", "*a*", "\x9b2J", "\x00",
)  # fmt: skip


def rendered(text):
    """As a viewer that lets all HTML and all links through shows it."""
    viewer = MarkdownIt("commonmark", {"html": True}).enable("table")
    viewer.validateLink = lambda address: True
    return viewer.render(text)


TAGS = {
    *("h1", "h2", "h3", "p", "a", "ul", "li", "em", "strong", "code", "pre", "hr", "br", "img"),
    *("table", "thead", "tbody", "tr", "th", "td", "details", "summary"),
}


class Reader(HTMLParser):
    """What is wrong in a page: other tags than ours, scripts in attributes, addresses that are no pages."""

    def __init__(self, page):
        super().__init__()
        self.wrong = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            address = name in ("href", "src") and re.match(r"\s*[a-z][a-z0-9+.-]*:", value, re.IGNORECASE)
            if name.startswith("on") or (address and not value.startswith("https://")):
                self.wrong.append((tag, name, value))
        if tag not in TAGS:
            self.wrong.append(tag)


def harmless(page):
    assert not Reader(page).wrong
    return True


@pytest.mark.parametrize("text", HOSTILE)
def test_a_name_in_markdown_is_shown_and_does_nothing(text):
    shown = rendered(
        f"| {markdown(text)} | 2 |\n| --- | --- |\n| {code(text)} | {markdown(text)} |\n\nA {markdown(text)}.\n"
    )
    assert harmless(shown)
    assert shown.count("<td>") == shown.count("<th>") == 2
    assert shown.count("<p>") == 1
    assert "<a" not in shown
    assert "\n" not in markdown(text)
    assert cells_of(f"| {markdown(text)} | 2 |") == [visible(" ".join(text.split())), "2"]
    assert from_markdown(markdown(text)) == visible(" ".join(text.split()))


@pytest.mark.parametrize(
    "text", ["smooth-or-featured_smooth", "Galaxy Zoo (H2O), 1/2", "not ring", "n°5 é ü", "a & b", "-1", "+"]
)
def test_usual_names_are_what_they_were(text):
    assert markdown(text) == text
    assert code(text) == f"`{text}`"
    assert visible(text) == fenced(text) == prose(text) == text


@pytest.mark.parametrize("text", HOSTILE)
def test_prose_of_others_has_no_html_and_no_links_to_scripts(text):
    assert harmless(
        rendered(
            prose(
                f"- A problem: {text}\n\nMore {text}\n\n[x](&#106;avascript:alert(1)) [y](<javascript:alert(1)>) [z]\n\n[z]: javascript:alert(1)\n<javascript:alert(1)>"
            )
        )
    )


def test_prose_of_others_keeps_its_markdown():
    text = "- One: see [the paper](https://x.org/a), <https://x.org> and [below](#here).\n- z < 0.1 & `code`, **bold**"
    assert prose(text) == text


def test_a_block_of_code_does_not_end_early():
    assert rendered(f"```\n{fenced(chr(10).join(['a', '```', '  ~~~', '<b>']))}\n```\n").count("<pre>") == 1
    assert "<b>" not in rendered(f"```\n{fenced('x' + chr(10) + '```' + chr(10) + '<b>')}\n```\n")


def test_cells_are_no_formulas_and_numbers_stay_numbers():
    assert [csv_cell(text) for text in ("=1+1", "+a", "-b", "@c", "\t=1")] == ["'=1+1", "'+a", "'-b", "'@c", "'\t=1"]
    assert [csv_cell(text) for text in ("-1", "+2.5", "-1e-3", "a=b", "", "J1-2")] == [
        "-1",
        "+2.5",
        "-1e-3",
        "a=b",
        "",
        "J1-2",
    ]
    assert [*csv_rows([["=a", -1, None, 0.5]])] == [["'=a", -1, None, 0.5]]


def test_a_table_of_predictions_is_safe_to_open_in_a_spreadsheet():
    table = pyarrow.table({"id_str": ["=a", None, "b"], "x": [-1.0, 2.0, 3.0]})
    assert for_people(table).to_pydict() == {"id_str": ["'=a", None, "b"], "x": [-1.0, 2.0, 3.0]}


def test_the_card_of_a_dataset_shows_hostile_names(tmp_path):
    *_, statistics, _ = published(Rows(30), tmp_path)
    splits = {"train": 3, "validation": 2, "test": 1}
    value = {"galaxies": 6, "missing": 0}
    statistics = statistics | {
        "classes": {text: {other: splits for other in HOSTILE} for text in HOSTILE},
        "values": {text: value for text in HOSTILE},
        "notes": [f"Left out: {text}" for text in HOSTILE],
        "command": "hf-galaxy publish --out 'a\n```\n<script>'",
    }
    for title in HOSTILE:
        text = dataset_card(Prose(title=title, license="cc-by-4.0"), None, statistics)
        card = DatasetCard(text)
        assert (card.data.license, card.data.pretty_name) == ("cc-by-4.0", title)
        assert harmless(rendered(card.text))
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", card.text)


def test_the_card_of_a_model_shows_hostile_names():
    for text in HOSTILE:
        made = record("classes")
        made.dataset |= {
            "title": text, "classes": [text, "b"], "name": text,
            "cards": [vars(DatasetFacts(text, "cc-by-4.0", None, text, f"- {text}", "@misc{a,\n}"))],
        }  # fmt: skip
        made.settings |= {"label": text}
        card = ModelCard(model_card(made))
        assert card.data.license == "cc-by-4.0"
        assert harmless(rendered(card.text))
        assert "made of" not in card.text
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", card.text)


def test_a_run_in_a_notebook_shows_hostile_names(tmp_path):
    for text in HOSTILE:
        made = record("classes")
        made.dataset |= {"title": text, "classes": [text, "b|c"], "cards": []}
        shown = page.html(tmp_path, made)
        assert not re.search(r"<(script|img)", shown)
        assert ">b|c<" in shown


def test_a_log_and_an_error_do_not_change_the_terminal(capsys):
    formatter = command_line._Harmless("%(message)s")
    ours = logging.LogRecord(
        "hf_galaxy.x", logging.INFO, "", 0, "%s: cannot be read", ("a\x1b[2J\nERROR b\u202e",), None
    )
    assert formatter.format(ours) == "a\\x1b[2J\\nERROR b\\u202e: cannot be read"
    assert ours.getMessage().startswith("a\x1b"), "other handlers have it as it is"
    ours.lines, ours.msg, ours.args = True, "| a |\n| - |", ()
    assert formatter.format(ours) == "| a |\n| - |", "a table has lines"
    theirs = logging.LogRecord("other", logging.INFO, "", 0, "a\nb\x07", (), None)
    assert formatter.format(theirs) == "a\nb\\x07"

    def fail(settings):
        raise BadInput("galaxy a\x1b[2J\nb: has no picture")

    with pytest.raises(SystemExit) as ended:
        command_line.Command(module_of("pack").command.settings, fail)(["--study", "x"])
    assert ended.value.code == "error: galaxy a\\x1b[2J b: has no picture"
