"""What the cloud in memory adds to the port: faults, records, hooks."""

import pytest

from blockferry.errors import CapacityError, UnreachableError
from blockferry.limits import GIB
from blockferry_controller.clouds.port import ServerRequest as Request
from blockferry_controller.clouds.port import Tag, VolumeRequest
from tests.fakes.cloud import MemoryCloud, MemoryServer

TAG = Tag("m-1", "destination-volume")
SMALL = VolumeRequest("data", "", GIB)
DOWN = UnreachableError("CLOUD_UNREACHABLE", "down")


def booted(cloud: MemoryCloud) -> str:
    group = cloud.ensure_security_group(Tag("m-1", "group"), [])
    port = cloud.ensure_port(Tag("m-1", "port"), cloud.networks[0].id, group)
    request = Request(cloud.flavors[0].id, cloud.images[0].id, port.id, b"x")
    return cloud.ensure_server(Tag("m-1", "server"), request).id


def test_a_fault_strikes_at_the_nth_call_and_has_no_effect() -> None:
    cloud = MemoryCloud()
    cloud.fail("ensure_volume", DOWN, nth=2)
    cloud.ensure_volume(TAG, SMALL)
    cloud.delete_volume(next(iter(cloud.volumes)))
    with pytest.raises(UnreachableError):
        cloud.ensure_volume(TAG, SMALL)
    assert not cloud.volumes
    cloud.ensure_volume(TAG, SMALL)


def test_a_late_fault_has_taken_effect() -> None:
    cloud = MemoryCloud()
    cloud.fail("ensure_volume", DOWN, late=True)
    with pytest.raises(UnreachableError):
        cloud.ensure_volume(TAG, SMALL)
    assert len(cloud.volumes) == 1


def test_a_fault_may_strike_several_times() -> None:
    cloud = MemoryCloud()
    cloud.fail("quota", DOWN, times=2)
    for _ in range(2):
        with pytest.raises(UnreachableError):
            cloud.quota()
    cloud.quota()


def test_calls_are_recorded_in_order() -> None:
    cloud = MemoryCloud()
    cloud.ensure_volume(TAG, SMALL)
    cloud.find_volume("data")
    assert cloud.calls == [("ensure_volume", TAG, SMALL), ("find_volume", "data")]
    assert cloud.verbs == ["ensure_volume", "find_volume"]


@pytest.mark.parametrize("late", [False, True])
def test_servers_are_told_of_once(late: bool) -> None:
    told: list[tuple[str, MemoryServer]] = []
    cloud = MemoryCloud(
        on_boot=lambda server: told.append(("boot", server)),
        on_stop=lambda server: told.append(("stop", server)),
    )
    if late:
        cloud.fail("ensure_server", DOWN, late=True)
        with pytest.raises(UnreachableError):
            booted(cloud)
    server_id = booted(cloud)
    for _ in range(2):
        cloud.delete_server(server_id)
    assert [what for what, _ in told] == ["boot", "stop"]
    assert told[0][1].request.user_data == b"x"
    assert told[0][1].addresses


def test_quotas_are_kept() -> None:
    cloud = MemoryCloud(quotas={**MemoryCloud().quotas, "cores": 0})
    with pytest.raises(CapacityError) as caught:
        booted(cloud)
    assert caught.value.reason == "QUOTA_CORES"
