"""Every cell of the fault matrix: see tests/torture/matrix.py for the table.

After each fault the migration ends by `resume`, byte-equal; both clouds are clean,
and a lost instance costs not even the run.
"""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from blockferry_controller.clouds.port import Cloud
from tests.torture.clouds import Migrating, plain_engine
from tests.torture.matrix import HEARD_BY, KINDS, RARE
from tests.torture.tally import Tally
from tests.torture.world import AWAY, LOSSES

pytestmark = pytest.mark.timeout(120)

MEMORY = Path("/dev/shm")
"""Databases by the hundred, none of which has to outlive its test."""


def moments(verb: str, kind: str) -> tuple[bool, ...]:
    """Before, and after the call took effect, where that makes a difference."""
    same = kind in LOSSES or (kind == AWAY and not hasattr(Cloud, verb))
    return (False,) if same else (False, True)


CELLS = [
    pytest.param(verb, side, kind, late, id=f"{verb}-{side}-{kind}{'-after' if late else ''}")
    for verb in KINDS
    if verb not in RARE
    for side in HEARD_BY[verb]
    for kind in KINDS[verb]
    for late in moments(verb, kind)
]


@pytest.fixture(scope="module")
def migrating() -> Iterator[Migrating]:
    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as place, plain_engine():
        yield Migrating(Path(place), Tally())


@pytest.mark.parametrize(("verb", "side", "kind", "late"), CELLS)
def test_a_call_that_goes_wrong_loses_nothing(
    migrating: Migrating, verb: str, side: str, kind: str, late: bool
) -> None:
    migrating.cell(side, verb, kind, late=late)


def test_the_table_says_who_hears_what(migrating: Migrating) -> None:
    heard = {(side, verb) for (side, verb), times in migrating.calls.items() if times}
    told = {(side, verb) for verb in KINDS if verb not in RARE for side in HEARD_BY[verb]}
    assert heard == told
