"""What is otherwise than a plan says. Pure.

The plan's own decisions are no drift, and neither is what somebody edited in it: only the
volumes themselves are compared, and which of them the file would select today.
"""

from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from blockferry_controller.clouds.port import Volume
from blockferry_controller.fleet.plan import Item, Plan, Seen
from blockferry_controller.fleet.selection import select
from blockferry_controller.notation import format_bytes


class Drift(Struct, frozen=True):
    """One difference. `volume`: its id; `name`: for people."""

    volume: str
    name: str
    what: str

    def __str__(self) -> str:
        return f"{self.name or self.volume}: {self.what}"


def drift(plan: Plan, volumes: Sequence[Volume]) -> tuple[Drift, ...]:
    """What changed between `plan` and `volumes`, those of the source cloud now."""
    there = {volume.id: volume for volume in volumes}
    found = [one for item in plan.items for one in _of(item, there.get(item.volume.id))]
    planned = {item.volume.id for item in plan.items}
    fresh = (one for one in select(plan.fleet, volumes).volumes if one.id not in planned)
    return (*found, *_new(fresh))


def _of(item: Item, now: Volume | None) -> Iterator[Drift]:
    then = item.volume
    if item.skip:
        return
    if now is None:
        yield Drift(then.id, then.name, "is not there any more")
        return
    for what in _differences(then, Seen.of(now)):
        yield Drift(then.id, then.name, what)


def _differences(then: Seen, now: Seen) -> Iterator[str]:
    if then.size_bytes != now.size_bytes:
        yield f"had {format_bytes(then.size_bytes)}, has {format_bytes(now.size_bytes)}"
    # A plan may be made while volumes are in use: to be free since is what it waits for.
    if now.attached and not then.attached:
        yield "is attached now"
    elif now.status not in (then.status, "available"):
        yield f"was {then.status}, is {now.status}"
    for word, before, after in (
        ("name", then.name, now.name),
        ("type", then.type, now.type),
        ("zone", then.zone, now.zone),
    ):
        if before != after:
            yield f"its {word} was {before or 'none'}, is {after or 'none'}"


def _new(volumes: Iterable[Volume]) -> Iterator[Drift]:
    for volume in volumes:
        yield Drift(volume.id, volume.name, "would be selected today, and is not in the plan")
