"""A free pair hears its controller through whichever lane its agents know."""

from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from blockferry.errors import AuthenticationError, PreconditionError
from blockferry.identity import Identity
from blockferry_controller.engine.pair_records import LaneRecord, PairRecord
from blockferry_controller.engine.state import StateStore
from blockferry_controller.migration.keeping import speak_to
from blockferry_controller.migration.keyring import LaneKeys

NOW = datetime(2026, 11, 20, 12, tzinfo=timezone.utc)
MET = {
    f"{end}_met_at": {"port": {"id": "p", "addresses": [address]}, "floating_ip": None}
    for end, address in (("source", "10.0.0.1"), ("destination", "10.0.0.2"))
}


@dataclass
class Agents:
    """Of instances that were booted anew: one lane was met since, the others are strangers."""

    met: int
    asked: list[tuple[str, str, int]] = field(default_factory=list)

    def dial(self, address: str, identity: Identity, *_: object, **__: object) -> Any:
        self.asked.append((address, identity.migration_id, identity.epoch))
        if not identity.migration_id.endswith(f"-{self.met}"):
            raise AuthenticationError("TLS_REFUSED", "it is somebody else")
        return self

    def describe(self) -> None:
        """It hears."""

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def pair() -> PairRecord:
    """Lane 0 was left an hour before lane 1; nobody was in lane 2."""
    lanes = tuple(
        LaneRecord(number, "", 1, epoch, served, "", NOW + timedelta(hours=number))
        for number, epoch, served in ((0, 7, 7), (1, 3, 2), (2, 0, 0))
    )
    return PairRecord("pair-1", "shop", "east", "west", "", False, False, "", MET, NOW, lanes)


def test_the_lane_that_was_left_last_is_asked_first(pair: PairRecord, tmp_path: Path) -> None:
    with closing(StateStore.open(f"sqlite:///{tmp_path}/state.db")) as store:
        for number in range(3):
            LaneKeys(store).make(pair.lane_id(number))
        agents = Agents(met=1)
        speak_to(store, agents.dial, pair)
        assert agents.asked == [("10.0.0.1:7444", "pair-1-1", 4), ("10.0.0.2:7444", "pair-1-1", 4)]
        agents = Agents(met=0)
        speak_to(store, agents.dial, pair)
        assert agents.asked[0] == ("10.0.0.1:7444", "pair-1-1", 4)
        assert agents.asked[1:] == [
            ("10.0.0.1:7443", "pair-1-0", 8),
            ("10.0.0.2:7443", "pair-1-0", 8),
        ]
        agents = Agents(met=2)
        with pytest.raises(AuthenticationError):
            speak_to(store, agents.dial, pair)


def test_without_keys_nobody_is_asked(pair: PairRecord, tmp_path: Path) -> None:
    with closing(StateStore.open(f"sqlite:///{tmp_path}/state.db")) as store:
        LaneKeys(store).make(pair.lane_id(2))
        agents = Agents(met=2)
        with pytest.raises(PreconditionError) as caught:
            speak_to(store, agents.dial, pair)
    assert (caught.value.reason, agents.asked) == ("PAIR_UNKNOWN_HERE", [])
