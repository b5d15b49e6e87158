"""Coordinates in the usual ways of writing become degrees, and a cutout is a picture or a clear sentence, soon and of one server."""

import io
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from astropy.coordinates import Angle
from PIL import Image

import cutouts
from cutouts import coordinates, cutout, declination, right_ascension
from hf_galaxy.cutouts.services import LegacySurveys
from hf_galaxy.errors import BadInput

PIXELS = np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def jpeg(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


# Coordinates


@pytest.mark.parametrize(
    "text", ["12:18:57.6", "12h18m57.6s", "12 18 57.6", "12:18", "0:00:01", "23h59m59.999s", " 5:1:1 "]
)
def test_right_ascension_in_hours_is_that_of_astropy(text):
    assert right_ascension(text) == pytest.approx(Angle(text.strip(), unit="hourangle").deg % 360, abs=1e-10)


@pytest.mark.parametrize(
    "text",
    [
        "+47:18:14",
        "-47:18:14.25",
        "-00:12:30",
        "-0d12m30s",
        "47 18 14",
        "-90:00:00",
        "89d59m59.9s",
        "-5°12\N{PRIME}30\N{DOUBLE PRIME}",
        "5:30",
    ],
)
def test_declination_is_that_of_astropy(text):
    assert declination(text) == pytest.approx(Angle(text, unit="deg").deg, abs=1e-10)


@pytest.mark.parametrize(
    ("text", "ra", "dec"),
    [
        ("184.74 47.304", 184.74, 47.304),
        ("184.74, -47.304", 184.74, -47.304),
        ("184.74;47.304", 184.74, 47.304),
        ("12:18:57.6 +47:18:14.4", 184.74, 47.304),
        ("12h18m57.6s +47d18m14.4s", 184.74, 47.304),
        ("12 18 57.6 47 18 14.4", 184.74, 47.304),
        ("12h 18m 57.6s, +47d 18m 14.4s", 184.74, 47.304),
        ("184d44m24s 47.304°", 184.74, 47.304),
        ("12:18:57.6 47.304", 184.74, 47.304),
        ("0 \N{MINUS SIGN}1.5e1", 0, -15),
        ("360 .5", 0, 0.5),
        ("24:00:00 90:00:00", 0, 90),
    ],
)
def test_both_stand_in_one_line(text, ra, dec):
    assert coordinates(text) == pytest.approx((ra, dec), abs=1e-9)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Please enter right ascension and declination"),
        ("184.74", "Please enter right ascension and declination"),
        ("1 2 3", "Please enter right ascension and declination"),
        ("here there", "right ascension cannot be read"),
        ("nan 5", "right ascension cannot be read"),
        ("12:61:00 5", "right ascension cannot be read"),
        ("12:18:60 5", "right ascension cannot be read"),
        ("12:18:57.6:1 5", "right ascension cannot be read"),
        ("1e999 5", "right ascension must be"),
        ("361 5", "right ascension must be"),
        ("-1 5", "right ascension must be"),
        ("-0:10:00 5", "right ascension must be"),
        ("25:00:00 5", "right ascension must be"),
        ("5 inf", "declination cannot be read"),
        ("5 1h2m3s", "declination cannot be read"),
        ("47.3 184.7", "declination must be"),
        ("5 -90:00:01", "declination must be"),
        ("9" * 100_000 + " 5", "right ascension must be"),
        ("5 " * 100_000, "Please enter right ascension and declination"),
        ("<script> 5", "right ascension cannot be read"),
    ],
)
def test_what_is_no_place_is_said(text, said):
    with pytest.raises(BadInput, match=said) as refused:
        coordinates(text)
    assert "<" not in str(refused.value)


# Cutouts


@pytest.fixture
def server(monkeypatch):
    """A stand-in for the viewer: what it is asked, and what it answers at each declination."""
    asked, stopped = [], threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers["User-Agent"]))
            kind = {0: "picture", 1: "missing", 2: "html", 3: "blank", 4: "slow", 5: "huge", 6: "elsewhere", 7: "here",
                    8: "silent", 9: "file", 10: "error", 11: "short", 12: "rubbish"}[int(float(self.query()["dec"]))]  # fmt: skip
            if kind == "rubbish":
                self.wfile.write(b"220 ftp\r\n\r\n")
                return
            if kind == "silent":
                stopped.wait(300)
                return
            code = {"missing": 404, "elsewhere": 302, "here": 302, "file": 302, "error": 503}.get(kind, 200)
            self.send_response(code)
            place = {
                "elsewhere": f"http://localhost:{other.server_port}/viewer/cutout.jpg?ra=0&dec=0",
                "here": self.path.replace("dec=7.", "dec=0."),
                "file": "file:///etc/passwd",
            }
            if kind in place:
                self.send_header("Location", place[kind])
            content = {"html": b"<html>sorry</html>", "blank": jpeg(np.full_like(PIXELS, 32))}.get(kind, jpeg(PIXELS))
            if kind == "short":
                self.send_header("Content-Length", str(len(content)))
                content = content[:-500]
            self.end_headers()
            if code != 200:
                return
            if kind == "slow":
                for byte in content:
                    self.wfile.write(bytes([byte]))
                    if stopped.wait(0.05):
                        return
            elif kind == "huge":
                for _ in range(100):
                    self.wfile.write(bytes(1_000_000))
            else:
                self.wfile.write(content)

        def query(self):
            return {name: value for name, [value] in parse_qs(urlsplit(self.path).query).items()}

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_):  # a connection that was cut off, as it should
            pass

    servers = server, other = Server(("127.0.0.1", 0), Handler), Server(("localhost", 0), Handler)
    threads = [threading.Thread(target=each.serve_forever, args=(0.01,)) for each in servers]
    for thread in threads:
        thread.start()
    monkeypatch.setattr(LegacySurveys, "server", f"http://127.0.0.1:{server.server_port}/viewer")
    yield asked
    stopped.set()
    for each, thread in zip(servers, threads, strict=True):
        each.shutdown()
        thread.join()
        each.server_close()


def test_the_address_is_that_of_the_survey():
    assert urlsplit(LegacySurveys.server)[:2] == ("https", "www.legacysurvey.org")


def test_a_cutout_is_the_servers_picture(server):
    picture = cutout(184.74, 0.25, size_arcsec=64, pixels=128)
    np.testing.assert_array_equal(picture.pixels, np.asarray(Image.open(io.BytesIO(jpeg(PIXELS)))))
    assert picture.name == "184.74000 +0.25000"
    [(path, agent)] = server
    assert agent == "hf_galaxy"
    assert path.startswith("/viewer/cutout.jpg?")
    assert {name: float(value) for name, [value] in parse_qs(urlsplit(path).query).items() if name != "layer"} == {
        "ra": 184.74, "dec": 0.25, "pixscale": 0.5, "size": 128,
    }  # fmt: skip
    assert parse_qs(urlsplit(path).query)["layer"] == ["ls-dr10"]


def test_a_redirect_within_the_server_is_followed(server):
    assert cutout(10, 7, name="../m 51").name == "m 51"
    assert len(server) == 2


@pytest.mark.parametrize(
    ("dec", "said"),
    [
        (1, "status 404"),
        (2, "something other than a picture"),
        (3, "is outside their footprint"),
        (4, "did not answer within 1 seconds"),
        (5, "something other than a picture"),
        (6, "status 302"),
        (8, "did not answer within 1 seconds"),
        (9, "status 302"),
        (10, "status 503"),
        (11, "something other than a picture"),
        (12, "cannot be reached"),
    ],
)
def test_what_the_server_cannot_give_is_said_in_words_and_soon(server, monkeypatch, dec, said):
    monkeypatch.setattr(cutouts, "SECONDS", 1 if "1 seconds" in said else 100)
    start = time.monotonic()
    with pytest.raises(BadInput, match=said) as refused:
        cutout(10, dec)
    assert time.monotonic() - start < 100
    assert "127.0.0.1" not in str(refused.value)
    assert len(server) == 1  # one try, and nobody else is asked


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "https://no-such-host.invalid"])
def test_no_network_is_said(monkeypatch, address):
    monkeypatch.setattr(LegacySurveys, "server", address)
    with pytest.raises(BadInput, match="cannot be reached at the moment"):
        cutout(10, 0)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"ra": float("nan"), "dec": 0}, "right ascension must be"),
        ({"ra": -1, "dec": 0}, "right ascension must be"),
        ({"ra": 0, "dec": 91}, "declination must be"),
        ({"ra": 0, "dec": 0, "size_arcsec": 0}, "from 10 to 600 arcseconds"),
        ({"ra": 0, "dec": 0, "size_arcsec": float("inf")}, "from 10 to 600 arcseconds"),
        ({"ra": 0, "dec": 0, "pixels": 10_000}, "from 64 to 512 pixels"),
    ],
)
def test_values_out_of_range_are_refused_before_anything_is_asked(server, values, said):
    with pytest.raises(BadInput, match=said):
        cutout(**values)
    assert server == []
