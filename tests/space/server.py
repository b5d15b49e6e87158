"""The Space as a server of its own on a free port, for tests that call its endpoints and for those that click in a browser."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import ROOT, SHARED
from tests.forks import free_port

APP = ROOT / "spaces_app/app.py"
STARTS_WITHIN = 600  # seconds; the first start exports the models
STOPS_WITHIN = 60
# For playwright's `executable_path`: what Debian and others install, not a download of its own.
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)")


@contextmanager
def running_space(app: Path = APP, **environment: str) -> Iterator[str]:
    """Start an app, wait until it answers and yield its address (http://127.0.0.1:PORT); then end it and all that it started.

    It is offline and has an empty folder for temporary files, `environment` comes on top. Elsewhere than in the repository
    it is started as a Space is: with the folder that the app is in, not with the repository, before all other modules.

    Raises:
        RuntimeError: it ended, or did not answer in time, with what it printed.
    """
    with tempfile.TemporaryDirectory(prefix="space-") as folder, open(f"{folder}/log", "w+") as log:
        port = free_port()
        own = {
            "GRADIO_SERVER_PORT": str(port),
            "GRADIO_TEMP_DIR": f"{folder}/files",
            "GRADIO_ANALYTICS_ENABLED": "False",
        }
        own |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(SHARED), "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            [sys.executable, app.resolve()], env=os.environ | own | environment, cwd=folder, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
        url = f"http://127.0.0.1:{port}"
        try:
            end = time.monotonic() + STARTS_WITHIN
            while not _answers(url):
                if process.poll() is not None or time.monotonic() > end:
                    log.seek(0)
                    state = "takes too long" if process.poll() is None else f"ended with {process.returncode}"
                    raise RuntimeError(f"{app} {state}:\n{log.read()[-5000:]}")
                time.sleep(0.1)
            yield url
        finally:
            _end(process)


def _answers(url):
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{url}/config", timeout=10) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def _end(process):
    """Gently, so that it can tidy up; then whatever is left of its process group for good."""
    try:
        process.send_signal(signal.SIGINT)
        process.wait(STOPS_WITHIN)
    except subprocess.TimeoutExpired:
        print(f"{process.args}: did not end within {STOPS_WITHIN} seconds of SIGINT, and is killed", file=sys.stderr)
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        process.wait()
