"""An instance whose agent never comes, seen through its console."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from blockferry.errors import BlockferryError, PreconditionError, UnreachableError
from blockferry.identity import Role
from blockferry_controller.clouds.port import Port, ServerRequest, Tag
from blockferry_controller.engine.state import StateStore
from blockferry_controller.migration import console
from blockferry_controller.migration.authority import Authority
from blockferry_controller.migration.context import Context, Side
from blockferry_controller.migration.steps import reach
from blockferry_controller.spec import Endpoint, Kind, Spec
from tests.fakes.behind import memory_cloud
from tests.fakes.cloud import MemoryCloud


def nobody(*_: object, **__: object) -> None:
    raise UnreachableError("AGENT_UNREACHABLE", "connection refused")


@pytest.fixture
def side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Context, Side]]:
    monkeypatch.setattr(reach, "LOOK_FIRST_SECONDS", 0.0)
    monkeypatch.setattr(reach, "LOOK_EVERY_SECONDS", 0.01)
    monkeypatch.setattr(reach, "BOOT_MOST_SECONDS", 20.0)
    store = StateStore.open(f"sqlite:///{tmp_path}/state.db")
    spec = Spec(Kind.MIGRATE, Endpoint("east", "data"), Endpoint("west"))
    store.create("m-test", spec, "east/data", "west")
    cloud = MemoryCloud("east")
    tag = Tag("m-test", "source-server")
    group = cloud.ensure_security_group(tag, ())
    port = cloud.ensure_port(tag, cloud.networks[0].id, group)
    server = cloud.ensure_server(tag, ServerRequest("1", cloud.images[0].id, port.id, b""))
    source = Side(Role.SOURCE, cloud, spec.source, port=Port("p", ("10.0.0.2",)), server=server)
    other = Side(Role.SINK, MemoryCloud("west"), spec.destination)
    context = Context("m-test", 1, spec, source, other, store, lambda _: None, nobody)  # type: ignore[arg-type]
    context.authority = Authority.create("m-test")
    yield context, source
    store.close()


def says(side: Side, text: str) -> None:
    assert side.server is not None
    memory_cloud(side.cloud).consoles[side.server.id] = text


def fails(side: tuple[Context, Side]) -> BlockferryError:
    with pytest.raises(BlockferryError) as caught:
        reach.reach(*side, within_seconds=10.0)
    return caught.value


def test_a_panic_ends_the_wait_and_is_shown(side: tuple[Context, Side]) -> None:
    says(side[1], "Linux version 6\nKernel panic - not syncing: no init found\n")
    error = fails(side)
    assert isinstance(error, PreconditionError)
    assert error.reason == "BOOT_FAILED"
    assert "no init found" in error.message
    assert "--image" in error.message


def test_an_installer_that_gave_up_is_shown(side: tuple[Context, Side]) -> None:
    says(side[1], "blockferry: install failed: there is no space left on its disk\n")
    error = fails(side)
    assert error.reason == "AGENT_INSTALL_FAILED"
    assert "no space left" in error.message


def test_a_ready_instance_that_nobody_reaches_is_told_as_such(
    side: tuple[Context, Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "UNMET_SECONDS", 0.05)
    says(side[1], "blockferry: waits for its controller on 10.0.0.2:7443\n")
    error = fails(side)
    assert error.reason == "AGENT_NEVER_CAME"
    assert "says that it is ready: blockferry: waits" in error.message
    assert "--controller-address" in error.message
    assert "--wheels" not in error.message


def test_a_console_that_stands_still_ends_the_wait(
    side: tuple[Context, Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "STILL_SECONDS", 0.05)
    says(side[1], "Linux version 6\nbooting\n")
    error = fails(side)
    assert error.reason == "AGENT_NEVER_CAME"
    assert "told nothing new" in error.message
    assert error.message.endswith("booting")
