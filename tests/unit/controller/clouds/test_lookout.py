"""One list for many who wait: what it saves, and what it must not hide."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from blockferry.errors import UnreachableError
from blockferry_controller.clouds.openstack.lookout import (
    FEW,
    PERIOD_SECONDS,
    QUIET_SECONDS,
    ROWS_EACH,
    Lookout,
    Watch,
)
from tests.fakes.clock import ManualClock

MANY = FEW + 1


class Project:
    """Things by id, each in a state; counts the lists."""

    def __init__(self) -> None:
        self.things = {f"v{number}": "creating" for number in range(MANY)}
        self.lists = 0
        self.away = False

    def list_all(self) -> dict[str, str]:
        self.lists += 1
        if self.away:
            raise UnreachableError("CLOUD_FAILS", "down")
        return dict(self.things)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def project() -> Project:
    return Project()


@pytest.fixture
def watches(project: Project, clock: ManualClock) -> Iterator[list[Watch[str]]]:
    """One for each thing, each of which has looked by id once."""
    lookout = Lookout(project.list_all, clock)
    with ExitStack() as stack:
        found = [stack.enter_context(lookout.watch(own)) for own in project.things]
        assert not any(watch.quiet() for watch in found)
        yield found


def later(clock: ManualClock, watches: list[Watch[str]]) -> list[bool]:
    clock.now += PERIOD_SECONDS
    return [watch.quiet() for watch in watches]


def test_what_stays_as_it_is_costs_one_list_for_all(
    project: Project, clock: ManualClock, watches: list[Watch[str]]
) -> None:
    for _ in range(5):
        assert all(later(clock, watches))
    assert project.lists == 1 + 5


def test_within_a_period_no_second_list_is_made(
    project: Project, clock: ManualClock, watches: list[Watch[str]]
) -> None:
    for _ in range(50):
        clock.now += PERIOD_SECONDS / 100
        assert all(watch.quiet() for watch in watches)
    assert project.lists == 1


def test_who_sees_a_change_looks_and_nobody_else(
    project: Project, clock: ManualClock, watches: list[Watch[str]]
) -> None:
    later(clock, watches)
    project.things["v0"] = "available"
    assert later(clock, watches) == [False, *[True] * (MANY - 1)]
    assert all(later(clock, watches))


def test_what_no_list_shows_is_looked_at_each_time(
    project: Project, clock: ManualClock, watches: list[Watch[str]]
) -> None:
    del project.things["v1"]
    for _ in range(3):
        assert later(clock, watches)[1] is False


def test_however_quiet_it_is_looked_at_now_and_then(
    clock: ManualClock, watches: list[Watch[str]]
) -> None:
    looks = 0
    for _ in range(round(3 * QUIET_SECONDS / PERIOD_SECONDS)):
        looks += not later(clock, watches)[0]
    assert looks == 3


def test_who_insists_looks_once(clock: ManualClock, watches: list[Watch[str]]) -> None:
    later(clock, watches)
    watches[0].insist()
    assert later(clock, watches) == [False, *[True] * (MANY - 1)]
    assert all(later(clock, watches))


def test_a_list_that_fails_is_not_repeated_by_each(
    project: Project, clock: ManualClock, watches: list[Watch[str]]
) -> None:
    project.away = True
    assert not any(later(clock, watches))
    assert project.lists == 2
    project.away = False
    assert not any(later(clock, watches)), "the first list after it is something to compare with"
    assert all(later(clock, watches))


def test_few_look_by_id(project: Project, clock: ManualClock) -> None:
    lookout = Lookout(project.list_all, clock)
    with ExitStack() as stack:
        few = [stack.enter_context(lookout.watch(f"v{number}")) for number in range(FEW)]
        for _ in range(3):
            assert not any(later(clock, few))
    assert project.lists == 0


def test_a_long_list_is_not_made_again_for_a_handful(
    project: Project, clock: ManualClock, watches: list[Watch[str]]
) -> None:
    project.things |= {f"other{number}": "in-use" for number in range(ROWS_EACH * MANY)}
    later(clock, watches)
    lists = project.lists
    for _ in range(3):
        assert not any(later(clock, watches))
    assert project.lists == lists
