"""What a value may look like: reads it, complains about it, and describes it in JSON Schema.

One description serves all three, so that an editor that knows the schema and the program
that reads the file cannot disagree about a key.

Rules:
* A shape never raises for what a person wrote: it adds complaints and returns BROKEN,
  so that all mistakes of a file are told at once.
* What is absent is decided by the section that knows the default, never by a shape.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol, cast

from msgspec import Struct, field

from blockferry.errors import UsageError
from blockferry_controller.fleet.place import Complaints, Node

BROKEN: Final = object()
"""What a shape returns for a value that it complained about."""

_TRUE: Final = frozenset({"true", "yes", "on"})
_FALSE: Final = frozenset({"false", "no", "off"})


class Shape(Protocol):
    """A kind of value."""

    def read(self, node: Node, path: str, complaints: Complaints) -> Any:
        """The value, or BROKEN after a complaint."""
        ...

    def schema(self) -> dict[str, Any]:
        """As JSON Schema, draft 2020-12."""
        ...


class Text(Struct, frozen=True):
    """A scalar, as `parse` understands it.

    Attributes:
        parse: Its UsageError becomes a complaint.
        pattern: For the schema: ECMA 262, anchored.
        empty: Whether nothing may stand there.
    """

    parse: Callable[[str], object] = str
    pattern: str = ""
    example: str = ""
    empty: bool = False

    def read(self, node: Node, path: str, complaints: Complaints) -> Any:
        """See Shape."""
        if node.kind not in ("scalar", "nothing"):
            return _complain(complaints, node, path, f"must be text, not a {node.kind}")
        text = cast("str | None", node.value) or ""
        if not text and not self.empty:
            return _complain(complaints, node, path, "must not be empty")
        try:
            return self.parse(text)
        except UsageError as error:
            return _complain(complaints, node, path, error.message)

    def schema(self) -> dict[str, Any]:
        """See Shape."""
        kinds: list[str] = ["string", "number"]
        described: dict[str, Any] = {"type": kinds}
        if self.empty:
            kinds.append("null")
        else:
            described["minLength"] = 1
        if self.pattern:
            described["pattern"] = self.pattern
        if self.example:
            described["examples"] = [self.example]
        return described


class Choice(Struct, frozen=True):
    """One of some words."""

    words: tuple[str, ...]

    def read(self, node: Node, path: str, complaints: Complaints) -> Any:
        """See Shape."""
        if node.kind == "scalar" and node.value in self.words:
            return node.value
        shown = repr(node.value) if node.kind == "scalar" else f"a {node.kind}"
        hint = _nearest(str(node.value), self.words) if node.kind == "scalar" else ""
        said = f"is {shown}; write {' or '.join(self.words)}{hint}"
        return _complain(complaints, node, path, said)

    def schema(self) -> dict[str, Any]:
        """See Shape."""
        return {"enum": list(self.words)}


class Whole(Struct, frozen=True):
    """A whole number in [least, most]."""

    least: int
    most: int

    def read(self, node: Node, path: str, complaints: Complaints) -> Any:
        """See Shape."""
        text = node.value if node.kind == "scalar" and not node.quoted else ""
        if isinstance(text, str) and text.isascii() and text.lstrip("-").isdigit():
            number = int(text[:20])
            if self.least <= number <= self.most:
                return number
        said = f"must be a whole number from {self.least} to {self.most}"
        return _complain(complaints, node, path, said)

    def schema(self) -> dict[str, Any]:
        """See Shape."""
        return {"type": "integer", "minimum": self.least, "maximum": self.most}


class Truth(Struct, frozen=True):
    """Yes or no."""

    def read(self, node: Node, path: str, complaints: Complaints) -> Any:
        """See Shape."""
        word = str(node.value).lower() if node.kind == "scalar" else ""
        if word in _TRUE or word in _FALSE:
            return word in _TRUE
        return _complain(complaints, node, path, "must be true or false")

    def schema(self) -> dict[str, Any]:
        """See Shape."""
        return {"type": "boolean"}


class Some(Struct, frozen=True):
    """A list of `of`; of exactly one, it may be written without the list."""

    of: Shape
    least: int = 0

    def read(self, node: Node, path: str, complaints: Complaints) -> Any:
        """See Shape."""
        if node.kind == "scalar":
            one = self.of.read(node, path, complaints)
            return BROKEN if one is BROKEN else (one,)
        if node.kind != "list":
            return _complain(complaints, node, path, "must be a list")
        items = cast("Sequence[Node]", node.value)
        if len(items) < self.least:
            return _complain(complaints, node, path, f"must have at least {self.least}")
        read = [self.of.read(one, f"{path}[{at}]", complaints) for at, one in enumerate(items)]
        return BROKEN if BROKEN in read else tuple(read)

    def schema(self) -> dict[str, Any]:
        """See Shape."""
        several: dict[str, Any] = {"type": "array", "items": self.of.schema()}
        if self.least:
            several["minItems"] = self.least
        if isinstance(self.of, Text | Choice):
            return {"anyOf": [self.of.schema(), several]}
        return several


class Named(Struct, frozen=True):
    """A mapping from names that people choose to `of`."""

    of: Shape

    def read(self, node: Node, path: str, complaints: Complaints) -> Any:
        """See Shape."""
        pairs = _pairs(node, path, complaints)
        if pairs is None:
            return BROKEN
        read = {
            key: self.of.read(value, f"{path}.{key}", complaints)
            for key, (_, value) in pairs.items()
        }
        return BROKEN if BROKEN in read.values() else read

    def schema(self) -> dict[str, Any]:
        """See Shape."""
        return {"type": "object", "additionalProperties": self.of.schema()}


class Key(Struct, frozen=True):
    """A key of a section: its shape, what it means, and whether it must be there.

    Attributes:
        name: Of the argument of `Section.make`; empty for the key itself.
    """

    shape: Shape
    about: str
    needed: bool = False
    name: str = ""


class Section(Struct, frozen=True):
    """A mapping with known keys.

    Attributes:
        make: Called with what was read; keys that are absent are not given. Its
            UsageError becomes a complaint.
    """

    make: Callable[..., Any]
    keys: Mapping[str, Key] = field(default_factory=dict)

    def read(self, node: Node, path: str, complaints: Complaints) -> Any:
        """See Shape."""
        pairs = _pairs(node, path, complaints)
        if pairs is None:
            return BROKEN
        before = len(complaints.found)
        read = {}
        for key, (key_node, value) in pairs.items():
            below = f"{path}.{key}".lstrip(".")
            if key not in self.keys:
                hint = _nearest(key, tuple(self.keys)) or f"; known are {', '.join(self.keys)}"
                complaints.add(key_node, below, f"is not known here{hint}")
            # A key without a value is one that was left out.
            elif value.kind != "nothing":
                known = self.keys[key]
                read[known.name or key] = known.shape.read(value, below, complaints)
        for key, known in self.keys.items():
            if known.needed and (key not in pairs or pairs[key][1].kind == "nothing"):
                complaints.add(node, f"{path}.{key}".lstrip("."), f"is missing: {known.about}")
        if len(complaints.found) > before:
            return BROKEN
        try:
            return self.make(**read)
        except UsageError as error:
            return _complain(complaints, node, path, error.message)

    def schema(self) -> dict[str, Any]:
        """See Shape."""
        properties = {}
        for name, key in self.keys.items():
            properties[name] = {"description": key.about, **key.shape.schema()}
            if not key.needed:
                properties[name] = _or_nothing(properties[name])
        described: dict[str, Any] = {
            "type": "object",
            "additionalProperties": False,
            "properties": properties,
        }
        needed = [name for name, key in self.keys.items() if key.needed]
        return {**described, "required": needed} if needed else described


def _or_nothing(schema: dict[str, Any]) -> dict[str, Any]:
    """The same, or null: editors leave a key without a value while it is typed."""
    kind = schema.get("type")
    if isinstance(kind, str):
        return {**schema, "type": [kind, "null"]}
    if isinstance(kind, list):
        return {**schema, "type": sorted({*kind, "null"})}
    if "enum" in schema:
        return {**schema, "enum": [*schema["enum"], None]}
    return {**schema, "anyOf": [*schema["anyOf"], {"type": "null"}]}


def _pairs(node: Node, path: str, complaints: Complaints) -> dict[str, tuple[Node, Node]] | None:
    """Key node and value by key; None when it is no mapping of names."""
    if node.kind != "mapping":
        shown = "nothing" if node.kind == "nothing" else f"a {node.kind}"
        complaints.add(node, path, f"must be a mapping of names, not {shown}")
        return None
    pairs: dict[str, tuple[Node, Node]] = {}
    for key, value in cast("list[tuple[Node, Node]]", node.value):
        if key.kind != "scalar" or not isinstance(key.value, str):
            complaints.add(key, path, "has a key that is not a name")
        elif key.value in pairs:
            complaints.add(key, f"{path}.{key.value}".lstrip("."), "stands here twice")
        else:
            pairs[key.value] = (key, value)
    return pairs


def _nearest(word: str, known: Sequence[str]) -> str:
    found = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {found[0]}?" if found else ""


def _complain(complaints: Complaints, node: Node, path: str, message: str) -> Any:
    complaints.add(node, path, message)
    return BROKEN
