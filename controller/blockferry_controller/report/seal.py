"""The last word on a migration: its report, signed while its keys are still there."""

from datetime import datetime, timezone
from typing import Any

from blockferry_controller.engine.records import MigrationRecord
from blockferry_controller.migration.authority import Authority
from blockferry_controller.report import document, signature


def seal(record: MigrationRecord, authority: Authority) -> dict[str, Any]:
    """The signed report of a migration that has succeeded.

    Raises:
        AuthenticationError: AUTHORITY_EXPIRED.
    """
    now = datetime.now(timezone.utc)
    return signature.sign(document.build(record), authority, max(1, record.epoch), now)
