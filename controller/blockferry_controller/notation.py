"""How people write quantities, and how quantities are written for people.

Rules:
* A rate or size needs its unit: `200` could mean anything, and 200 B/s is never
  meant. Binary (KiB, MiB, GiB, TiB) and decimal (kB, MB, GB, TB) are told apart.
* Text from elsewhere (names in a cloud, paths, console logs) passes `printable`
  before it reaches a terminal: a volume's name must not move the cursor.
"""

import ipaddress
import re
from typing import Final

from blockferry.errors import UsageError

ZSTD_LEVELS: Final = range(-7, 20)
"""Levels zstd can do at the speed of a network; 20 and up need memory an agent has not."""

_UNITS: Final = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
    "tib": 1 << 40,
}
_RATE = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)\s*([kmgt]?i?b)/s", re.IGNORECASE)
_SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)\s*([kmgt]?i?b)", re.IGNORECASE)
_LEVEL = re.compile(r"zstd:([+-]?\d{1,3})")
_RATE_MAX: Final = 1 << 50
_SIZE_MAX: Final = 1 << 62
_DURATION = re.compile(r"(?:(\d{1,3})d)?(?:(\d{1,5})h)?(?:(\d{1,7})m)?(?:(\d{1,9})s)?", re.ASCII)
_DURATION_MAX_SECONDS: Final = 366 * 86_400


def parse_rate(text: str) -> int:
    """Bytes per second from `200MiB/s`; `none` is 0, unlimited.

    Raises:
        UsageError: INVALID_RATE.
    """
    if text.strip().lower() == "none":
        return 0
    match = _RATE.fullmatch(text.strip())
    if match is not None:
        number, unit = match.groups()
        rate = int(float(number) * _UNITS[unit.lower()])
        if 0 < rate <= _RATE_MAX:
            return rate
    raise UsageError(
        "INVALID_RATE",
        f"{text!r} is not a rate; write a number above 0 with its unit, for example 200MiB/s, "
        "1.5GB/s or none",
        value=text,
    )


def parse_size(text: str) -> int:
    """Bytes from `10GiB`.

    Raises:
        UsageError: INVALID_SIZE.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is not None:
        number, unit = match.groups()
        size = int(float(number) * _UNITS[unit.lower()])
        if size <= _SIZE_MAX:
            return size
    raise UsageError(
        "INVALID_SIZE",
        f"{text!r} is not a size; write a number with its unit, for example 10GiB or 1.5TB",
        value=text,
    )


def parse_compression(text: str) -> str:
    """`auto`, `none` or `zstd:LEVEL` with LEVEL in ZSTD_LEVELS, in one spelling.

    Raises:
        UsageError: INVALID_COMPRESSION.
    """
    wanted = text.strip().lower()
    if wanted in {"auto", "none"}:
        return wanted
    match = _LEVEL.fullmatch(wanted)
    if match is not None and int(match.group(1)) in ZSTD_LEVELS:
        return f"zstd:{int(match.group(1))}"
    raise UsageError(
        "INVALID_COMPRESSION",
        f"{text!r} is not a compression; write auto, none or zstd:LEVEL with LEVEL from "
        f"{ZSTD_LEVELS[0]} to {ZSTD_LEVELS[-1]}",
        value=text,
    )


def parse_duration(text: str) -> int:
    """Seconds from `2h`, `90m`, `1h30m`, `45s`, `3d`.

    Raises:
        UsageError: INVALID_DURATION.
    """
    match = _DURATION.fullmatch(text.strip().lower().replace(" ", ""))
    parts = [int(part or 0) for part in match.groups()] if match else [0, 0, 0, 0]
    seconds = sum(part * unit for part, unit in zip(parts, (86_400, 3600, 60, 1), strict=True))
    if not 0 < seconds <= _DURATION_MAX_SECONDS:
        raise UsageError(
            "INVALID_DURATION",
            f"{text!r} is not a time; write for example 90m, 2h or 1h30m, up to a year",
            value=text,
        )
    return seconds


def parse_address(text: str) -> str:
    """An IPv4 or IPv6 address in its usual spelling.

    Raises:
        UsageError: INVALID_ADDRESS.
    """
    try:
        return str(ipaddress.ip_address(text.strip()))
    except ValueError:
        raise UsageError(
            "INVALID_ADDRESS",
            f"{text!r} is not an IP address; write one such as 192.0.2.7 or 2001:db8::7",
            value=text,
        ) from None


def parse_controller_address(text: str) -> str:
    """An IP address, or one with a port, `192.0.2.7:7444` or `[2001:db8::7]:7444`.

    Raises:
        UsageError: INVALID_ADDRESS.
    """
    host, _, port = text.strip().rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not port.isdigit() or not (bracketed or host.count(".") == 3):
        return parse_address(text.strip().removeprefix("[").removesuffix("]"))
    if not 1 <= int(port) <= 65535:
        raise UsageError("INVALID_ADDRESS", f"{text!r} has no port between 1 and 65535", value=text)
    address = parse_address(host.strip("[]"))
    return f"[{address}]:{int(port)}" if ":" in address else f"{address}:{int(port)}"


def split_address(text: str) -> tuple[str, int]:
    """Host, without brackets, and port of what `parse_controller_address` gave; 0 for no port."""
    if text.startswith("[") or text.count(":") == 1:
        host, _, port = text.rpartition(":")
        return host.strip("[]"), int(port)
    return text, 0


def format_bytes(count: float) -> str:
    """`1.50 GiB`: three significant digits, exact below 1 KiB."""
    if abs(count) < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        count /= 1024
        # 1023.5 would be written as 1024 in the smaller unit.
        if abs(count) < 1023.5 or unit == "PiB":
            break
    digits = 0 if abs(count) >= 99.95 else 1 if abs(count) >= 9.995 else 2
    return f"{count:.{digits}f} {unit}"


def format_rate(bytes_per_second: float) -> str:
    """`215 MiB/s`."""
    return f"{format_bytes(bytes_per_second)}/s"


def format_duration(seconds: float) -> str:
    """`0.4 s`, `42 s`, `3 min 05 s`, `2 h 07 min`, `3 d 04 h`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = whole // 60
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = minutes // 60
    return f"{hours // 24} d {hours % 24:02d} h"


def printable(text: str, *, lines: bool = False) -> str:
    """`text` with what is not printable escaped; line feeds stay when `lines`."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or (lines and char == "\n") else _escaped(char) for char in text
    )


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "backslashreplace").decode("ascii")
