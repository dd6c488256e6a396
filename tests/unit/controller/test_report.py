import json
from datetime import datetime, timedelta, timezone

from msgspec.structs import replace

from blockferry_controller.engine.records import MigrationRecord, StepRecord
from blockferry_controller.events import Progress
from blockferry_controller.report import document, markdown
from blockferry_controller.spec import Endpoint, Kind, Spec

START = datetime(2026, 11, 22, 12, tzinfo=timezone.utc)
DIGEST = "blake3:" + "12" * 32
RECORD = MigrationRecord(
    id="261122-abc",
    kind="migrate",
    state="SUCCEEDED",
    spec=Spec(Kind.MIGRATE, Endpoint("east", "data"), Endpoint("west")),
    source="east/data|1",
    destination="west/data|1",
    size_bytes=(3 << 20) + 1,
    epoch=3,
    created_at=START,
    updated_at=START,
    ended_at=START + timedelta(seconds=40),
    progress=Progress(
        size_bytes=(3 << 20) + 1, committed_bytes=(3 << 20) + 1, verified_bytes=(3 << 20) + 1,
        sent_bytes=2 << 20, wire_bytes=1 << 20, resumed_from_bytes=1 << 20, reconnects=2,
    ),
    facts={"source_volume_id": "id-1", "destination_volume_id": "id-2", "flavor": "m1"},
    steps=(StepRecord(1, "preflight", 0.5, "x"), StepRecord(3, "copy", 12.25, "3 MiB")),
    result={"verified": True, "digest": DIGEST, "duration_seconds": 38.5},
)  # fmt: skip


def test_the_document_says_what_is_recorded() -> None:
    report = document.build(RECORD)

    assert report["format"] == document.FORMAT
    assert report["source"] == {"cloud": "east", "name": "east/data|1", "volume_id": "id-1"}
    assert report["proof"] == {
        "verified": True, "verify": "readback", "digest": DIGEST,
        "chunk_bytes": 1 << 20, "chunks": 4, "repaired_bytes": 0, "repaired_ranges": [],
    }  # fmt: skip
    assert report["counts"]["reconnects"] == 2
    assert (report["attempts"], report["resumes"]) == (3, 2)
    assert [step["seconds"] for step in report["steps"]] == [0.5, 12.25]
    assert report["times"]["duration_seconds"] == 38.5
    assert report["facts"] == {"flavor": "m1"}
    assert report["signature"] is None
    assert json.loads(json.dumps(report)) == report
    assert document.build(RECORD) == report, "the same tomorrow"


def test_the_record_is_left_as_it_was() -> None:
    document.build(RECORD)

    assert RECORD.facts["source_volume_id"] == "id-1"


def test_markdown_gives_the_verdict_first_and_bytes_to_the_byte() -> None:
    text = markdown.render(document.build(RECORD))

    heading, _, verdict = text.splitlines()[:3]
    assert heading == "# Migration 261122-abc"
    assert verdict.startswith("**SUCCEEDED**, verified (readback)")
    assert DIGEST in verdict
    assert "* size: 3.00 MiB (3145729 bytes)" in text
    assert "| 3 | copy | 12 s | 3 MiB |" in text
    assert "| source | east | east/data\\|1 | id-1 |" in text
    assert "* ratio: 2.00" in text


def test_markdown_of_a_failure_says_why_and_of_an_unverified_one_that_it_is_not() -> None:
    failed = replace(RECORD, state="FAILED", message="no *route*", result=None, steps=())
    assert "**FAILED**: no \\*route\\*" in markdown.render(document.build(failed))
    assert "## Steps" not in markdown.render(document.build(failed))

    unverified = replace(RECORD, result={**(RECORD.result or {}), "verified": False})
    assert "**SUCCEEDED**, not verified" in markdown.render(document.build(unverified))
