"""What held a copy up, from what its stages did."""

from typing import Any

import pytest

from blockferry_controller.report.profile import CPU, NOTHING, bottleneck, document, lines, shares


def stage(name: str, busy_seconds: float, threads: int = 1) -> dict[str, Any]:
    return {
        "name": name, "operations": 10, "size_bytes": 10 << 20, "busy_seconds": busy_seconds,
        "cpu_seconds": busy_seconds / 20, "waited_seconds": 0.0, "threads": threads,
    }  # fmt: skip


def profile(cpu_seconds: float = 1.0, **busy: float) -> dict[str, Any]:
    """Of a copy of 10 s on two processors."""
    source = [stage("read", busy.get("read", 0), 2), stage("send", busy.get("send", 0))]
    sink = [stage(name, busy.get(name, 0)) for name in ("write", "zero", "flush")]
    return {
        side: {"seconds": 10.0, "cpu_seconds": cpu_seconds, "cpus": 2, "stages": stages}
        for side, stages in (("source", source), ("sink", sink))
    }


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        pytest.param(profile(read=18, write=4), "the source's reads", id="both readers busy"),
        pytest.param(profile(read=9, write=9), "the destination's writes", id="one reader of two"),
        pytest.param(profile(send=9, write=5), "the wire", id="handing over"),
        pytest.param(profile(flush=8), "the destination's flushes", id="flush"),
        pytest.param(profile(zero=8), "making zeros at the destination", id="zero"),
        pytest.param(profile(cpu_seconds=8, send=9.9), CPU, id="no processor time left"),
        pytest.param(profile(cpu_seconds=6, send=9.9), "the wire", id="some processor time left"),
        pytest.param(profile(read=4, send=4), NOTHING, id="nobody busy"),
        pytest.param(profile(cpu_seconds=0), NOTHING, id="nothing at all"),
    ],
)
def test_the_bottleneck_is_named(seen: dict[str, Any], words: str) -> None:
    assert bottleneck(shares(seen)) == words


def test_the_document_holds_what_it_was_made_from() -> None:
    seen = profile(send=9)
    made = document(seen)
    assert made["bottleneck"] == "the wire"
    assert made["shares"]["the wire"] == 0.9
    assert (made["source"], made["sink"]) == (seen["source"], seen["sink"])


def test_people_read_the_largest_share_first() -> None:
    told = list(lines(profile(send=9, write=3)))
    assert told[0] == "the bottleneck is the wire"
    assert told[1].split() == ["90%", "of", "the", "time", "the", "wire"]
    assert any(line.startswith("source: 10.00 s, 1.00 s of CPU") for line in told)
    # Of the sink's second, a twentieth of 3 s was its writes.
    assert told[-1].split()[-4:] == ["0.85", "s", "of", "CPU"]


def test_a_copy_of_no_time_is_no_division_by_zero() -> None:
    seen = profile()
    for effort in seen.values():
        effort["seconds"] = effort["cpu_seconds"] = 0.0
    assert bottleneck(shares(seen)) == NOTHING
