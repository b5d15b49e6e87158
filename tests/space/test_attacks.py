"""What a stranger may try at the running Space beyond sending bad files: each is refused, in words, and others are served on."""

import json
import time
import urllib.error
import urllib.request
import zipfile
from http.client import HTTPConnection
from urllib.parse import quote

import numpy as np
import pytest
from gradio_client import handle_file
from PIL import Image

from tests.conftest import ROOT

SPIRAL = ROOT / "spaces_app/examples/two_arms.jpg"
NOT_FETCHED = "Files are not fetched from addresses. Please send the file itself."
# Of what no other network has; gradio's own guard would let the first two and the last pass.
ADDRESSES = ["http://100.64.0.1/a.jpg", "https://huggingface.co/a.jpg", "http://127.0.0.1:1/", "http://[fec0::1]/a"]


def answered(address, body=None, **headers):
    """(status, headers, text) of a request, without raising."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, body, headers), timeout=300) as answer:
            return answer.status, answer.headers, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode(errors="replace")


def asked(space, name, *data):
    """The event and what came with it, of an endpoint that is asked without gradio_client."""
    address = f"{space}/gradio_api/call/{name}"
    _, _, text = answered(address, json.dumps({"data": data}).encode(), **{"Content-Type": "application/json"})
    lines = answered(f"{address}/{json.loads(text)['event_id']}")[2].splitlines()
    return lines[0].removeprefix("event: "), json.loads(lines[1].removeprefix("data: "))


def sent(space, name, content):
    """Where an uploaded file lies."""
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    return json.loads(answered(f"{space}/gradio_api/upload", head + content + b"\r\n--x--\r\n", **kind)[2])[0]


def file_data(path):
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_address_is_fetched_for_whichever_box(space, address):
    picture = file_data(sent(space, "a.jpg", SPIRAL.read_bytes()))
    given = file_data(address)
    for name, data in [
        ("classify", [given, None, None, 40, 1]),
        ("classify", [picture, given, None, 40, 1]),  # a box of text
        ("classify_several", [[picture, given], None, None]),
    ]:
        event, said = asked(space, name, *data)
        assert (event, said["error"]) == ("error", NOT_FETCHED)


@pytest.mark.parametrize("way", ["file=", "file/"])
@pytest.mark.parametrize("address", ADDRESSES)
def test_it_is_nobodys_proxy(space, way, address):
    assert answered(f"{space}/gradio_api/{way}{address}")[::2] == (403, NOT_FETCHED)


@pytest.mark.parametrize("wrong", [None, "2", [1], {"a": 1}])
@pytest.mark.parametrize(
    ("name", "words"), [("classify", "The zoom must be from 1"), ("cutout", "The side of the field must be")]
)
def test_what_is_no_number_is_refused_in_words(space, name, words, wrong):
    data = ["1", "1", wrong]
    if name == "classify":
        data = [file_data(sent(space, "a.jpg", SPIRAL.read_bytes())), None, None, 40, wrong]
    event, said = asked(space, name, *data)
    assert event == "error"
    assert words in said["error"]


def test_a_place_without_coordinates_is_refused_in_words(space):
    for place, words in [((None, "1"), "right ascension"), (("1", None), "declination")]:
        assert words in asked(space, "cutout", *place, 60)[1]["error"]


@pytest.mark.parametrize("says_its_length", [True, False])
def test_a_long_request_is_cut_off(space, says_its_length):
    connection = HTTPConnection(space.removeprefix("http://"), timeout=300)
    connection.putrequest("POST", "/gradio_api/call/classify")
    connection.putheader("Content-Type", "application/json")
    connection.putheader(*(("Content-Length", "2000000") if says_its_length else ("Transfer-Encoding", "chunked")))
    connection.endheaders()
    if not says_its_length:  # no more than is refused, as it hangs up
        connection.send(b"%x\r\n%s\r\n" % (1_000_001, b"a" * 1_000_001))
    answer = connection.getresponse()
    assert (answer.status, answer.read().decode()) == (413, "This is more than 1 MB at once. Please send less.")


@pytest.mark.parametrize("name", ["page.html", "drawing.svg", "page.xhtml", "page.jpg", "page"])
def test_no_browser_runs_what_was_uploaded(space, name):
    path = sent(space, name, b"<html xmlns='http://www.w3.org/1999/xhtml'><script>alert(1)</script></html>")
    status, headers, _ = answered(f"{space}/gradio_api/file={path}")
    assert (status, headers["X-Content-Type-Options"]) == (200, "nosniff")
    kind = headers["Content-Type"], headers["Content-Disposition"].split(";")[0]
    assert kind in [("application/octet-stream", "attachment"), ("image/jpeg", "inline")]


def test_who_has_one_picture_does_not_wait_for_batches(client, tmp_path):
    Image.fromarray(np.zeros((7000, 7000), np.uint8)).save(tmp_path / "large.png")
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for i in range(8):
            archive.write(tmp_path / "large.png", f"{i}.png")
    given = [handle_file(str(tmp_path / "many.zip"))]
    batches = [client.submit(files=given, api_name="/classify_several") for _ in range(2)]
    while not any(batch.status().code.name == "PROCESSING" or batch.done() for batch in batches):
        time.sleep(0.05)
    for _ in range(2):
        assert client.predict(picture=handle_file(str(SPIRAL)), api_name="/classify")["path"]
    assert not any(batch.done() for batch in batches)
    for batch in batches:
        assert len(batch.result()[0]["data"]) == 8


@pytest.mark.parametrize(
    "path", ["/proc/self/environ", str(ROOT / "spaces_app/app.py"), "data:text/plain,a", "\0", "a" * 5000]
)
def test_a_wrong_path_is_no_way_to_a_file(space, path):
    event, said = asked(space, "classify", file_data(path), None, None, 40, 1)
    assert (event, said) == ("error", {"error": None})
    assert answered(f"{space}/gradio_api/file={quote(path)}")[0] == 403
