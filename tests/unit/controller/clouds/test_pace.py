"""When to look first: it follows how long things take, and is never far off."""

import pytest

from blockferry_controller.clouds.openstack.pace import LEAST_SECONDS, MOST_SECONDS, Pace

WAITS = 200


def wait(pace: Pace, takes_seconds: float) -> tuple[float, int]:
    """How long somebody waits for what takes so long, and how often he looks: as `until` does."""
    at, looks = pace.first_seconds(), 1
    pause = max(LEAST_SECONDS, at / 2)
    while at < takes_seconds:
        at, looks, pause = at + pause, looks + 1, pause * 2
    pace.learn(at, looks=looks)
    return at, looks


@pytest.mark.parametrize("takes_seconds", [0.05, 0.3, 1.7, 6.0])
def test_one_look_is_enough_nearly_always(takes_seconds: float) -> None:
    pace = Pace()
    for _ in range(20):
        wait(pace, takes_seconds)
    seen = [wait(pace, takes_seconds) for _ in range(WAITS)]
    assert sum(looks for _, looks in seen) / WAITS < 1.35
    late = sum(at for at, _ in seen) / WAITS - takes_seconds
    assert late < max(2 * LEAST_SECONDS, 0.5 * takes_seconds)


def test_what_takes_long_is_looked_at_all_the_same() -> None:
    pace = Pace()
    for _ in range(50):
        wait(pace, 600.0)
    assert pace.first_seconds() <= MOST_SECONDS * 1.05


def test_one_that_took_minutes_does_not_make_all_others_wait() -> None:
    pace = Pace(jitter=lambda: 0.5)
    for _ in range(20):
        wait(pace, 0.1)
    pace.learn(120.0, looks=9)
    assert pace.first_seconds() <= MOST_SECONDS
    for _ in range(60):
        wait(pace, 0.1)
    assert pace.first_seconds() < 1.0


def test_many_do_not_look_in_step() -> None:
    pace = Pace()
    assert len({pace.first_seconds() for _ in range(20)}) > 10
