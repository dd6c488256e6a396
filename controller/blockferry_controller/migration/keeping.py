"""A pair in which nobody is, kept for the next volume: its instances hear that they are wanted."""

from collections.abc import Iterator
from contextlib import closing
from typing import Final

from blockferry.errors import (
    AuthenticationError,
    BlockferryError,
    DeadlineError,
    PreconditionError,
    UnreachableError,
)
from blockferry.identity import Identity, Role
from blockferry.limits import AGENT_PORT
from blockferry_controller.agents.port import Dial
from blockferry_controller.engine.pair_records import LaneRecord, PairRecord
from blockferry_controller.engine.state import StateStore
from blockferry_controller.migration.authority import Authority
from blockferry_controller.migration.keyring import LaneKeys, load
from blockferry_controller.migration.pool import met_at
from blockferry_controller.migration.ways import join

PAIR_UNKNOWN_HERE: Final = "PAIR_UNKNOWN_HERE"
_ENDS: Final = ((Role.SOURCE, "source"), (Role.SINK, "destination"))
_DEAF: Final = (UnreachableError, DeadlineError, AuthenticationError)


def speak_to(store: StateStore, dial: Dial, pair: PairRecord) -> None:
    """Let both instances of a free pair hear their controller; nothing else is asked of them.

    One lane's agents are enough: only together may those of an instance power it off.

    Raises:
        PreconditionError: PAIR_UNKNOWN_HERE, its keys are on another host, or nobody was in it.
        UnreachableError, DeadlineError, AuthenticationError: an agent does not answer.
    """
    keys = LaneKeys(store)
    known = [lane for lane in pair.lanes if lane.served and keys.have(pair.lane_id(lane.number))]
    # Since an instance was booted anew, only who came to it after that has been met there.
    known.sort(key=lambda lane: lane.changed_at, reverse=True)
    last: BlockferryError = PreconditionError(
        PAIR_UNKNOWN_HERE,
        f"no agent of pair {pair.id} can be spoken to from this host; whoever has its keys can",
        pair=pair.id,
    )
    for lane in known:
        try:
            _speak_through(store, dial, pair, lane)
        except _DEAF as error:
            last = error
        else:
            return
    raise last


def _speak_through(store: StateStore, dial: Dial, pair: PairRecord, lane: LaneRecord) -> None:
    own = pair.lane_id(lane.number)
    authority = load(store, own)
    for role, end in _ENDS:
        # Its last guest is shut out; this is the epoch that the next one will have.
        identity = Identity(own, role, lane.epoch + 1)
        places = (join(one, AGENT_PORT + lane.number) for one in met_at(pair, end))
        _speak(dial, identity, authority, places)


def _speak(dial: Dial, identity: Identity, authority: Authority, places: Iterator[str]) -> None:
    last: BlockferryError = UnreachableError(
        "AGENT_UNREACHABLE", f"nobody knows where the {identity.role.value} agent is met"
    )
    credentials = authority.controller(identity.epoch)
    for place in places:
        try:
            agent = dial(place, identity, credentials, authority.migration_root_pem, patient=False)
            with closing(agent):
                agent.describe()
        except _DEAF as error:
            last = error
        else:
            return
    raise last
