"""docs/cli.md and README.md name what is there: options, documents, events, codes."""

import re
from pathlib import Path

import click
import pytest

from blockferry.errors import CLASSES
from blockferry_controller.cli.root import COMMANDS, blockferry
from blockferry_controller.engine.records import State
from blockferry_controller.events import Progress
from blockferry_controller.migration.steps import STEPS
from blockferry_controller.ui.ndjson import NAMES

ROOT = Path(__file__).parents[3]
DOCS = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def options() -> list[click.Option]:
    commands = [blockferry.get_command(click.Context(blockferry), name) for name in COMMANDS]
    return [
        parameter
        for command in commands
        if command is not None
        for parameter in command.params
        if isinstance(parameter, click.Option)
    ]


@pytest.mark.parametrize("name", sorted({name for option in options() for name in option.opts}))
def test_every_option_is_described(name: str) -> None:
    assert re.search(rf"`{name}\b|, {name}\b|\[{name}\b", DOCS.replace("`, `", ", ")), name


def test_every_event_and_its_parts_are_described() -> None:
    names = {"percent", "bytes_per_second", "wire_bytes_per_second", "eta_seconds"}
    names |= {*Progress.__struct_fields__}
    for cls, name in NAMES.items():
        names |= {name, *cls.__struct_fields__}
    missing = {name for name in names - {"progress"} if f"`{name}`" not in DOCS}
    assert not missing


def test_every_state_and_step_is_described() -> None:
    assert not [state.value for state in State if f"| `{state.value}` |" not in DOCS]
    told = ", ".join(f"`{step.name}`" for step in STEPS)
    assert told in DOCS.replace("\n", " ")


def test_the_readme_has_every_exit_code() -> None:
    table = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    assert table == {0} | {cls.meaning.exit_code for cls in CLASSES}
