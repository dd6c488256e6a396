"""The digests of a transfer, in the controller's keeping.

They and the commit point are all that an instance knows and must not take with
it when it dies. While bytes move they are fetched from the sink in the
background; a new sink or source is given them.
"""

import contextlib
import threading
from typing import Final

from blockferry.errors import BlockferryError, BusyError
from blockferry.limits import CHUNK_BYTES, DIGEST_BYTES
from blockferry_controller.agents.port import Agent
from blockferry_controller.migration.context import Context, need

SAVE_SECONDS: Final = 1.0
"""Kept at most this often (design §6)."""
_LAST_SECONDS: Final = 5.0
"""Longest wait for the last words of a sink."""


def give_manifest(context: Context, agent: Agent) -> int:
    """Hand over the digests that we keep; returns the bytes they cover."""
    store, own = context.store, context.migration_id
    count = store.manifest_count(own)
    if count == 0:
        return 0
    # An agent at work on the transfer, or that knows more itself, needs none.
    with contextlib.suppress(BusyError):
        agent.write_manifest(own, store.manifest_runs(own))
    return min(count * CHUNK_BYTES, need(context.source.volume).size_bytes)


class ManifestKeeper:
    """Copies the sink's digests up to its commit point into the state database.

    In a thread of its own: a sink that is silent just then must not hold up
    whoever watches it. `close` takes what is left.
    """

    def __init__(self, context: Context, sink: Agent) -> None:
        self._context = context
        self._sink = sink
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="manifest", daemon=True)
        self._thread.start()

    def close(self, *, lost: bool) -> None:
        """Stop; unless the sink is `lost`, fetch what is missing. Idempotent."""
        if not self._over.is_set():
            self._over.set()
            self._thread.join(_LAST_SECONDS)
            if not lost and not self._thread.is_alive():
                self._fetch()

    def _run(self) -> None:
        while not self._over.wait(SAVE_SECONDS):
            self._fetch()

    def _fetch(self) -> None:
        # Lost words cost a resumed run some bytes, never a wrong one.
        with contextlib.suppress(BlockferryError):
            self._keep()

    def _keep(self) -> None:
        store, own = self._context.store, self._context.migration_id
        known = store.manifest_count(own)
        for first_chunk, digests in self._sink.read_manifest(own, known):
            # Whoever took the migration over keeps them now.
            if first_chunk != known or self._context.lost.is_set():
                return
            store.add_manifest(own, first_chunk, digests)
            known += len(digests) // DIGEST_BYTES
