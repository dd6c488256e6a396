"""Step `authority`: the keys that only this migration, and the lane it has, trust.

Where they are kept says keyring.py. A lane of a fleet's pool has keys of its own, which live
as long as its pair does; the migration's then sign its report and nothing else.

So a process of another host may take a migration over and not have them. Agents that trust
others would never obey it: it makes keys of its own, and their instances are replaced. What
is durable at the sink stays, and is known from the database (see manifests). A lane whose
keys are elsewhere was not taken to begin with (see pool).
"""

from blockferry_controller.clouds.port import ResourceKind
from blockferry_controller.migration.context import Context
from blockferry_controller.migration.keyring import load, load_or_make
from blockferry_controller.migration.steps.instances import remove
from blockferry_controller.migration.steps.tunnel import close_exchange, open_exchange


class MakeAuthority:
    """Make the authority, or load the one an earlier attempt made."""

    name = "authority"

    def do(self, context: Context) -> str:
        """Sets `context.authority`, and listens where agents are told to dial us."""
        authority, told = load_or_make(context.store, context.migration_id)
        context.authority = authority
        known = context.fact("authority") in (None, authority.fingerprint)
        if not known and context.shared is None:
            _replace_strangers(context)
        # By this a report's signature is known to be this migration's; and, by the next
        # attempt, whether the agents that it finds trust its keys: so not before they are gone.
        context.remember(authority=authority.fingerprint)
        if context.shared is not None:
            context.shared.authority = load(context.store, context.lane_id)
        open_exchange(context)
        return f"{told} {authority.fingerprint}"

    def undo(self, context: Context, *, resumable: bool) -> None:
        """Destroys the keys, unless agents that trust them may be met again."""
        close_exchange(context)
        if not resumable:
            context.keys_path.unlink(missing_ok=True)


def _replace_strangers(context: Context) -> None:
    """Delete instances of earlier attempts, which trust keys that are not here."""
    if not any(
        side.cloud.find_resources(context.migration_id, {ResourceKind.SERVER})
        for side in context.sides
    ):
        return
    context.confirm()
    context.note(
        "the keys of earlier attempts are on another host: their instances are replaced",
        level="warning",
    )
    context.both(lambda side: remove(context, side))
