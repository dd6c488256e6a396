"""One state database for all: opening one takes longer than all checks together."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from blockferry_controller.engine.lease import Holder
from blockferry_controller.engine.state import StateStore
from tests.unit.controller.preflight.stage import SPEC


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StateStore]:
    """Knows the migration m-1."""
    url = f"sqlite:///{tmp_path_factory.mktemp('preflight')}/state.db"
    with closing(StateStore.open(url)) as store:
        store.create("m-1", SPEC, "east/data", "west/data")
        store.acquire("m-1", Holder.of_this_process())
        yield store
