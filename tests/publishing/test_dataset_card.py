"""The card of a dataset is made of prose, tree and statistics; its YAML is what load_dataset reads, and every card renders."""

import json
import os
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import datasets
import pytest
import yaml
from huggingface_hub import DatasetCard

from hf_galaxy import load_tree
from hf_galaxy.data.card_facts import DatasetFacts
from hf_galaxy.decision_tree import available_trees
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.dataset import open_dataset
from hf_galaxy.publishing import simulate
from hf_galaxy.publishing.dataset_card import Prose, dataset_card, write_card
from tests.conftest import ROOT
from tests.forks import run_code
from tests.galaxies import Rows, published

CARDS = {path.parent.name: path for path in sorted((ROOT / "dataset_cards").glob("*/card.md"))} | {
    "mock": simulate.CARD
}


def test_the_yaml_of_a_card_is_what_load_dataset_checks(tmp_path):
    *_, configs = published(Rows(30), tmp_path)
    builder = datasets.load_dataset_builder(str(tmp_path))
    assert builder.info.features == Rows.features
    assert {str(s): i.num_examples for s, i in builder.info.splits.items()} == {
        s: i.num_examples for s, i in configs["default"].splits.items()
    }
    assert sum(len(split) for split in open_dataset(str(tmp_path)).values()) == 30
    wrong = (tmp_path / "README.md").read_text().replace("num_examples: ", "num_examples: 9")
    (tmp_path / "README.md").write_text(wrong)
    with pytest.raises(datasets.exceptions.NonMatchingSplitsSizesError):
        datasets.load_dataset(str(tmp_path))


def test_a_card_tells_what_was_counted(tmp_path):
    *_, statistics, _ = published(Rows(30), tmp_path)
    text = (tmp_path / "README.md").read_text()
    card = DatasetCard(text)
    assert (card.data.license, card.data.pretty_name, card.data.size_categories) == ("mit", "Rings", ["n<1K"])
    yes, no = sum(range(30)), 2 * sum(range(30))
    assert statistics["votes"] == {"ring_yes": yes, "ring_no": no}
    assert f"| ring | {yes + no:,} | 29 | 23 | yes: {yes}, no: {no} |" in text, "3 i votes, at least 20 from i = 7 on"
    kinds = statistics["classes"]["kind"]
    assert f"| a | 15 | {kinds['a']['train']} | " in text
    ra = [i / 7 for i in range(30)]
    assert statistics["values"]["ra"]["mean"] == pytest.approx(sum(ra) / 30)
    assert f"| `ra` | 30 | 0 | {sum(ra) / 30:.4g} | " in text
    assert "| 64 x 64 RGB JPEG | 30 |" in text


@pytest.mark.parametrize("path", CARDS.values(), ids=CARDS)
def test_every_card_renders_without_data(path, tmp_path):
    prose = Prose.load(path)
    tree = load_tree(list(prose.trees)) if prose.trees else None
    write_card(tmp_path, prose, tree)
    text = (tmp_path / "README.md").read_text()
    card = DatasetCard(text)
    assert card.data.pretty_name == prose.title
    assert {"galaxy zoo", *prose.tags, *(f"arxiv:{number}" for number in prose.arxiv)} <= set(card.data.tags)
    for heading in ("How to load it", "Where it comes from", "Known problems", "Citation"):
        assert text.count(f"\n## {heading}\n") == 1
    assert prose.summary in text
    assert "not measured" in text, "there are no data"
    figures = re.findall(r"]\(([a-z_0-9]+\.png)\)", text)
    assert len(figures) == len(tree.campaigns if tree else [])
    assert all((tmp_path / figure).read_bytes().startswith(b"\x89PNG") for figure in figures)
    for question in tree.questions if tree else ():
        assert f"| {question.name} | not measured |" in text
    assert yaml.safe_load(text.split("---\n")[1])["license"] == prose.license


def test_there_is_a_card_for_every_dataset_that_the_paper_uses():
    assert CARDS.keys() >= {"mock", "gz_evo", *load_tree("gz_evo").campaigns, "is_lsb", "which_lsb", "jwst", "gz_rings", "galaxy10_decals"}  # fmt: skip
    assert set(available_trees()) <= CARDS.keys()


def test_a_card_is_a_pure_function(tmp_path):
    statistics, configs = published(Rows(30), tmp_path)[2:]
    again = json.loads(json.dumps(statistics))
    prose = Prose(title="Rings", license="mit")
    assert dataset_card(prose, Rows.tree, again, configs) == (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("text", ["", "no header", "---\ntitle: x\ntelescop: y\n---\ntext", "---\n[\n---\n"])
def test_prose_that_cannot_be_read_is_refused(text, tmp_path):
    (tmp_path / "card.md").write_text(text)
    with pytest.raises(BadInput, match=r"card\.md: is not a text with a header"):
        Prose.load(tmp_path / "card.md")


# Repository on the Hub -> what the Hub answers.
ANSWERS = {
    "lab/absent": (404, "RepoNotFound"), "lab/bare": (404, "EntryNotFound"), "lab/private": (401, ""),
    "lab/gated": (403, "GatedRepo"), "lab/broken": (500, ""),
}  # fmt: skip


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        status, code = next(answer for repo, answer in ANSWERS.items() if repo in self.path)
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


def test_a_card_that_the_hub_does_not_give_is_not_taken_for_one_that_is_not_there():
    # The client of the Hub waits for seconds before it tries again.
    program = "import sys, time; time.sleep = lambda seconds: None; from hf_galaxy.data.card_facts import DatasetFacts; print([DatasetFacts.by(name) for name in sys.argv[1:]])"
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    environment = {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HUB_OFFLINE": "0",
        "NO_PROXY": "127.0.0.1",
    }
    for names, unread in (
        (["lab/absent", "lab/bare", "no/hub/id"], []),
        (["lab/private", "lab/gated", "lab/broken"], ["lab/private", "lab/gated", "lab/broken"]),
    ):
        done = run_code(program, *names, environment=os.environ | environment)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == str([DatasetFacts(name, hub_id=name) for name in names])
        assert re.findall(r"^(\S+): its card cannot be read \(.+\).* its licence", done.stderr, re.MULTILINE) == unread
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, None), (b"No header.", None), (b"---\na: [\n---\n", "while parsing"), (b"---\na: \xff\n---\n", "decode")],
)
def test_a_card_in_a_folder_that_cannot_be_read_is_named(tmp_path, caplog, content, reason):
    if content is not None:
        (tmp_path / "README.md").write_bytes(content)
    said = DatasetFacts.by(str(tmp_path))
    assert (said.title, said.license, said.citation) == (tmp_path.name, None, None)
    own = [record.message for record in caplog.records if record.name == "hf_galaxy.data.card_facts"]
    assert len(own) == (reason is not None)
    assert all(f"{tmp_path}: its card cannot be read" in message and reason in message for message in own)
