"""What the texts of a fleet file mean, and how its sections become a Fleet.

Every function raises UsageError for what cannot be meant; who reads the file turns that
into a complaint with line and key path.
"""

import re
from collections.abc import Callable, Mapping
from datetime import time
from typing import Any, Final
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from msgspec.structs import replace

from blockferry.errors import UsageError
from blockferry.limits import DEAD_MAN_SECONDS, GIB
from blockferry_controller.fleet.spec import (
    DAYS,
    AtEnd,
    Condition,
    Fleet,
    Hook,
    Limits,
    Mappings,
    MetadataRule,
    Opening,
    Override,
    Pool,
    Renaming,
    Rule,
    Unmapped,
    Windows,
)
from blockferry_controller.spec import Verify

IDLE_SECONDS: Final = 300
"""How long a free pair is kept, unless the file says."""
IDLE_SECONDS_MAX: Final = DEAD_MAN_SECONDS * 2 // 3
NAME_PATTERN: Final = "[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?"
_NAME = re.compile(NAME_PATTERN)
_CLOCK = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")
_PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,3})?)\s*%")
_FIELD = re.compile(r"\{([^{}]*)\}|[{}]")


def name(text: str) -> str:
    """A name that is also an id."""
    if _NAME.fullmatch(text) is None:
        raise UsageError(
            "INVALID_NAME",
            f"{text!r} is not a name; write up to 40 lower case letters, digits and inner hyphens",
        )
    return text


def time_of_day(text: str) -> time:
    """Hours and minutes; 24:00 is midnight."""
    if text == "24:00":
        return time(0, 0)
    match = _CLOCK.fullmatch(text)
    if match is None:
        raise UsageError("INVALID_TIME", f"{text!r} is not a time of day; write it as 22:30")
    return time(int(match.group(1)), int(match.group(2)))


def time_zone(text: str) -> str:
    """The name of a time zone."""
    try:
        ZoneInfo(text)
    except (KeyError, ValueError, OSError):
        raise UsageError(
            "INVALID_TIME_ZONE",
            f"{text!r} is not a time zone that this machine knows; write one such as "
            "Europe/Berlin or UTC (the names come with the system's package tzdata)",
        ) from None
    return text


def percent(text: str) -> float:
    """A share above 0 and up to 1, from `5%`."""
    match = _PERCENT.fullmatch(text.strip())
    share = float(match.group(1)) / 100 if match else -1.0
    if not 0 < share <= 1:
        raise UsageError(
            "INVALID_PERCENT", f"{text!r} is not a share above 0 and up to 100; write it as 5%"
        )
    return share


def template(known: frozenset[str]) -> Callable[[str], str]:
    """A parser of text that may hold the fields `known` in braces."""

    def check(text: str) -> str:
        for match in _FIELD.finditer(text):
            if match.group(1) not in known:
                raise UsageError(
                    "INVALID_TEMPLATE",
                    f"{match.group()} is not known here; write "
                    f"{', '.join(f'{{{field}}}' for field in sorted(known))}",
                )
        return text

    return check


def size_range(least: int = 0, most: int = 0) -> tuple[int, int]:
    """Least and most, inclusive."""
    if most and least > most:
        raise UsageError("INVALID_RANGE", "is empty: least is more than most")
    return least, most


def condition(size: tuple[int, int] = (0, 0), **rest: Any) -> Condition:
    """A condition on volumes."""
    return Condition(size_least_bytes=size[0], size_most_bytes=size[1], **rest)


def selection(**given: Any) -> Condition:
    """A condition that somebody wrote: an empty one would be every volume."""
    found = condition(**given)
    if found == Condition():
        raise UsageError(
            "NOTHING_SELECTED", "selects nothing; for all volumes of the project write names: '*'"
        )
    return found


def renaming(rules: tuple[Rule, ...] = (), unmapped: str = "default") -> Renaming:
    """Rules of one mapping."""
    return Renaming(rules, Unmapped(unmapped))


def mappings(
    metadata: tuple[tuple[MetadataRule, ...], Mapping[str, str]] = ((), {}), **rest: Renaming
) -> Mappings:
    """All mappings."""
    return Mappings(**rest, metadata=metadata[0], set_metadata=metadata[1])


def metadata(
    rules: tuple[MetadataRule, ...] = (), added: Mapping[str, str] | None = None
) -> tuple[tuple[MetadataRule, ...], Mapping[str, str]]:
    """Rules and additions of metadata."""
    return rules, added or {}


def override(verify: str = "", size: int = 0, **rest: Any) -> Override:
    """What holds for one volume."""
    if size % GIB:
        raise UsageError("INVALID_SIZE", "size must be whole GiB")
    return Override(verify=Verify(verify) if verify else None, size_bytes=size, **rest)


def opening(since: time, until: time, days: tuple[str, ...] = DAYS) -> Opening:
    """A time of the week."""
    return Opening(tuple(sorted({DAYS.index(day) for day in days})), since, until)


def windows(at_end: str = "pause", **rest: Any) -> Windows:
    """All windows."""
    return Windows(at_end=AtEnd(at_end), **rest)


def url(text: str) -> str:
    """An http or https URL without credentials in it."""
    try:
        parts = urlsplit(text)
        fits = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        fits = False
    if not fits or "@" in parts.netloc or not text.isascii() or not text.isprintable():
        raise UsageError(
            "INVALID_URL",
            "is not an http or https URL, without user and password, such as "
            "https://chat.example/hooks/7",
        )
    return text


def hook(command: tuple[str, ...] = (), url: str = "", secret_file: str = "", **rest: Any) -> Hook:
    """Who is told what happens."""
    if bool(command) == bool(url):
        raise UsageError("INVALID_HOOK", "must have either command or url")
    if secret_file and command:
        raise UsageError("INVALID_HOOK", "secret_file is for a url: it signs what is posted")
    return Hook(command=command, url=url, secret_file=secret_file, **rest)


def pool(most: int, idle_seconds: int = IDLE_SECONDS, lanes: int = 1, least: int = 0) -> Pool:
    """Pairs of instances that volumes share."""
    if least > most:
        raise UsageError("INVALID_POOL", f"min must be at most max, which is {most}")
    if not 0 < idle_seconds <= IDLE_SECONDS_MAX:
        raise UsageError(
            "INVALID_IDLE",
            f"idle must be at most {IDLE_SECONDS_MAX // 60}m: an instance that hears nobody for "
            f"{DEAD_MAN_SECONDS // 60}m powers itself off",
        )
    return Pool(most, idle_seconds, lanes, least)


def fleet(
    verify: str = "", limits: Limits | None = None, pool: Pool | None = None, **rest: Any
) -> Fleet:
    """The whole file."""
    limits = limits or Limits()
    return Fleet(
        verify=Verify(verify) if verify else None,
        limits=replace(limits, pairs=pool.most, lanes=pool.lanes) if pool else limits,
        pool=pool,
        **rest,
    )
