from dataclasses import replace
from pathlib import Path

import pytest

from blockferry.limits import CHUNK_BYTES
from blockferry_agent.chunk import digest, zero_digest
from blockferry_agent.journal import Journal
from blockferry_agent.ledger import Ledger, TransferIdentity
from blockferry_agent.manifest import Manifest
from blockferry_agent.position import START, Position
from tests.unit.agent.test_pacing import StoppedClock

C = CHUNK_BYTES
HERE = TransferIdentity(source="volume a", device="/dev/b", size_bytes=10 * C + 5, boot_id="boot")
DIGESTS = [digest(b"%d" % n) for n in range(4)] + [zero_digest(C)] * 4


def opened(
    path: Path,
    identity: TransferIdentity = HERE,
    *,
    known: int = 0,
    clock: StoppedClock | None = None,
) -> Ledger:
    return Ledger(
        identity,
        Journal.open(path / "journal"),
        Manifest.open(path / "manifest", identity.size_bytes),
        clock or StoppedClock(),
        known_committed_bytes=known,
    )


def committed(path: Path, clock: StoppedClock | None = None) -> None:
    ledger = opened(path, clock=clock)
    ledger.manifest.put(0, b"".join(DIGESTS))
    ledger.commit(Position(6 * C, 4 * C, 2 * C))
    ledger.close()


def test_a_new_transfer_starts_at_zero(tmp_path: Path) -> None:
    assert opened(tmp_path).start == START


def test_a_killed_process_goes_on_from_the_last_commit(tmp_path: Path) -> None:
    committed(tmp_path)
    ledger = opened(tmp_path)
    assert ledger.start == Position(6 * C, 4 * C, 2 * C)
    assert ledger.manifest.count == 6


@pytest.mark.parametrize(
    "other",
    [
        replace(HERE, source="volume b"),
        replace(HERE, device="/dev/c"),
        replace(HERE, size_bytes=10 * C),
    ],
    ids=["source", "device", "size"],
)
def test_another_transfer_starts_at_zero(tmp_path: Path, other: TransferIdentity) -> None:
    committed(tmp_path)
    ledger = opened(tmp_path, other)
    assert (ledger.start, ledger.manifest.count) == (START, 0)
    ledger.close()
    assert opened(tmp_path).start == START


def test_after_a_reboot_only_what_was_durable_counts(tmp_path: Path) -> None:
    committed(tmp_path)
    assert opened(tmp_path, replace(HERE, boot_id="another")).start == START


def test_a_commit_is_durable_after_a_second(tmp_path: Path) -> None:
    clock = StoppedClock()
    ledger = opened(tmp_path, clock=clock)
    ledger.manifest.put(0, b"".join(DIGESTS))
    clock.now = 1.5
    ledger.commit(Position(2 * C, 2 * C, 0))
    clock.now = 1.7
    ledger.commit(Position(3 * C, 3 * C, 0))
    ledger.close()
    after = opened(tmp_path, replace(HERE, boot_id="another"))
    assert after.start == Position(2 * C, 2 * C, 0)


def test_a_journal_without_its_manifest_does_not_count(tmp_path: Path) -> None:
    committed(tmp_path)
    (tmp_path / "manifest").unlink()
    assert opened(tmp_path).start == START


def test_a_journal_counts_as_far_as_its_manifest(tmp_path: Path) -> None:
    committed(tmp_path)
    with Manifest.open(tmp_path / "manifest", HERE.size_bytes) as manifest:
        manifest.truncate(5)
    assert opened(tmp_path).start == Position(5 * C, 4 * C, C)


@pytest.mark.parametrize(
    ("known", "start"),
    [
        (5 * C, Position(5 * C, 4 * C, C)),
        (8 * C, Position(8 * C, 4 * C, 4 * C)),
        (9 * C, START),
        (5 * C + 1, START),
    ],
    ids=["part", "all", "more-than-the-manifest", "off-the-grid"],
)
def test_what_the_controller_knows_counts_as_far_as_its_manifest(
    tmp_path: Path, known: int, start: Position
) -> None:
    with Manifest.open(tmp_path / "manifest", HERE.size_bytes) as manifest:
        manifest.put(0, b"".join(DIGESTS))
    assert opened(tmp_path, known=known).start == start
