"""How far a transfer is, and its digests, in the controller's keeping.

They are all that an instance knows and must not take with it when it dies. While bytes
move they are fetched from the sink in the background; a new sink or source is given them.

Rules:
* Nothing is told of a copy before it is kept: the digests up to its commit point, then the
  progress, then the word. So whatever dies, and whatever an attempt that stops early takes
  away, the next one goes on from no less than was told.
* What is complete is told although its digests could not be fetched: nobody goes on from it.
"""

import contextlib
import logging
import threading
from typing import Final

from blockferry.errors import BlockferryError, BusyError
from blockferry.limits import CHUNK_BYTES, DIGEST_BYTES
from blockferry_controller.agents.port import Agent
from blockferry_controller.events import Progress, Progressed
from blockferry_controller.migration.context import Context, need

_log = logging.getLogger(__name__)

SAVE_SECONDS: Final = 1.0
"""Kept at most this often (design §6), but for the beginning: small volumes are soon through."""
_FIRST_SECONDS: Final = 0.125
_GROWTH: Final = 1.25
"""Of the pause from one keeping to the next: ten in the first four seconds."""
_LAST_SECONDS: Final = 5.0
"""Longest wait for the last words of a sink."""


def give_manifest(context: Context, agent: Agent) -> int:
    """Hand over the digests that we keep; returns the bytes they cover."""
    manifests, own = context.store.manifests, context.migration_id
    count = manifests.count(own)
    if count == 0:
        return 0
    # An agent at work on the transfer, or that knows more itself, needs none.
    with contextlib.suppress(BusyError):
        agent.write_manifest(own, manifests.runs(own))
    return min(count * CHUNK_BYTES, need(context.source.volume).size_bytes)


class Keeper:
    """Keeps `context.progress` with its digests, and tells it.

    In a thread of its own: a sink that is silent just then must not hold up whoever
    watches it. `close` keeps what is left.

    Args:
        context: Of the attempt.
        sink: Knows the digests; None of a repair, for which all are kept already.
    """

    def __init__(self, context: Context, sink: Agent | None) -> None:
        self._context = context
        self._sink = sink
        self._told: Progress | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
        self._thread.start()

    def close(self, *, lost: bool) -> None:
        """Stop; unless the sink is `lost`, keep and tell what is missing. Idempotent."""
        if self._over.is_set():
            return
        self._over.set()
        self._thread.join(_LAST_SECONDS)
        if self._thread.is_alive():
            return
        progress = self._context.progress
        kept = not lost and self._fetched()
        if kept or progress.committed_bytes == progress.size_bytes:
            self._publish(progress)

    def _run(self) -> None:
        pause = _FIRST_SECONDS
        while not self._over.wait(pause):
            pause = min(_GROWTH * pause, SAVE_SECONDS)
            # Before the digests: these then reach as far at least.
            progress = self._context.progress
            try:
                if self._fetched():
                    self._publish(progress)
            except Exception:  # noqa: BLE001 - a database that is away may be back in a moment
                _log.debug("keeping %s", self._context.migration_id, exc_info=True)

    def _publish(self, progress: Progress) -> None:
        context = self._context
        # Whoever took the migration over keeps and tells it now. And a fleet's volumes all
        # write to one database: what has not changed is not written.
        if progress == self._told or context.lost.is_set():
            return
        if not context.store.save_progress(context.migration_id, progress, context.epoch):
            context.lost.set()
            return
        self._told = progress
        context.tell(Progressed(context.migration_id, progress))

    def _fetched(self) -> bool:
        """Whether all digests up to the sink's commit point of now are kept."""
        context, own = self._context, self._context.migration_id
        manifests = context.store.manifests
        if self._sink is None:
            return True
        try:
            known = manifests.count(own)
            for first_chunk, digests in self._sink.read_manifest(own, known):
                if first_chunk != known or context.lost.is_set():
                    return False
                context.written(manifests.add(own, context.epoch, first_chunk, digests))
                known += len(digests) // DIGEST_BYTES
        except BlockferryError:
            return False
        return True
