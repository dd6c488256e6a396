"""What several write at once is written in turn, and none of them is told to go away."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from blockferry_controller.engine.state import StateStore
from blockferry_controller.events import Progress
from blockferry_controller.spec import Endpoint, Kind, Spec

TIMES = 40


def at_once(*writes: Callable[[int], object]) -> None:
    def often(write: Callable[[int], object]) -> None:
        for number in range(TIMES):
            write(number)

    with ThreadPoolExecutor(len(writes)) as pool:
        for done in [pool.submit(often, write) for write in writes]:
            done.result()


def test_several_people_want_something_of_one_fleet(store: StateStore) -> None:
    """A word that is left refers to its fleet, and so locks it a little, before it is noted."""
    store.fleets.create("shop", ("east", "west"), {}, {}, [])

    def want(name: str) -> Callable[[int], object]:
        return lambda number: store.fleets.want("shop", name, number)

    at_once(want("paused"), want("limit"), want("approved:one"), want("approved:two"))
    wants = store.fleets.wants("shop")
    assert (wants.limit_bytes_per_second, wants.approved) == (TIMES - 1, frozenset({"one", "two"}))


def test_facts_are_remembered_while_progress_is_saved(store: StateStore) -> None:
    store.create("m-1", Spec(Kind.MIGRATE, Endpoint("east", "v"), Endpoint("west")), "s", "d")
    at_once(
        lambda number: store.save_progress("m-1", Progress(committed_bytes=number)),
        lambda number: store.set_facts("m-1", source=number),
        lambda number: store.set_facts("m-1", destination=number),
    )
    assert store.facts("m-1") == {"source": TIMES - 1, "destination": TIMES - 1}
