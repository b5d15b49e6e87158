"""Threads wait asleep beside other programs and in loops alone; what they compute is the same to the bit."""

import time
from pathlib import Path

import pytest
import torch
from torch import nn

from hf_galaxy.cores import available_cores
from hf_galaxy.training import waiting
from hf_galaxy.training.waiting import Decision, IdleTeam, Watch, stop_watching, watch_waiting

ALONE, UNCLEAR, BESIDE = 0.1, 0.3, 0.7
START = waiting.team_function()
needs_libgomp = pytest.mark.skipif(
    START is None or len(available_cores()) < 2, reason="needs torch with GNU's OpenMP library, and two cores"
)


def decisions(*looks):
    decision = Decision()
    return [decision.update(waited) for waited in looks]


def test_what_is_unclear_changes_nothing():
    assert decisions(ALONE, ALONE, UNCLEAR, ALONE) == [False] * 4
    assert decisions(BESIDE, *[UNCLEAR] * 9, ALONE, ALONE, UNCLEAR, ALONE, ALONE) == [True] * 15


def test_threads_sleep_from_the_first_look_at_shared_cores_to_the_third_at_free_ones():
    assert decisions(ALONE, BESIDE, BESIDE, ALONE, ALONE, ALONE, ALONE) == [False, True, True, True, True, False, False]


def looks_asleep(decision):
    """Free looks until it wakes them."""
    number = 1
    while decision.update(ALONE):
        number += 1
    return number


def test_threads_that_had_to_be_stopped_at_once_sleep_longer_the_next_time():
    decision, slept = Decision(), []
    for _ in range(6):
        decision.update(BESIDE)
        slept.append(looks_asleep(decision))
    assert slept == [3, 6, 12, 24, 48, 48]
    for _ in range(48):
        assert not decision.update(ALONE)
    decision.update(BESIDE)
    assert looks_asleep(decision) == 3


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    stop_watching()
    torch.set_num_threads(before)


def times_asleep():
    """How often a thread has gone to sleep so far, all threads together, while this one looks out for others 100 times for 0.2 ms."""

    def so_far():
        files = [file.read_text() for file in Path("/proc/self/task").glob("*/status")]
        return sum(int(text.rpartition("\nvoluntary_ctxt_switches:")[2].split()[0]) for text in files)

    values = torch.ones(1 << 17)
    values += 1
    before = so_far()
    for _ in range(100):
        values += 1
        end = time.perf_counter() + 2e-4
        while time.perf_counter() < end:
            pass
    return so_far() - before


@needs_libgomp
@pytest.mark.usefixtures("two_threads")
def test_beside_an_idle_team_threads_sleep_each_time_they_wait_and_without_it_in_loops_again():
    assert times_asleep() < 50
    for _ in range(2):
        team = IdleTeam(START, len(available_cores()))
        assert times_asleep() > 90
        team.end()
        time.sleep(0.05)  # its threads end after the one that started them
        assert times_asleep() < 50


def trained(watch):
    """Weights after some steps, after each of which the watch looks at other cores."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 8, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for step in range(4):
        model(torch.rand(8, 3, 24, 24)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        if watch is not None:
            watch.let_sleep(step % 2 == 0)
    return model.state_dict()


@needs_libgomp
@pytest.mark.usefixtures("two_threads")
def test_weights_do_not_depend_on_how_threads_wait_and_the_log_tells_it_once(caplog):
    caplog.set_level("INFO", "hf_galaxy")
    loops, watch = trained(None), Watch(START, len(available_cores()))
    changing = trained(watch)
    assert all(torch.equal(values, changing[name]) for name, values in loops.items())
    for waited in (BESIDE, *[ALONE] * 3, BESIDE):
        watch.look(waited)
    watch.end()
    [told] = caplog.messages
    assert "torch's 2 threads sleep" in told
    time.sleep(0.05)
    assert times_asleep() < 50  # it leaves all as it was


def test_the_share_of_time_counts_all_threads_also_those_that_came_and_went():
    before = {"1": 0.5, "2": 5.0, "gone": 9.0}
    assert waiting.waiting_share(before, {"1": 1.1, "2": 5.4, "new": 0.2}, 2.0) == pytest.approx(0.6)


@needs_libgomp
@pytest.mark.usefixtures("two_threads")
def test_nothing_is_watched_where_there_is_nothing_to_choose(monkeypatch):
    for variable in waiting.VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    watch = watch_waiting()
    assert watch is watch_waiting()
    assert watch.alive
    stop_watching()
    assert not watch.alive
    for variable in waiting.VARIABLES:
        with monkeypatch.context() as context:
            context.setenv(variable, "1")
            assert watch_waiting() is None
    for function, answer in (("team_function", None), ("waited_for_cores", {})):
        with monkeypatch.context() as context:
            context.setattr(waiting, function, lambda answer=answer: answer)
            assert watch_waiting() is None
    monkeypatch.setattr(waiting, "available_cores", lambda: list(range(64)))
    assert watch_waiting() is None  # it would need 64 idle threads
    torch.set_num_threads(1)
    assert watch_waiting() is None


@needs_libgomp
def test_the_system_counts_how_long_threads_wait_for_cores():
    assert waiting.waited_for_cores()
    assert all(seconds >= 0 for seconds in waiting.waited_for_cores().values())
