"""`report --check` on anything: as it was signed, or what is wrong with it; no traceback.

A good report is changed as a forger or a bad disk would: values replaced, names gone or
new, in the report and in its signature; bytes cut, put in, or swapped for others.
"""

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockferry_controller.__main__ import main
from blockferry_controller.migration.authority import Authority
from blockferry_controller.report import document, signature
from tests.property.test_files import mutated
from tests.unit.controller.test_report import RECORD

NOW = datetime.now(timezone.utc)
REPORT = signature.sign(document.build(RECORD), Authority.create(RECORD.id, NOW), 3, NOW)
SPELLED = json.dumps(REPORT).encode()


def spelled(report: dict[str, Any]) -> bytes:
    return json.dumps(report).encode()


def torn(content: bytes, cut: int, length: int, put: bytes) -> bytes:
    """`length` bytes from `cut` on replaced by others."""
    return content[:cut] + put + content[cut + length :]


PLACE = st.integers(0, len(SPELLED))
FILES = (
    st.binary(max_size=200)
    | mutated(REPORT).map(spelled)
    | mutated(REPORT["signature"]).map(lambda one: spelled({**REPORT, "signature": one}))
    | st.builds(torn, st.just(SPELLED), PLACE, st.integers(0, 40), st.binary(max_size=20))
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reports")


def checked(place: Path, content: bytes) -> int:
    path = place / "report.json"
    path.write_bytes(content)
    state = f"sqlite:///{place}/state.db"
    return main(["report", "--check", str(path), "--state", state, "-o", "json"])


def same(content: bytes) -> bool:
    """Whether it says what was signed, however it is spelled."""
    try:
        found = signature.parse(content.decode())
    except (ValueError, RecursionError):
        return False
    return json.dumps(found, sort_keys=True) == json.dumps(REPORT, sort_keys=True)


@pytest.mark.usefixtures("capsys")
@given(content=FILES)
def test_a_report_to_check(place: Path, content: bytes) -> None:
    assert checked(place, content) == (0 if same(content) else 20)


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000, b'{"a": 1' + b"0" * 5000 + b"}", b"\xff\xfe", b"\xef\xbb\xbf{}", b""],
)
def test_what_breaks_a_parser_is_no_report(place: Path, content: bytes) -> None:
    assert checked(place, content) == 20
