"""What kind of request it is: its method, and its path without what is particular in it."""

import re

_VERSION = re.compile(r"v\d+(\.\d+)?")
_ID = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def kind_of(method: str, path: str) -> str:
    """`GET /servers/{id}` for a look at a server; the API's version and project are left out."""
    parts = [part for part in path.split("/") if part]
    if parts and _VERSION.fullmatch(parts[0]):
        parts = parts[1:]
        if parts and _ID.fullmatch(parts[0]):
            parts = parts[1:]
    for at, part in enumerate(parts):
        if _ID.fullmatch(part):
            parts[at] = "{id}"
        elif at and parts[at - 1] == "tags":
            parts[at] = "{tag}"
    return f"{method} /{'/'.join(parts)}"
