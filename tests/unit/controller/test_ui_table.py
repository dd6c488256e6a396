import json

import pytest
import yaml

from blockferry_controller.ui import table

ROWS = [
    {"id": "a", "size_bytes": 1536, "seconds": 0.5, "name": "x\x1b", "error": None},
    {"id": "longer", "size_bytes": 10 << 30, "seconds": 100, "name": "", "error": []},
]
COLUMNS = (
    ("id", "id"), ("size", "size_bytes"), ("time", "seconds"), ("name", "name"), ("x", "error")
)  # fmt: skip


def test_columns_are_aligned_and_whole() -> None:
    assert table.render_rows(ROWS, COLUMNS).splitlines() == [
        "ID          SIZE        TIME  NAME   X",
        "a       1.50 KiB       0.5 s  x\\x1b  -",
        "longer  10.0 GiB  1 min 40 s  -      -",
    ]


def test_a_record_is_a_line_a_key_with_nested_ones_below() -> None:
    text = table.render_record(
        {
            "id": "m1",
            "wire_bytes": 2048,
            "verified": True,
            "peak_bytes": {"source": 1024, "destination": 0},
            "facts": {"a_b": 1, "names": ["x", "y"]},
            "steps": [{"step": "copy", "seconds": 1.0}],
            "none": {},
        }
    )

    assert text.splitlines() == [
        "id        m1",
        "wire      2.00 KiB",
        "verified  yes",
        "peak      source 1.00 KiB, destination 0 B",
        "facts",
        "  a b    1",
        "  names  x, y",
        "steps",
        "  STEP  SECONDS",
        "  copy    1.0 s",
        "none      -",
    ]


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_programs_get_values_as_they_are(capsys: pytest.CaptureFixture[str], output: str) -> None:
    table.write_rows(ROWS, COLUMNS, output, empty="none")

    out = capsys.readouterr().out
    assert (json.loads(out) if output == "json" else yaml.safe_load(out)) == ROWS


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_an_empty_list_is_a_document_too(capsys: pytest.CaptureFixture[str], output: str) -> None:
    table.write_rows([], COLUMNS, output, empty="none")

    assert capsys.readouterr().out == "[]\n"
