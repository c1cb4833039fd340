"""The token buckets of the embedded server, against a clock that the test sets."""

import threading

import pytest

from dafne_dante.federation.rate_limit import Rate, RateLimit, address_group


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


def made(burst=3, per_s=0.5, **options):
    clock = Clock()
    return clock, RateLimit(Rate(burst, per_s), clock=clock, **options)


def test_a_burst_goes_through_then_calls_come_at_the_rate():
    clock, limit = made()
    assert [limit.take("a") for _ in range(3)] == [0.0] * 3
    assert limit.take("a") == pytest.approx(2.0)
    clock.now_s = 1.0
    assert limit.take("a") == pytest.approx(1.0)  # being refused took nothing
    clock.now_s = 2.0
    assert limit.take("a") == 0.0
    assert limit.take("a") > 0
    clock.now_s = 1000.0
    assert [limit.take("a") for _ in range(4)] == [0.0] * 3 + [pytest.approx(2.0)]


def test_one_does_not_use_up_what_another_has():
    _, limit = made()
    for _ in range(3):
        limit.take("a")
    assert limit.take("a") > 0
    assert limit.take("b") == 0.0


def test_what_was_dear_empties_the_bucket_and_no_more():
    clock, limit = made()
    limit.charge("a", 100.0)
    assert limit.take("a") == pytest.approx(2.0)
    clock.now_s = 2.0
    assert limit.take("a") == 0.0


def test_memory_is_bounded():
    _, limit = made(most=10)
    for number in range(1000):
        limit.take(str(number))
    assert len(limit._buckets) == 10
    for _ in range(3):
        limit.take("a")
    for number in range(9):
        limit.take(str(number))
    assert limit.take("a") > 0  # it was not among the ten that went


def test_threads_get_no_more_than_the_burst():
    _, limit = made(burst=50)
    taken = []

    def work():
        for _ in range(50):
            if limit.take("a") == 0.0:
                taken.append(1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 50


@pytest.mark.parametrize(
    ("address", "group"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("2001:db8:1:2:aaaa::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff:1:2:3", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unix socket", "unix socket"),
        ("x" * 1000, "x" * 64),
    ],
)
def test_addresses_that_one_machine_has_are_one(address, group):
    assert address_group(address) == group
