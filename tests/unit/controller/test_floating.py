"""Whole migrations, in memory, of instances that only a floating IP leads to."""

import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from blockferry.errors import BlockferryError, CapacityError
from blockferry_controller.engine.records import MigrationRecord, State
from blockferry_controller.engine.state import StateStore
from blockferry_controller.migration.context import Context, Side
from blockferry_controller.migration.service import Migrations
from blockferry_controller.migration.steps import connect, reach
from blockferry_controller.spec import Endpoint, Kind, Placement, Spec
from tests.fakes.agent import MemoryAgent
from tests.fakes.cloud import MemoryServer
from tests.torture.clouds import plain_engine
from tests.torture.matrix import Fault
from tests.torture.world import Killed, World

VERBS = ("ensure_floating_ip", "delete_floating_ip")


class Walled(World):
    """One where the fixed addresses of `walled` sides lead nowhere; floating IPs lead in."""

    def __init__(self, *walled: str, faults: list[Fault] | None = None) -> None:
        self.walled = walled
        self.inside: dict[str, MemoryAgent] = {}
        super().__init__(faults=faults or [])

    def connect(self, name: str) -> Any:
        return _Tying(self, super().connect(name))

    def tie(self) -> None:
        """Every floating IP leads to the agent behind its port, where there is one."""
        for cloud in self.clouds.values():
            for known in cloud.floating_ips.values():
                address = f"{known.floating_ip.address}:7443"
                self.link.agents.pop(address, None)
                agent = self.inside.get(known.port_id)
                if agent is not None and not agent.down:
                    self.link.agents[address] = agent

    def _boot(self, side: str, server: MemoryServer) -> None:
        super()._boot(side, server)
        if side in self.walled:
            for address in server.addresses:
                host = f"[{address}]" if ":" in address else address
                self.inside[server.request.port_id] = self.link.agents.pop(f"{host}:7443")
        self.tie()


class _Tying:
    """A cloud whose routers learn at once."""

    def __init__(self, world: Walled, inner: Any) -> None:
        self._world, self._inner = world, inner

    def __getattr__(self, verb: str) -> Any:
        found = getattr(self._inner, verb)
        if verb not in VERBS:
            return found
        side = self._inner.name

        def call(*arguments: object) -> Any:
            with self._world.strike(side, verb):
                result = found(*arguments)
                self._world.tie()
                return result

        return call


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "RUNG_SECONDS", 0.001)
    monkeypatch.setattr(connect, "FLOATING_SECONDS", 0.001)
    monkeypatch.setattr(reach, "FLOATING_AFTER_SECONDS", 0.0)
    # An address that was refused would be one whose host is reached.
    monkeypatch.setattr(reach, "_is_reached", lambda address, _: False)


def migrate(world: Walled, tmp_path: Path, **placement: Any) -> tuple[MigrationRecord, list[str]]:
    """Run, and resume after every kill; its end, and what was told."""
    told: list[str] = []
    placed = Placement(**placement)
    spec = Spec(
        Kind.MIGRATE,
        Endpoint("source", world.volume.id, placed),
        Endpoint("destination", "", placed),
        controller_address="192.0.2.1",
    )
    with plain_engine(), closing(StateStore.open(f"sqlite:///{tmp_path}/state.db")) as store:
        own = ""
        for _ in range(4):
            listen: Callable[[object], None] = lambda event: told.append(str(event))  # noqa: E731
            migrations = Migrations(store, world.connect, world.dial, listen)
            own = own or migrations.create(spec).id
            try:
                return migrations.run(own), told
            except Killed:
                continue
    raise AssertionError("not done after four runs")


@pytest.mark.parametrize("walled", [("source",), ("destination",), ("source", "destination")])
def test_the_controller_reaches_an_instance_at_a_floating_ip(
    walled: tuple[str, ...], tmp_path: Path
) -> None:
    world = Walled(*walled)
    done, told = migrate(world, tmp_path)
    assert done.state == State.SUCCEEDED.value
    assert done.result is not None
    sink_is_in_sight = "destination" not in walled
    assert done.result["rung"] == ("ipv6" if sink_is_in_sight else "floating-ip")
    assert done.result["direction"] == "source-to-sink"
    made = [one for one in told if "has the floating IP" in one]
    assert len(made) == len(walled)
    assert world.leftovers() == []
    assert not any(cloud.floating_ips for cloud in world.clouds.values())


def test_always_makes_one_with_the_instance(tmp_path: Path) -> None:
    world = Walled()
    done, _ = migrate(world, tmp_path, floating_ip="always")
    assert done.result is not None
    assert done.result["rung"] == "ipv6", "fixed addresses come first all the same"
    for side in ("source", "destination"):
        verbs = world.clouds[side].verbs
        assert verbs.index("ensure_floating_ip") < verbs.index("ensure_server")
        assert "delete_floating_ip" in verbs
    assert world.leftovers() == []


def test_always_fails_where_there_can_be_none(tmp_path: Path) -> None:
    world = Walled()
    error = CapacityError("QUOTA_FLOATING_IPS", "none left")
    world.clouds["destination"].fail("ensure_floating_ip", error)
    with pytest.raises(CapacityError):
        migrate(world, tmp_path, floating_ip="always")
    # What an attempt leaves is the volume that it would go on with: none, before the first byte.
    assert not any(cloud.find_resources() for cloud in world.clouds.values())


def test_without_one_the_instance_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = reach.reach

    def short(context: Context, side: Side, *, within_seconds: float) -> None:
        whole(context, side, within_seconds=min(0.3, within_seconds))

    monkeypatch.setattr(reach, "reach", short)
    world = Walled("source")
    with pytest.raises(BlockferryError) as caught:
        migrate(world, tmp_path, floating_ip="never")
    assert caught.value.reason == "AGENT_NEVER_CAME"
    assert "--floating-ip" in caught.value.message
    assert "ensure_floating_ip" not in world.clouds["source"].verbs


@pytest.mark.parametrize("side", ["source", "destination"])
@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("verb", [*VERBS, "start_job"])
def test_a_controller_that_is_killed_leaves_no_floating_ip(
    side: str, late: bool, verb: str, tmp_path: Path
) -> None:
    world = Walled("source", "destination", faults=[Fault(side, verb, 1, late, "killed")])
    done, _ = migrate(world, tmp_path)
    assert len(world.struck) == 1
    assert done.state == State.SUCCEEDED.value
    assert world.leftovers() == []


def test_a_lost_instance_is_replaced_behind_the_same_floating_ip(tmp_path: Path) -> None:
    world = Walled("destination", faults=[Fault("destination", "watch_job", 3, False, "lost")])
    done, _ = migrate(world, tmp_path)
    assert len(world.struck) == 1
    assert done.state == State.SUCCEEDED.value
    assert world.calls["destination", "ensure_floating_ip"] == 1
    assert world.leftovers() == []


def test_a_host_that_refuses_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert reach._is_reached("127.0.0.1", unused.getsockname()[1])
    monkeypatch.setattr(reach, "_TOUCH_SECONDS", 0.05)
    assert not reach._is_reached("192.0.2.7", 7443)
