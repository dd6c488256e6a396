"""The report of a fleet: whatever things are called, what is written is well-formed."""

import csv
import io
import re
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from html.parser import HTMLParser
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from blockferry_controller.engine.fleets import FleetRecord, ItemRecord, ItemState
from blockferry_controller.engine.records import MigrationRecord
from blockferry_controller.notation import printable
from blockferry_controller.report import fleet, fleet_csv, fleet_html, fleet_markdown
from blockferry_controller.spec import Endpoint, Kind, Spec

NOW = datetime(2026, 11, 20, 22, tzinfo=timezone.utc)
NASTY = (
    "=1+1", "@SUM(A1)", "\t=x", "\uff1d1", "a,b", 'say "hi"', "a\r\nb", "<script>alert(1)</script>",
    "</td></table>", "{{ report }}", "a|b", "&amp;", "\ud800", "\x00\x1b[2J", "\u202egnp", "-", "",
)  # fmt: skip
NAMES = st.text(max_size=20) | st.sampled_from(NASTY)
VOID = frozenset({"meta", "br"})


def item(position: int, name: str, text: str, state: ItemState) -> ItemRecord:
    plan = {
        "type": text, "to_type": name, "by": {"type": text}, "zone": "", "to_name": name,
        "to_metadata": {text: name},
    }  # fmt: skip
    return ItemRecord(
        position, f"id-{position}", name, 10 << 30, "all", state, plan, text, text,
        migration_id=f"m-{position}", started_at=NOW, ended_at=NOW + timedelta(seconds=90),
    )  # fmt: skip


def migration(of: ItemRecord, text: str) -> MigrationRecord:
    spec = Spec(Kind.MIGRATE, Endpoint("east", of.volume_id), Endpoint(text, of.name))
    return MigrationRecord(
        of.migration_id, "migrate", of.state.value, spec, of.name, text, of.size_bytes, 1, NOW, NOW,
        NOW, facts={"destination_volume_id": text},
        result={"duration_seconds": 90.0, "sent_bytes": 5 << 30, "wire_bytes": 1 << 30,
                "verified": True, "digest": text},
    )  # fmt: skip


def report(names: Sequence[str], text: str) -> dict[str, Any]:
    states = list(ItemState)
    items = [item(at, name, text, states[at % len(states)]) for at, name in enumerate(names)]
    record = FleetRecord(
        id="shop", state="FAILED", source=text, destination="west", message=text, counts={},
        document={"waves": [{"name": "all"}]}, settings={}, version=1,
        created_at=NOW, updated_at=NOW, ended_at=NOW,
    )  # fmt: skip
    migrations = {one.migration_id: migration(one, text) for one in items}
    hook = {"hook": "n", "delivered": 1, "given_up": 0, "waiting": 0, "error": text, "lost": []}
    return fleet.build(record, items, migrations, [hook])


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


def page(report: dict[str, Any]) -> Page:
    parsed = Page()
    parsed.feed(fleet_html.render(report))
    parsed.close()
    assert not parsed.open
    return parsed


@given(st.lists(NAMES, max_size=6), NAMES)
def test_the_page_has_the_elements_it_has_for_plain_names(names: list[str], text: str) -> None:
    plain = page(report(["a"] * len(names), text and "b"))
    found = page(report(names, text))
    assert set(found.seen) <= set(plain.seen)
    assert found.seen.count("tr") == plain.seen.count("tr")
    assert found.attributes == plain.attributes
    shown = [name for name in found.bold if name != "left:"]
    assert shown == [printable(name) or "-" for name in names]


@given(st.lists(NAMES, max_size=6), NAMES)
def test_the_csv_is_a_line_a_volume_and_no_field_is_a_formula(names: list[str], text: str) -> None:
    written = fleet_csv.render(report(names, text))
    assert written.encode("utf-8").count(b"\r\n") == 1 + len(names)
    assert not re.search(r"(?<!\r)\n|\r(?!\n)", written)
    head, *rows = csv.reader(io.StringIO(written, newline=""), strict=True)
    assert tuple(head) == fleet_csv.COLUMNS
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
    written = fleet_markdown.render(report(names, text))
    written.encode("utf-8")
    if not names:
        return
    table = written.split("## Volumes\n\n")[1].splitlines()
    assert len(table) == 2 + len(names)
    cells = {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in table}
    assert len(cells) == 1
    assert not re.search(r"(?<!\\)(?:\\\\)*[<\[`]", "".join(table))
