"""The report for people, in Markdown that also reads well as plain text."""

from collections.abc import Mapping, Sequence
from typing import Any

from blockferry_controller.notation import format_bytes, format_rate
from blockferry_controller.ui.table import cell, label


def render(report: Mapping[str, Any]) -> str:
    """Markdown with a line feed at its end.

    Args:
        report: As document.build makes it.
    """
    blocks = [
        f"# Migration {report['id']}",
        _verdict(report),
        _section("Volumes", _ends(report)),
        _section("Proof", _pairs(report["proof"])),
        _section("Bytes", _pairs({**report["counts"], **_speeds(report)})),
        _section("Times", _pairs({**report["times"], "attempts": report["attempts"]})),
        _section("Rates", _pairs(report.get("rates", {}))),
        _section("Interruptions", _table(report.get("interruptions", []))),
        _section("Steps", _table(report["steps"])),
        _section("Not carried over", _table(report.get("not_carried", []))),
        _section("Facts", _pairs(report["facts"])),
        _section("Versions", _pairs(report["versions"])),
        _section("Signature", _signature(report.get("signature"))),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _verdict(report: Mapping[str, Any]) -> str:
    state, proof = report["state"], report["proof"]
    if state != "SUCCEEDED":
        return f"**{state}**" + (f": {escaped(report['message'])}" if report["message"] else "")
    if proof["verified"]:
        return (
            f"**SUCCEEDED**, verified ({proof['verify']}): source and destination have the root "
            f"digest `{proof['digest']}`."
        )
    return f"**SUCCEEDED**, not verified (verify: {proof['verify']})."


def _ends(report: Mapping[str, Any]) -> str:
    return _table([{"end": side, **report[side]} for side in ("source", "destination")])


def _signature(signature: Mapping[str, Any] | None) -> str:
    """What the JSON form carries; Markdown itself cannot be checked."""
    if signature is None:
        return ""
    return f"Signed at {signature['signed_at']}; check it in its JSON form (`report -o json`)."


def _speeds(report: Mapping[str, Any]) -> dict[str, str]:
    """Means over the whole migration, so far as they mean something."""
    counts, seconds = report["counts"], report["times"]["duration_seconds"]
    speeds = {}
    if seconds > 0:
        moved = counts["size_bytes"] - counts["resumed_from_bytes"]
        speeds["speed, steps included"] = format_rate(max(0, moved) / seconds)
    if counts["wire_bytes"]:
        speeds["ratio"] = f"{counts['sent_bytes'] / counts['wire_bytes']:.2f}"
    return speeds


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}" if body else ""


def _pairs(document: Mapping[str, Any]) -> str:
    return "\n".join(f"* {label(key)}: {_exact(key, value)}" for key, value in document.items())


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    keys = list(rows[0])
    lines = [
        [label(key) for key in keys],
        ["---"] * len(keys),
        *([escaped(cell(key, row.get(key))) for key in keys] for row in rows),
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _exact(key: str, value: object) -> str:
    """Bytes to the byte: a report is what people compare with."""
    if key.endswith("_bytes") and isinstance(value, int):
        return f"{format_bytes(value)} ({value} bytes)" if value >= 1024 else f"{value} bytes"
    return escaped(cell(key, value))


def escaped(text: str) -> str:
    """Text that Markdown shows as it is: names from elsewhere are no markup."""
    for special in "\\`*_|<[&":
        text = text.replace(special, f"\\{special}")
    return text
