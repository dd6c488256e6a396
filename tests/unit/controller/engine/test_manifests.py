"""Digests that outlive an instance: kept in runs, by the newest attempt only."""

import pytest

from blockferry.limits import DIGEST_BYTES, MANIFEST_RUN_CHUNKS
from blockferry_controller.engine.lease import Holder
from blockferry_controller.engine.state import StateStore
from tests.unit.controller.engine.test_state import SPEC

ME = Holder.of_this_process()
ONE = b"\xff" * DIGEST_BYTES


@pytest.fixture
def mine(store: StateStore) -> str:
    """A migration in its first attempt."""
    store.create("m-1", SPEC, "east/data", "west/")
    store.acquire("m-1", ME)
    return "m-1"


def test_it_is_kept_in_runs(store: StateStore, mine: str) -> None:
    many = MANIFEST_RUN_CHUNKS + 5
    digests = bytes(range(DIGEST_BYTES)) * many
    assert store.manifests.add(mine, 1, 0, digests)
    assert store.manifests.add(mine, 1, many, ONE)
    assert store.manifests.add(mine, 1, many + 1, b"")
    assert store.manifests.count(mine) == many + 1
    runs = list(store.manifests.runs(mine))
    assert [first for first, _ in runs] == [0, MANIFEST_RUN_CHUNKS, many]
    assert b"".join(run for _, run in runs) == digests + ONE
    assert store.manifests.forget(mine, 1)
    assert store.manifests.count(mine) == 0


def test_an_earlier_attempt_keeps_and_forgets_nothing_any_more(
    store: StateStore, mine: str
) -> None:
    assert store.manifests.add(mine, 1, 0, ONE)
    store.release(mine, ME)
    assert store.acquire(mine, ME) == 2
    assert not store.manifests.add(mine, 1, 1, ONE)
    assert not store.manifests.forget(mine, 1)
    assert list(store.manifests.runs(mine)) == [(0, ONE)]
    assert store.manifests.forget(mine, 2)
