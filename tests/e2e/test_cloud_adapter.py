"""The adapter on real clouds: one volume, group, port and server, there and gone again."""

import uuid
from collections.abc import Iterator

import pytest

from blockferry.errors import NotFoundError
from blockferry.limits import GIB
from blockferry_controller.clouds.deletion import delete
from blockferry_controller.clouds.openstack import connect
from blockferry_controller.clouds.port import (
    Cloud,
    IngressRule,
    ServerRequest,
    Tag,
    VolumeRequest,
)
from blockferry_controller.migration.choose import choose_flavor, choose_image, choose_network
from tests.e2e.conftest import cloud_name

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


@pytest.fixture
def migration_id() -> str:
    return f"e2e-{uuid.uuid4().hex[:8]}"


@pytest.fixture(params=["SOURCE", "DESTINATION"])
def cloud(request: pytest.FixtureRequest, migration_id: str) -> Iterator[Cloud]:
    cloud: Cloud = connect(cloud_name(request.param))
    yield cloud
    for resource in cloud.find_resources(migration_id):
        delete(cloud, resource)
    cloud.close()


def test_a_type_that_is_not_there(cloud: Cloud, migration_id: str) -> None:
    request = VolumeRequest("none", "", GIB, volume_type=f"no-{migration_id}")
    with pytest.raises(NotFoundError, match="There are:"):
        cloud.ensure_volume(Tag(migration_id, "destination-volume"), request)


def test_everything_comes_and_goes(cloud: Cloud, migration_id: str) -> None:
    request = VolumeRequest(
        name=migration_id,
        description="",
        size_bytes=GIB,
        bootable=True,
        image_metadata={"hw_firmware_type": "uefi", "image_id": "foreign", "long": "x" * 300},
    )
    tag = Tag(migration_id, "destination-volume")
    volume = cloud.ensure_volume(tag, request)
    assert cloud.ensure_volume(tag, request) == volume == cloud.find_volume(migration_id)
    assert volume.bootable
    assert volume.image_metadata == {"hw_firmware_type": "uefi"}

    rules = [IngressRule("192.0.2.7/32", 7443), IngressRule("2001:db8::7/128", 7443)]
    group = cloud.ensure_security_group(Tag(migration_id, "source-security-group"), rules)
    assert cloud.ensure_security_group(Tag(migration_id, "source-security-group"), rules) == group
    network = choose_network(cloud.list_networks(), "")
    port = cloud.ensure_port(Tag(migration_id, "source-port"), network.id, group)
    image = choose_image(cloud.list_images(), "", "")
    flavor = choose_flavor(cloud.list_flavors(), image, "")
    boot = ServerRequest(flavor.id, image.id, port.id, b"#cloud-config\n")
    server = cloud.ensure_server(Tag(migration_id, "source-server"), boot)
    assert cloud.ensure_server(Tag(migration_id, "source-server"), boot) == server

    for _ in range(2):
        cloud.attach_volume(server.id, volume.id)
    assert cloud.find_volume(volume.id).attachments[0].server_id == server.id
    for _ in range(2):
        cloud.detach_volume(server.id, volume.id)
    assert cloud.find_volume(volume.id).status == "available"
    assert len(cloud.find_resources(migration_id)) == 4

    cloud.attach_volume(server.id, volume.id)
    for _ in range(2):
        cloud.delete_server(server.id)
    cloud.detach_volume(server.id, volume.id)
    cloud.delete_port(port.id)
    cloud.delete_security_group(group)
    cloud.release_volume(volume.id)
    assert cloud.find_resources(migration_id) == []
    cloud.delete_volume(volume.id)
