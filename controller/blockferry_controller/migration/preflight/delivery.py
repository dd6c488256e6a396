"""How the agent gets into its instance: user-data that fits, wheels that can be had.

The controller asks for the wheels itself, once: an instance may see other networks, so
what it finds is a hint and never a failure. An address of a family that the instance
will not have is one.
"""

import ipaddress
from datetime import datetime, timezone
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from blockferry.errors import PreconditionError
from blockferry_controller.delivery.user_data import USER_DATA_MAX_CHARS, base64_length
from blockferry_controller.migration.authority import Authority
from blockferry_controller.migration.choose import is_prepared
from blockferry_controller.migration.context import Context, Side, need
from blockferry_controller.migration.instance_data import instance_data
from blockferry_controller.migration.preflight.check import Warned
from blockferry_controller.migration.preflight.network import families

ANSWER_SECONDS: Final = 5.0
_PAGE_MAX_BYTES: Final = 4 << 20
_LONG_ADDRESSES: Final = ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "203.0.113.255")
"""What a port may have, at its longest; from the ranges for documentation."""
_WHEEL: Final = "grpcio"
"""The largest of the agent's wheels: where it is, the others are."""


def user_data(context: Context) -> str:
    """What cloud-init gets fits what a cloud takes, with certificates made to be thrown away.

    Raises:
        UsageError: USER_DATA_TOO_LARGE.
    """
    lanes = context.spec.lanes
    now = datetime.now(timezone.utc)
    throw_away = [(Authority.create(f"throw-away-{at}", now), 1) for at in range(lanes)]
    sizes = [
        base64_length(instance_data(context, side, throw_away, _LONG_ADDRESSES))
        for side in context.sides
    ]
    return f"{max(sizes)} of {USER_DATA_MAX_CHARS} characters"


def wheels(context: Context) -> str | Warned:
    """Where instances without the agent install it from.

    Raises:
        PreconditionError: WHEELS_UNREACHABLE.
    """
    bare = [side for side in context.sides if not is_prepared(need(side.image))]
    if not bare:
        return "not needed: the images hold the agent"
    clouds: dict[str, list[str]] = {}
    for side in bare:
        _check_family(side)
        clouds.setdefault(side.endpoint.placement.wheels, []).append(side.cloud.name)
    found = [_offered(url, " and ".join(names)) for url, names in clouds.items()]
    doubts = [one.detail for one in found if isinstance(one, Warned)]
    return Warned("; ".join(doubts)) if doubts else "; ".join(map(str, found))


def _check_family(side: Side) -> None:
    """Refuse a URL with an address that the instance has no family for; names are left to it."""
    try:
        host = urlsplit(side.endpoint.placement.wheels).hostname or ""
        version = ipaddress.ip_address(host).version
    except ValueError:
        return
    if version not in families(side):
        raise PreconditionError(
            "WHEELS_UNREACHABLE",
            f"the instance in {side.cloud.name} will have no IPv{version} address, so it cannot "
            f"install from {host}; give an address that it reaches, or a name, with --wheels or "
            "for that cloud in the configuration",
            cloud=side.cloud.name,
            host=host,
        )


def _offered(url: str, clouds: str) -> str | Warned:
    """What is at `url`; empty for pip's default."""
    if not url:
        return Warned(
            f"instances in {clouds} install the agent's wheels from PyPI and need a way there; "
            "offer the wheels yourself with --wheels, or take an image that holds the agent"
        )
    try:
        shown = _without_password(url)
    except ValueError:
        return Warned("--wheels is not a URL; instances cannot use it")
    try:
        page = _page(url)
        if _WHEEL not in page:
            page = _page(f"{url.rstrip('/')}/{_WHEEL}/")
    except (OSError, ValueError) as error:
        return Warned(
            f"{shown} does not answer here ({_why(error)}); instances in {clouds} may still "
            "reach it: see that they do, or give another with --wheels"
        )
    if _WHEEL not in page:
        return Warned(
            f"{shown} answers but links no wheel of {_WHEEL}; "
            "`make wheelhouse` collects what instances need"
        )
    return f"{shown} answers"


def _page(url: str) -> str:
    """At most 4 MiB of what is there.

    Raises:
        OSError: nobody answers, or not with this.
        ValueError: not a URL, or not of HTTP.
    """
    import urllib.request  # noqa: PLC0415 - only where instances are to install something

    if urlsplit(url).scheme not in {"http", "https"}:
        raise ValueError("not an http or https URL")
    with urllib.request.urlopen(url, timeout=ANSWER_SECONDS) as answer:  # noqa: S310 - checked
        return str(answer.read(_PAGE_MAX_BYTES).decode("utf-8", "replace"))


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _why(error: Exception) -> str:
    import urllib.error  # noqa: PLC0415 - as above

    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code}"
    reason = getattr(error, "reason", None) or error
    return str(reason)
