"""docs/hooks.md has every kind of event, with the fields it has, and no other."""

import re
from pathlib import Path

import pytest
from msgspec import Struct

from blockferry_controller.engine.occurrences import WORDS

DOCS = (Path(__file__).parents[4] / "docs" / "hooks.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]*) ?\|$", DOCS, re.MULTILINE)


def fields(cell: str) -> list[str]:
    """Names before the brackets that explain them."""
    return re.findall(r"`(\w+)`", re.sub(r"\([^)]*\)", "", cell))


def test_every_event_is_described_once_and_none_that_there_is_not() -> None:
    assert sorted(word for word, _ in ROWS) == sorted(WORDS.values())


@pytest.mark.parametrize("kind", WORDS, ids=lambda kind: WORDS[kind])
def test_its_fields_are_those_it_has(kind: type[Struct]) -> None:
    described = fields(dict(ROWS)[WORDS[kind]])
    assert described == list(kind.__struct_fields__)
