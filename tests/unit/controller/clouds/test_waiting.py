"""Waiting on a clock that no test waits for."""

from collections.abc import Callable, Iterator

import pytest

from blockferry.errors import DeadlineError, NotFoundError, UnreachableError
from blockferry_controller.clouds.openstack.pace import Pace
from blockferry_controller.clouds.openstack.refusals import TransientError
from blockferry_controller.clouds.openstack.waiting import LAG_SECONDS, Patience


class StillClock:
    """Time passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def patience(clock: StillClock) -> Patience:
    return Patience(clock, progress_seconds=60, outage_seconds=30)


def failing(times: int, **facts: float) -> Callable[[], str]:
    """A call that fails for the moment so many times, and then answers."""
    left = iter(range(times))

    def call() -> str:
        if next(left, None) is not None:
            raise TransientError("CLOUD_FAILS", "down.", **facts)
        return "answer"

    return call


def test_what_is_settled_is_not_waited_for(patience: Patience, clock: StillClock) -> None:
    assert patience.until(lambda: "there", lambda _: True, "it") == "there"
    assert clock.slept == []


def test_pauses_grow_and_stay_bounded(patience: Patience, clock: StillClock) -> None:
    with pytest.raises(DeadlineError):
        patience.until(lambda: "same", lambda _: False, "it")
    assert clock.slept[0] < 0.4
    assert max(clock.slept) <= 7.5
    assert clock.now == pytest.approx(160.0)


def test_change_is_progress(patience: Patience, clock: StillClock) -> None:
    """Ten minutes of change outlast a minute of patience."""
    result = patience.until(lambda: int(clock.now) // 50, lambda seen: seen > 12, "it")
    assert result == 13
    assert clock.now > 600


def test_the_deadline_says_what_was_waited_for(patience: Patience) -> None:
    with pytest.raises(DeadlineError, match=r"server 7.*60 s") as caught:
        patience.until(lambda: 1, lambda _: False, "server 7 to be ACTIVE")
    assert caught.value.reason == "CLOUD_STALLS"


def test_a_wait_of_its_own_length(patience: Patience, clock: StillClock) -> None:
    with pytest.raises(DeadlineError, match="5 s"):
        patience.until(lambda: 1, lambda _: False, "it", within_seconds=5)
    assert clock.now == pytest.approx(105.0)


def test_one_more_look_at_the_deadline(patience: Patience, clock: StillClock) -> None:
    assert patience.until(lambda: clock.now >= 160, bool, "it")


def test_an_outage_is_sat_out(patience: Patience, clock: StillClock) -> None:
    assert patience.through_outages(failing(3)) == "answer"
    assert len([one for one in clock.slept if one]) == 3


def test_an_outage_that_lasts(patience: Patience, clock: StillClock) -> None:
    with pytest.raises(UnreachableError, match=r"down\. Try again") as caught:
        patience.through_outages(failing(1000))
    assert type(caught.value) is UnreachableError
    assert clock.now == pytest.approx(130.0)


def test_retry_after_is_kept_and_bounded_by_the_outage(
    patience: Patience, clock: StillClock
) -> None:
    with pytest.raises(UnreachableError):
        patience.through_outages(failing(1000, retry_after_seconds=20))
    assert 20 in clock.slept
    assert clock.now < 100 + 30 + 2 * 20 + 10


def test_other_errors_end_it_at_once(patience: Patience, clock: StillClock) -> None:
    answers: Iterator[str] = iter(())

    def call() -> str:
        for answer in answers:
            return answer
        raise NotFoundError("CLOUD_HAS_NOT", "gone")

    with pytest.raises(NotFoundError):
        patience.through_outages(call)
    assert clock.slept == []


# What is known already, or will be at a time that can be foretold, is not looked at.


def test_what_is_known_to_be_settled_is_not_looked_at(patience: Patience) -> None:
    def look() -> str:
        raise AssertionError("nobody needs to look")

    assert patience.until(look, lambda seen: seen == "there", "it", seen="there") == "there"


def test_the_first_look_comes_when_it_is_usually_done(
    patience: Patience, clock: StillClock
) -> None:
    pace, began, looks = Pace(), clock.now, 0

    def done() -> bool:
        nonlocal looks
        looks += 1
        return clock.now - began >= 3.0

    for _ in range(20):
        began, looks = clock.now, 0
        patience.until(done, bool, "it", seen=False, pace=pace)
    assert looks <= 2
    assert 2.5 < pace.first_seconds() < 4.5


def test_a_wait_that_gives_up_keeps_its_limit(patience: Patience, clock: StillClock) -> None:
    slow = Pace()
    for _ in range(50):
        slow.learn(600.0, looks=9)
    with pytest.raises(DeadlineError):
        patience.until(lambda: 1, lambda _: False, "it", within_seconds=5, seen=1, pace=slow)
    assert clock.now == pytest.approx(105.0)


def gone() -> NotFoundError:
    return NotFoundError("GONE", "it does not show")


def test_what_was_made_is_found_in_a_list_before_it_is_looked_at(patience: Patience) -> None:
    lists = iter([None, None, "listed"])
    observe = patience.showing("made", lambda: next(lists), lambda: "looked at", gone)
    assert [observe() for _ in range(4)] == ["made", "made", "listed", "looked at"]


def test_what_no_list_shows_is_looked_at_after_a_while(
    patience: Patience, clock: StillClock
) -> None:
    observe = patience.showing("made", lambda: None, lambda: "looked at", gone)
    assert observe() == "made"
    clock.now += LAG_SECONDS
    assert observe() == "looked at"


def test_what_shows_nowhere_is_told_after_a_while(patience: Patience, clock: StillClock) -> None:
    observe = patience.showing("made", lambda: "listed", lambda: None, gone)
    assert observe() == "listed"
    assert observe() == "listed", "the next server may not have it yet"
    clock.now += LAG_SECONDS
    with pytest.raises(NotFoundError):
        observe()
