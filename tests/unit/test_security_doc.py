"""SECURITY.md names a test for what it says: each of them is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
TESTS = sorted(set(NAMED.findall((ROOT / "SECURITY.md").read_text(encoding="utf-8"))))


def test_it_names_some() -> None:
    assert len(TESTS) >= 20


@pytest.mark.parametrize(("path", "name"), TESTS)
def test_a_named_test_is_there(path: str, name: str) -> None:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
