"""The report of a fleet as CSV (RFC 4180): a line a volume, under one line of names.

Rules:
* Lines end with CR LF; a field with a comma, a quote or a line break is quoted.
* No field can begin a formula: a spreadsheet runs what begins like one, and a volume may be
  named so. An apostrophe is put before it, as https://owasp.org/www-community/attacks/CSV_Injection
  has it, its full-width forms included.
* What is not printable is escaped as on a terminal, so that a line is a volume for every
  reader; the exact name is in the JSON.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from blockferry_controller.notation import printable

COLUMNS: Final = (
    "name", "id", "state", "why", "reason", "wave", "size_bytes", "sent_bytes", "wire_bytes",
    "duration_seconds", "bytes_per_second", "attempts", "verified", "digest", "type", "to_type",
    "type_by", "zone", "to_zone", "zone_by", "to_name", "name_by", "to_metadata",
    "destination_volume_id", "left", "migration", "started_at", "ended_at",
)  # fmt: skip
_FORMULA: Final = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")


class Csv:
    """The form; units as in the document that fleet.py makes."""

    def begin(self, head: Mapping[str, Any]) -> str:
        """See fleet.Form."""
        del head
        return _line(COLUMNS)

    def row(self, row: Mapping[str, Any]) -> str:
        """See fleet.Form."""
        return _line([_field(row[key]) for key in COLUMNS])

    def end(self) -> str:
        """See fleet.Form."""
        return ""


def _line(fields: Sequence[object]) -> str:
    out = io.StringIO()
    csv.writer(out).writerow(fields)
    return out.getvalue()


def _field(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return value
    text = printable(value if isinstance(value, str) else json.dumps(value, sort_keys=True))
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text
