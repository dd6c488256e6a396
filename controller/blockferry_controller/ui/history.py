"""What has happened, in a line each."""

from typing import TYPE_CHECKING, Final

from blockferry_controller.notation import format_bytes, format_duration
from blockferry_controller.ui.table import label

if TYPE_CHECKING:
    from blockferry_controller.engine.history import Entry

COLUMNS: Final = (
    ("time", "time"),
    ("event", "event"),
    ("fleet", "fleet"),
    ("volume", "volume"),
    ("migration", "migration"),
    ("what", "what"),
)


def row(entry: "Entry") -> dict[str, str]:
    """One event for people, under the headings of COLUMNS."""
    return {
        "time": entry.time.strftime("%Y-%m-%d %H:%M:%S"),
        "event": entry.event.replace("_", " "),
        "fleet": entry.fleet,
        "volume": entry.name or entry.volume_id,
        "migration": entry.migration,
        "what": ", ".join(
            _part(key, value) for key, value in entry.data.items() if value not in ("", None, {}, 0)
        ),
    }


def _part(key: str, value: object) -> str:
    """What words say by themselves goes without its name."""
    if isinstance(value, dict):
        return ", ".join(f"{count} {str(state).lower()}" for state, count in value.items())
    if key.endswith("_bytes"):
        return format_bytes(float(str(value)))
    if key.endswith("seconds"):
        return format_duration(float(str(value)))
    if isinstance(value, str) and key != "wave":
        return value
    return f"{label(key)} {value}"
