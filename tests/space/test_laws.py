"""The tab "Scaling laws" agrees with the records; its planner is `label_budget`; wrong input gets a polite message."""

import json
import os
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

import law_curves
import law_pictures
import law_planner
import law_pretraining
from hf_galaxy.errors import BadInput
from hf_galaxy.scaling.label_budget import budget_of, series_of
from hf_galaxy.scaling.points import points_of, records_in
from law_records import RESULTS, STUDIES, json_value, study_of
from tests.forks import run_code
from text import sentence

SPACE = Path(law_curves.__file__).parent


def fits(study):
    return json.loads((RESULTS / study / "scaling.json").read_text())


def all_choices():
    for name in STUDIES:
        study = study_of(RESULTS, name)
        for measure in study.measures():
            for question in study.questions(measure):
                yield name, measure, question


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_has_words_for_all_that_is_in_it(study):
    which = study_of(RESULTS, study)
    assert which.title
    for measure in which.measures():
        assert sentence(f"laws.measure_{measure}")
    assert len({which.series_name(*pair) for pair in which.series()}) == len(which.series())


def test_laws_are_those_of_the_records():
    found = law_curves.scaling_law(RESULTS, "ceers_converged", "true_rmse", "bar-jwst", ["test_resnet"])
    (law,) = [
        law for law in fits("ceers_converged")["laws"] if (law["measure"], law["figure"]) == ("true_rmse", "bar-jwst")
    ]
    assert law["law"]
    assert found["baseline"] == law["baseline"]
    assert [each["architecture"] for each in found["laws"]] == ["test_resnet"]
    for name in ("points", "law", "plain", "last_step"):
        assert found["laws"][0][name] == law[name]


def test_no_law_is_shown_of_trainings_that_have_not_converged():
    """As on the pages of the same studies."""
    assert STUDIES[0] == "ceers_converged"
    for name in ("ceers_converged", "gz2_classes"):
        study = study_of(RESULTS, name)
        measure = study.default_measure()
        found = law_curves.scaling_law(RESULTS, name, measure)
        page = law_curves.page(RESULTS, name, measure, "all", tuple(study.series()))
        said, converged = " ".join(found["sentences"]), name == "ceers_converged"
        assert (sentence("laws.one_length") in said) is not converged
        assert all(bool(law["law"]) == bool(law["plain"]) == converged for law in found["laws"])
        for words in ("column_b", "column_doubling", "column_c", "legend_law", "legend_plain", "legend_beyond"):
            assert (sentence(f"laws.{words}") in page) == converged, words
        assert converged or "The exponents" not in said
        plan = " ".join(law_planner.label_budget(RESULTS, name, *study.series()[0])["sentences"])
        assert (sentence("laws.planner_one_length") in plan) is not converged
        assert converged or "has a floor" not in plan


def test_every_choice_has_its_sentences_and_is_json():
    for study, measure, question in all_choices():
        found = law_curves.scaling_law(RESULTS, study, measure, question)
        assert json.loads(json.dumps(found, allow_nan=False)) == found
        assert len(found["laws"]) == len(study_of(RESULTS, study).series())
        assert 1 < len(found["sentences"]) < 8
        assert not re.search(r"[{}]|None|nan", " ".join(found["sentences"]))


def test_sentences_say_no_more_than_the_data():
    found = law_curves.scaling_law(RESULTS, "ceers_starts", "rmse", "has-spiral-arms-jwst")
    assert all(law["last_step"]["loss"] == "not shown" for law in found["laws"])
    said = " ".join(found["sentences"])
    assert "no significant change" in said
    assert "decreased" not in said
    classes = law_curves.scaling_law(RESULTS, "gz2_classes", "error")
    assert all(law["last_step"]["loss"] == "less" for law in classes["laws"])
    assert "decreased" in " ".join(classes["sentences"])
    best = min(classes["laws"], key=lambda law: law["points"][-1]["value"])
    assert best["architecture"] in classes["sentences"][0]


def test_a_page_draws_what_its_alt_text_tells():
    study = study_of(RESULTS, "gz2_classes")
    page = law_curves.page(RESULTS, "gz2_classes", "error", "all", tuple(study.series()[:2]))
    alt = re.search(r'role="img" aria-label="([^"]+)"', page)[1]
    shown = [backbone for backbone, _ in study.series()[:2]]
    assert all(backbone in alt for backbone in shown)
    assert study.series()[2][0] not in page
    assert "share of galaxies in a wrong class" in alt
    assert "baseline" in alt
    pictures = re.findall(r"<svg.*?</svg>", page, re.S)
    assert len(pictures) == 2  # wide, narrow
    for picture in pictures:
        ElementTree.fromstring(picture)
        assert all(f">{backbone}<" in picture for backbone in shown)  # in the legend, as letters
        assert "#0072b2" not in picture  # no colour that a dark page could not change
        assert "<style" not in picture
    ids = [set(re.findall(r'id="([^"]+)"', picture)) for picture in pictures]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_nothing_is_fetched_for_a_page():
    study = study_of(RESULTS, "ceers")
    page = law_curves.page(RESULTS, "ceers", "excess", "all", tuple(study.series()))
    page += law_pretraining.page(RESULTS)
    assert not re.search(r"""(src|href)=["'](?!#)|url\((?!#)|@import""", page)


def test_the_planner_is_the_label_budget():
    points = points_of(records_in(RESULTS / "ceers_starts"))
    start = "efficientnet_lite0_imagenet.pth"
    series = series_of(points, start=start, measure="excess")
    ours = law_planner.label_budget(
        RESULTS, "ceers_starts", "tf_efficientnet_lite0", start, 6_000, 15.5, measure="excess"
    )
    theirs = json_value(budget_of(series, 15.5, galaxies=6_000).as_dict())
    assert {key: ours[key] for key in theirs if key != "sentences"} == {
        key: value for key, value in theirs.items() if key != "sentences"
    }
    assert json.loads(json.dumps(ours, allow_nan=False)) == ours
    said = " ".join(ours["sentences"])
    assert "6,000 labelled galaxies" in said
    assert "The target of 15.5" in said


def test_every_series_can_be_planned():
    for study in STUDIES:
        which = study_of(RESULTS, study)
        for backbone, start in which.series():
            least = min(law["points"][-1]["value"] for law in which.laws(which.default_measure(), "all"))
            for target in (0.97 * least, 0.01 * least):
                found = law_planner.label_budget(RESULTS, study, backbone, start, None, target)
                assert not re.search(r"[{}]|None|nan", " ".join(found["sentences"]))
            assert "out of reach" in " ".join(found["sentences"]) or found["galaxies_for"]["low"]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"study": "../../etc/passwd"}, "no study"),
        ({"architecture": "vit"}, "no architecture"),
        ({"measure": "speed"}, "no measure"),
        ({"question": "bar"}, "no question"),
        ({"start": "nothing"}, "no start"),
        ({"labels": 0}, "whole number of 1 or more"),
        ({"labels": -5}, "whole number of 1 or more"),
        ({"labels": 10.5}, "whole number of 1 or more"),
        ({"labels": float("nan")}, "whole number of 1 or more"),
        ({"labels": "many"}, "whole number of 1 or more"),
        ({"labels": 5}, "has 312 galaxies"),
        ({"labels": 10**9}, "has 19,991 galaxies"),
        ({"target": "low"}, "number above 0"),
        ({"target": 0}, "number above 0"),
        ({"target": float("inf")}, "number above 0"),
        ({"target": 0.9}, "is too high"),
    ],
)
def test_bad_questions_get_kind_words(asked, words):
    with pytest.raises(BadInput, match=words):
        law_planner.label_budget(RESULTS, **{"study": "gz2_classes", "architecture": "resnet10t"} | asked)


def test_a_start_has_to_be_chosen_where_there_are_several():
    with pytest.raises(BadInput, match="several starts; choose one"):
        law_planner.label_budget(RESULTS, "ceers_starts", "tf_efficientnet_lite0")
    with pytest.raises(BadInput, match="choose an architecture"):
        law_curves.page(RESULTS, "ceers", "excess", "all", ())


@pytest.mark.parametrize(
    ("text", "number"),
    [("", None), (" 5000 ", 5000), ("5,000", 5000), ("1,234,567", 1234567), ("5 000", 5000), ("0.12", 0.12),
     ("0,12", 0.12), ("1e4", 1e4), ("some", "some")],
)  # fmt: skip
def test_numbers_are_read_as_they_are_typed(text, number):
    assert law_planner.typed(text) == number


def pilot(noise=0.01, separator=", ", head="labels, error, seed\n"):
    rng = np.random.default_rng(3)
    rows = [
        (size, (0.1 + 3 * size**-0.5) * np.exp(noise * rng.standard_normal()), seed)
        for size in (200, 400, 800, 1600, 3200, 6400)
        for seed in (1, 2, 3)
    ]
    return head + "\n".join(separator.join((str(size), f"{loss:.6f}", str(seed))) for size, loss, seed in rows)


def test_a_pilot_of_a_known_law_finds_it_again():
    budget = law_planner.own_budget(pilot(), labels=20_000, target=0.125)
    floor = budget["laws"]["floor"]
    for name, truth in (("b", 0.5), ("c", 0.1)):
        assert floor[name]["low"] < truth < floor[name]["high"]
    assert budget["asked"]["low"] < 0.1 + 3 * 20_000**-0.5 < budget["asked"]["high"]
    needed = budget["galaxies_for"]
    assert needed["low"] < (3 / 0.025) ** 2 < needed["high"]
    assert budget["floor_shown"]
    said = " ".join(budget["sentences"])
    assert "has a floor" in said
    assert " the error was " in said
    assert "choice of test galaxies" in said
    assert "<svg" in law_planner.page(budget)


def test_a_pilot_may_be_written_in_several_ways():
    expected = law_planner.pilot_of(pilot())
    for other in (pilot(separator=";"), pilot(separator="\t"), pilot(separator=" "), pilot(head=""), pilot() + "\n\n"):
        assert law_planner.pilot_of(other).equals(expected)
    decimals = pilot(separator=";").replace(".", ",")
    assert law_planner.pilot_of(decimals).equals(expected)
    without = law_planner.pilot_of("100,0.5\n100,0.4\n200,0.3\n400,0.2")
    assert without["seed"].is_unique


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "type, paste or upload"),
        ("labels, error", "type, paste or upload"),
        ("100, 0.5\n200, 0.4", "2 different numbers of labels"),
        ("100, 0.5\n200, 0.4\n400, 0.3", "in 3 runs"),
        ("100, 0.5\n200, low\n400, 0.3", "Line 2"),
        ("100\n200\n300\n400", "Line 1"),
        ("100, 0.5, 1, 7", "Line 1"),
        ("0, 0.5", "whole number of 1 or more"),
        ("100, 0", "error a number above 0"),
        ("100, nan", "error a number above 0"),
        ("100, 1e999", "error a number above 0"),
        ("1e400, 0.5", "whole number"),
        ("100, 0.5, inf", "seed a whole number"),
        ("1, 0.1\n" * 5000, "too many runs"),
        ("<script>1</script>, 2", "Line 1"),
    ],
)
def test_bad_pilots_get_kind_words(text, words):
    with pytest.raises(BadInput, match=words):
        law_planner.own_budget(text)


def test_an_uploaded_pilot_is_read_if_it_is_text(tmp_path):
    file = tmp_path / "pilot.csv"
    file.write_bytes(b"\xef\xbb\xbf" + pilot().encode())
    assert law_planner.pilot_of(law_planner.read_pilot(file)).equals(law_planner.pilot_of(pilot()))
    for bad in (b"\x89PNG\r\n\x1a\n\xff\xfe", b"1,2\0", b"1, 0.5\n" * 50_000):
        file.write_bytes(bad)
        with pytest.raises(BadInput, match="could not be read"):
            law_planner.read_pilot(file)


def test_pretraining_says_what_the_benchmark_says(tmp_path):
    averages, about = law_pretraining.averages_of(RESULTS)
    kinds = [(row["start"], row["mode"]) for row in averages]
    assert len(set(kinds)) == len(kinds), "one average of each, of the measures of the tasks"
    said = law_pretraining.sentences_of(averages, about)
    for row in averages:
        title, mode = sentence(f"laws.start_title_{row['start']}"), sentence(f"laws.mode_{row['mode']}").capitalize()
        verdicts = {
            "less": "less error",
            "more": "more error",
            "not shown": "no significant difference",
            "not known": "without an interval",
        }
        (text,) = [each for each in said if each.startswith(mode) and verdicts[row["error"]] in each]
        assert f" {title} (" in text
    # Also of a benchmark that has only begun.
    folder = tmp_path / "downstream"
    folder.mkdir()
    (folder / "benchmark.json").write_text(json.dumps(about))
    one = averages[0] | {"share": 0.25, "tasks": ["rings"], "low": None, "high": None, "error": "not known"}
    for i, rows in enumerate(([], [one])):
        (folder / "results.json").write_text(json.dumps({"averages": rows}))
        law_pretraining.page.cache_clear()
        page = law_pretraining.page(tmp_path)
        assert ("<svg" in page) == bool(i)
    assert "1/4 of the labels" in page
    assert "without an interval" in page


def test_what_is_put_into_a_page_is_no_html():
    assert "<b>" not in law_pictures.paragraphs(["<b>"]) + law_pictures.table("<b>", ["<b>"], [["<b>", "<b>"]])


_ASK = """
import json, sys
import gradio as gr, laws_tab
from gradio_client import Client
from law_records import RESULTS
with gr.Blocks(analytics_enabled=False) as demo:
    laws_tab.build(RESULTS)
_, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
client = Client(url, verbose=False, analytics_enabled=False)
answers = {"named": list(client.view_api(return_format="dict", print_info=False)["named_endpoints"])}
for name, asked in json.loads(sys.argv[1]):
    try:
        answers[name + str(len(answers))] = client.predict(**asked, api_name=name)
    except Exception as error:
        answers[name + str(len(answers))] = str(error)
print(json.dumps(answers))
demo.close()
"""


def test_programs_ask_by_name():
    """In a process of its own, as gradio leaves event loops open."""
    law, budget = {"question": "bar-jwst"}, {"architecture": "test_resnet", "labels": 6_000}
    asked = [("/scaling_law", law), ("/label_budget", budget), ("/label_budget", {"labels": 0})]
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, (SPACE, SPACE.parent))), "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    done = run_code(_ASK, json.dumps(asked), environment=env)
    assert done.returncode == 0, done.stderr
    named, of_law, of_budget, refused = json.loads(done.stdout[done.stdout.index("{") :].splitlines()[0]).values()
    assert named == ["/scaling_law", "/label_budget"]
    assert of_law == law_curves.scaling_law(RESULTS, "ceers_converged", "above_oracle", "bar-jwst")
    assert of_budget == law_planner.label_budget(RESULTS, "ceers_converged", **budget)
    assert refused == sentence("laws.labels_not_whole")
