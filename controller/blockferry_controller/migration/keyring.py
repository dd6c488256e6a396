"""The keys of this host: an authority for each migration, and for each lane of a shared pair.

They are kept in files of mode 0600 beside the state database, not in it: a database is
copied, backed up and shared more freely than a file of one host, and the keys are worth
nothing once what they are for has ended, when the file is removed.
"""

import os
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

from blockferry_controller.engine.pair_records import PairRecord
from blockferry_controller.engine.state import StateStore
from blockferry_controller.migration.authority import Authority
from blockferry_controller.migration.ending import keys_path

_ORPHANED_SECONDS: Final = 3600.0
"""Keys are made, and their pair is known, within a second."""


def load_or_make(store: StateStore, own: str) -> tuple[Authority, str]:
    """The authority of a migration or lane, and for people whether it is new."""
    if keys_path(store, own).exists():
        return load(store, own), "loaded"
    return _make(store, own), "made"


def load(store: StateStore, own: str) -> Authority:
    """The authority that is here, as `LaneKeys.have` says."""
    return Authority.from_pem(keys_path(store, own).read_bytes())


class LaneKeys:
    """See engine.pairs.Keys."""

    def __init__(self, store: StateStore) -> None:
        self._store = store

    def have(self, lane_id: str) -> bool:
        """Whether its agents can be spoken to from here."""
        return keys_path(self._store, lane_id).exists()

    def make(self, lane_id: str) -> None:
        """Make them."""
        _make(self._store, lane_id)


def destroy(store: StateStore, pair: PairRecord) -> None:
    """Destroy the keys of a pair that is gone. Idempotent."""
    for path in _paths(store, pair):
        path.unlink(missing_ok=True)


def there(store: StateStore, pair: PairRecord) -> list[Path]:
    """Files of the pair's keys that are here."""
    return [path for path in _paths(store, pair) if path.exists()]


def orphans(store: StateStore) -> list[Path]:
    """Files of keys whose pair is not known, and is not being made by anybody just now."""
    since = time.time() - _ORPHANED_SECONDS
    found = [
        path
        for path in keys_path(store, "").parent.glob("pair-*.pem")
        if path.stat().st_mtime < since
    ]
    # Only now, that none of them can be about to become known.
    known = {path for pair in store.pairs.all() for path in _paths(store, pair)} if found else ()
    return [path for path in found if path not in known]


def _paths(store: StateStore, pair: PairRecord) -> list[Path]:
    """A pair of an earlier version has keys for all of it."""
    lanes = [pair.lane_id(lane.number) for lane in pair.lanes]
    return [keys_path(store, own) for own in lanes or [pair.id]]


def _make(store: StateStore, own: str) -> Authority:
    authority = Authority.create(own, datetime.now(timezone.utc))
    _write_private(keys_path(store, own), authority.to_pem())
    return authority


def _write_private(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        os.fsync(descriptor)
    fresh.replace(path)
