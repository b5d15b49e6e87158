"""Many visitors of the Space at once, each of whom clicks again as soon as the answer is there: what a click takes, and what is left of it.

    python benchmarks/space_load.py [--visitors 20] [--requests 1000]
    python benchmarks/space_load.py --url http://127.0.0.1:7860

Linux only: it reads /proc. See benchmarks/README.md.
"""

import asyncio
import io
import itertools
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import psutil
from material import encoded, machine
from PIL import Image

from hf_galaxy.command_line import Command
from hf_galaxy.errors import BadInput

APP = Path(__file__).parent.parent / "spaces_app/app.py"
# The endpoint, of whose inputs the first of PICTURE gets the picture; the others have what the page shows at first.
ENDPOINT, PICTURE = "classify", ("image", "file")
PACKAGES = ["hf_galaxy", "gradio", "onnxruntime"]
DRAWN = 32  # galaxies; each click sends one of them with a comment of its own, so that no two files are the same
STARTS_WITHIN, ANSWERS_WITHIN = 180, 120  # seconds; the first start exports the models


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Let visitors upload galaxies and ask for their morphology, as the page in a browser does."""

    url: str | None = None
    """Address of a running app; its memory, and the files that it leaves, are not looked at."""
    app: Path = APP
    """The app to start, on a free port."""
    visitors: int = 20
    """At once."""
    requests: int = 1000
    """Clicks of all of them."""
    looks: tuple[int, ...] = (100, 500, 1000)
    """After how many of them to look at the memory."""
    model: Path | None = None
    """Run folder of the model that answers: what it takes by itself is the limit."""


@dataclass
class Server:
    """The app, started here; `process` is None for one that runs elsewhere."""

    url: str
    process: psutil.Process | None = None
    files: Path | None = None

    def looked_at(self) -> tuple[float, float]:
        """MB of memory that it holds (RSS), and seconds of CPU that it has had."""
        with self.process.oneshot():
            times = self.process.cpu_times()
            return self.process.memory_info().rss / 1e6, times.user + times.system

    def files_left(self) -> str:
        """What lies in its folder for temporary files."""
        files = [path for path in self.files.rglob("*") if path.is_file()]
        return f"{len(files)} files, {sum(file.stat().st_size for file in files) / 1e6:.1f} MB"


@contextmanager
def started(app: Path) -> Iterator[Server]:
    """The app in a process of its own, offline, with an empty folder for temporary files."""
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as log:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        own = {"GRADIO_SERVER_PORT": str(port), "GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
        process = subprocess.Popen(
            [sys.executable, app.resolve()], env=os.environ | {"HF_HUB_OFFLINE": "1"} | own, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
        try:
            server = Server(f"http://127.0.0.1:{port}", psutil.Process(process.pid), Path(folder))
            end = time.monotonic() + STARTS_WITHIN
            while not answers(server.url):
                if process.poll() is not None or time.monotonic() > end:
                    log.seek(0)
                    raise BadInput(f"{app} does not answer:\n{log.read().decode(errors='replace')[-3000:]}")
                time.sleep(0.1)
            yield server
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def answers(url: str) -> bool:
    """Whether an app answers there."""
    try:
        return httpx.get(f"{url}/config").status_code == 200
    except httpx.TransportError:
        return False


class Visitors:
    """Who clicks; `seconds` each click took, `errors` what else came back, `looks` (clicks, MB, CPU seconds, wall seconds)."""

    def __init__(self, server: Server, settings: Settings):
        self.server, self.settings = server, settings
        config = httpx.get(f"{server.url}/config").json()
        asked = [d for d in config["dependencies"] if d["api_name"] == ENDPOINT]
        if not asked:
            raise BadInput(f"{server.url}: has no endpoint {ENDPOINT}")
        parts = {part["id"]: part for part in config["components"]}
        self.index, self.inputs = asked[0]["id"], [parts[i] for i in asked[0]["inputs"]]
        self.prefix = server.url + config["api_prefix"]
        self.jpegs = list(encoded(None, DRAWN))
        self.clicks, self.seconds, self.errors, self.looks = itertools.count(), [], [], []

    def data(self, picture: dict) -> list:
        """The inputs of a click."""
        data = [part["props"].get("value") for part in self.inputs]
        data[[part["type"] in PICTURE for part in self.inputs].index(True)] = picture
        return data

    async def click(self, browser: httpx.AsyncClient, number: int) -> str | None:
        """One picture up, one answer back, in a session of its own as after loading the page; returns what went wrong."""
        comment = b"%d" % number
        jpeg = self.jpegs[number % DRAWN]
        jpeg = jpeg[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2) + comment + jpeg[2:]
        sent = await browser.post(f"{self.prefix}/upload", files={"files": ("galaxy.jpg", jpeg, "image/jpeg")})
        if sent.status_code != 200:
            return f"upload: {sent.status_code} {sent.text[:200]}"
        picture = {"path": sent.json()[0], "orig_name": "galaxy.jpg", "meta": {"_type": "gradio.FileData"}}
        session = secrets.token_hex(6)
        body = {"data": self.data(picture), "fn_index": self.index, "session_hash": session, "event_data": None}
        joined = await browser.post(f"{self.prefix}/queue/join", json=body)
        if joined.status_code != 200:
            return f"queue: {joined.status_code} {joined.text[:200]}"
        async with browser.stream("GET", f"{self.prefix}/queue/data", params={"session_hash": session}) as messages:
            done = None
            async for line in messages.aiter_lines():  # to the end, as the server closes it
                if line.startswith("data:"):
                    message = json.loads(line.removeprefix("data:"))
                    done = message if message["msg"] == "process_completed" else done
        return None if done and done["success"] else f"answer: {done}"

    async def visit(self) -> None:
        """One visitor, until all clicks are done."""
        async with httpx.AsyncClient(verify=False, timeout=ANSWERS_WITHIN) as browser:
            while (number := next(self.clicks)) < self.settings.requests:
                start = time.perf_counter()
                try:
                    wrong = await self.click(browser, number)
                except httpx.HTTPError as error:
                    wrong = repr(error)
                if wrong:
                    self.errors.append(wrong)
                else:
                    self.seconds.append(time.perf_counter() - start)
                if (done := len(self.seconds) + len(self.errors)) in self.settings.looks:
                    self.look(done)

    def look(self, clicks: int) -> None:
        if self.server.process:
            self.looks.append((clicks, *self.server.looked_at(), time.perf_counter()))

    async def all(self) -> float:
        """Everybody at once; returns the wall time."""
        self.look(0)
        start = time.perf_counter()
        await asyncio.gather(*(self.visit() for _ in range(self.settings.visitors)))
        return time.perf_counter() - start


def seconds_of(model: Path, jpegs: list[bytes]) -> float:
    """What one picture takes of the model alone, from pixels to answers: median wall time, with all cores."""
    from hf_galaxy.models.onnx_model import FastModel  # only here: what asks a server elsewhere needs no ONNX Runtime

    fast, times = FastModel(model), []
    for jpeg in jpegs * 4:
        pixels = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))
        start = time.perf_counter()
        fast.answer(fast.view(pixels)[None])
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def main(settings: Settings) -> None:
    if min(settings.visitors, settings.requests) < 1:
        raise BadInput("--visitors and --requests must be at least 1")
    if settings.url:
        if not answers(settings.url.rstrip("/")):
            raise BadInput(f"--url {settings.url}: no app answers there")
        report(settings, *measured(settings, Server(settings.url.rstrip("/"))))
    else:
        with started(settings.app) as server:
            visitors, wall, own = measured(settings, server)
            report(settings, visitors, wall, own)
            print(f"\nTemporary files a moment after the last click: {server.files_left()}.")


def measured(settings: Settings, server: Server) -> tuple[Visitors, float, float]:
    """The visitors when they have gone, the wall time, and the seconds of CPU that they needed themselves."""
    warm = Visitors(server, Settings(requests=settings.visitors, visitors=settings.visitors, looks=()))
    asyncio.run(warm.all())
    visitors = Visitors(server, settings)
    own = time.process_time()
    return visitors, asyncio.run(visitors.all()), time.process_time() - own


def report(settings: Settings, visitors: Visitors, wall: float, own: float) -> None:
    """Print the tables."""
    print(f"{settings.visitors} visitors, {settings.requests} clicks.\n\n{machine(*PACKAGES)}\n")
    if not visitors.seconds:
        raise BadInput(f"not one click was answered: {visitors.errors[0]}")
    median, late = np.percentile(visitors.seconds, [50, 95])
    rate, cores = len(visitors.seconds) / wall, len(os.sched_getaffinity(0))
    print("| | |\n|---|---:|")
    if settings.model:
        alone = seconds_of(settings.model, visitors.jpegs)
        print(f"| limit, the model alone: clicks/s | {1 / alone:.1f} |")
    print(f"| clicks/s | {rate:.1f} |")
    if settings.model:
        print(f"| **clicks/s / limit** | {rate * alone:.2f} |")
    print(f"| from click to answer, median | {1000 * median:.0f} ms |")
    print(f"| from click to answer, 95 % are faster | {1000 * late:.0f} ms |")
    if visitors.server.process:
        used = visitors.server.looked_at()[1] - visitors.looks[0][2]
        print(f"| CPU of the server for a click, of {cores} cores | {1000 * used / settings.requests:.1f} ms |")
    print(f"| CPU of the visitors for a click, on the same cores | {1000 * own / settings.requests:.1f} ms |")
    print(f"| errors | {len(visitors.errors)} |")
    for error in visitors.errors[:3]:
        print(f"\n{error}", file=sys.stderr)
    if visitors.looks:
        print(f"\n| clicks | {' | '.join(f'{clicks:,}' for clicks, *_ in visitors.looks)} |")
        print(f"|---|{'---:|' * len(visitors.looks)}")
        print(f"| memory (RSS), MB | {' | '.join(f'{held:.0f}' for _, held, *_ in visitors.looks)} |")
        spans = itertools.pairwise(visitors.looks)
        cpu = [1000 * (after[2] - before[2]) / (after[0] - before[0]) for before, after in spans]
        print(f"| CPU of a click since, ms | | {' | '.join(f'{ms:.1f}' for ms in cpu)} |")


if __name__ == "__main__":
    Command(Settings, main)()
