"""A stand-in for survey servers: it speaks their interfaces, and what goes wrong is said by the place that is asked for."""

import io
import threading
import time
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import numpy as np
from astropy.io import fits
from PIL import Image

# What happens at a declination, in whole degrees, to the first requests for a place; afterwards all is well.
TROUBLE = {
    10: ["busy"], 11: ["broken"], 12: ["broken"] * 100, 13: ["page"], 14: ["page"] * 100, 15: ["half"], 16: ["small"] * 100,
    17: ["dark"] * 100, 18: ["missing"] * 100, 19: ["elsewhere"] * 100, 20: ["closed"] * 100, 21: ["hangup"], 22: ["forever"] * 100,
    23: ["empty"], 24: ["noise"] * 100,
}  # fmt: skip
STATUS = {"busy": 429, "broken": 500, "missing": 404, "elsewhere": 302, "closed": 403}
HEADERS = {
    "busy": ("Retry-After", "7"),
    "forever": ("Retry-After", "86400"),
    "elsewhere": ("Location", "http://localhost:1/"),
}


def values_at(ra, dec, side, bands=1):
    """(bands, side, side) float32 that depend on the place."""
    rng = np.random.default_rng([round(ra * 1000), round((dec + 90) * 1000)])
    return rng.normal(size=(bands, side, side)).astype(np.float32)


def jpeg_at(ra, dec, side, level=None):
    pixels = np.uint8(128 + 30 * np.clip(values_at(ra, dec, side, 3), -4, 4)).transpose(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray(pixels if level is None else np.full_like(pixels, level)).save(file, "JPEG")
    return file.getvalue()


def fits_at(ra, dec, side, bands=1, level=None):
    values = values_at(ra, dec, side, bands)
    if level is not None:
        values[:] = level
    file = io.BytesIO()
    fits.PrimaryHDU(values if bands > 1 else values[0]).writeto(file)
    return file.getvalue()


class SurveyServer:
    """A server in threads of this process.

    Attributes:
        asked: (path, parameters, agent) of each request, in order.
        seconds: that an answer takes.
        trouble: as `TROUBLE`.
        most: requests that were answered at the same time.
    """

    def __init__(self, seconds=0.0):
        self.asked, self.seconds, self.trouble = [], seconds, dict(TROUBLE)
        self.now = self.most = 0
        self._lock, self._tries = threading.Lock(), defaultdict(int)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer._answer(self)

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads, block_on_close = True, False

            def handle_error(self, *_):  # a connection that was cut off, as it should
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.005,))
        self._thread.start()

    def close(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def places(self):
        """(ra, dec) of the requests, as texts."""
        return [(query["ra"], query["dec"]) for _, query, _ in self.asked]

    def _answer(self, request):
        parts = urlsplit(request.path)
        query = {name: value for name, [value] in parse_qs(parts.query).items()}
        with self._lock:
            self.asked.append((parts.path, query, request.headers["User-Agent"]))
            self.now += 1
            self.most = max(self.most, self.now)
            trouble = self.trouble.get(int(float(query["dec"])), [])
            number = self._tries[request.path]
            self._tries[request.path] += 1
        kind = trouble[number] if number < len(trouble) else "well"
        time.sleep(self.seconds)
        content = self._content(parts.path, query, kind)
        with self._lock:
            self.now -= 1
        if kind == "hangup":
            return
        request.send_response(STATUS.get(kind, 429 if kind == "forever" else 200))
        if kind in HEADERS:
            request.send_header(*HEADERS[kind])
        if kind == "half":
            request.send_header("Content-Length", str(len(content)))
            content = content[: len(content) // 2]
        request.end_headers()
        request.wfile.write(content)

    def _content(self, path, query, kind):
        ra, dec = float(query["ra"]), float(query["dec"])
        if kind in ("page", *STATUS):
            return b"\n<!DOCTYPE html><html><body>Sorry</body></html>"
        if kind in ("empty", "noise"):
            return b"" if kind == "empty" else np.random.default_rng(0).bytes(5000)
        if path.endswith("ps1filenames.py"):
            header = "projcell,subcell,ra,dec,filter,mjd,type,filename,shortname,badflag\n"
            rows = [f"1,2,3,4,{band},0,stack,/rings/{band}.fits,{band}.fits,0\n" for band in query["filters"]]
            return (header + "".join(rows if dec > -30 else rows[1:] if dec > -40 else [])).encode()
        side = int(query.get("output_size") or query.get("width") or query["size"])
        if kind == "small":
            side //= 2
        level = 7 if kind == "dark" else None
        if "fits" in (query.get("format"), path.rpartition(".")[2]):
            return fits_at(ra, dec, side, len(query.get("bands", "r")), level)
        return jpeg_at(ra, dec, side, level)
