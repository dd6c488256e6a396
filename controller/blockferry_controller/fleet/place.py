"""A document whose every value knows where it stands: line, column and key path.

Rules:
* Scalars stay as they were written. YAML 1.1 reads `22:00` as 1320 and `no` as false;
  what a value means is decided by the shape that reads it, not by the parser.
* JSON is read by the same rules, without lines: it is valid YAML, but a plan of
  10,000 volumes would take PyYAML half a minute.
* A key that stands twice in one mapping is refused: one of the two would be lost.
* What a file can make us allocate is bounded: its length, and in YAML the number of
  values, an aliased one counted as often as it is used, so that no few lines of
  aliases become a billion.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Final, cast

from msgspec import Struct, field

from blockferry.errors import UsageError

JSON_CHARACTERS_MAX: Final = 256 << 20
"""A plan of 100,000 volumes has about a quarter of it."""
YAML_CHARACTERS_MAX: Final = 8 << 20
YAML_VALUES_MAX: Final = 400_000
_SHOWN_MAX: Final = 40
_QUOTES: Final = frozenset({"'", '"', "|", ">"})
"""Styles of scalars; a plain one is None or, from libyaml, empty."""
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")


class Node(Struct, frozen=True):
    """One value of the document.

    Attributes:
        value: Text of a scalar, None for nothing, a list of nodes, or pairs of key
            (a scalar node) and value.
        line, column: From 1; 0 where the format does not tell.
        quoted: Whether a scalar can only be text, however it looks.
    """

    value: "str | list[Node] | list[tuple[Node, Node]] | None"
    kind: str
    line: int = 0
    column: int = 0
    quoted: bool = False


class Complaint(Struct, frozen=True):
    """What is wrong at one place. `path` as in `waves[1].gate`, empty for all of it."""

    path: str
    message: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        place = f"line {self.line}, column {self.column}: " if self.line else ""
        return f"{place}{self.path or 'the whole file'}: {self.message}"


class Complaints(Struct):
    """Collects all that is wrong with one document."""

    found: list[Complaint] = field(default_factory=list)

    def add(self, node: Node, path: str, message: str) -> None:
        """Note that `message` is wrong at `node`."""
        self.found.append(Complaint(path, message, node.line, node.column))

    def raise_any(self, name: str, reason: str = "FLEET_INVALID") -> None:
        """Raise one error that lists all, in the order of the file.

        Raises:
            UsageError: `reason`.
        """
        if not self.found:
            return
        ordered = sorted(self.found, key=lambda one: (one.line, one.column))
        shown = "\n".join(f"  {one}" for one in ordered[:_SHOWN_MAX])
        more = len(ordered) - _SHOWN_MAX
        tail = f"\n  and {more} more" if more > 0 else ""
        count = "1 thing is" if len(ordered) == 1 else f"{len(ordered)} things are"
        raise UsageError(
            reason,
            f"{count} wrong in {name}:\n{shown}{tail}",
            file=name,
            count=len(ordered),
            line=ordered[0].line,
            column=ordered[0].column,
            path=ordered[0].path,
        )


def plain(node: Node) -> Any:
    """The same as plain types for JSON; what they say reads back as the same document."""
    if node.kind == "mapping":
        pairs = cast("list[tuple[Node, Node]]", node.value)
        return {str(key.value): plain(value) for key, value in pairs}
    if node.kind == "list":
        return [plain(inner) for inner in cast("list[Node]", node.value)]
    if node.quoted or node.value is None:
        return node.value
    text = str(node.value)
    if text in ("true", "false"):
        return text == "true"
    # 007 and 1_000 are texts to us.
    return int(text) if _INTEGER.fullmatch(text) else text


def parse(text: str, name: str) -> Node:
    """The document in `text`: JSON when it begins with a brace, else YAML.

    Raises:
        UsageError: FLEET_INVALID, it is neither, or too large.
    """
    json_it_is = text[:1000].lstrip()[:1] == "{"
    most = JSON_CHARACTERS_MAX if json_it_is else YAML_CHARACTERS_MAX
    if len(text) > most:
        raise _invalid(name, f"it is larger than {most >> 20} MiB")
    return _parse_json(text, name) if json_it_is else _parse_yaml(text, name)


def _parse_json(text: str, name: str) -> Node:
    try:
        document = json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise _invalid(name, f"it is not JSON: {error}") from None
    return _from_json(document)


class _Pairs(list[tuple[str, Any]]):
    """An object's members, those of the same name included."""


def _from_json(value: object) -> Node:
    if isinstance(value, _Pairs):
        pairs = [(Node(key, "scalar", quoted=True), _from_json(inner)) for key, inner in value]
        return Node(pairs, "mapping")
    if isinstance(value, list):
        return Node([_from_json(inner) for inner in value], "list")
    if value is None:
        return Node(None, "nothing")
    if isinstance(value, str):
        return Node(value, "scalar", quoted=True)
    return Node(json.dumps(value), "scalar")


def _parse_yaml(text: str, name: str) -> Node:
    import yaml  # noqa: PLC0415 - `blockferry --help` does without

    try:
        # libyaml, where PyYAML was built with it, is eight times as fast.
        root = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, RecursionError) as error:
        raise _invalid(name, f"it is not YAML: {error}") from None
    if root is None:
        return Node(None, "nothing", 1, 1)
    try:
        return _from_yaml(root, iter(range(YAML_VALUES_MAX)))
    except (StopIteration, RecursionError):
        raise _invalid(
            name, f"it has more than {YAML_VALUES_MAX} values, or one within itself"
        ) from None


def _from_yaml(node: Any, budget: Iterator[int]) -> Node:
    import yaml  # noqa: PLC0415

    next(budget)
    line, column = node.start_mark.line + 1, node.start_mark.column + 1
    if isinstance(node, yaml.MappingNode):
        pairs = [(_from_yaml(key, budget), _from_yaml(value, budget)) for key, value in node.value]
        return Node(pairs, "mapping", line, column)
    if isinstance(node, yaml.SequenceNode):
        return Node([_from_yaml(item, budget) for item in node.value], "list", line, column)
    if node.tag == "tag:yaml.org,2002:null":
        return Node(None, "nothing", line, column)
    return Node(str(node.value), "scalar", line, column, quoted=node.style in _QUOTES)


def _invalid(name: str, complaint: str) -> UsageError:
    return UsageError("FLEET_INVALID", f"{name} cannot be read: {complaint}", file=name)
