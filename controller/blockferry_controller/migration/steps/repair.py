"""What the sink did not find on its medium is sent again, once.

Rules:
* A migration is repaired once in its life, however often it is resumed: a medium
  that does not keep what was written to it twice is not to be trusted.
* A repair proves nothing. What follows it is a reading of the whole medium.
* It is on record before it begins: one that was struck is begun again, from where
  the sink's own journal of it says. The record has what both have sent again.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from blockferry.errors import IntegrityError
from blockferry_controller.migration.context import Context
from blockferry_controller.migration.steps.copy import watch_jobs
from blockferry_controller.migration.steps.jobs import FINAL
from blockferry_controller.migration.steps.pair import JobPair

REPAIR: Final = "repair"
"""The fact that tells of it: `ranges`, `bytes` and whether it is `done`."""
_NAMED: Final = 16


def repair(context: Context) -> None:
    """Send `context.differing` again; the sink holds it, durably, on return.

    Raises:
        IntegrityError: READBACK_MISMATCH, there was a repair already;
            SOURCE_CHANGED, the source does not read as it did.
        BlockferryError: as `JobPair.wait`.
    """
    ranges, context.differing = context.differing, ()
    told = " ".join(f"[{start},{end})" for start, end in ranges[:_NAMED])
    before: Any = context.fact(REPAIR)
    if before and before["done"]:
        raise IntegrityError(
            "READBACK_MISMATCH",
            f"the destination differs in {told} after a repair; its storage does not keep what is "
            "written to it. Copy again to another volume",
            ranges=told,
            repaired_bytes=before["bytes"],
        )
    size = sum(end - start for start, end in ranges)
    context.note(f"{size} bytes differ, in {told}; sending them again", level="warning")
    # What a repair that was struck had sent again already is not found any more.
    earlier = [(start, end) for start, end in before["ranges"]] if before else []
    whole = _joined([*earlier, *ranges])
    fact = {"ranges": whole, "bytes": sum(end - start for start, end in whole)}
    context.remember(**{REPAIR: {**fact, "done": False}})
    watch_jobs(context, both_ended, phase="repair", only=ranges)
    context.remember(**{REPAIR: {**fact, "done": True}})


def _joined(ranges: Iterable[tuple[int, int]]) -> list[list[int]]:
    """The same bytes in order, each once: [start, end) each."""
    joined: list[list[int]] = []
    for start, end in sorted(ranges):
        if joined and start < joined[-1][1]:
            joined[-1][1] = max(end, joined[-1][1])
        else:
            joined.append([start, end])
    return joined


def both_ended(pair: JobPair) -> bool:
    """Whether neither job has anything left to do."""
    return pair.sink.state in FINAL and pair.source.state in FINAL


def repaired(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What was sent again after the destination was read back."""
    known = facts.get(REPAIR) or {}
    return {"repaired_bytes": known.get("bytes", 0), "repaired_ranges": known.get("ranges", [])}
