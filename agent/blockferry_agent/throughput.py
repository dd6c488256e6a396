"""A rate from what was done until when. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mark:
    """Something was done.

    Attributes:
        at: Seconds of any clock that does not go back.
        bytes: What was done until then, in all.
    """

    at: float
    bytes: int


def rate_of(marks: list[Mark]) -> int:
    """Bytes per second, over the later half of the bytes; 0 when they are too few to tell."""
    if len(marks) < 2:
        return 0
    last = marks[-1]
    begin = next(one for one in marks if 2 * one.bytes >= last.bytes)
    if begin is last or begin.at >= last.at:
        begin = marks[0]
    return int((last.bytes - begin.bytes) / max(last.at - begin.at, 1e-6))
