"""Step `authority`: the keys that only this migration, and the pair it has, trust.

They are kept in a file of mode 0600 beside the state database, not in it: a
database is copied, backed up and shared more freely than a file of one host,
and the keys are worth nothing after the migration, when the file is removed. A pair
of a fleet's pool has keys of its own, which live as long as it does; the migration's
then sign its report and nothing else.
"""

import os
from datetime import datetime, timezone
from pathlib import Path

from blockferry_controller.engine.state import StateStore
from blockferry_controller.migration.authority import Authority
from blockferry_controller.migration.context import Context
from blockferry_controller.migration.ending import keys_path
from blockferry_controller.migration.steps.tunnel import close_exchange, open_exchange


class MakeAuthority:
    """Make the authority, or load the one an earlier attempt made."""

    name = "authority"

    def do(self, context: Context) -> str:
        """Sets `context.authority`, and listens where agents are told to dial us."""
        authority, told = _load_or_make(context.store, context.migration_id)
        context.authority = authority
        # By this a report's signature is known to be this migration's.
        context.remember(authority=authority.fingerprint)
        if context.shared is not None:
            context.shared.authority, _ = _load_or_make(context.store, context.pair_id)
        open_exchange(context)
        return f"{told} {authority.fingerprint}"

    def undo(self, context: Context, *, resumable: bool) -> None:
        """Destroys the keys, unless agents that trust them may be met again."""
        close_exchange(context)
        if not resumable:
            context.keys_path.unlink(missing_ok=True)


def _load_or_make(store: StateStore, own: str) -> tuple[Authority, str]:
    """The authority of a migration or pair, and for people whether it is new."""
    path = keys_path(store, own)
    if path.exists():
        return Authority.from_pem(path.read_bytes()), "loaded"
    authority = Authority.create(own, datetime.now(timezone.utc))
    _write_private(path, authority.to_pem())
    return authority, "made"


def _write_private(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        os.fsync(descriptor)
    fresh.replace(path)
