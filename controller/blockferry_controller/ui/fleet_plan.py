"""A fleet's plan for people."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from blockferry_controller.notation import format_bytes, format_duration, printable
from blockferry_controller.ui.table import render_rows

_VOLUMES: Final = (
    ("volume", "name"),
    ("size", "size_bytes"),
    ("wave", "wave"),
    ("type", "type"),
    ("to type", "to_type"),
    ("by", "by"),
    ("to name", "to_name"),
    ("starts", "starts"),
    ("takes", "predicted_seconds"),
    ("what", "what"),
)
_WAVES: Final = (
    ("wave", "wave"),
    ("volumes", "volumes"),
    ("size", "size_bytes"),
    ("gate", "gate"),
    ("starts", "starts"),
    ("ends", "ends"),
)
_QUOTAS: Final = (
    ("cloud", "cloud"),
    ("quota", "resource"),
    ("most needed", "needed"),
    ("left", "left"),
    ("at", "at"),
)


def render(document: Mapping[str, Any], time_zone: str) -> str:
    """The plan's document as tables; times in `time_zone`."""
    zone = ZoneInfo(time_zone)
    volumes = [_volume(item, zone) for item in document["volumes"]]
    waves = [_times(wave, zone, "starts_at", "ends_at") for wave in document["waves"]]
    quotas = [_times(quota, zone, "at") | {"at": _at(quota["at"], zone)}
              for quota in document["quotas"]]  # fmt: skip
    parts = [
        render_rows(volumes, _VOLUMES) if volumes else "No volume is selected.",
        render_rows(waves, _WAVES),
        render_rows(quotas, _QUOTAS) if quotas else "",
        _summary(document, zone),
        _listed("Problems", document["problems"]),
        _listed("Named and not there", document["missing"]),
        _listed("Warnings", document["warnings"]),
        _listed("Changed since the plan was made", document.get("drift", [])),
    ]
    return "\n\n".join(part for part in parts if part)


def _volume(item: Mapping[str, Any], zone: ZoneInfo) -> dict[str, Any]:
    by = item["by"].get("type", "")
    return {
        **item,
        "name": item["name"] or item["id"],
        "by": by.removeprefix("map.type.") if item["to_type"] else "",
        "starts": _at(item["starts_at"], zone),
        "what": _what(item),
    }


def _what(item: Mapping[str, Any]) -> str:
    if item["skip"]:
        return f"skipped: {item['skip']}"
    if item["problems"]:
        return f"refused: {'; '.join(item['problems'])}"
    return f"moved, but {'; '.join(item['warnings'])}" if item["warnings"] else "moved"


def _times(row: Mapping[str, Any], zone: ZoneInfo, *keys: str) -> dict[str, Any]:
    return {**row, **{key.removesuffix("_at"): _at(row[key], zone) for key in keys}}


def _at(moment: str | None, zone: ZoneInfo) -> str:
    if moment is None:
        return ""
    return f"{datetime.fromisoformat(moment).astimezone(zone):%a %d %b %H:%M}"


def _summary(document: Mapping[str, Any], zone: ZoneInfo) -> str:
    totals = document["totals"]
    told = (
        f"{totals['moved']} of {totals['volumes']} volumes would be moved, "
        f"{format_bytes(totals['size_bytes'])}; {totals['skipped']} skipped, "
        f"{totals['refused']} refused."
    )
    if document["starts_at"] and document["ends_at"]:
        start, end = (datetime.fromisoformat(document[key]) for key in ("starts_at", "ends_at"))
        took = format_duration((end - start).total_seconds())
        told += (
            f"\nFrom {_at(document['starts_at'], zone)} to {_at(document['ends_at'], zone)} "
            f"({took}, {zone.key}), gates not waited for; {document['pace']}."
        )
    return told


def _listed(title: str, lines: Sequence[str]) -> str:
    if not lines:
        return ""
    return "\n".join([f"{title}:", *(f"  {printable(line)}" for line in lines)])
