"""What tests of several rooms share."""

from collections.abc import Iterator

import pytest

from tests.postgres import PostgresServer, postgres


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One for all tests of this process; it is started when the first of them asks."""
    with postgres() as server:
        yield server
