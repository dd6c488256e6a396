"""Whether the agents of a migration that nobody drives are still at work.

A pair whose controller has died copies on by itself to the end. Nothing of it is
removed while it does: agents are asked, and what cannot be asked is decided here.

    the migration has ended                 silent: its keys are gone, and its jobs ended before
    no agent was ever reached               silent: none can have a job
    nobody answers at its address           silent: switched off, or gone; the copy stays anyway
    it answers, and is not adopted          silent: an agent has no job before that
    it answers to a later controller        not silent
    its keys are on another machine         not silent: nobody here can ask
"""

from contextlib import closing
from typing import Final

from blockferry.errors import (
    AuthenticationError,
    BlockferryError,
    DeadlineError,
    ForbiddenError,
    UnreachableError,
)
from blockferry.identity import Identity, Role
from blockferry.v1 import agent_pb2
from blockferry_controller.agents.port import Dial
from blockferry_controller.engine.records import MigrationRecord, State
from blockferry_controller.engine.state import StateStore
from blockferry_controller.migration.authority import Authority
from blockferry_controller.migration.ending import keys_path


def agent_fact(role: Role) -> str:
    """The fact that says where the agent of a role was reached last."""
    return f"{role.value}_agent"


_SILENT: Final = (UnreachableError, DeadlineError, AuthenticationError)


class Silence:
    """Asks the agents of migrations, once each. Not thread-safe."""

    def __init__(self, store: StateStore, dial: Dial) -> None:
        self._store = store
        self._dial = dial
        self._known: dict[str, str] = {}

    def why_not(self, record: MigrationRecord) -> str:
        """Why the agents of `record` are not silent, for people; empty when they are."""
        if record.id not in self._known:
            self._known[record.id] = self._ask(record)
        return self._known[record.id]

    def _ask(self, record: MigrationRecord) -> str:
        found = {role: record.facts.get(agent_fact(role)) for role in (Role.SOURCE, Role.SINK)}
        addresses = {role: str(address) for role, address in found.items() if address}
        if State(record.state).final or not addresses:
            return ""
        held = self._store.pairs.held_by(record.id)
        own, epoch = (record.id, record.epoch) if held is None else (held.id, held.epoch)
        path = keys_path(self._store, own)
        if not path.exists():
            return "its agents cannot be asked from here; clean up where its keys are"
        try:
            authority = Authority.from_pem(path.read_bytes())
            for role, address in addresses.items():
                told = self._describe(authority, Identity(own, role, epoch), address)
                if told is not None and (why := _at_work(told)):
                    return f"{why}: its {role.value} agent; `blockferry cancel {record.id}` ends it"
        except BlockferryError as error:
            return f"its agents cannot be asked: {error.message}"
        return ""

    def _describe(
        self, authority: Authority, identity: Identity, address: str
    ) -> agent_pb2.DescribeResponse | None:
        agent = self._dial(
            address,
            identity,
            authority.controller(identity.epoch),
            authority.migration_root_pem,
            patient=False,
        )
        with closing(agent):
            try:
                return agent.describe()
            except ForbiddenError:
                # STALE_EPOCH: a later controller, with a state of its own, has it.
                return agent_pb2.DescribeResponse(busy=True)
            except _SILENT:
                return None


def _at_work(told: agent_pb2.DescribeResponse) -> str:
    if told.busy:
        return "still at work"
    silent = told.controller_silence.ToTimedelta().total_seconds()
    # An agent too old to say has no such field.
    return "" if silent or not told.HasField("controller_silence") else "still spoken to"
