"""A transfer's commit point as the sink keeps it over restarts.

Rules:
* The commit point moves only after the device's flush returned.
* The journal hears of every move, so that a killed process goes on from there;
  manifest and journal themselves are made durable at most once a second, so
  that a power cut costs at most that.
"""

from dataclasses import dataclass
from typing import Final

from blockferry.limits import CHUNK_BYTES
from blockferry_agent.chunk import chunk_count
from blockferry_agent.journal import Journal, JournalEntry
from blockferry_agent.manifest import Manifest
from blockferry_agent.ports import Clock
from blockferry_agent.position import START, Position, position_at

_DURABLE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class TransferIdentity:
    """What must be the same for a transfer to go on where it was.

    Attributes:
        source: Names the content.
        device: Names the destination.
        size_bytes: Of the transfer.
        boot_id: Of the kernel now; another one voids what was not durable.
    """

    source: str
    device: str
    size_bytes: int
    boot_id: str


class Ledger:
    """Journal and manifest of one transfer. One thread commits."""

    def __init__(
        self,
        identity: TransferIdentity,
        journal: Journal,
        manifest: Manifest,
        clock: Clock,
        *,
        known_committed_bytes: int,
    ) -> None:
        """Find the point to go on from.

        Args:
            identity: Compared with what the journal holds.
            journal: Of this transfer.
            manifest: Of this transfer; cut to the commit point.
            clock: For the pace of durable records.
            known_committed_bytes: Taken where there is no journal, as far as
                the manifest reaches.
        """
        self._identity = identity
        self._journal = journal
        self._clock = clock
        self._durable_bytes = -1
        self._durable_at = clock.monotonic()
        self.manifest: Final = manifest
        self.start: Final = self._recall(known_committed_bytes)
        manifest.truncate(chunk_count(self.start.offset_bytes))
        self.commit(self.start, durable=True)

    def commit(self, position: Position, *, durable: bool = False) -> None:
        """Write down a commit point; the device was flushed up to there.

        Args:
            position: What is committed.
            durable: Whether it must survive a power cut, now and not in a second.
        """
        now = self._clock.monotonic()
        if durable or now - self._durable_at >= _DURABLE_SECONDS:
            self.manifest.sync()
            self._durable_bytes = position.offset_bytes
            self._durable_at = now
        self._journal.store(
            JournalEntry(
                source_identity=self._identity.source,
                size_bytes=self._identity.size_bytes,
                device_identity=self._identity.device,
                committed_bytes=position.offset_bytes,
                durable_committed_bytes=self._durable_bytes,
                data_bytes=position.data_bytes,
                zero_bytes=position.zero_bytes,
                boot_id=self._identity.boot_id,
            )
        )

    def close(self) -> None:
        """Release both files. Idempotent."""
        self._journal.close()
        self.manifest.close()

    def _recall(self, known_committed_bytes: int) -> Position:
        entry = self._journal.load(self._identity.boot_id)
        if entry is None:
            return self._adopt(known_committed_bytes)
        same = (entry.source_identity, entry.device_identity, entry.size_bytes) == (
            self._identity.source,
            self._identity.device,
            self._identity.size_bytes,
        )
        if not same:
            return START
        if not self._is_covered(entry.committed_bytes):
            # The manifest lost its end: what it still covers was committed, too.
            return position_at(self.manifest, min(entry.committed_bytes, self._covered_bytes))
        return Position(entry.committed_bytes, entry.data_bytes, entry.zero_bytes)

    def _adopt(self, known_committed_bytes: int) -> Position:
        if not self._is_covered(known_committed_bytes):
            return START
        return position_at(self.manifest, known_committed_bytes)

    @property
    def _covered_bytes(self) -> int:
        return min(self.manifest.count * CHUNK_BYTES, self._identity.size_bytes)

    def _is_covered(self, committed_bytes: int) -> bool:
        on_grid = committed_bytes % CHUNK_BYTES == 0 or committed_bytes == self._identity.size_bytes
        return on_grid and chunk_count(committed_bytes) <= self.manifest.count
