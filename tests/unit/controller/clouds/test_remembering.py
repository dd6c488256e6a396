"""What is the same for every migration is asked for once a minute; all else each time."""

import threading
from collections import Counter

import pytest

from blockferry.errors import UnreachableError
from blockferry_controller.clouds.port import Access
from blockferry_controller.clouds.remembering import FRESH_SECONDS, remembering
from tests.fakes.clock import ManualClock
from tests.fakes.cloud import MemoryCloud

REMEMBERED = (
    "access", "list_volume_types", "list_volume_zones", "list_flavors", "list_images",
    "list_networks",
)  # fmt: skip
ASKED_EACH_TIME = ("quota", "list_volumes", "find_resources")


@pytest.mark.parametrize("verb", REMEMBERED)
def test_asked_once_and_again_when_it_is_old(verb: str) -> None:
    memory, clock = MemoryCloud(), ManualClock()
    cloud = remembering(memory, clock)
    first = getattr(cloud, verb)()
    assert getattr(cloud, verb)() == first == getattr(memory, verb)()
    memory.calls.clear()
    clock.sleep(FRESH_SECONDS - 1)
    getattr(cloud, verb)()
    assert memory.verbs == []
    clock.sleep(1)
    getattr(cloud, verb)()
    assert memory.verbs == [verb]


@pytest.mark.parametrize("verb", ASKED_EACH_TIME)
def test_what_migrations_change_is_asked_each_time(verb: str) -> None:
    memory = MemoryCloud()
    cloud = remembering(memory, ManualClock())
    for _ in range(3):
        getattr(cloud, verb)()
    assert memory.verbs == [verb] * 3


def test_outward_addresses_are_those_of_each_network() -> None:
    memory = MemoryCloud(outward=("203.0.113.9",))
    cloud = remembering(memory, ManualClock())
    for network in ("a", "b", "a", "b"):
        assert cloud.outward_addresses(network) == ("203.0.113.9",)
    assert memory.calls == [("outward_addresses", "a"), ("outward_addresses", "b")]


def test_an_error_is_not_remembered() -> None:
    memory = MemoryCloud()
    cloud = remembering(memory, ManualClock())
    memory.fail("list_images", UnreachableError("CLOUD_FAILS", "down"))
    with pytest.raises(UnreachableError):
        cloud.list_images()
    assert list(cloud.list_images()) == memory.images


def test_nor_is_an_answer_that_tells_of_one() -> None:
    memory = MemoryCloud()
    cloud = remembering(memory, ManualClock())
    well, down = memory.standing, UnreachableError("CLOUD_FAILS", "down")
    memory.standing = Access(well.roles, {"network": down}, None)
    assert cloud.access().refusals
    memory.standing = well
    assert not cloud.access().refusals


def test_of_many_that_ask_at_once_one_does() -> None:
    memory = MemoryCloud()
    cloud = remembering(memory, ManualClock())
    together = threading.Barrier(20)
    told: Counter[int] = Counter()

    def ask() -> None:
        together.wait(10)
        told[len(cloud.list_flavors())] += 1

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert told == {len(memory.flavors): 20}
    assert memory.verbs == ["list_flavors"]
