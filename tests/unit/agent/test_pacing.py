import threading

import pytest

from blockferry_agent.pacing import Backoff, RateLimiter, TokenBucket
from blockferry_agent.pipeline import Closed


class StoppedClock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_bucket_lets_the_rate_pass() -> None:
    bucket, now, passed = TokenBucket(1000, 0.0), 0.0, 0
    while now < 10.0:
        now += bucket.delay(now)
        bucket.spend(300)
        passed += 300
    assert passed == pytest.approx(10_000, rel=0.1)


def test_a_message_larger_than_the_bucket_passes_and_is_paid_for() -> None:
    bucket = TokenBucket(1000, 0.0)
    assert bucket.delay(0.0) == 0.0
    bucket.spend(5000)
    assert bucket.delay(0.0) == pytest.approx(5.0)
    assert bucket.delay(4.0) == pytest.approx(1.0)
    assert bucket.delay(5.0) == 0.0


def test_rest_is_not_saved_up() -> None:
    bucket = TokenBucket(1000, 0.0)
    assert bucket.delay(3600.0) == 0.0
    bucket.spend(1250)
    assert bucket.delay(3600.0) == pytest.approx(1.0)


def test_without_a_rate_nothing_waits() -> None:
    bucket = TokenBucket(0, 0.0)
    bucket.spend(10**12)
    assert bucket.delay(0.0) == 0.0


def test_lifting_the_limit_forgives() -> None:
    bucket = TokenBucket(10, 0.0)
    bucket.spend(10**6)
    bucket.set_rate(0, 1.0)
    assert bucket.delay(1.0) == 0.0
    bucket.set_rate(10, 2.0)
    assert bucket.delay(2.0) == 0.0


@pytest.mark.parametrize("close", [True, False], ids=["closed", "lifted"])
def test_who_waits_at_a_limit_is_woken(close: bool) -> None:
    limiter = RateLimiter(1, StoppedClock())
    limiter.take(10**9)
    outcome: list[str] = []

    def take() -> None:
        try:
            limiter.take(1)
            outcome.append("passed")
        except Closed:
            outcome.append("closed")

    thread = threading.Thread(target=take)
    thread.start()
    while not limiter.waiting:
        pass
    if close:
        limiter.close()
    else:
        limiter.set_rate(0)
    thread.join()
    assert outcome == ["closed" if close else "passed"]
    assert not limiter.waiting


def test_backoff_grows_is_jittered_and_bounded() -> None:
    backoff = Backoff(0.1, 1.0)
    waits = [backoff.next_seconds() for _ in range(20)]
    for number, seconds in enumerate(waits):
        ceiling = min(0.1 * 2**number, 1.0)
        assert ceiling / 2 <= seconds <= ceiling
    assert len(set(waits)) > 10
    backoff.reset()
    assert backoff.next_seconds() <= 0.1
