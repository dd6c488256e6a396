"""Digests of chunks that sinks have made durable, so that they survive the instance.

Rules:
* A run begins where those before it end; what is kept is chunks [0, n).
* It is kept, and forgotten, by the newest attempt only: of a new sink, whoever was cut off
  in between does not know.
"""

from collections.abc import Iterator
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from blockferry.limits import DIGEST_BYTES, MANIFEST_RUN_CHUNKS
from blockferry_controller.engine import tables as t
from blockferry_controller.engine.locks import patient
from blockferry_controller.engine.rows import change_migration

_RUNS: Final = 64
"""Read at once."""


class Manifests:
    """The digests of all migrations of one state database. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def count(self, migration_id: str) -> int:
        """Chunks [0, n) whose digests are kept."""
        with self._engine.connect() as connection:
            query = (
                sa.select(t.manifests.c.first_chunk, sa.func.length(t.manifests.c.digests))
                .where(t.manifests.c.migration_id == migration_id)
                .order_by(t.manifests.c.first_chunk.desc())
                .limit(1)
            )
            row = connection.execute(query).one_or_none()
            return 0 if row is None else int(row[0]) + int(row[1]) // DIGEST_BYTES

    @patient
    def add(self, migration_id: str, epoch: int, first_chunk: int, digests: bytes) -> bool:
        """Keep a run that begins where the kept ones end.

        Args:
            migration_id: Whose.
            epoch: Of the attempt that keeps it.
            first_chunk: Where it begins.
            digests: One after another, of DIGEST_BYTES each.

        Returns:
            False, and nothing is kept, when another attempt has begun since.
        """
        if not digests:
            return True
        with self._engine.begin() as connection:
            if not connection.execute(change_migration(migration_id, epoch)).rowcount:
                return False
            connection.execute(
                t.manifests.insert().values(
                    migration_id=migration_id, first_chunk=first_chunk, digests=digests
                )
            )
            return True

    def runs(self, migration_id: str) -> Iterator[tuple[int, bytes]]:
        """The kept digests from chunk 0 on, in runs fit for one message each."""
        after = -1
        while True:
            with self._engine.connect() as connection:
                query = (
                    sa.select(t.manifests.c.first_chunk, t.manifests.c.digests)
                    .where(t.manifests.c.migration_id == migration_id)
                    .where(t.manifests.c.first_chunk > after)
                    .order_by(t.manifests.c.first_chunk)
                    .limit(_RUNS)
                )
                rows = connection.execute(query).all()
            if not rows:
                return
            for first_chunk, digests in rows:
                yield from _split(int(first_chunk), bytes(digests))
            after = int(rows[-1][0])

    @patient
    def forget(self, migration_id: str, epoch: int) -> bool:
        """Drop all: the migration starts from zero, or has ended; False as of `add`."""
        with self._engine.begin() as connection:
            if not connection.execute(change_migration(migration_id, epoch)).rowcount:
                return False
            mine = t.manifests.c.migration_id == migration_id
            connection.execute(t.manifests.delete().where(mine))
            return True


def _split(first_chunk: int, digests: bytes) -> Iterator[tuple[int, bytes]]:
    step = MANIFEST_RUN_CHUNKS * DIGEST_BYTES
    for start in range(0, len(digests), step):
        yield first_chunk + start // DIGEST_BYTES, digests[start : start + step]
