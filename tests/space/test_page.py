"""What the Space's page shows is what the model says: bars as long as the votes, words for who cannot see, nothing that a file's name could inject."""

import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import gradio as gr
import numpy as np
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants

from alike import FILE, GALAXIES, DrawnIndex, words_of
from answers_page import alike_html, answers_html, failed_html, question_words, views_html
from classifier import Classifier
from galaxy_models import MASKS, MODELS, load_models, zoomed
from hf_galaxy.cutouts.coordinates import MESSAGES
from hf_galaxy.decision_tree import load_tree
from hf_galaxy.errors import BadInput
from hf_galaxy.models.morphology import morphology
from hf_galaxy.models.onnx_model import FastModel
from tests.conftest import ROOT, SHARED
from text import _TEXT, sentence, sentence_or

TREE = load_tree("gz2")
SPACE = ROOT / "spaces_app"


@pytest.fixture(scope="module")
def said():
    rng = np.random.default_rng(3)
    concentrations = rng.gamma(2, 2, len(TREE.columns)) + 0.2
    totals = np.add.reduceat(concentrations, [where.start for where in TREE.slices])
    fractions = concentrations / totals[TREE.question_of_answer]
    [of_gz2] = morphology(fractions, concentrations, TREE, asked=0, volunteers=40)
    return of_gz2


def rows_of(html):
    """Of each answer in a page: its name, the length of its bar, its whisker's ends, its votes and its interval, as shown."""
    row = re.compile(
        r'<th scope="row">([^<]+).*?<b style="width:([\d.]+)%">.*?left:([\d.]+)%;width:([\d.]+)%.*?class="count">([\d.]+)<.*?class="interval">(\d+) to (\d+)<'
    )
    return [(name.strip(), *map(float, numbers)) for name, *numbers in row.findall(html)]


def test_every_bar_is_as_long_as_its_votes_and_every_whisker_as_its_interval(said):
    answers = [answer for question in said["questions"] for answer in question["answers"]]
    rows = rows_of(answers_html("a model", said, 40, 0.5))
    assert len(rows) == len(answers) == len(TREE.columns)
    for (name, bar, left, width, votes, low, high), answer in zip(rows, answers, strict=True):
        assert name == answer["answer"].replace("-", " ")
        assert (low, high) == tuple(answer["votes_interval"])
        np.testing.assert_allclose(
            [bar, left, width], [100 * answer["votes"] / 40, 100 * low / 40, 100 * (high - low) / 40], atol=0.051
        )
        assert votes == pytest.approx(answer["votes"], abs=0.051)


def test_the_likely_path_is_marked_in_words_and_said_first(said):
    html = answers_html("a model", said, 40, 0.5)
    assert html.count(f">{sentence('classify.likely_answer')}</span>") == len(said["path"])
    assert html.index(said["description"]) < html.index("<table")
    captions = re.findall(r"<caption><strong>([^<]+)</strong> <span class=\"asked\">([^<]+)", html)
    assert [words for words, _ in captions] == [question_words(each["question"]) for each in said["questions"]]
    assert captions[0] == ("Smooth or featured", "asked of 40 of 40 volunteers")


def test_what_an_answer_is_worth_stands_beside_its_question(said):
    html = answers_html("a model", said, 40, 0.5, {"how-rounded-gz2": "6"})
    captions = re.findall(r"<caption><strong>([^<]+)</strong> <span class=\"asked\">([^<]+)", html)
    worth = [words for words, caption in captions if "predicts as well as" in caption]
    assert worth == ["How rounded"]
    assert "; this model predicts as well as 6 of them would" in html


def test_a_warning_stands_where_the_picture_is_unlike_and_only_there(said):
    assert 'role="alert"' in answers_html("a model", said, 40, 1.01)
    assert 'role="alert"' not in answers_html("a model", said, 40, 0.99)


def test_without_intervals_there_are_none():
    fractions = np.concatenate([np.full(len(q.answers), 1 / len(q.answers)) for q in TREE.questions])
    [of_gz2] = morphology(fractions, None, TREE, asked=0, volunteers=40)
    html = answers_html("a model", of_gz2, 40, 0.5)
    assert "<i " not in html
    assert html.count(sentence("classify.no_interval")) == len(TREE.columns)


def test_what_a_visitor_sends_is_never_markup(said):
    for html in (failed_html("<script>alert(1)</script>.jpg"), answers_html("<script>", said, 40, 0.5)):
        assert "<script" not in html


def test_where_the_bright_spot_lies_is_told_to_who_cannot_see_it():
    view = np.random.default_rng(0).random((3, 64, 64), np.float32)
    seen = np.zeros((64, 64))
    seen[50:54, 3:7] = 1
    html = views_html(view, seen)
    assert "below the centre on the left" in html
    assert "is in 1 % of the area" in html  # half of 16 of 4,096 pixels
    assert len(re.findall(r'<img [^>]*alt="[^"]{20,}"', html)) == 2
    assert sentence("classify.why_nothing_alt") in views_html(view, -seen)


def test_zoom_shows_the_middle():
    pixels = np.arange(8 * 12 * 3, dtype=np.uint16).reshape(8, 12, 3)
    np.testing.assert_array_equal(zoomed(pixels, 1), pixels)
    np.testing.assert_array_equal(zoomed(pixels, 2), pixels[2:6, 3:9])
    for wrong in (0.5, 5, float("nan")):
        with pytest.raises(BadInput, match="zoom"):
            zoomed(pixels, wrong)


def test_similar_galaxies_are_those_of_the_greatest_cosine():
    model = FastModel(MODELS / "small", cache=SHARED / "hf_galaxy")
    alike = DrawnIndex(model)
    galaxies = pq.read_table(FILE).to_pylist()
    assert len(galaxies) == GALAXIES == len(alike.index)
    features = np.stack([alike.index.get(i) for i in range(GALAXIES)])
    asked = features[17] + 0.05 * np.random.default_rng(0).normal(size=features.shape[1]) * features.std()
    cosines = features @ asked / np.linalg.norm(features, axis=1) / np.linalg.norm(asked)
    found = alike.search(asked + alike.mean, 5)
    assert [each.id_str for each in found] == [galaxies[i]["id_str"] for i in np.argsort(-cosines)[:5]]
    np.testing.assert_allclose([each.likeness for each in found], np.sort(cosines)[::-1][:5], atol=1e-5)
    assert found[0].id_str == galaxies[17]["id_str"]
    assert found[0].words == words_of(galaxies[17]["true_path"])
    assert found[0].words in alike_html(found)


def test_a_picture_is_predicted_once_for_its_answers_and_their_explanation(monkeypatch):
    monkeypatch.setattr(constants, "HF_HOME", SHARED)
    classifier = Classifier(load_models())
    picture, views = str(SPACE / "examples/two_arms.jpg"), Counter()
    expected = classifier.explain(picture, "lite0", "gz2", 1, None)

    def counted(name, answer):
        return lambda batch: views.update({name: len(batch)}) or answer(batch)

    for name, model in classifier.models.items():
        monkeypatch.setattr(model.fast, "answer", counted(name, model.fast.answer))
    (html, *later), (_, why, answer, alike) = classifier.show(picture, "lite0", "small", "gz2", 40, 1, False, None)
    assert views == {"lite0": 1 + MASKS, "small": 1}
    assert html.count("Most likely") == 2
    assert all(each == gr.skip() for each in later)
    assert (why, answer.value, alike) == (expected[0], expected[1].value, expected[2])


def test_all_words_are_used_and_every_campaign_has_a_name():
    code = "".join(file.read_text() for file in SPACE.glob("*.py"))
    spoken = {f"{section}.{name}" for section, names in _TEXT.items() for name in names}
    built = ("campaigns.", "examples.", "laws.")  # their names are put together
    unused = {
        name
        for name in spoken
        if not name.startswith(built) and not re.search(rf"""["'](?:{name}|{name.partition(".")[2]})["']""", code)
    }
    directions = {"classify.upper_left", "classify.upper_right", "classify.lower_left", "classify.lower_right"}
    unused -= directions  # as their names are, too
    unused -= {f"cutouts.{reason}" for reason in MESSAGES}  # which the library raises
    assert not unused
    assert {file.stem for file in Path(SPACE / "examples").iterdir()} == set(_TEXT["examples"])
    assert all(sentence_or(f"campaigns.{name}", "") for name in load_tree("gz_evo").campaigns)


def test_no_english_stands_in_the_code():
    """What visitors read comes from text/en.toml: no other module shows them a sentence."""
    for file in SPACE.glob("*.py"):
        code = re.sub(r'""".*?"""', "", file.read_text(), flags=re.DOTALL)
        sentences = re.findall(r'"[A-Z][a-z]+(?: [a-z]+){2,}[^"]*"', re.sub(r"#.*", "", code))
        assert not sentences, f"{file.name}: {sentences}"


def test_every_language_says_all_and_fills_in_the_same():
    english, *others = sorted((SPACE / "text").glob("*.toml"), key=lambda file: file.stem != "en")
    assert english.stem == "en"
    for other in others:
        said = tomllib.loads(other.read_text())
        assert {section: set(names) for section, names in said.items()} == {s: set(names) for s, names in _TEXT.items()}
        for section, names in _TEXT.items():
            for name, words in names.items():
                assert set(re.findall(r"{(\w+)", said[section][name])) == set(re.findall(r"{(\w+)", words)), name


def test_a_language_that_is_not_there_is_refused_in_words():
    environment = os.environ | {"HF_GALAXY_LANGUAGE": "tlh", "PYTHONPATH": str(SPACE)}
    done = subprocess.run(
        [sys.executable, "-c", "import text"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.strip() == "HF_GALAXY_LANGUAGE=tlh: there is no text/tlh.toml, only en"
