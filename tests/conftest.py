"""What tests of several rooms share."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.postgres import PostgresServer, postgres

# A busy machine is no fault of what is tested, and pytest-timeout limits each test.
settings.register_profile("blockferry", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("blockferry")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One for all tests of this process; it is started when the first of them asks."""
    with postgres() as server:
        yield server
