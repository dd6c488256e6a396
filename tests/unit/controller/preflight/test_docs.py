"""docs/preflight.md has a row for every check, and names every reason it may fail with."""

import re
from pathlib import Path

import pytest

from blockferry_controller.delivery import user_data
from blockferry_controller.migration import choose, preflight
from blockferry_controller.migration.preflight import BEFORE, BOOTED

ROOT = Path(__file__).parents[4]
DOCS = (ROOT / "docs" / "preflight.md").read_text(encoding="utf-8")
ROWS = [line.split("|")[1:5] for line in DOCS.splitlines() if re.match(r"\| (\*\*)?`", line)]
"""Check, what it looks at, how it fails, the way out."""
BY_NAME = {name: row for row in ROWS for name in re.findall(r"`([a-z-]+)`", row[0])}


def test_every_check_has_its_row_in_order() -> None:
    assert list(BY_NAME) == [rule.name for rule in (*BEFORE, *BOOTED)]


def test_what_cannot_be_skipped_is_bold() -> None:
    bold = {name for name, row in BY_NAME.items() if f"**`{name}`**" in row[0]}
    assert bold == {rule.name for rule in (*BEFORE, *BOOTED) if rule.needed}


@pytest.mark.parametrize("name", list(BY_NAME))
def test_a_row_has_a_way_out(name: str) -> None:
    assert all(cell.strip() for cell in BY_NAME[name])


def test_every_reason_is_named() -> None:
    raised: set[str] = set()
    modules = [Path(str(preflight.__file__)).parent, Path(str(choose.__file__))]
    files = [*modules[0].glob("*.py"), modules[1], Path(str(user_data.__file__))]
    for file in files:
        text = file.read_text(encoding="utf-8")
        raised |= set(re.findall(r'Error\(\s*"([A-Z_]+)"', text))
        raised |= set(re.findall(r'"([A-Z]+_LOST)"', text))
    # Of skippable(), and of defects.
    raised -= {"CHECK_UNKNOWN", "CHECK_NEEDED", "FILE_NAME", "CLOUD_INIT_MISSING"}
    failures = " ".join(row[2] for row in ROWS)
    assert not {reason for reason in raised if reason not in failures}


def test_options_that_are_a_way_out_exist() -> None:
    cli = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    for option in set(re.findall(r"`(--[a-z-]+)", DOCS)):
        assert option in cli, option
