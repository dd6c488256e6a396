"""Events as a bar, as lines, as NDJSON: what people and programs read."""

import io
import json
import threading
from datetime import datetime, timedelta, timezone

import pytest
from msgspec.structs import replace
from rich.console import Console

from blockferry_controller.events import (
    Ended,
    Event,
    Noted,
    Progress,
    Progressed,
    StepFinished,
    StepStarted,
    Undone,
)
from blockferry_controller.ui.display import display
from blockferry_controller.ui.lines import Lines
from blockferry_controller.ui.ndjson import NAMES, Ndjson
from blockferry_controller.ui.pace import Pace
from blockferry_controller.ui.progress import Bar

MIB = 1 << 20
START = datetime(2026, 11, 22, 12, tzinfo=timezone.utc)
SIZE = 1000 * MIB


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def copied(seconds: float, committed: int, wire: int, size: int = SIZE) -> Progressed:
    told = Progress(
        size_bytes=size, committed_bytes=committed, sent_bytes=2 * wire, wire_bytes=wire
    )
    return Progressed("m1", told, at(seconds))


def proven(seconds: float, verified: int) -> Progressed:
    told = Progress("proof", SIZE, SIZE, wire_bytes=500 * MIB, verified_bytes=verified)
    return Progressed("m1", told, at(seconds))


ALL: list[Event] = [
    StepStarted("m1", "copy", 8, 12, at(0)),
    StepFinished("m1", "preflight", 0.5, "data-1, 20 GiB", at(1)),
    copied(2, 100 * MIB, 50 * MIB),
    Noted("m1", "warning", "source is slow", at(3)),
    Undone("m1", "server east/blockferry-m1", kept=True, time=at(4)),
    Ended("m1", "FAILED", "no route", at(5)),
]


# --- pace ---------------------------------------------------------------------------


def test_speed_ratio_and_time_left_follow_from_what_was_told() -> None:
    pace = Pace()
    pace.read(copied(0, 0, 0))

    reading = pace.read(copied(2, 200 * MIB, 50 * MIB))

    assert reading.percent == 20
    assert reading.bytes_per_second == 100 * MIB
    assert reading.wire_bytes_per_second == 25 * MIB
    assert reading.ratio == 2
    assert reading.eta_seconds == 8


def test_the_rate_is_that_of_the_last_seconds() -> None:
    pace = Pace()
    for second in range(31):
        # Fast for twenty seconds, then a tenth of it.
        done = min(second, 20) * 10 * MIB + max(0, second - 20) * MIB
        reading = pace.read(copied(second, done, done))

    assert reading.bytes_per_second == pytest.approx(MIB, rel=0.01)


def test_a_stall_has_no_time_left() -> None:
    pace = Pace()
    for second in range(0, 30, 2):
        reading = pace.read(copied(second, min(second, 4) * MIB, min(second, 4) * MIB))

    assert reading.bytes_per_second == 0
    assert reading.eta_seconds is None
    assert reading.stalled


def test_a_new_phase_counts_from_its_own_beginning() -> None:
    pace = Pace()
    pace.read(copied(0, 0, 0))
    pace.read(copied(5, SIZE, 500 * MIB))
    pace.read(proven(6, 0))

    reading = pace.read(proven(8, 500 * MIB))

    assert reading.percent == 50
    assert reading.bytes_per_second == 250 * MIB


def test_a_resumed_run_does_not_count_what_was_there_before() -> None:
    pace = Pace()
    pace.read(copied(0, 600 * MIB, 300 * MIB))
    reading = pace.read(copied(1, 600 * MIB, 0))
    assert reading.bytes_per_second == 0

    assert pace.read(copied(2, 650 * MIB, 25 * MIB)).bytes_per_second == 50 * MIB


@pytest.mark.parametrize(
    ("done", "size", "percent"),
    [(0, 0, 100.0), (0, 10, 0.0), (9_999_999, 10_000_000, 99.9), (10, 10, 100.0)],
    ids=["empty volume", "nothing", "all but a byte", "all"],
)
def test_a_hundred_percent_is_the_last_byte(done: int, size: int, percent: float) -> None:
    assert Pace().read(copied(0, done, 0, size)).percent == percent


# --- ndjson -------------------------------------------------------------------------


def test_every_event_is_one_object_on_a_line() -> None:
    lines: list[str] = []
    listener = Ndjson(lines.append)
    for event in ALL:
        listener(event)

    documents = [json.loads(line) for line in lines]
    assert all(line.count("\n") == 1 for line in lines)
    assert [document["event"] for document in documents] == [NAMES[type(one)] for one in ALL]
    assert set(NAMES) == {type(one) for one in ALL}, "an event without a name"
    assert all(document["migration_id"] == "m1" for document in documents)
    assert documents[0] == {
        "event": "step_started",
        "time": "2026-11-22T12:00:00.000+00:00",
        "migration_id": "m1",
        "step": "copy",
        "index": 8,
        "total": 12,
    }
    assert documents[4]["kept"] is True


def test_progress_stands_flat_beside_what_follows_from_it() -> None:
    lines: list[str] = []
    listener = Ndjson(lines.append)
    listener(copied(0, 0, 0))
    listener(copied(2, 200 * MIB, 50 * MIB))

    document = json.loads(lines[-1])

    assert document["committed_bytes"] == 200 * MIB
    assert document["percent"] == 20.0
    assert document["bytes_per_second"] == 100 * MIB
    assert document["eta_seconds"] == 8.0
    assert json.loads(lines[0])["eta_seconds"] is None


# --- lines --------------------------------------------------------------------------


def lines_of(*events: Event) -> list[str]:
    lines: list[str] = []
    listener = Lines(lines.append)
    for event in events:
        listener(event)
    return [line.rstrip("\n").split(" ", 1)[1] for line in lines]


def test_steps_come_as_they_are() -> None:
    assert lines_of(*(event for event in ALL if not isinstance(event, Progressed))) == [
        "[8/12] copy …",
        "preflight done in 0.5 s: data-1, 20 GiB",
        "warning: source is slow",
        "kept server east/blockferry-m1",
        "failed",
    ]


def test_progress_comes_every_five_seconds_and_at_the_end() -> None:
    events = [copied(half / 2, half * 50 * MIB, half * 20 * MIB) for half in range(21)]

    lines = lines_of(*events)

    assert lines == [
        "copy   0.0 %  0 B of 1000 MiB",
        "copy  50.0 %  500 MiB of 1000 MiB, 100 MiB/s, wire 40.0 MiB/s, ratio 2.0, 5.0 s left",
        "copy 100.0 %  1000 MiB of 1000 MiB, 100 MiB/s, wire 40.0 MiB/s, ratio 2.0",
    ]


def test_a_silent_step_is_told_of_now_and_then() -> None:
    lines: list[str] = []
    listener = Lines(lines.append)
    listener.tick(at(0))
    listener(StepStarted("m1", "boot\x1b instances", 4, 12, at(0)))
    for second in range(1, 40):
        listener.tick(at(second))
    listener(StepFinished("m1", "boot", 40, "", at(40)))
    listener.tick(at(90))

    assert [line.split(" ", 1)[1] for line in lines[1:-1]] == [
        "boot\\x1b instances has been running for 15 s\n",
        "boot\\x1b instances has been running for 30 s\n",
    ]


# --- bar ----------------------------------------------------------------------------


def shown(*events: Event, width: int = 120) -> str:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=width, color_system=None)
    with Bar(console) as bar:
        for event in events:
            bar(event)
        console.print("--end--")
    return stream.getvalue()


def test_the_bar_shows_percent_speeds_ratio_and_time_left() -> None:
    text = shown(ALL[0], copied(0, 0, 0), copied(2, 200 * MIB, 50 * MIB))

    assert "[8/12] copy" in text
    assert "20.0 %  200 MiB of 1000 MiB" in text
    assert "100 MiB/s  wire 25.0 MiB/s  ratio 2.0  8.0 s left" in text


def test_finished_steps_stay_as_lines() -> None:
    text = shown(*ALL)

    assert "✓ preflight  0.5 s  data-1, 20 GiB" in text
    assert "warning: source is slow" in text
    assert "failed" in text


def test_names_are_never_markup() -> None:
    text = shown(
        StepStarted("m1", "[red]copy", 1, 1, at(0)),
        StepFinished("m1", "copy", 1, "[bold]x[/bold]\x07", at(1)),
    )

    assert "[red]copy" in text
    assert "[bold]x[/bold]\\x07" in text


@pytest.mark.parametrize("width", [10, 40, 80, 200])
def test_any_width_and_an_empty_volume_will_do(width: int) -> None:
    assert "--end--" in shown(copied(0, 0, 0, size=0), *ALL, proven(9, SIZE), width=width)


# --- display ------------------------------------------------------------------------


class Broken(io.StringIO):
    """A stream whose reader went away after the first line."""

    def write(self, text: str) -> int:
        if self.tell():
            raise BrokenPipeError
        return super().write(text)


@pytest.mark.parametrize(("output", "first"), [("json", '{"event"'), (None, "1"), ("yaml", "1")])
def test_a_lost_reader_does_not_fail_the_migration(output: str | None, first: str) -> None:
    stream = Broken()
    with display(output, stream) as listener:
        for event in ALL:
            listener(replace(event, time=START + timedelta(hours=-2)))

    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue()[0] == first[0] or output != "json"


def test_a_terminal_gets_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    with display(None, terminal) as listener:
        listener(ALL[1])
    assert "\x1b[32m✓ " in terminal.getvalue()

    monkeypatch.setenv("TERM", "dumb")
    dumb = Terminal()
    with display(None, dumb) as listener:
        listener(ALL[1])
    assert "preflight done in 0.5 s" in dumb.getvalue()


def test_events_from_many_threads_stay_whole_lines() -> None:
    stream = io.StringIO()
    with display("json", stream) as listener:
        threads = [
            threading.Thread(target=lambda: [listener(event) for event in ALL]) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert len([json.loads(line) for line in stream.getvalue().splitlines()]) == 8 * len(ALL)
