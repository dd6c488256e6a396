"""One document whose last value is a list too long to be had at once, in JSON or YAML."""

import json
from collections.abc import Mapping
from typing import Any


class DocumentStream:
    """The text of such a document, piece by piece; everything but the list is indented.

    Args:
        output: `json` or `yaml`.
        key: Of the list. An element a line: indenting is done in Python, and took most of
            the time of 100,000.
    """

    def __init__(self, output: str | None, key: str) -> None:
        self._yaml = output == "yaml"
        self._key = key
        self._some = False

    def begin(self, head: Mapping[str, Any]) -> str:
        """All other values, and what opens the list."""
        if self._yaml:
            return f"{_yaml(dict(head))}{self._key}:"
        return f"{json.dumps(dict(head), indent=2)[:-2]},\n  {json.dumps(self._key)}: ["

    def row(self, row: Mapping[str, Any]) -> str:
        """The next element."""
        before = "\n" if self._yaml or not self._some else ",\n"
        self._some = True
        return before + (_yaml([dict(row)]).rstrip("\n") if self._yaml else json.dumps(row))

    def end(self) -> str:
        """What closes list and document."""
        if self._yaml:
            return "\n" if self._some else " []\n"
        return "\n  ]\n}\n" if self._some else "]\n}\n"


def _yaml(value: Any) -> str:
    import yaml  # noqa: PLC0415 - few ask for it

    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    return text
