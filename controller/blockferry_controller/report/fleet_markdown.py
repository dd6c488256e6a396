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


class Markdown:
    """The form."""

    def __init__(self) -> None:
        self._some = False

    def begin(self, head: Mapping[str, Any]) -> str:
        """See fleet.Form."""
        told = {key: escaped(cell(key, head[key])) for key in ("fleet", "from", "to", "message")}
        message = f": {told['message']}" if head["message"] else ""
        totals = [{"total": label(key), "": cell(key, of)} for key, of in head["totals"].items()]
        blocks = [
            f"# Fleet {told['fleet']}",
            f"**{head['state']}**, {told['from']} to {told['to']}, {head['made_at']}{message}",
            _table("", totals, ("total", "")),
            _table("Waves", head["waves"]),
            _table("Failures", head["failures"]),
            _table("Hooks", head["hooks"], HOOKS),
        ]
        return "\n\n".join(block for block in blocks if block) + "\n"

    def row(self, row: Mapping[str, Any]) -> str:
        """See fleet.Form."""
        opening = "" if self._some else f"\n## Volumes\n\n{_opening(_SHOWN)}\n"
        self._some = True
        return f"{opening}{_row(row, _SHOWN)}\n"

    def end(self) -> str:
        """See fleet.Form."""
        return ""


def _table(title: str, rows: Sequence[Mapping[str, Any]], keys: Sequence[str] = ()) -> str:
    if not rows:
        return ""
    keys = keys or tuple(rows[0])
    table = "\n".join([_opening(keys), *(_row(row, keys) for row in rows)])
    return f"## {title}\n\n{table}" if title else table


def _opening(keys: Sequence[str]) -> str:
    return f"{_line([label(key) for key in keys])}\n{_line(['---'] * len(keys))}"


def _row(row: Mapping[str, Any], keys: Sequence[str]) -> str:
    return _line([escaped(cell(key, row[key])) for key in keys])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
