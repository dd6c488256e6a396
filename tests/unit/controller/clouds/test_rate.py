"""Buckets, on a clock that passes only by sleeping."""

import threading

import pytest

from blockferry_controller.clouds.openstack.rate import BURST_SECONDS, Bucket
from tests.fakes.clock import ManualClock


def calls(bucket: Bucket, count: int) -> None:
    for _ in range(count):
        with bucket:
            pass


@pytest.mark.parametrize("idle_seconds", [0, 1, 3600], ids="idle-{}s".format)
def test_what_is_saved_up_while_nobody_calls_is_bounded(idle_seconds: float) -> None:
    clock = ManualClock()
    bucket = Bucket(10, clock)
    calls(bucket, 100)
    clock.now += idle_seconds
    before = clock.now
    calls(bucket, 100)
    saved = min(idle_seconds, BURST_SECONDS) * 10
    assert clock.now - before == pytest.approx((100 - saved) / 10, abs=0.11)


def test_a_slow_bucket_lets_one_through_at_once() -> None:
    clock = ManualClock()
    bucket = Bucket(0.1, clock)
    calls(bucket, 1)
    assert clock.slept == []
    calls(bucket, 2)
    assert clock.now == pytest.approx(1_020)


def test_a_service_that_asks_for_time_is_left_alone_and_then_called_one_by_one() -> None:
    clock = ManualClock()
    bucket = Bucket(10, clock)
    bucket.hold(7)
    calls(bucket, 1)
    assert clock.now == pytest.approx(1_007)
    calls(bucket, 10)
    assert clock.now == pytest.approx(1_008)


def test_of_two_times_asked_for_the_longer_holds() -> None:
    clock = ManualClock()
    bucket = Bucket(10, clock)
    bucket.hold(7)
    bucket.hold(2)
    bucket.hold(0)
    calls(bucket, 1)
    assert clock.now == pytest.approx(1_007)


class HeldWhileAsleep(ManualClock):
    """The service asks for time while somebody sleeps for a token."""

    bucket: Bucket

    def sleep(self, seconds: float) -> None:
        first = not self.slept
        super().sleep(seconds)
        if first:
            self.bucket.hold(5)


def test_who_wakes_in_a_time_asked_for_sleeps_on() -> None:
    clock = HeldWhileAsleep()
    clock.bucket = Bucket(1, clock)
    calls(clock.bucket, 2)
    begun_at = clock.now
    calls(clock.bucket, 1)
    assert clock.now - begun_at == pytest.approx(1 + 5)


def test_many_threads_share_one_rate() -> None:
    clock = ManualClock()
    bucket = Bucket(10, clock)
    threads = [threading.Thread(target=calls, args=(bucket, 25)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Each sleep of a ManualClock passes for all: never sooner than the rate allows.
    assert clock.now - 1_000 >= (200 - BURST_SECONDS * 10) / 10 - 0.11
