"""The Space's endpoints as programs use them: the same numbers as scripts/predict.py, kind words for bad input, nothing left behind."""

import json
import re
import urllib.request
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from hf_galaxy.decision_tree import load_tree
from tests.conftest import ROOT

EXAMPLES = ROOT / "spaces_app/examples"
SPIRAL = EXAMPLES / "two_arms.jpg"
ENDPOINTS = {
    "/classify",
    "/looked_at",
    "/alike",
    "/models",
    "/cutout",
    "/classify_several",
    "/scaling_law",
    "/label_budget",
}


def ask(client, name, picture=SPIRAL, **given):
    return client.predict(picture=handle_file(str(picture)), api_name=f"/{name}", **given)


def test_every_endpoint_has_a_name_and_says_what_it_does(client):
    api = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(api) == ENDPOINTS
    for name, endpoint in api.items():
        assert len(endpoint["description"]) > 40, name
        assert all(each["parameter_name"] and each["label"] for each in endpoint["parameters"]), name


def test_every_endpoint_is_a_tool_of_mcp(space):
    with urllib.request.urlopen(f"{space}/gradio_api/mcp/schema") as answer:
        tools = {tool["name"]: tool for tool in json.load(answer)}
    assert {f"/{name}" for name in tools} == ENDPOINTS
    assert "volunteers" in tools["classify"]["description"]
    assert "FITS" in tools["classify"]["inputSchema"]["properties"]["picture"]["description"]


def test_the_numbers_are_those_of_predict(client, tmp_path, run_script):
    run_script("predict", "--run", "spaces_app/models/lite0", "--dataset", EXAMPLES, "--out", tmp_path / "predicted")
    predicted = pd.concat(map(pd.read_parquet, (tmp_path / "predicted").glob("*.parquet"))).set_index("id_str")
    assert set(predicted.index) == {file.name for file in EXAMPLES.iterdir()}
    for name, row in predicted.iterrows():
        for campaign in ("gz2", "gz_jwst_ceers"):
            said = ask(client, "classify", EXAMPLES / name, model="lite0", campaign=campaign)
            tree = load_tree(campaign)
            columns = [f"{q['question']}_{a['answer']}" for q in said["questions"] for a in q["answers"]]
            assert columns == tree.columns
            fractions = [a["fraction"] for q in said["questions"] for a in q["answers"]]
            np.testing.assert_allclose(
                fractions, row[[f"{column}_fraction" for column in columns]].astype(float), atol=1e-4
            )


def test_likely_votes_and_intervals_belong_together(client):
    said = ask(client, "classify", volunteers=100)
    assert said["model"] == "lite0"
    assert said["campaign"] == "gz2"
    assert said["familiar"] == (said["unlikeness"] <= 1)
    first = said["questions"][0]
    assert first["asked"] == 1
    assert sum(answer["votes"] for answer in first["answers"]) == pytest.approx(100, abs=1e-3)
    for question in said["questions"]:
        for answer in question["answers"]:
            assert answer["votes"] == pytest.approx(100 * question["asked"] * answer["fraction"])
            low, high = answer["votes_interval"]
            assert 0 <= low <= high <= 100
    assert said["path"][0]["answer"] == max(first["answers"], key=lambda answer: answer["fraction"])["answer"]


def test_a_galaxy_is_recognised_and_a_chessboard_is_not(client, tmp_path):
    board = np.kron(np.indices((8, 8)).sum(axis=0) % 2, np.ones((32, 32)))
    Image.fromarray((255 * board).astype(np.uint8)).convert("RGB").save(tmp_path / "board.png")
    assert ask(client, "classify", tmp_path / "board.png")["unlikeness"] > 1
    assert ask(client, "classify", EXAMPLES / "smooth.jpg")["path"][0]["answer"] == "smooth"
    assert ask(client, "classify", EXAMPLES / "many_arms.jpg")["path"][0]["answer"] == "featured-or-disk"


def test_zoom_is_a_crop(client, tmp_path):
    picture = Image.open(SPIRAL)
    side = picture.width
    picture.crop((side // 4, side // 4, side // 4 + side // 2, side // 4 + side // 2)).save(tmp_path / "middle.png")
    zoomed, cropped = (ask(client, "classify", SPIRAL, zoom=2), ask(client, "classify", tmp_path / "middle.png"))
    assert zoomed["questions"] == cropped["questions"]


def test_what_it_looked_at_is_where_the_galaxy_is(client):
    seen = ask(client, "looked_at", EXAMPLES / "edge_on.jpg", model="lite0")
    assert seen["answer"] == "smooth-or-featured-gz2_featured-or-disk"
    places = np.clip(np.array(seen["map"]), 0, None)
    assert places.shape == (64, 64)
    along, across = places.sum(axis=0), places.sum(axis=1)  # the disk stands upright, in the middle of the picture
    assert along[22:42].sum() > 0.6 * along.sum()
    assert 8 < np.argmax(across) < 56
    with pytest.raises(AppError, match="smooth-or-featured-gz2_smooth"):
        ask(client, "looked_at", answer="spiral")


def test_similar_galaxies_have_words(client):
    found = ask(client, "alike", EXAMPLES / "edge_on.jpg", count=5)
    assert [each["likeness"] for each in found] == sorted((each["likeness"] for each in found), reverse=True)
    assert sum("edge-on" in each["words"].replace("not edge-on", "") for each in found) >= 3


def test_models_say_what_they_answer(client):
    models = client.predict(api_name="/models")
    assert [model["name"] for model in models] == ["lite0", "small"]
    assert all(set(model["campaigns"]) == {"gz2", "gz_jwst_ceers"} for model in models)
    assert models[0]["campaigns"]["gz2"] == load_tree("gz2").columns


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"model": "huge"}, "There is no model huge; there are lite0, small"),
        ({"campaign": "gz_euclid"}, "was not trained on the questions of gz_euclid"),
        ({"volunteers": 0}, "volunteers must be a whole number"),
        ({"volunteers": 1e9}, "volunteers must be a whole number"),
        ({"zoom": 0}, "zoom must be from 1"),
    ],
)
def test_a_wrong_option_is_answered_in_words(client, given, words):
    with pytest.raises(AppError, match=words):
        ask(client, "classify", **given)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("page.jpg", b"<html><script>alert(1)</script></html>"),
        ("drawing.svg", b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'),
        ("text.png", b"I am no picture."),
        ("empty.jpg", b""),
        ("cut.jpg", SPIRAL.read_bytes()[:4000]),
    ],
)
def test_what_is_no_picture_is_answered_in_words_and_the_app_lives_on(client, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AppError) as refused:
        ask(client, "classify", tmp_path / name)
    words = str(refused.value)
    assert len(words) > 20
    for inner in ("Traceback", "/tmp", "PIL", "Error:", "gradio"):
        assert inner not in words
    assert ask(client, "classify")["path"]


def test_no_file_of_the_server_is_read(client):
    for path in ("/etc/passwd", str(ROOT / "pyproject.toml"), "../pyproject.toml"):
        with pytest.raises(Exception) as refused:  # noqa: PT011 - gradio's own, of several kinds
            client.predict(picture={"path": path, "meta": {"_type": "gradio.FileData"}}, api_name="/classify")
        assert "root:" not in str(refused.value)
        assert "hf_galaxy" not in str(refused.value).replace(str(ROOT), "")


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:1/a.jpg", "http://169.254.169.254/latest", "http://10.0.0.1/a.png", "file:///etc/passwd"],
)
def test_no_private_address_is_asked(client, address):
    with pytest.raises(Exception) as refused:  # noqa: PT011 - gradio's own, of several kinds
        client.predict(
            picture={"path": address, "url": address, "meta": {"_type": "gradio.FileData"}}, api_name="/classify"
        )
    assert "root:" not in str(refused.value)


def test_twenty_visitors_at_once_get_what_one_gets(space, client):
    alone = ask(client, "classify")
    with ThreadPoolExecutor(20) as visitors:
        together = list(visitors.map(lambda _: ask(Client(space, verbose=False), "classify"), range(20)))
    assert all(json.dumps(each) == json.dumps(alone) for each in together)


def test_the_example_of_the_documentation_runs(space, monkeypatch):
    [block] = re.findall(r"```python\n(from gradio_client.*?)```", (ROOT / "docs/space.md").read_text(), re.DOTALL)
    monkeypatch.chdir(ROOT)
    names = {}
    exec(block.replace("http://127.0.0.1:7860", space), names)
    assert names["prediction"]["description"]


def test_several_pictures_become_a_table(client, tmp_path):
    with zipfile.ZipFile(tmp_path / "night.zip", "w") as archive:
        archive.write(SPIRAL, "night/first.jpg")
        archive.writestr("../outside.jpg", SPIRAL.read_bytes())
        archive.writestr("night/notes.txt", "cloudy")
    files = [handle_file(str(tmp_path / "night.zip")), handle_file(str(EXAMPLES / "smooth.jpg"))]
    rows, csv, parquet = client.predict(files=files, api_name="/classify_several")
    table = pd.read_parquet(parquet)
    assert len(table) == len(pd.read_csv(csv)) == len(rows["data"] if isinstance(rows, dict) else rows)
    said = ask(client, "classify", EXAMPLES / "smooth.jpg")
    row = table[table["name"] == "smooth.jpg"].iloc[0]
    assert row["smooth-or-featured-gz2_smooth_fraction"] == pytest.approx(
        said["questions"][0]["answers"][0]["fraction"], abs=1e-6
    )
    assert row["description"] == said["description"]
    assert not Path(tmp_path.parent / "outside.jpg").exists()


def test_a_wrong_place_in_the_sky_is_answered_in_words(client):
    for place in (("here", "there"), ("184.7", "99"), ("-3", "0")):
        with pytest.raises(AppError, match=r"right ascension|declination"):
            client.predict(*place, api_name="/cutout")


def test_the_page_needs_nothing_from_elsewhere(space):
    with urllib.request.urlopen(space) as page:
        content = page.read().decode()
    for elsewhere in ("googleapis", "cdn.", "huggingface.co/front", "plausible"):
        assert elsewhere not in content
