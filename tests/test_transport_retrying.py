"""Repetitions: what is worth one, and the pauses before it, by numbers."""

import email.utils
import random
import time

import pytest
from fake_servers import FakeServer, answer

from dafne_dante.errors import (
    AccessDeniedError,
    CertificateError,
    ProxyRefusedError,
    ServerAnswerError,
    ServerUnreachableError,
    UploadUnknownError,
)
from dafne_dante.federation.retrying import Retrying, RetryPlan, pause_before
from dafne_dante.federation.transport import HttpTransport

PLAN = RetryPlan(retries=5, first_s=1.0, longest_s=4.0, longest_asked_s=60.0, total_s=100.0)


class World:
    """A clock that pauses and attempts move."""

    def __init__(self, attempt_s=0.0):
        self.now, self.pauses, self.attempt_s = 0.0, [], attempt_s

    def pause(self, seconds):
        self.pauses.append(seconds)
        self.now += seconds

    def retrying(self, plan=PLAN, share=1.0):
        return Retrying(plan, self.pause, lambda: share, lambda: self.now)

    def failing(self, error, times=10**6):
        def attempt():
            self.now += self.attempt_s
            nonlocal times
            times -= 1
            if times >= 0:
                raise error
            return "done"

        return attempt


def test_pauses_double_up_to_the_longest():
    assert [pause_before(PLAN, count, 1.0) for count in range(6)] == [1.0, 2.0, 4.0, 4.0, 4.0, None]
    assert pause_before(RetryPlan(retries=10**6), 10**5, 1.0) == 30.0


def test_pauses_are_spread_over_their_upper_half():
    drawn = [pause_before(PLAN, 1, random.Random(seed).random()) for seed in range(500)]
    assert 1.0 <= min(drawn) < 1.05
    assert 1.95 < max(drawn) <= 2.0
    assert 1.4 < sum(drawn) / 500 < 1.6


@pytest.mark.parametrize(("asked", "pause"), [(0.0, 1.0), (30.0, 30.0), (60.0, 60.0), (60.1, None), (1e15, None)])
def test_what_the_server_asks_for_is_the_shortest_pause_within_bounds(asked, pause):
    assert pause_before(PLAN, 0, 1.0, asked) == pause


def test_a_failure_that_passes_is_not_told():
    world = World()
    assert world.retrying().run(world.failing(ServerUnreachableError("x"), times=2)) == "done"
    assert world.pauses == [1.0, 2.0]


@pytest.mark.parametrize("kind", [CertificateError, ProxyRefusedError, UploadUnknownError, AccessDeniedError,
                                  ServerAnswerError])  # fmt: skip
def test_what_another_attempt_cannot_change_is_told_at_once(kind):
    world = World()
    with pytest.raises(kind):
        world.retrying().run(world.failing(kind("x")))
    assert world.pauses == []


def test_all_attempts_end_within_the_time_for_them():
    world = World(attempt_s=40.0)
    with pytest.raises(ServerUnreachableError):
        world.retrying().run(world.failing(ServerUnreachableError("x")))
    assert world.pauses == [1.0, 2.0]
    assert world.now == 3 * 40 + 3


def test_no_retries_means_one_attempt():
    world = World()
    with pytest.raises(ServerUnreachableError):
        world.retrying(RetryPlan(retries=0)).run(world.failing(ServerUnreachableError("x")))
    assert world.pauses == []


def ask(server, pauses):
    retrying = Retrying(RetryPlan(retries=2), pause=pauses.append)
    return HttpTransport(server.url, "key", timeout_s=5.0, retrying=retrying).ask("info_model", {})


def busy(asked, status=503):
    return answer(b"{}", status, headers=[("Retry-After", asked)])


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("asked", ["7", " 7 ", "date"])
def test_a_busy_server_is_left_alone_for_as_long_as_it_asks(status, asked):
    asked = email.utils.formatdate(time.time() + 8, usegmt=True) if asked == "date" else asked
    pauses = []
    with FakeServer(busy(asked, status), answer(b'{"a": 1}')) as server:
        assert ask(server, pauses) == {"a": 1}
    assert 5.5 < pauses[0] <= 8.0


@pytest.mark.parametrize("asked", ["3600", "9" * 5000, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_server_that_asks_for_too_long_is_given_up_and_that_is_passed_on(asked):
    pauses = []
    with FakeServer(busy(asked)) as server, pytest.raises(ServerUnreachableError, match="busy") as raised:
        ask(server, pauses)
    assert (pauses, len(server.requests)) == ([], 1)
    assert raised.value.retry_after_s >= 3600


@pytest.mark.parametrize("asked", ["", "soon", "-5", "٣", "Mon, 99 Foo 2020", "Mon, 1 Jan 2001 00:00:00 GMT", "1e9"])
def test_a_malformed_or_past_request_counts_as_none(asked):
    pauses = []
    with FakeServer(busy(asked.encode().decode("latin-1")), answer(b"{}")) as server:
        ask(server, pauses)
    assert 0.25 <= pauses[0] <= 0.5
