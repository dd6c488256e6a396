"""Makes a plan: asks both clouds once, changes nothing.

Every volume passes the very checks that its migration will begin with; only what is the
same for all of them is checked once, and quotas are held against the whole schedule.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Final

from msgspec import Struct, field
from msgspec.structs import replace

from blockferry.identity import Identity, Role
from blockferry_controller.agents.credentials import Credentials
from blockferry_controller.agents.port import Agent
from blockferry_controller.clouds.port import Volume
from blockferry_controller.engine.state import StateStore
from blockferry_controller.events import Event
from blockferry_controller.fleet.admission import Ask, Route
from blockferry_controller.fleet.mapping import becomes
from blockferry_controller.fleet.pace import Pace
from blockferry_controller.fleet.plan import Item, Plan, Seen, WavePlan
from blockferry_controller.fleet.schedule import Job, Schedule, schedule
from blockferry_controller.fleet.selection import meets, override_of, select
from blockferry_controller.fleet.snapshot import Snapshot
from blockferry_controller.fleet.spec import Fleet, Gate, Limits, Override
from blockferry_controller.migration.context import Context, Side
from blockferry_controller.migration.preflight import BEFORE
from blockferry_controller.migration.preflight.check import Check, Outcome, Rule, examine
from blockferry_controller.migration.preflight.quota import needs, new_volume
from blockferry_controller.spec import Endpoint, Kind, Placement, Pool, Spec, Transfer, Verify

_OF_EACH: Final = frozenset(
    {
        "source-volume",
        "source-state",
        "destination-size",
        "volume-type",
        "availability-zone",
        "encryption",
        "multiattach",
        "fidelity",
    }
)
"""Checks that can come out otherwise for every volume."""
_OF_SCHEDULE: Final = frozenset({"source-quota", "destination-quota", "duration"})
"""What the schedule knows better: many volumes share one quota."""


class Settings(Struct, frozen=True):
    """What the configuration says for every volume of a fleet.

    Attributes:
        source, destination: What the instances are made of.
        types, zones: As configured for the destination.
    """

    source: Placement = field(default_factory=Placement)
    destination: Placement = field(default_factory=Placement)
    transfer: Transfer = field(default_factory=Transfer)
    controller_address: str = ""
    types: Mapping[str, str] = field(default_factory=dict)
    zones: Mapping[str, str] = field(default_factory=dict)


def spec_of(fleet: Fleet, item: Item, settings: Settings) -> Spec:
    """The migration that moves `item`."""
    transfer = replace(
        settings.transfer,
        compression=fleet.compression or settings.transfer.compression,
        channels=fleet.channels or settings.transfer.channels,
        verify=Verify(item.verify) if item.verify else fleet.verify or settings.transfer.verify,
    )
    return Spec(
        kind=Kind.MIGRATE,
        source=Endpoint(fleet.source, item.volume.id, settings.source),
        destination=Endpoint(fleet.destination, item.to_name, settings.destination),
        transfer=transfer,
        to_type=item.to_type,
        to_availability_zone=item.to_zone,
        to_size_bytes=item.to_size_bytes,
        to_metadata=item.to_metadata,
        controller_address=settings.controller_address,
        types=settings.types,
        zones=settings.zones,
        skip_checks=fleet.skip_checks,
        allow_downgrade=fleet.allow_downgrade,
        pool=Pool(fleet.name, fleet.pool.most, fleet.pool.lanes) if fleet.pool else None,
    )


class Planner(Struct):
    """Makes plans between two clouds. Not thread-safe.

    Attributes:
        source, destination: Read as they are asked.
        store: For the checks; nothing is written.
        pace: For durations.
    """

    source: Snapshot
    destination: Snapshot
    settings: Settings
    store: StateStore
    pace: Pace
    _placed: tuple[Side, ...] = ()

    def make(self, fleet: Fleet, document: Mapping[str, Any], now: datetime) -> Plan:
        """The plan of a fleet file.

        Args:
            fleet: What the file says.
            document: The file as plain types.
            now: When it would be started.
        """
        selected = select(fleet, self.source.list_volumes())
        items = tuple(_decide(fleet, volume) for volume in selected.volumes)
        plan = Plan(fleet, document, items, missing=selected.missing)
        return self.check(plan, now)

    def check(self, plan: Plan, now: datetime) -> Plan:
        """`plan` with its decisions as they are, everything else found anew."""
        fleet = plan.fleet
        found = list(self._of_all(plan))
        problems = tuple(_told(check) for check in found if check.outcome is Outcome.FAIL)
        warnings = tuple(_told(check) for check in found if check.outcome is Outcome.WARN)
        items = [self._checked(fleet, item) for item in plan.items]
        items = _refuse_clashes(items)
        laid = self._laid(fleet, items, now)
        items = [_timed(item, laid) for item in items]
        return replace(
            plan,
            items=tuple(items),
            made_at=now.astimezone(timezone.utc),
            problems=problems,
            warnings=warnings,
            peaks=tuple(laid.peaks.values()),
            waves=tuple(_waves(fleet, items, laid)),
            pace=self.pace.text,
        )

    def _of_all(self, plan: Plan) -> Iterator[Check]:
        """What is the same for every volume, seen with the first that will be moved."""
        first = next((item for item in plan.items if not item.skip), None)
        if first is None:
            return
        context = self._context(plan.fleet, first)
        rules = [r for r in BEFORE if r.name not in _OF_EACH | _OF_SCHEDULE]
        yield from examine(_alone(rules), context)
        self._placed = context.sides

    def _checked(self, fleet: Fleet, item: Item) -> Item:
        if item.skip:
            return item
        context = self._context(fleet, item)
        checks = list(examine(_alone([r for r in BEFORE if r.name in _OF_EACH]), context))
        problems = [_told(check) for check in checks if check.outcome is Outcome.FAIL]
        if not item.wave:
            problems.append("wave: no wave of the fleet takes it")
        refused = list(_refused(item))
        problems += refused
        kind, zone = context.destination.volume_type, context.destination.availability_zone
        size = item.to_size_bytes or item.volume.size_bytes
        passing, lasting = self._needs(context) if not problems else ({}, {})
        return replace(
            item,
            to_type=item.to_type or ("" if refused or not kind else kind.name),
            to_zone=item.to_zone or ("" if refused or not zone else zone),
            to_name=item.to_name or ("" if refused else item.volume.name),
            to_size_bytes=size,
            problems=tuple(problems),
            warnings=tuple(_told(check) for check in checks if check.outcome is Outcome.WARN),
            predicted_seconds=self.pace.seconds(
                item.volume.size_bytes, _shared(fleet, context.spec.transfer)
            ),
            passing=passing,
            lasting=lasting,
        )

    def _needs(self, context: Context) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the pair takes while it runs, and the new volume for good."""
        lasting = new_volume(context)
        passing: dict[str, dict[str, int]] = {}
        for side in context.sides:
            # What it is made of could not be chosen: that is a problem of the whole plan.
            if None in (side.flavor, side.image, side.network):
                continue
            volume = lasting if side is context.destination else {}
            passing[side.cloud.name] = {
                name: amount - volume.get(name, 0)
                for name, amount in needs(context, side).items()
                if amount > volume.get(name, 0)
            }
        return passing, {context.destination.cloud.name: lasting}

    def _context(self, fleet: Fleet, item: Item) -> Context:
        spec = spec_of(fleet, item, self.settings)
        context = Context(
            migration_id="plan",
            epoch=1,
            spec=spec,
            source=Side(Role.SOURCE, self.source.as_cloud(), spec.source),
            destination=Side(Role.SINK, self.destination.as_cloud(), spec.destination),
            store=self.store,
            listener=_unheard,
            dial=_Nobody(),
        )
        for side, placed in zip(context.sides, self._placed, strict=False):
            side.flavor, side.image = placed.flavor, placed.image
            side.network = placed.network
        return context

    def _laid(self, fleet: Fleet, items: Sequence[Item], now: datetime) -> Schedule:
        numbers = {wave.name: at for at, wave in enumerate(fleet.waves)}
        jobs = [
            Job(ask_of(item), numbers[item.wave], item.predicted_seconds)
            for item in items
            if item.runs
        ]
        left = {cloud.name: cloud.quota().left for cloud in (self.source, self.destination)}
        route = Route(fleet.source, fleet.destination)
        return schedule(
            jobs, limits=fleet.limits, windows=fleet.windows, route=route, left=left, now=now
        )


def ask_of(item: Item) -> Ask:
    """What `item` asks of limits and quotas."""
    return Ask(
        key=item.volume.id,
        size_bytes=item.volume.size_bytes,
        priority=item.priority,
        source_type=item.volume.type,
        destination_type=item.to_type,
        passing=item.passing,
        lasting=item.lasting,
    )


def _decide(fleet: Fleet, volume: Volume) -> Item:
    """What the file says of one volume."""
    override = override_of(fleet, volume)
    found = becomes(fleet, volume, override)
    mapped = {"type": found.type, "zone": found.zone, "name": found.name}
    by = {name: f"{_REFUSED}{one.refused}" if one.refused else one.by
          for name, one in mapped.items()}  # fmt: skip
    return Item(
        Seen.of(volume),
        wave=_wave_of(fleet, volume, override),
        priority=override.priority,
        skip=override.skip,
        to_type=found.type.value,
        to_zone=found.zone.value,
        to_name=found.name.value,
        to_size_bytes=override.size_bytes,
        to_metadata=found.metadata,
        verify=override.verify.value if override.verify else "",
        by=by,
    )


_REFUSED: Final = "refused: "


def _refused(item: Item) -> Iterator[str]:
    """What must be mapped and is not, unless somebody wrote it into the plan since."""
    chosen = {"type": item.to_type, "zone": item.to_zone, "name": item.to_name}
    for name, value in chosen.items():
        by = item.by.get(name, "")
        if by.startswith(_REFUSED) and not value:
            yield by.removeprefix(_REFUSED)


def _wave_of(fleet: Fleet, volume: Volume, override: Override) -> str:
    if override.wave:
        return override.wave
    return next((wave.name for wave in fleet.waves if meets(volume, wave.select)), "")


def _alone(rules: Sequence[Rule]) -> list[Rule]:
    """Only `rules`: what they build on outside of them is taken as found."""
    names = {rule.name for rule in rules}
    return [
        replace(rule, after=tuple(name for name in rule.after if name in names)) for rule in rules
    ]


def _refuse_clashes(items: Sequence[Item]) -> list[Item]:
    """Two new volumes of one name where the old ones had two: warned, for names may repeat."""
    names: dict[str, set[str]] = {}
    for item in items:
        if item.runs:
            names.setdefault(item.to_name, set()).add(item.volume.name)
    return [
        replace(item, warnings=(*item.warnings, f"name: others become {item.to_name}, too"))
        if item.runs and len(names[item.to_name]) > 1
        else item
        for item in items
    ]


def _timed(item: Item, laid: Schedule) -> Item:
    slot, never = laid.slots.get(item.volume.id), laid.never.get(item.volume.id)
    if never is not None:
        return replace(item, problems=(*item.problems, never.text))
    if slot is None:
        return item
    return replace(item, starts_at=slot.start, ends_at=slot.end)


def _waves(fleet: Fleet, items: Sequence[Item], laid: Schedule) -> Iterator[WavePlan]:
    for at, wave in enumerate(fleet.waves):
        own = [item for item in items if item.runs and item.wave == wave.name]
        slot = laid.waves.get(at)
        yield WavePlan(
            wave.name,
            len(own),
            sum(item.volume.size_bytes for item in own),
            gate_text(wave.gate),
            slot.start if slot else None,
            slot.end if slot else None,
        )


def gate_text(gate: Gate) -> str:
    """A gate for people; empty when it is always open."""
    parts = ["approval"] if gate.approval else []
    if gate.failures_below is not None:
        parts.append(f"failures below {gate.failures_below * 100:.4g}%")
    return " and ".join(parts)


def _shared(fleet: Fleet, transfer: Transfer) -> Transfer:
    """The share of one volume when as many move as may, the budgets shared evenly."""
    shares = [transfer.limit_bytes_per_second] if transfer.limit_bytes_per_second else []
    shares += [
        budget // most
        for budget, most in _budgets(fleet.limits, (fleet.source, fleet.destination))
        if budget
    ]
    return replace(transfer, limit_bytes_per_second=max(1, min(shares)) if shares else 0)


def _budgets(limits: Limits, clouds: tuple[str, str]) -> Iterator[tuple[int, int]]:
    """Bytes per second and the volumes that share them, of the fleet and of each cloud."""
    yield limits.bandwidth_bytes_per_second, limits.at_once
    for name in clouds:
        own = limits.clouds.get(name)
        if own is not None:
            most = min(own.concurrency or limits.at_once, limits.at_once)
            yield own.bandwidth_bytes_per_second, most


def _told(check: Check) -> str:
    return f"{check.name}: {check.detail}"


def _unheard(event: Event) -> None:
    """A plan tells nothing on the way."""


class _Nobody:
    """A plan needs no agent."""

    def __call__(
        self,
        address: str,
        identity: Identity,
        credentials: Credentials,
        root_pem: bytes,
        *,
        bootstrap: bool = False,
        patient: bool = True,
    ) -> Agent:
        raise AssertionError(f"a plan would call {address}")
