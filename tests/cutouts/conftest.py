"""What the tests of cutouts share: survey servers on this machine, and a client without real waiting."""

import threading

import pytest

from hf_galaxy.cutouts import services
from hf_galaxy.cutouts.polite import Client
from tests.cutouts.survey_server import SurveyServer


class FakeClock:
    """Time that passes only by sleeping."""

    def __init__(self):
        self.now, self.slept, self._lock = 1000.0, [], threading.Lock()

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        with self._lock:
            self.slept.append(seconds)
            self.now += seconds


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def client(clock):
    return Client(per_second=1000, retries=2, clock=clock, sleep=clock.sleep)


@pytest.fixture
def server(monkeypatch):
    """A server that stands in for all surveys."""
    server = SurveyServer()
    for service in (services.LegacySurveys, services.Sdss, services.PanStarrs, services.Hips):
        monkeypatch.setattr(service, "server", server.url)
    yield server
    server.close()
