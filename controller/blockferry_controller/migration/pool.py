"""A lane of a fleet's pairs, as one attempt has it: taken, given back, or left.

Rules:
* Only a lane that did all it was asked for is given back, after its agents have forgotten the
  migration and shut out its controller, and its volumes are off. With any other its pair is
  closed: what an instance failed of is not found out by the next volume.
* Who leaves others at work behind takes all of its own along: its agents forget it as far as
  they can be reached, and its volumes are taken off, which is what stops those that cannot.
  The last one out of a closed pair deletes it.
* One of which nothing was asked is left as it is: a volume that does not pass the preflight
  costs no pair.
* Who can speak to a lane's agents is who has its keys: a file of one host.
"""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from msgspec.structs import asdict, replace

from blockferry import __version__
from blockferry.errors import BlockferryError, DeadlineError
from blockferry_controller.clouds.deletion import delete
from blockferry_controller.clouds.port import Cloud, FloatingIp, Port, ResourceKind
from blockferry_controller.engine.away import AWAY
from blockferry_controller.engine.pair_records import Held, PairRecord, PairState
from blockferry_controller.engine.pairs import Order
from blockferry_controller.engine.records import MigrationRecord
from blockferry_controller.engine.state import StateStore
from blockferry_controller.events import Undone
from blockferry_controller.migration import keyring
from blockferry_controller.migration.context import Context, SharedPair, Side, need
from blockferry_controller.migration.keyring import LaneKeys
from blockferry_controller.migration.silence import agent_fact
from blockferry_controller.migration.sizing import LATELY, cores_used, cores_wanted
from blockferry_controller.migration.waiting import attempts
from blockferry_controller.spec import Spec

_HANDED_ON: Final = ("source_met", "destination_met", "direction")
"""Facts of a migration that hold for its pair, and so for the next migration."""
CORES_USED: Final = "cores_used"
"""The fact of a migration: how many processors its copy kept busy at either end."""
_CORES: Final = "cores"
"""The fact of a pair: the vCPUs that its instances had better have, by end."""
_SOURCE_OPEN: Final = "source_open"
"""The fact of a pair that its source lets the sink in."""
TURN_SECONDS: Final = 1800.0
"""Longest that one guest of a pair may take for its instances, before another complains."""


def take(
    store: StateStore, record: MigrationRecord, epoch: int, new_id: Callable[[str], str]
) -> Held | None:
    """The lane that `record`, whose spec names a pool, has or gets now.

    Args:
        store: The state database.
        record: The migration.
        epoch: The migration's, of this controller.
        new_id: An id that nothing has had, with the prefix that it is given.

    Returns:
        None when another controller drives the migration.

    Raises:
        BusyError: PAIRS_TAKEN.
    """
    spec = record.spec
    wanted = need(spec.pool)
    order = Order(
        migration_id=record.id,
        epoch=epoch,
        fleet_id=wanted.fleet,
        source=spec.source.cloud,
        destination=spec.destination.cloud,
        fit=_fit(spec),
        most=wanted.most,
        lanes=wanted.lanes,
    )
    before = store.pairs.held_by(record.id)
    # Drawn before: the taking has the state's database to itself.
    fresh = new_id("pair-")
    held = store.pairs.take(order, lambda: fresh, LaneKeys(store))
    if held is None:
        return None
    # Of one that it had before, the migration knows more than the pair's last guest did.
    if before is None:
        known = {name: fact for name, fact in held.pair.facts.items() if name in _HANDED_ON}
        if not store.set_facts(record.id, epoch, **known):
            return None
    return held if _CORES in held.pair.facts else _sized(store, held)


def _sized(store: StateStore, held: Held) -> Held:
    """With what its instances had better have, of which all guests are to make the same."""
    pair = held.pair
    recent = store.outcomes.recent(pair.fleet_id, CORES_USED, LATELY)
    cores = {
        end: cores_wanted([used[end] for used in recent if end in used], len(pair.lanes))
        for end in ("source", "destination")
    }
    store.pairs.remember(held, **{_CORES: cores})
    return replace(held, pair=replace(pair, facts={**pair.facts, _CORES: cores}))


def cores_of(context: Context, side: Side) -> int:
    """VCPUs that the side's instance had better have; 1 where nobody has measured."""
    facts = {} if context.shared is None else context.shared.held.pair.facts
    return int(facts.get(_CORES, {}).get(side.label, 1))


def measure(context: Context) -> None:
    """Remember what an ended copy's agents kept busy, for the next pair of the pool."""
    profile = context.fact("profile")
    if context.shared is None or not isinstance(profile, dict):
        return
    used = {side.label: cores_used(profile[side.role.value]) for side in context.sides}
    told = {end: round(cores, 2) for end, cores in used.items() if cores is not None}
    if told:
        context.remember(**{CORES_USED: told})


@contextlib.contextmanager
def booting(context: Context) -> Iterator[None]:
    """Be the only one that looks for, makes or replaces the instances of the pair.

    Where this process dies, the turn passes on with its lease.

    Raises:
        DeadlineError: PAIR_BOOTING, somebody else has been at it for TURN_SECONDS.
    """
    shared = context.shared
    if shared is None:
        yield
        return
    with shared.turn:
        _await_turn(context, shared)
        try:
            yield
        except Exception:
            with contextlib.suppress(*AWAY):
                context.store.pairs.end_boot(shared.held)
            raise
        context.store.pairs.end_boot(shared.held)


def _await_turn(context: Context, shared: SharedPair) -> None:
    over, since, last = "", 0.0, ""
    for waited in attempts(context, float("inf")):
        busy = context.store.pairs.begin_boot(shared.held, over=over)
        if not busy:
            return
        if busy == context.migration_id:
            context.lost.set()
        if busy != last:
            since, last = waited, busy
        if waited - since > TURN_SECONDS:
            raise DeadlineError(
                "PAIR_BOOTING",
                f"migration {busy} has been at the instances of pair {context.pair_id} for "
                f"{TURN_SECONDS / 60:.0f} minutes; `blockferry show {busy}` tells how far it is",
                migration=busy,
            )
        over = "" if context.store.driven(busy) else busy


def note_place(context: Context, side: Side) -> None:
    """Let the pair's guests, and those who come after, know where the instance is met."""
    if context.shared is not None:
        floating_ip = side.floating_ip
        place = {
            "port": asdict(need(side.port)),
            "floating_ip": floating_ip and asdict(floating_ip),
        }
        context.store.pairs.remember(context.shared.held, **{_place(side): place})


def known_place(context: Context, side: Side) -> tuple[Port, FloatingIp | None] | None:
    """Where the pair's instance is met; None before anybody has made that."""
    if context.shared is None:
        return None
    found = need(context.store.pairs.find(context.pair_id)).facts.get(_place(side))
    if found is None:
        return None
    port, floating_ip = found["port"], found["floating_ip"]
    addresses = tuple(port["addresses"])
    return Port(port["id"], addresses), FloatingIp(**floating_ip) if floating_ip else None


def met_at(pair: PairRecord, end: str) -> tuple[str, ...]:
    """Addresses of the instance at `source` or `destination`; none before it has a port."""
    found = pair.facts.get(f"{end}_met_at")
    if found is None:
        return ()
    floating_ip = found["floating_ip"]
    return (*found["port"]["addresses"], *((floating_ip["address"],) if floating_ip else ()))


def _place(side: Side) -> str:
    return f"{side.label}_met_at"


def stays_open(context: Context, shared: SharedPair, *, also_source: bool) -> bool:
    """Whether the source lets the sink in, for any of its lanes."""
    pairs = context.store.pairs
    if also_source:
        pairs.remember(shared.held, **{_SOURCE_OPEN: True})
    return also_source or _SOURCE_OPEN in need(pairs.find(context.pair_id)).facts


def has_to_itself(context: Context) -> bool:
    """Whether the instances may be deleted for the sake of this migration alone.

    Where others may come, nobody does from now on.
    """
    shared = context.shared
    if shared is None or shared.lanes == 1:
        return True
    closed = context.store.pairs.close(shared.held)
    return closed is not None and not Held(closed, shared.held.number).others


def vacate(context: Context, shared: SharedPair) -> None:
    """Have both agents forget the migration; where one cannot, the lane is not given back."""
    if any(side.agent is None for side in context.sides):
        return
    try:
        context.both(lambda side: need(side.agent).vacate())
    except BlockferryError as error:
        context.note(f"{error.message}; the pair is not used again", level="warning")
        return
    shared.vacated = True


def give_back(context: Context, shared: SharedPair) -> str:
    """Let another volume have the lane, whose volumes are detached, or leave it.

    Returns:
        What became of it, for people.
    """
    pairs, pair_id = context.store.pairs, context.pair_id
    facts = {name: fact for name in _HANDED_ON if (fact := context.fact(name)) is not None}
    pair = pairs.give_back(shared.held, facts) if shared.vacated else None
    if pair is None:
        give_up(context, shared)
    else:
        shared.left = True
        _end_if_last(context, pair)
    pair = pairs.find(pair_id)
    if pair is None or pair.state in (PairState.ENDING, PairState.ENDED):
        return f"pair {pair_id} is gone"
    if pair.closed:
        return f"pair {pair_id} ends when its other volumes are through"
    return f"lane {context.lane_id} is free for the next volume"


def give_up(context: Context, shared: SharedPair) -> None:
    """Leave the pair, for nobody else to come; the last one deletes it. Idempotent.

    One of which nothing was asked is left open.
    """
    pairs, held = context.store.pairs, shared.held
    if shared.left:
        return
    if not shared.touched and (held.pair.served or held.others):
        left = pairs.leave(held)
    else:
        closed = pairs.close(held)
        if closed is not None and Held(closed, held.number).others:
            _take_along(context, shared)
        # None when another controller has it: its instances are not ours to delete.
        left = None if closed is None else pairs.leave(held)
    if left is not None:
        _end_if_last(context, left)
    shared.left = True


def _end_if_last(context: Context, pair: PairRecord) -> None:
    """Delete a closed pair that nobody is in any more."""
    if pair.state is not PairState.ENDING:
        return

    def tell(what: str) -> None:
        context.tell(Undone(context.migration_id, what))

    context.both(lambda side: _delete_all(side.cloud, pair, tell))
    _forget(context.store, pair)


def _take_along(context: Context, shared: SharedPair) -> None:
    """Leave nothing of this migration in instances in which others are at work.

    Raises:
        BlockferryError: a volume cannot be taken off; so the lane is not left.
    """
    quieten(context, shared)
    context.both(lambda side: _take_off(context, side))


def quieten(context: Context, shared: SharedPair) -> None:
    """Before volumes are taken off instances that stay: have agents forget the migration.

    Those that cannot be reached, or are not ours to command, keep their jobs, without a disk.
    """
    stays = shared.lanes > 1 and shared.touched and not shared.vacated
    if stays and LaneKeys(context.store).have(shared.held.id):
        shared.authority = keyring.load(context.store, shared.held.id)
        context.both(lambda side: _quieten(context, side))


def _quieten(context: Context, side: Side) -> None:
    address = context.fact(agent_fact(side.role))
    if not isinstance(address, str):
        return
    authority = context.lane_authority
    try:
        agent = context.dial(
            address,
            context.identity(side.role),
            authority.controller(context.lane_epoch),
            authority.migration_root_pem,
            patient=False,
        )
        with contextlib.closing(agent):
            agent.vacate()
    except BlockferryError as error:
        context.note(f"the {side.label} agent is left as it is: {error.message}")


def _take_off(context: Context, side: Side) -> None:
    """Detach the side's volume from the pair's instance, whichever attempt attached it."""
    volume_id = context.fact(f"{side.label}_volume_id")
    tag = side.tag(context.pair_id, "server")
    for one in side.cloud.find_resources(context.pair_id, {ResourceKind.SERVER}):
        if one.tag == tag and isinstance(volume_id, str):
            side.cloud.detach_volume(one.id, volume_id)


def demolish(store: StateStore, pair: PairRecord, clouds: Iterable[Cloud]) -> bool:
    """End a pair that nobody uses, and delete all that it has. Idempotent.

    Args:
        store: The state database.
        pair: As it was read; nothing is done when somebody has taken a lane since.
        clouds: Both of the pair's.

    Returns:
        Whether it is gone.

    Raises:
        BlockferryError: something is left; it goes on ending.
    """
    ending = store.pairs.end(pair)
    if ending is None:
        return False
    for cloud in clouds:
        _delete_all(cloud, ending, lambda _: None)
    _forget(store, ending)
    return True


def _delete_all(cloud: Cloud, pair: PairRecord, tell: Callable[[str], None]) -> None:
    """What carries the pair's id in one cloud. Where both sides are in it, it is asked twice."""
    for resource in cloud.find_resources(pair.id):
        delete(cloud, resource)
        tell(f"{resource.kind.value} {resource.id} in {cloud.name}")


def _forget(store: StateStore, ending: PairRecord) -> None:
    keyring.destroy(store, ending)
    store.pairs.ended(ending)


def _fit(spec: Spec) -> str:
    """What a pair is made of: equal for those that may use each other's."""
    made_of = {
        "version": __version__,
        "source": asdict(spec.source.placement),
        "destination": asdict(spec.destination.placement),
        "controller": spec.controller_address,
        "lanes": spec.lanes,
    }
    return json.dumps(made_of, sort_keys=True)
