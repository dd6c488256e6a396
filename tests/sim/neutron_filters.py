"""How Neutron selects and sorts: any attribute is a filter, tags have four of their own."""

import re

from tests.sim.http import Json, Request


def sort(found: list[Json], request: Request) -> None:
    """Order by `sort_key` and `sort_dir`."""
    key = request.params.get("sort_key", "id")
    found.sort(
        key=lambda resource: str(resource.get(key, "")),
        reverse=request.params.get("sort_dir") == "desc",
    )


def matches(resource: Json, request: Request) -> bool:
    """True when the resource has every value that the query asks for."""
    ignored = {"limit", "marker", "fields", "sort_key", "sort_dir", "page_reverse"}
    for key in {name for name, _ in request.query} - ignored:
        if not _value_matches(resource, key, request.all(key)):
            return False
    return True


def _value_matches(resource: Json, key: str, wanted: list[str]) -> bool:
    if key in {"tags", "tags-any", "not-tags", "not-tags-any"}:
        return _tags_match(set(resource["tags"]), key, set(",".join(wanted).split(",")))
    if key == "fixed_ips":
        pairs = [re.split("=|:", one, maxsplit=1) for one in wanted]
        return any(all(ip.get(k) == v for k, v in pairs) for ip in resource["fixed_ips"])
    if key not in resource:
        return True
    have = resource[key]
    if isinstance(have, list):
        return bool(set(wanted) & {str(value) for value in have})
    if isinstance(have, bool):
        return str(have).lower() in {value.lower() for value in wanted}
    return ("" if have is None else str(have)) in wanted


def _tags_match(have: set[str], key: str, wanted: set[str]) -> bool:
    found = bool(have & wanted) if key.endswith("-any") else wanted <= have
    return not found if key.startswith("not-") else found
