"""What accidents left behind: found by tag in the clouds, and the keys on this machine.

Keys go when nobody can need them any more:

    the migration has ended                     its controller died before it destroyed them
    its clouds have nothing of it any more      whoever resumes it begins anew, with new keys

All others are needed to go on: agents and their jobs are met with them. Those of a pair of a
fleet's pool go with the pair; those of one that never came to be, because who was to have it
died over the making, when they are old.

A pair is the business of all the migrations that are in it; one that nobody is in goes, unless
somebody drives its fleet and may be about to take it.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from blockferry.errors import BlockferryError, NotFoundError
from blockferry_controller.clouds.deletion import delete
from blockferry_controller.clouds.port import Cloud, Resource, ResourceKind
from blockferry_controller.engine.pair_records import PairRecord, PairState
from blockferry_controller.engine.records import MigrationRecord, State
from blockferry_controller.engine.state import StateStore
from blockferry_controller.migration import keyring
from blockferry_controller.migration.ending import Seal, keys_path, seal_and_destroy_keys
from blockferry_controller.migration.silence import Silence


class CleanupItem(Struct, frozen=True):
    """One resource with our tag and what was, or would be, done with it.

    Attributes:
        action: `delete`, `deleted`, `keep` or `failed`.
        reason: Why, for people.
    """

    cloud: str
    kind: str
    id: str
    name: str
    migration_id: str
    action: str
    reason: str


_KEPT_FOR_RESUME: Final = (State.INTERRUPTED.value, State.FAILED.value)


def clean(store: StateStore, cloud: Cloud, silence: Silence, *, dry_run: bool) -> list[CleanupItem]:
    """Go through everything in `cloud` that carries our tag.

    Kept are: what a live process drives, what agents are still at work on, what
    another state database knows (its controller may be alive), and volumes that a
    resume would build on.
    """
    items = []
    for resource in cloud.find_resources():
        why = _why_keep(store, resource, silence)
        if not why and not dry_run:
            why = _claim(store, resource)
        items.append(
            _item(cloud, resource, "keep", why) if why else _delete(cloud, resource, dry_run)
        )
    return items


def clean_keys(
    store: StateStore,
    silence: Silence,
    seal: Seal | None,
    seen: Collection[str],
    items: Sequence[CleanupItem],
    *,
    dry_run: bool,
) -> list[CleanupItem]:
    """Destroy the keys that nobody can need any more; see the module.

    Args:
        store: The state database, beside which the keys lie.
        silence: Asks agents whose cloud does not show them.
        seal: Signs the report of a migration that succeeded before its keys go.
        seen: Clouds of which `items` has everything that carries our tag.
        items: What became of it.
        dry_run: Only tell.
    """
    left = {item.migration_id for item in items if item.action in ("keep", "failed")}
    found = []
    for record in store.listing.migrations():
        path = keys_path(store, record.id)
        if not path.exists() or store.driven(record.id):
            continue
        clouds = {record.spec.source.cloud, record.spec.destination.cloud}
        if State(record.state).final:
            why = "its migration has ended"
        elif clouds <= set(seen) and record.id not in left and not silence.why_not(record):
            why = "nothing of its migration is left; a resume begins anew"
        else:
            continue
        if not dry_run:
            _destroy(store, record, seal)
        action = "delete" if dry_run else "deleted"
        found.append(_key(path, record.id, action, why))
    return found


def _destroy(store: StateStore, record: MigrationRecord, seal: Seal | None) -> None:
    succeeded = record.state == State.SUCCEEDED.value
    seal_and_destroy_keys(store, record.id, seal if succeeded else None)


def end_pairs(
    store: StateStore, seen: Collection[str], items: Sequence[CleanupItem], *, dry_run: bool
) -> list[CleanupItem]:
    """Write down which pairs are gone, and destroy their keys; arguments as of `clean_keys`."""
    left = {item.migration_id for item in items if item.action in ("keep", "failed")}
    action, why = "delete" if dry_run else "deleted", "nothing of its pair is left"
    found = []
    for pair in store.pairs.all():
        keys, ended = keyring.there(store, pair), pair.state is PairState.ENDED
        held = bool(pair.guests) or _is_in_demand(store, pair)
        gone = {pair.source, pair.destination} <= set(seen) and pair.id not in left
        if held or not gone or (ended and not keys):
            continue
        if not dry_run:
            ending = pair if ended else store.pairs.end(pair)
            if ending is None:
                continue
            keyring.destroy(store, pair)
            store.pairs.ended(ending)
        found += [_key(path, pair.id, action, why) for path in keys]
    for path in keyring.orphans(store):
        if not dry_run:
            path.unlink(missing_ok=True)
        found.append(_key(path, path.stem, action, "its pair never came to be"))
    return found


def _key(path: Path, own: str, action: str, why: str) -> CleanupItem:
    return CleanupItem("local", "keys", str(path), path.name, own, action, why)


def _is_in_demand(store: StateStore, pair: PairRecord) -> bool:
    """Whether a free pair may be taken any moment."""
    fleet = store.fleets.find(pair.fleet_id)
    free = pair.state is PairState.FREE
    return free and fleet is not None and store.fleets.driven(fleet.id)


def _why_keep(store: StateStore, resource: Resource, silence: Silence) -> str:
    migration_id = resource.tag.migration_id
    pair = store.pairs.find(migration_id)
    if pair is not None:
        guests = (_why_needed(store, lane.migration_id, silence) for lane in pair.guests)
        free = f"free for the next volume of fleet {pair.fleet_id}, which is running"
        return next(filter(None, guests), free if _is_in_demand(store, pair) else "")
    kept = resource.kind is ResourceKind.VOLUME
    return _why_needed(store, migration_id, silence, has_bytes=kept)


def _why_needed(
    store: StateStore, migration_id: str, silence: Silence, *, has_bytes: bool = False
) -> str:
    """Why what a migration has is kept, for people; empty when it need not be."""
    try:
        record = store.get(migration_id)
    except NotFoundError:
        return "not of this state database; remove it where its migration is known"
    if store.driven(migration_id):
        return "its migration is running"
    if has_bytes and record.state in _KEPT_FOR_RESUME:
        return f"`blockferry resume {migration_id}` goes on with it, `cancel` removes it"
    return silence.why_not(record)


def _claim(store: StateStore, resource: Resource) -> str:
    """Let nobody take the pair any more; why that cannot be, for people."""
    pair = store.pairs.find(resource.tag.migration_id)
    if pair is None or pair.state is PairState.ENDED:
        return ""
    driven = any(store.driven(lane.migration_id) for lane in pair.guests)
    if not driven and store.pairs.end(pair) is not None:
        return ""
    return "somebody has just taken its pair"


def _delete(cloud: Cloud, resource: Resource, dry_run: bool) -> CleanupItem:
    if dry_run:
        return _item(cloud, resource, "delete", "nobody drives its migration")
    try:
        delete(cloud, resource)
    except BlockferryError as error:
        return _item(cloud, resource, "failed", error.message)
    return _item(cloud, resource, "deleted", "nobody drives its migration")


def _item(cloud: Cloud, resource: Resource, action: str, reason: str) -> CleanupItem:
    return CleanupItem(
        cloud.name,
        resource.kind.value,
        resource.id,
        resource.name,
        resource.tag.migration_id,
        action,
        reason,
    )
