"""A plan: what a fleet will do with every volume; a document to review, edit and run.

Rules:
* What a batch obeys of an item is `wave`, `priority`, `skip` and all that begins with `to_`.
  The volume's own description is what drift is measured against. The rest is told to
  people, and ignored when the plan is read back.
* Problems keep an item from being run; warnings do not. Both are found anew when a plan is
  run: whoever edits a type that was missing need not cross the problem out.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from msgspec import Struct, field

from blockferry.errors import UsageError
from blockferry_controller.clouds.port import Volume
from blockferry_controller.fleet.grammar import fleet_of
from blockferry_controller.fleet.place import Complaints, Node, parse, plain
from blockferry_controller.fleet.schedule import Peak
from blockferry_controller.fleet.shape import Key, Named, Section, Some, Text, Truth, Whole
from blockferry_controller.fleet.spec import Fleet
from blockferry_controller.spec import Verify

VERSION: Final = 1
_MARK: Final = "blockferry_plan"
_SIZE_MOST: Final = (1 << 63) - 1


class Seen(Struct, frozen=True):
    """A source volume as it was when the plan was made."""

    id: str
    name: str
    size_bytes: int
    type: str
    zone: str
    status: str
    attached: bool = False

    @classmethod
    def of(cls, volume: Volume) -> "Seen":
        """What a plan keeps of `volume`."""
        return cls(
            volume.id,
            volume.name,
            volume.size_bytes,
            volume.volume_type,
            volume.availability_zone,
            volume.status,
            bool(volume.attachments),
        )


class Item(Struct, frozen=True):
    """One volume of the plan.

    Attributes:
        to_type, to_zone, to_name: Empty: as `migrate` chooses.
        to_metadata: None: as the source's.
        by: What decided on `type`, `zone` and `name`.
        skip: Why it is left out; empty when it is not.
        predicted_seconds: For copy and proof, and what comes before and after.
        passing, lasting: Of quotas, by cloud; see admission.Ask.
    """

    volume: Seen
    wave: str
    priority: int = 0
    skip: str = ""
    to_type: str = ""
    to_zone: str = ""
    to_name: str = ""
    to_size_bytes: int = 0
    to_metadata: Mapping[str, str] | None = None
    verify: str = ""
    by: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    predicted_seconds: float = 0.0
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    passing: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    lasting: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def runs(self) -> bool:
        """Whether a batch would move it."""
        return not self.skip and not self.problems


class WavePlan(Struct, frozen=True):
    """One wave on the calendar; without volumes it has no times."""

    name: str
    volumes: int
    size_bytes: int
    gate: str
    starts_at: datetime | None
    ends_at: datetime | None


class Plan(Struct, frozen=True):
    """What a fleet will do.

    Attributes:
        document: The fleet file as plain types.
        problems: What concerns no single volume.
        missing: Named in the file and not there.
        pace: What the durations were made of, in words.
    """

    fleet: Fleet
    document: Mapping[str, Any]
    items: tuple[Item, ...]
    made_at: datetime | None = None
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    peaks: tuple[Peak, ...] = ()
    waves: tuple[WavePlan, ...] = ()
    pace: str = ""

    @property
    def running(self) -> tuple[Item, ...]:
        """The items that a batch would move."""
        return tuple(item for item in self.items if item.runs)


def is_plan(document: Node) -> bool:
    """Whether a document is a plan, and not a fleet file."""
    pairs = document.value if document.kind == "mapping" else None
    return isinstance(pairs, list) and any(
        isinstance(pair, tuple) and pair[0].value == _MARK for pair in pairs
    )


def read_plan(text: str, name: str) -> Plan:
    """The plan that `text`, JSON or YAML, holds.

    Raises:
        UsageError: FLEET_INVALID, with everything that is wrong.
    """
    return plan_of(parse(text, name), name)


def plan_of(document: Node, name: str) -> Plan:
    """As read_plan, of a document that is parsed already."""
    complaints = Complaints()
    found = _PLAN.read(document, "", complaints)
    complaints.raise_any(name)
    fleet_node, items = found
    fleet = fleet_of(fleet_node, name)
    _check(fleet, items, document, complaints)
    complaints.raise_any(name)
    return Plan(fleet, plain(fleet_node), items)


def _check(fleet: Fleet, items: tuple[Item, ...], document: Node, complaints: Complaints) -> None:
    waves = {wave.name for wave in fleet.waves}
    seen: set[str] = set()
    for at, item in enumerate(items):
        if item.volume.id in seen:
            complaints.add(document, f"volumes[{at}]", f"volume {item.volume.id} stands here twice")
        seen.add(item.volume.id)
        if item.wave and item.wave not in waves:
            complaints.add(document, f"volumes[{at}].wave", f"there is no wave {item.wave!r}")


def to_json(plan: Plan) -> dict[str, Any]:
    """Plain types, ready for `json.dumps`; `read_plan` reads them back."""
    running = plan.running
    return {
        _MARK: VERSION,
        "name": plan.fleet.name,
        "from": plan.fleet.source,
        "to": plan.fleet.destination,
        "made_at": _moment(plan.made_at),
        "totals": {
            "volumes": len(plan.items),
            "moved": len(running),
            "skipped": sum(bool(item.skip) for item in plan.items),
            "refused": sum(bool(item.problems) and not item.skip for item in plan.items),
            "size_bytes": sum(item.volume.size_bytes for item in running),
        },
        "starts_at": _moment(min((i.starts_at for i in running if i.starts_at), default=None)),
        "ends_at": _moment(max((i.ends_at for i in running if i.ends_at), default=None)),
        "pace": plan.pace,
        "problems": list(plan.problems),
        "warnings": list(plan.warnings),
        "missing": list(plan.missing),
        "waves": [_wave(wave) for wave in plan.waves],
        "quotas": [_peak(peak) for peak in plan.peaks],
        "volumes": [item_to_json(item) for item in plan.items],
        "fleet": dict(plan.document),
    }


def item_to_json(item: Item) -> dict[str, Any]:
    """Plain types of one item."""
    volume = item.volume
    return {
        "id": volume.id,
        "name": volume.name,
        "size_bytes": volume.size_bytes,
        "type": volume.type,
        "zone": volume.zone,
        "status": volume.status,
        "attached": volume.attached,
        "wave": item.wave,
        "priority": item.priority,
        "skip": item.skip,
        "to_type": item.to_type,
        "to_zone": item.to_zone,
        "to_name": item.to_name,
        "to_size_bytes": item.to_size_bytes,
        "to_metadata": None if item.to_metadata is None else dict(item.to_metadata),
        "verify": item.verify,
        "by": dict(item.by),
        "problems": list(item.problems),
        "warnings": list(item.warnings),
        "predicted_seconds": round(item.predicted_seconds, 1),
        "starts_at": _moment(item.starts_at),
        "ends_at": _moment(item.ends_at),
        "passing": {cloud: dict(amounts) for cloud, amounts in item.passing.items()},
        "lasting": {cloud: dict(amounts) for cloud, amounts in item.lasting.items()},
    }


def _wave(wave: WavePlan) -> dict[str, Any]:
    return {
        "wave": wave.name,
        "volumes": wave.volumes,
        "size_bytes": wave.size_bytes,
        "gate": wave.gate,
        "starts_at": _moment(wave.starts_at),
        "ends_at": _moment(wave.ends_at),
    }


def _peak(peak: Peak) -> dict[str, Any]:
    return {
        "cloud": peak.cloud,
        "resource": peak.resource,
        "needed": peak.needed,
        "left": peak.left,
        "at": _moment(peak.at),
    }


def _moment(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat(timespec="seconds")


# --- reading it back ------------------------------------------------------------------


class _Anything:
    """What is told to people, or read elsewhere."""

    def read(self, node: Node, path: str, complaints: Complaints) -> Node:
        del path, complaints
        return node

    def schema(self) -> dict[str, Any]:
        return {}


def _plan(fleet: Node, volumes: tuple[Item, ...], version: int, **told: Node) -> Any:
    del told
    if version != VERSION:
        raise UsageError("PLAN_VERSION", f"is of version {version}, this program knows {VERSION}")
    return fleet, volumes


def _read_item(
    id: str,  # noqa: A002 - as the document has it
    size_bytes: int,
    wave: str = "",
    *,
    name: str = "",
    type: str = "",  # noqa: A002
    zone: str = "",
    status: str = "",
    attached: bool = False,
    predicted_seconds: float = 0.0,
    **rest: Any,
) -> Item:
    obeyed = {key: value for key, value in rest.items() if not isinstance(value, Node)}
    seen = Seen(id, name, size_bytes, type, zone, status, attached)
    return Item(seen, wave, predicted_seconds=predicted_seconds, **obeyed)


def item_from_json(data: Mapping[str, Any]) -> Item:
    """Inverse of `item_to_json`, as far as a batch obeys it."""
    complaints = Complaints()
    item: Item = _ITEM.read(parse(json.dumps(data), "item"), "", complaints)
    complaints.raise_any("the item")
    return item


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError("INVALID_SECONDS", f"{text!r} is not a number of seconds") from None


def _verify(text: str) -> str:
    words = ("", *(way.value for way in Verify))
    if text not in words:
        raise UsageError("INVALID_VERIFY", f"{text!r} is none of {', '.join(words[1:])}")
    return text


_TOLD = Key(_Anything(), "For people.")
_MAYBE = Text(empty=True)
_AMOUNTS = Key(Named(Named(Whole(0, _SIZE_MOST))), "Of quotas, by cloud.")

_ITEM = Section(
    _read_item,
    {
        "id": Key(Text(), "Of the source volume.", True),
        "size_bytes": Key(Whole(0, _SIZE_MOST), "Its size.", True),
        "wave": Key(_MAYBE, "Its wave."),
        "name": Key(_MAYBE, "Its name."),
        "type": Key(_MAYBE, "Its type."),
        "zone": Key(_MAYBE, "Its zone."),
        "status": Key(_MAYBE, "Its state when the plan was made."),
        "attached": Key(Truth(), "Likewise."),
        "priority": Key(Whole(-1000, 1000), "Higher goes first."),
        "skip": Key(_MAYBE, "Why it is left out."),
        "to_type": Key(_MAYBE, "New type."),
        "to_zone": Key(_MAYBE, "New zone."),
        "to_name": Key(_MAYBE, "New name."),
        "to_size_bytes": Key(Whole(0, _SIZE_MOST), "New size."),
        "to_metadata": Key(Named(_MAYBE), "New metadata."),
        "verify": Key(Text(_verify, empty=True), "What is proven."),
        "predicted_seconds": Key(Text(_seconds), "For the schedule."),
        "by": Key(Named(Text(empty=True)), "What decided."),
        "passing": _AMOUNTS,
        "lasting": _AMOUNTS,
        **dict.fromkeys(("problems", "warnings", "starts_at", "ends_at"), _TOLD),
    },
)
_PLAN = Section(
    _plan,
    {
        _MARK: Key(Whole(1, 1000), "Version of the document.", True, "version"),
        "fleet": Key(_Anything(), "The fleet file.", True),
        "volumes": Key(Some(_ITEM), "All volumes.", True),
        **dict.fromkeys(
            (
                "name", "from", "to", "made_at", "totals", "starts_at", "ends_at", "pace",
                "problems", "warnings", "missing", "waves", "quotas", "drift",
            ),
            _TOLD,
        ),
    },
)  # fmt: skip
