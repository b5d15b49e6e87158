"""A server is asked at a pace, again after what may pass, and not again after what will not; time passes only in a fake clock."""

import time
from concurrent.futures import ThreadPoolExecutor
from email.message import Message
from email.utils import formatdate
from functools import partial

import pytest

from hf_galaxy.cutouts import polite
from hf_galaxy.cutouts.answers import NoPicture, Unreachable, WrongAnswer, check_picture
from hf_galaxy.cutouts.polite import Client, Pace, Stopped, retry_after
from hf_galaxy.errors import BadInput
from tests.cutouts.survey_server import jpeg_at

CHECK = partial(check_picture, pixels=64)


def url(server, dec):
    return f"{server.url}/cutout.jpg?ra=10&dec={dec}&size=64"


def test_requests_of_all_threads_together_keep_the_pace(clock):
    slept = []
    pace = Pace(4, clock, slept.append)
    with ThreadPoolExecutor(8) as threads:
        for _ in range(40):
            threads.submit(pace.wait)
    # In a clock that stands still, each turn is a quarter of a second after another, whoever got which.
    assert sorted(slept) == pytest.approx([0.25 * turn for turn in range(1, 40)])


def test_a_slow_server_is_not_asked_faster_afterwards_to_make_up_for_it(clock):
    pace = Pace(2, clock, clock.sleep)
    pace.wait()
    clock.now += 100
    for _ in range(3):
        pace.wait()
    assert clock.slept == [0.5, 0.5]


@pytest.mark.parametrize(
    ("dec", "tries"), [(5, 1), (10, 2), (11, 2), (13, 2), (15, 2), (21, 2), (23, 2)],
    ids=["well", "busy", "broken", "page", "half", "hangup", "empty"],
)  # fmt: skip
def test_what_may_pass_is_asked_for_again(server, client, dec, tries):
    assert client.ask(url(server, dec), CHECK) == jpeg_at(10, dec, 64)
    assert len(server.asked) == tries


@pytest.mark.parametrize(
    ("dec", "tries", "error", "said"),
    [
        (12, 3, Unreachable, "status 500"),
        (14, 3, WrongAnswer, "a web page instead of a JPEG"),
        (16, 3, WrongAnswer, "32 x 32 pixels instead of 64 x 64"),
        (17, 1, NoPicture, "outside of its footprint"),
        (18, 1, NoPicture, "status 404"),
        (19, 1, NoPicture, "names another server"),
        (20, 1, Unreachable, "status 403"),
        (22, 1, Unreachable, "asks to wait 86,400 s"),
        (24, 3, WrongAnswer, "something else instead of a JPEG"),
    ],
)
def test_what_does_not_pass_is_said(server, client, dec, tries, error, said):
    with pytest.raises(NoPicture, match=said) as raised:
        client.ask(url(server, dec), CHECK)
    assert type(raised.value) is error
    assert len(server.asked) == tries


def test_the_wait_doubles_and_varies(server, clock):
    client = Client(1000, retries=8, clock=clock, sleep=clock.sleep)
    with pytest.raises(Unreachable):
        client.ask(url(server, 12), CHECK)
    waits = [seconds for seconds in clock.slept if seconds > 0.01]
    assert len(waits) == 8
    for number, wait in enumerate(waits):
        assert 0.5 <= wait / min(60, 2**number) <= 1.5
    assert len({round(wait / min(60, 2**number), 6) for number, wait in enumerate(waits)}) > 1


def test_while_a_server_asks_to_wait_no_thread_asks(server, client, clock):
    start = clock.now
    client.ask(url(server, 10), CHECK)
    assert clock.now - start >= 7
    client.pace.pause(30)
    before = clock.now
    client.ask(url(server, 5), CHECK)
    assert clock.now - before >= 30


def test_retry_after_is_seconds_or_a_date():
    def of(text):
        headers = Message()
        if text is not None:
            headers["Retry-After"] = text
        return retry_after(headers)

    assert [of(text) for text in ("120", None, "soon", "-5", "1e9", "")] == [120, 0, 0, 0, 0, 0]
    assert 85 < of(formatdate(time.time() + 90, usegmt=True)) <= 90
    assert of(formatdate(time.time() - 90, usegmt=True)) == 0


def test_the_server_sees_whom_to_write_to(server):
    Client(contact="me@example.org").ask(url(server, 5), CHECK)
    Client().ask(url(server, 5), CHECK)
    assert [agent for _, _, agent in server.asked] == ["hf_galaxy (me@example.org)", "hf_galaxy"]


def test_an_answer_is_limited_in_time_and_size(server, client, monkeypatch):
    monkeypatch.setattr(polite, "MAX_BYTES", 1000)
    with pytest.raises(NoPicture, match="is larger than 1,000 bytes"):
        client.ask(url(server, 5), CHECK)
    assert len(server.asked) == 1
    server.seconds = 0.3
    monkeypatch.setattr(polite, "SECONDS", 0.05)
    with pytest.raises(Unreachable, match=r"did not answer within 0\.05 s"):
        client.ask(url(server, 5), CHECK)
    assert len(server.asked) == 4


def test_nobody_there_is_said(client):
    with pytest.raises(Unreachable, match="cannot be reached"):
        client.ask("http://127.0.0.1:1/", CHECK)


def test_who_is_stopped_neither_waits_nor_asks(server):
    client = Client(retries=3)
    client.stop()
    with pytest.raises(Stopped):
        client.ask(url(server, 5), CHECK)
    assert server.asked == []


@pytest.mark.parametrize("values", [{"per_second": 0}, {"per_second": -1}, {"retries": -1}, {"contact": "a\r\nX: 1"}])
def test_values_out_of_range_are_refused(values):
    with pytest.raises(BadInput, match="--"):
        Client(**values)
