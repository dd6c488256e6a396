"""Step `authority`: the keys that only this migration trusts.

They are kept in a file of mode 0600 beside the state database, not in it: a
database is copied, backed up and shared more freely than a file of one host,
and the keys are worth nothing after the migration, when the file is removed.
"""

import os
from datetime import datetime, timezone
from pathlib import Path

from blockferry_controller.migration.authority import Authority
from blockferry_controller.migration.context import Context
from blockferry_controller.migration.steps.tunnel import close_exchange, open_exchange


class MakeAuthority:
    """Make the authority, or load the one an earlier attempt made."""

    name = "authority"

    def do(self, context: Context) -> str:
        """Sets `context.authority`, and listens where agents are told to dial us."""
        told = self._make(context)
        open_exchange(context)
        return told

    def _make(self, context: Context) -> str:
        path = context.keys_path
        if path.exists():
            context.authority = Authority.from_pem(path.read_bytes())
            context.remember(authority=context.authority.fingerprint)
            return f"loaded {context.authority.fingerprint}"
        authority = Authority.create(context.migration_id, datetime.now(timezone.utc))
        _write_private(path, authority.to_pem())
        context.authority = authority
        # By this a report's signature is known to be this migration's.
        context.remember(authority=authority.fingerprint)
        return f"made {authority.fingerprint}"

    def undo(self, context: Context, *, resumable: bool) -> None:
        """Destroys the keys, unless agents that trust them may be met again."""
        close_exchange(context)
        if not resumable:
            context.keys_path.unlink(missing_ok=True)


def _write_private(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        os.fsync(descriptor)
    fresh.replace(path)
