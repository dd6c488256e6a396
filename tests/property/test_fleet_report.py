"""The report of a fleet: whatever things are called, what is written is well-formed."""

import csv
import io
import json
import re
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from html.parser import HTMLParser

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from blockferry_controller.engine.fleet_records import FleetRecord, ItemState
from blockferry_controller.engine.outcomes import Outcome
from blockferry_controller.notation import printable
from blockferry_controller.report import fleet
from blockferry_controller.report.fleet_csv import COLUMNS, Csv
from blockferry_controller.report.fleet_html import Html
from blockferry_controller.report.fleet_markdown import Markdown
from blockferry_controller.ui.stream import DocumentStream

NOW = datetime(2026, 11, 20, 22, tzinfo=timezone.utc)
NASTY = (
    "=1+1", "@SUM(A1)", "\t=x", "\uff1d1", "a,b", 'say "hi"', "a\r\nb", "<script>alert(1)</script>",
    "</td></table>", "{{ report }}", "a|b", "&amp;", "\ud800", "\x00\x1b[2J", "\u202egnp", "-", "",
)  # fmt: skip
NAMES = st.text(max_size=20) | st.sampled_from(NASTY)
VOID = frozenset({"meta", "br"})


def outcome(position: int, name: str, text: str, state: ItemState) -> Outcome:
    plan = {
        "type": text, "to_type": name, "by": {"type": text}, "zone": "", "to_name": name,
        "to_metadata": {text: name},
    }  # fmt: skip
    result = {
        "duration_seconds": 90.0, "sent_bytes": 5 << 30, "wire_bytes": 1 << 30, "verified": True,
        "digest": text,
    }  # fmt: skip
    return Outcome(
        position, name, f"id-{position}", 10 << 30, "all", state.value, text, text,
        json.dumps(plan), f"m-{position}", NOW, NOW + timedelta(seconds=90), 1,
        text, json.dumps(result),
    )  # fmt: skip


def outcomes(names: Sequence[str], text: str) -> Iterator[Outcome]:
    states = list(ItemState)
    return (outcome(at, name, text, states[at % len(states)]) for at, name in enumerate(names))


def written(form: fleet.Form, names: Sequence[str], text: str) -> str:
    record = FleetRecord(
        id="shop", state="FAILED", source=text, destination="west", message=text, counts={},
        document={"waves": [{"name": "all"}]}, settings={}, version=1,
        created_at=NOW, updated_at=NOW, ended_at=NOW,
    )  # fmt: skip
    hook = {"hook": "n", "delivered": 1, "given_up": 0, "waiting": 0, "error": text, "lost": []}
    out = io.StringIO(newline="")
    fleet.write(out, record, outcomes(names, text), [hook], form)
    return out.getvalue()


class Page(HTMLParser):
    """The elements and texts of a page; raises at a tag that closes what is not open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.attributes: set[str] = set()
        self.bold: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag == "b":
            self.bold.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "b":
            self.bold[-1] += data


def page(names: Sequence[str], text: str) -> Page:
    parsed = Page()
    parsed.feed(written(Html(), names, text))
    parsed.close()
    assert not parsed.open
    return parsed


@given(st.lists(NAMES, max_size=6), NAMES)
def test_the_page_has_the_elements_it_has_for_plain_names(names: list[str], text: str) -> None:
    plain = page(["a"] * len(names), text and "b")
    found = page(names, text)
    assert set(found.seen) <= set(plain.seen)
    assert found.seen.count("tr") == plain.seen.count("tr")
    assert found.attributes == plain.attributes
    shown = [name for name in found.bold if name != "left:"]
    assert shown == [printable(name) or "-" for name in names]


@given(st.lists(NAMES, max_size=6), NAMES)
def test_the_csv_is_a_line_a_volume_and_no_field_is_a_formula(names: list[str], text: str) -> None:
    lines = written(Csv(), names, text)
    assert lines.encode("utf-8").count(b"\r\n") == 1 + len(names)
    assert not re.search(r"(?<!\r)\n|\r(?!\n)", lines)
    head, *rows = csv.reader(io.StringIO(lines, newline=""), strict=True)
    assert tuple(head) == COLUMNS
    assert all(len(row) == len(head) for row in rows)
    assert [row[0].removeprefix("'") for row in rows] == [
        printable(name).removeprefix("'") for name in names
    ]
    assert not [
        one
        for row in rows
        for one in row
        if one.lstrip()[:1] in set("=+-@\uff1d\uff0b\uff0d\uff20")
    ]


@given(st.lists(NAMES, max_size=6), NAMES)
def test_every_line_of_the_markdown_table_has_its_cells(names: list[str], text: str) -> None:
    lines = written(Markdown(), names, text)
    lines.encode("utf-8")
    if not names:
        return
    table = lines.split("## Volumes\n\n")[1].splitlines()
    assert len(table) == 2 + len(names)
    cells = {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in table}
    assert len(cells) == 1
    assert not re.search(r"(?<!\\)(?:\\\\)*[<\[`]", "".join(table))


@given(st.lists(NAMES, max_size=6), NAMES)
def test_json_has_every_volume_as_it_is_named(names: list[str], text: str) -> None:
    said = json.loads(written(DocumentStream("json", "volumes"), names, text))
    assert [one["name"] for one in said["volumes"]] == names
    assert said["totals"]["volumes"] == len(names)
    assert said["message"] == text


@pytest.mark.parametrize("count", [0, 1, 3])
def test_yaml_says_what_json_says(count: int) -> None:
    yaml_text, json_text = (
        written(DocumentStream(form, "volumes"), ["a"] * count, "b: [") for form in ("yaml", "json")
    )
    timeless = {"made_at": ""}
    assert {**yaml.safe_load(yaml_text), **timeless} == {**json.loads(json_text), **timeless}


FORMS: dict[str, Callable[[], fleet.Form]] = {
    "json": lambda: DocumentStream("json", "volumes"),
    "csv": Csv,
    "md": Markdown,
    "html": Html,
}


class Nowhere(io.StringIO):
    def write(self, text: str) -> int:
        return len(text)


@pytest.mark.parametrize("form", FORMS)
def test_a_report_needs_no_more_memory_for_more_volumes(form: str) -> None:
    record = FleetRecord(
        id="shop", state="FAILED", source="east", destination="west", message="", counts={},
        document={}, settings={}, version=1, created_at=NOW, updated_at=NOW, ended_at=NOW,
    )  # fmt: skip
    write = FORMS[form]()
    fleet.write(Nowhere(), record, outcomes(["a"] * 10, "b"), [], write)
    tracemalloc.start()
    try:
        fleet.write(Nowhere(), record, outcomes(["a"] * 3000, "b"), [], FORMS[form]())
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # As one document they are 3 MB, and as objects four times that.
    assert peak_bytes < 1 << 20
