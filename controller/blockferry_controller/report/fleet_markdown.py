"""The report of a fleet in Markdown that also reads well as plain text."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from blockferry_controller.report.markdown import escaped
from blockferry_controller.ui.table import cell, label

_SHOWN: Final = (
    "name", "state", "size_bytes", "duration_seconds", "bytes_per_second", "attempts", "to_type",
    "verified", "digest", "left", "reason",
)  # fmt: skip

HOOKS: Final = ("hook", "delivered", "given_up", "waiting", "error")


def render(report: Mapping[str, Any]) -> str:
    """Markdown with a line feed at its end.

    Args:
        report: As fleet.build makes it.
    """
    told = {key: escaped(cell(key, report[key])) for key in ("fleet", "from", "to", "message")}
    message = f": {told['message']}" if report["message"] else ""
    totals = [{"total": label(key), "": cell(key, of)} for key, of in report["totals"].items()]
    blocks = [
        f"# Fleet {told['fleet']}",
        f"**{report['state']}**, {told['from']} to {told['to']}, {report['made_at']}{message}",
        _table("", totals, ("total", "")),
        _table("Waves", report["waves"]),
        _table("Failures", report["failures"]),
        _table("Hooks", report["hooks"], HOOKS),
        _table("Volumes", report["volumes"], _SHOWN),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _table(title: str, rows: Sequence[Mapping[str, Any]], keys: Sequence[str] = ()) -> str:
    if not rows:
        return ""
    keys = keys or tuple(rows[0])
    lines = [
        [label(key) for key in keys],
        ["---"] * len(keys),
        *([escaped(cell(key, row[key])) for key in keys] for row in rows),
    ]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"## {title}\n\n{table}" if title else table
