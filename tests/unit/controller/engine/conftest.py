"""The state database in both of its kinds: every test here is a part of one contract."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from blockferry_controller.engine.state import StateStore
from tests.postgres import PostgresServer

NewUrl: TypeAlias = Callable[[], str]


@pytest.fixture(params=["sqlite", "postgresql"])
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> NewUrl:
    """Gives URLs of databases that are empty, or not there yet."""
    if request.param == "sqlite":
        numbers = iter(range(1000))
        return lambda: f"sqlite:///{tmp_path}/state-{next(numbers)}/state.db"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.new_database


@pytest.fixture
def store(new_url: NewUrl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StateStore]:
    """The state in a new database."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    store = StateStore.open(new_url())
    yield store
    store.close()
