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
from collections.abc import Mapping
from typing import Any, Final

from blockferry_controller.notation import printable

COLUMNS: Final = (
    "name", "id", "state", "why", "reason", "wave", "size_bytes", "sent_bytes", "wire_bytes",
    "duration_seconds", "bytes_per_second", "attempts", "verified", "digest", "type", "to_type",
    "type_by", "zone", "to_zone", "zone_by", "to_name", "name_by", "to_metadata",
    "destination_volume_id", "left", "migration", "started_at", "ended_at",
)  # fmt: skip
_FORMULA: Final = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def render(report: Mapping[str, Any]) -> str:
    """All volumes; units as in the document that fleet.build makes."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    writer.writerows([_field(row[key]) for key in COLUMNS] for row in report["volumes"])
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
