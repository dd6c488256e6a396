"""Events in words, the same on a terminal and in a log."""

from blockferry_controller.events import Ended, Noted, StepFinished, StepStarted, Undone
from blockferry_controller.notation import (
    format_bytes,
    format_duration,
    format_rate,
    printable,
)
from blockferry_controller.ui.pace import Reading

Told = StepStarted | StepFinished | Noted | Undone | Ended


def phrase(event: Told) -> str:
    """One line for an event."""
    return printable(_phrase(event))


def _phrase(event: Told) -> str:
    match event:
        case StepStarted():
            return f"[{event.index}/{event.total}] {event.step} …"
        case StepFinished():
            detail = f": {event.detail}" if event.detail else ""
            return f"{event.step} done in {format_duration(event.seconds)}{detail}"
        case Noted():
            return f"warning: {event.message}" if event.level == "warning" else event.message
        case Undone():
            return f"{'kept' if event.kept else 'removed'} {event.resource}"
        case Ended():
            # Why is said once, by the error that follows.
            return event.state.lower()


def progress_phrase(reading: Reading) -> str:
    """`42.1 %  4.21 of 10.0 GiB, 512 MiB/s, wire 210 MiB/s, ratio 2.4, 11 s left`."""
    done = f"{format_bytes(reading.done_bytes)} of {format_bytes(reading.size_bytes)}"
    parts = [
        f"{reading.phase} {reading.percent:5.1f} %  {done}",
        *speeds(reading),
    ]
    return ", ".join(parts)


def speeds(reading: Reading) -> list[str]:
    """Logical speed, wire speed, ratio, time left, as far as they mean something."""
    if reading.stalled:
        return ["stalled"]
    copying = reading.phase != "proof"
    parts = []
    if reading.bytes_per_second:
        parts.append(format_rate(reading.bytes_per_second))
        if copying:
            parts.append(f"wire {format_rate(reading.wire_bytes_per_second)}")
    if copying and reading.ratio is not None:
        parts.append(f"ratio {reading.ratio:.1f}")
    if reading.eta_seconds:
        parts.append(f"{format_duration(reading.eta_seconds)} left")
    return parts
