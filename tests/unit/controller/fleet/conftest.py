"""The stage of all tests of fleets."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.controller.fleet.stage import Stage, staged


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    with staged(tmp_path, monkeypatch) as stage:
        yield stage
