"""Any text is a fleet or a list of complaints, and the schema never takes what we refuse."""

import json
import re
from typing import Any

import jsonschema
from hypothesis import given, settings
from hypothesis import strategies as st

from blockferry.errors import UsageError
from blockferry_controller.fleet.grammar import FLEET, fleet_schema, read_fleet
from blockferry_controller.fleet.place import parse, plain
from blockferry_controller.fleet.plan import Plan, read_plan
from blockferry_controller.fleet.shape import Choice, Named, Section, Some, Text, Truth, Whole
from blockferry_controller.fleet.spec import Fleet
from tests.property.test_files import JSON, mutated

VALIDATOR = jsonschema.Draft202012Validator(fleet_schema())
WORDS = ("east", "west", "a", "db-*", "10GiB", "5%", "22:00", "200MiB/s", "2h", "UTC", "{id}", "8")


def of(shape: Any) -> st.SearchStrategy[Any]:
    """Values of about the shape, as plain types."""
    if isinstance(shape, Text):
        fitting = [word for word in WORDS if re.search(shape.pattern, word)]
        return st.sampled_from(fitting)
    if isinstance(shape, Choice):
        return st.sampled_from(shape.words)
    if isinstance(shape, Whole):
        return st.integers(shape.least, shape.most)
    if isinstance(shape, Truth):
        return st.booleans()
    if isinstance(shape, Some):
        return st.lists(of(shape.of), min_size=shape.least, max_size=3)
    if isinstance(shape, Named):
        return st.dictionaries(st.sampled_from(WORDS), of(shape.of), max_size=2)
    assert isinstance(shape, Section)
    needed = {name: of(key.shape) for name, key in shape.keys.items() if key.needed}
    others = {name: of(key.shape) for name, key in shape.keys.items() if not key.needed}
    return st.fixed_dictionaries(needed, optional=others)


def read(text: str) -> Fleet | str:
    try:
        return read_fleet(text, "f")
    except UsageError as error:
        return error.message


@given(st.text())
def test_any_text_is_read_or_refused_by_one_error(text: str) -> None:
    assert read(text)


@settings(max_examples=40)
@given(of(FLEET))
def test_what_has_the_shape_is_a_fleet_or_told_why_not(document: Any) -> None:
    VALIDATOR.validate(document)
    found = read(json.dumps(document))
    if isinstance(found, str):
        # A shape says nothing of what texts mean, nor of what keys mean together.
        assert "is not known here; did you mean" not in found
        assert "must be a mapping" not in found


@settings(max_examples=40)
@given(of(FLEET))
def test_yaml_json_and_plain_types_agree(document: Any) -> None:
    text = json.dumps(document)
    assert plain(parse(text, "f")) == document
    as_yaml = "# not JSON\n" + text
    assert plain(parse(as_yaml, "f")) == document
    first, second = read(text), read(as_yaml)
    assert isinstance(first, str) == isinstance(second, str)
    if not isinstance(first, str):
        assert first == second


VOLUME = {"id": "v", "size_bytes": 1, "wave": "", "name": "n", "predicted_seconds": 1.5}
PLAN = {"blockferry_plan": 1, "from": "east", "to": "west", "volumes": [VOLUME], "missing": []}


@settings(max_examples=40)
@given(
    plan=mutated(PLAN),
    volumes=st.lists(mutated(VOLUME), max_size=2) | JSON,
    fleet=of(FLEET) | JSON,
)
def test_a_plan_is_read_or_refused_by_one_error(plan: Any, volumes: Any, fleet: Any) -> None:
    try:
        found = read_plan(json.dumps({**plan, "volumes": volumes, "fleet": fleet}), "p")
    except UsageError:
        return
    assert isinstance(found, Plan)
