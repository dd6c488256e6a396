"""Moves the commit point of a sink: flush, write down, tell.

Commits are due every 16 MiB, every 200 ms while anything is written, when all is
written, and once more when the job stops.
"""

from typing import Final

from blockferry.limits import MIB
from blockferry_agent.ledger import Ledger
from blockferry_agent.ports import BlockDevice, Clock
from blockferry_agent.position import Position
from blockferry_agent.stageclock import Stage, Stopwatch
from blockferry_agent.standing import Standing

COMMIT_BYTES: Final = 16 * MIB
"""A third of the window: the source sends on while one commit is under way."""

_COMMIT_SECONDS: Final = 0.2


class Committer:
    """One thread's work; see `run`."""

    def __init__(
        self,
        device: BlockDevice,
        ledger: Ledger,
        standing: Standing,
        size_bytes: int,
        *,
        stage: Stage,
        clock: Clock,
    ) -> None:
        self._device = device
        self._ledger = ledger
        self._standing = standing
        self._size_bytes = size_bytes
        self._stage = stage
        self._clock = clock

    def run(self) -> None:
        """Commit until the job is over and nothing written is left to commit.

        Raises:
            DeviceError: the flush failed; nothing after the last commit counts.
        """
        standing = self._standing
        while (target := self._due()) is not None:
            watch = Stopwatch()
            advanced = target.offset_bytes - standing.committed.offset_bytes
            self._flush()
            last = target.offset_bytes == self._size_bytes or standing.stopped is not None
            self._ledger.commit(target, durable=last)
            self._stage.add(advanced, watch.lap())
            with standing.lock:
                standing.committed = target
                standing.news.notify_all()

    def _flush(self) -> None:
        # A bare flag: who reads it a moment late has read 4 MiB at the wrong time.
        self._standing.flushing = True
        try:
            self._device.flush()
        finally:
            self._standing.flushing = False

    def _due(self) -> Position | None:
        """Wait for the next commit; None when the job is over."""
        standing = self._standing
        due_at = self._clock.monotonic() + _COMMIT_SECONDS
        with standing.lock:
            while True:
                written = standing.written.offset_bytes
                ahead = written - standing.committed.offset_bytes
                over = standing.stopped is not None or bool(standing.root)
                left = due_at - self._clock.monotonic()
                complete = written == self._size_bytes
                if ahead > 0 and (over or complete or ahead >= COMMIT_BYTES or left <= 0):
                    return standing.written
                if over:
                    return None
                standing.work.wait(left if left > 0 else _COMMIT_SECONDS)
