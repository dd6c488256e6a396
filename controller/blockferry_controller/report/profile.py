"""Where the time of a copy on one machine went, and which stage held it up.

Rules:
* A stage's share is the part of the time in which all of its threads were at work.
* The largest share is the bottleneck, but processors that have no time left come
  first: every stage takes longer then, and none of them is the cause.
* Where no share reaches HELD, nothing here was busy: something else held the copy.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

from blockferry_controller.notation import format_bytes, format_rate

Effort: TypeAlias = Mapping[str, Any]
"""What one agent's job took; see migration.steps.jobs.effort."""

CPU: Final = "this CPU"
BUSY: Final = 0.75
"""Share of all processors' time from which on they are the bottleneck; 0.83 was seen of a copy
in memory that nothing else held up: beginning and end leave some idle."""
HELD: Final = 0.5
REST: Final = "gRPC, TLS, and what belongs to no stage"
NOTHING: Final = "none of the stages: a limit held it, or it was too short to tell"

_STAGES: Final = {
    ("source", "read"): "the source's reads",
    ("source", "send"): "the wire",
    ("sink", "write"): "the destination's writes",
    ("sink", "zero"): "making zeros at the destination",
    ("sink", "flush"): "the destination's flushes",
}
"""What is waited for in each stage that is not work of the processors alone."""


def document(profile: Mapping[str, Effort]) -> dict[str, Any]:
    """`profile` of the result.

    Args:
        profile: Of `source` and `sink`, which shared this machine's processors.
    """
    found = shares(profile)
    return {
        "bottleneck": bottleneck(found),
        "shares": {name: round(share, 3) for name, share in found.items()},
        **profile,
    }


def shares(profile: Mapping[str, Effort]) -> dict[str, float]:
    """Share of the copy's time, in [0, 1], for whatever may have held it up."""
    seconds = max(profile["source"]["seconds"], 1e-6)
    found = {
        words: min(1.0, stage["busy_seconds"] / max(1, stage["threads"]) / seconds)
        for (side, name), words in _STAGES.items()
        for stage in profile[side]["stages"]
        if stage["name"] == name
    }
    spent = sum(effort["cpu_seconds"] for effort in profile.values())
    count = max(1, *(effort["cpus"] for effort in profile.values()))
    return {**found, CPU: min(1.0, spent / (seconds * count))}


def bottleneck(found: Mapping[str, float]) -> str:
    """What held the copy up, in words.

    Args:
        found: As `shares` returns them.
    """
    if found[CPU] >= BUSY:
        return CPU
    most = max(found, key=lambda words: found[words])
    return most if found[most] >= HELD else NOTHING


def lines(profile: Mapping[str, Effort]) -> Iterator[str]:
    """The same for people."""
    found = shares(profile)
    yield f"the bottleneck is {bottleneck(found)}"
    for words, share in sorted(found.items(), key=lambda one: -one[1]):
        yield f"  {share:4.0%} of the time  {words}"
    for side, effort in profile.items():
        yield f"{side}: {effort['seconds']:.2f} s, {effort['cpu_seconds']:.2f} s of CPU"
        for stage in effort["stages"]:
            if stage["operations"]:
                yield f"  {_line(stage)}"
        counted = sum(stage["cpu_seconds"] for stage in effort["stages"])
        rest = max(0.0, effort["cpu_seconds"] - counted)
        yield f"  {REST:48}{rest:6.2f} s of CPU"


def _line(stage: Mapping[str, Any]) -> str:
    size, busy, cpu = stage["size_bytes"], stage["busy_seconds"], stage["cpu_seconds"]
    return (
        f"{stage['name']:8}{format_bytes(size):>11} in {busy:7.2f} s by {stage['threads']}, "
        f"{format_rate(round(size / busy)) if busy else '-':>12}{cpu:6.2f} s of CPU"
    )
