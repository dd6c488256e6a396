"""A short, seeded form of `make torture`, and the blows that once found something."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.torture.__main__ import Torture
from tests.torture.clouds import Migrating, plain_engine
from tests.torture.copies import Copies
from tests.torture.matrix import Fault
from tests.torture.runs import FLIP, LIMIT, PAUSE, Blow
from tests.torture.tally import Tally

pytestmark = pytest.mark.timeout(420)


def test_nothing_is_lost_and_nothing_is_left(tmp_path: Path) -> None:
    tally = Torture(7, blows=20, minutes=2.0, directory=tmp_path).run()
    assert not tally.broken, tally.table()
    assert tally.total >= 20
    assert {theatre for theatre, _ in tally.blows} == {"copy", "migrate", "in memory"}


@pytest.fixture(scope="module")
def migrating(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Migrating]:
    with plain_engine():
        yield Migrating(tmp_path_factory.mktemp("clouds"), Tally())


@pytest.mark.parametrize("kind", ["error", "killed"])
def test_a_volume_that_was_handed_over_is_not_made_again(migrating: Migrating, kind: str) -> None:
    world = migrating.case(Fault("destination", "release_volume", 1, late=True, kind=kind))
    assert len(world.struck) == 1
    assert world.calls["destination", "ensure_volume"] == 1


@pytest.mark.parametrize("side", ["source", "destination"])
@pytest.mark.parametrize(
    ("verb", "nth"),
    [
        pytest.param("attach_volume", 1, id="attach"),
        pytest.param("describe", 1, id="reach"),
        pytest.param("adopt_identity", 1, id="adopt"),
        pytest.param("start_job", 1, id="probe"),
        pytest.param("start_job", 2, id="copy begins"),
        pytest.param("list_jobs", 2, id="copy ends"),
        pytest.param("watch_job", 5, id="copy"),
    ],
)
def test_a_lost_instance_is_replaced_in_the_same_run(
    migrating: Migrating, side: str, verb: str, nth: int
) -> None:
    world = migrating.case(Fault(side, verb, nth, late=False, kind="lost"))
    assert len(world.struck) == 1
    # The matrix has checked that there was no second run.
    assert world.calls[side, "ensure_server"] == 2


def test_an_instance_is_not_replaced_for_ever(migrating: Migrating, tmp_path: Path) -> None:
    faults = [
        Fault("destination", "watch_job", nth, late=False, kind="lost") for nth in range(3, 9)
    ]
    world = migrating.play("six losses", faults)
    assert 4 <= len(world.struck) <= 6


@pytest.mark.parametrize("kind", ["SIGKILL source agent", "SIGKILL sink agent"])
def test_a_killed_agent_of_a_copy_comes_back_in_the_same_run(tmp_path: Path, kind: str) -> None:
    tally = Tally()
    Copies(tmp_path, tally, size_chunks=(120, 140)).round(
        "one agent", [Blow(kind, "copy", 0.1, 0.0)]
    )
    assert tally.blows["copy", kind] == 1
    assert tally.attempts["copy"] == 1


def test_gentle_blows_end_no_run(tmp_path: Path) -> None:
    tally = Tally()
    blows = [
        Blow(kind, "copy", share, 0.0)
        for kind, share in [(FLIP, 0.02), (FLIP, 0.1), (PAUSE, 0.2), (LIMIT, 0.3)]
    ]
    Copies(tmp_path, tally, size_chunks=(60, 64)).round("gentle", blows)
    assert tally.blows == {("copy", FLIP): 2, ("copy", PAUSE): 1, ("copy", LIMIT): 1}
    assert tally.attempts["copy"] == 1


def test_a_flipped_bit_is_repaired_whoever_dies_before_it_is_found(tmp_path: Path) -> None:
    tally = Tally()
    blows = [Blow(FLIP, "copy", 0.02, 0.0), Blow("SIGKILL everything", "copy", 0.5, 0.0)]
    Copies(tmp_path, tally, size_chunks=(60, 64)).round("flipped", blows)
    assert tally.blows == {("copy", FLIP): 1, ("copy", "SIGKILL everything"): 1}
    assert tally.attempts["copy"] == 2


def test_the_tally_names_what_broke() -> None:
    tally = Tally()
    tally.blow("copy", "SIGINT")
    tally.fail("bytes differ")
    assert re.search(r"copy +SIGINT +1\n", tally.table())
    assert tally.table().endswith("1 blows, 1 promises broken\nbytes differ")
