"""A fleet's pairs, as one attempt has them: taken, given back, or ended.

Rules:
* Only a pair that did all it was asked for is given back, after its agents have forgotten
  the migration and shut out its controller, and its volumes are off. Any other is ended:
  what an instance failed of is not found out by the next volume.
* One of which nothing was asked is put back as it is: a volume that does not pass the
  preflight costs no pair.
* Who can speak to a pair's agents is who has its keys: a file of one host.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Final

from blockferry import __version__
from blockferry.errors import BlockferryError
from blockferry_controller.clouds.deletion import delete
from blockferry_controller.clouds.port import Cloud
from blockferry_controller.engine.pairs import Order, PairRecord
from blockferry_controller.engine.records import MigrationRecord
from blockferry_controller.engine.state import StateStore
from blockferry_controller.events import Undone
from blockferry_controller.migration.context import Context, SharedPair, need
from blockferry_controller.migration.ending import keys_path
from blockferry_controller.spec import Spec

_HANDED_ON: Final = (
    *("source_met", "destination_met", "source_met_at", "destination_met_at"),
    "direction",
)
"""Facts of a migration that hold for its pair, and so for the next migration."""


def take(
    store: StateStore, record: MigrationRecord, epoch: int, new_id: Callable[[], str]
) -> PairRecord | None:
    """The pair that `record`, whose spec names a pool, has or gets now.

    Args:
        store: The state database.
        record: The migration.
        epoch: The migration's, of this controller.
        new_id: An id that nothing has had.

    Returns:
        None when another controller drives the migration.
    """
    spec = record.spec
    order = Order(
        migration_id=record.id,
        epoch=epoch,
        fleet_id=need(spec.pool).fleet,
        source=spec.source.cloud,
        destination=spec.destination.cloud,
        fit=_fit(spec),
        most=need(spec.pool).most,
    )
    held = store.pairs.held_by(record.id)
    pair = store.pairs.take(order, lambda: f"pair-{new_id()}", lambda own: has_keys(store, own))
    # Of one that it had before, the migration knows more than the pair's last guest did.
    if pair is not None and held is None:
        store.set_facts(record.id, **pair.facts)
    return pair


def has_keys(store: StateStore, pair_id: str) -> bool:
    """Whether the agents of a pair can be spoken to from here."""
    return keys_path(store, pair_id).exists()


def vacate(context: Context, shared: SharedPair) -> None:
    """Have both agents forget the migration; where one cannot, the pair is not given back."""
    if any(side.agent is None for side in context.sides):
        return
    try:
        context.both(lambda side: need(side.agent).vacate())
    except BlockferryError as error:
        context.note(f"{error.message}; the pair is not used again", level="warning")
        return
    shared.vacated = True


def give_back(context: Context, shared: SharedPair) -> str:
    """Let another volume have the pair, whose volumes are detached, or end it.

    Returns:
        What became of it, for people.
    """
    facts = {name: fact for name in _HANDED_ON if (fact := context.fact(name)) is not None}
    if shared.vacated and context.store.pairs.give_back(shared.record, facts):
        shared.left = True
        return f"pair {context.pair_id} is free for the next volume"
    give_up(context, shared)
    return f"pair {context.pair_id} is gone"


def give_up(context: Context, shared: SharedPair) -> None:
    """End the pair, or put it back if nothing was asked of it. Idempotent."""
    pairs = context.store.pairs
    if shared.left:
        return
    if shared.record.served and not shared.touched:
        shared.left = pairs.put_back(shared.record)
        return
    ending = pairs.end(shared.record)
    if ending is not None:
        shared.record = ending
    elif (found := pairs.find(context.pair_id)) is None or found.epoch != shared.record.epoch:
        # Another controller has it: its instances are not ours to delete.
        shared.left = True
        return

    def tell(what: str) -> None:
        context.tell(Undone(context.migration_id, what))

    context.both(lambda side: _delete_all(side.cloud, shared.record, tell))
    _forget(context.store, shared.record)
    shared.left = True


def demolish(store: StateStore, pair: PairRecord, clouds: Iterable[Cloud]) -> bool:
    """End a pair that nobody uses, and delete all that it has. Idempotent.

    Args:
        store: The state database.
        pair: As it was read; nothing is done when somebody has taken it since.
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
    keys_path(store, ending.id).unlink(missing_ok=True)
    store.pairs.ended(ending)


def _fit(spec: Spec) -> str:
    """What a pair is made of: equal for those that may use each other's."""
    made_of = {
        "version": __version__,
        "source": asdict(spec.source.placement),
        "destination": asdict(spec.destination.placement),
        "controller": spec.controller_address,
    }
    return json.dumps(made_of, sort_keys=True)
