"""What every Cloud must do: the promises of the port, on the fake and on OpenStack.

One suite over all: what flows are tested against in memory is what they meet
on a cloud. The OpenStack side is the adapter over an embedded cloud, real HTTP,
and with `make e2e` over a real one, whose quotas and stock are not ours to change.
"""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from blockferry.errors import (
    BlockferryError,
    CapacityError,
    NotFoundError,
    PreconditionError,
    UsageError,
)
from blockferry.limits import GIB
from blockferry_controller.clouds.deletion import delete
from blockferry_controller.clouds.openstack import connect
from blockferry_controller.clouds.port import (
    MIGRATION_KEY,
    OF_INSTANCES,
    RESOURCE_KEY,
    Cloud,
    IngressRule,
    Port,
    Resource,
    ResourceKind,
    Server,
    ServerRequest,
    Tag,
    VolumeRequest,
    VolumeType,
)
from tests.e2e.conftest import cloud_name
from tests.e2e.pair import TenantCloud
from tests.fakes.cloud import MemoryCloud
from tests.sim import EmbeddedCloud, Timings

SMALL = VolumeRequest(name="data", description="", size_bytes=GIB)
QUICK = Timings(0.01, 0.01, 0.02, 0.02, 0.01, 0.01)


class RealCloud:
    """The destination of tests/e2e; only what this test made is touched."""

    def __init__(self) -> None:
        self._tenant = TenantCloud(cloud_name("DESTINATION"))
        self._volumes: list[str] = []
        self.cloud = connect(self._tenant.name)

    def make_volume(self, name: str) -> str:
        """A volume of 1 GiB of the user's."""
        self._volumes.append(self._tenant.make_volume(1, name=name))
        return self._volumes[-1]

    def clean(self, migration_id: str) -> None:
        """Delete what the test left, all that carries its id too."""
        _clean(self.cloud, migration_id)
        for volume_id in self._volumes:
            self._tenant.delete_volume(volume_id)
        self.cloud.close()


@dataclass
class Stage:
    """A cloud, and what a test does to it behind the port's back."""

    cloud: Cloud
    limits: Any
    behind: MemoryCloud | EmbeddedCloud | RealCloud

    @property
    def quotas(self) -> Any:
        """Limits by name, to be changed; skips where they are not ours."""
        self.knows_its_stock()
        return self.limits

    def knows_its_stock(self) -> None:
        """Skip on a cloud whose types, images and limits are what somebody made them."""
        if isinstance(self.behind, RealCloud):
            pytest.skip("a real cloud has its own stock and limits")

    def add_volume(self, name: str) -> str:
        """A volume of 1 GiB of the user's."""
        if isinstance(self.behind, MemoryCloud):
            return self.behind.add_volume(name).id
        return self.behind.make_volume(name)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedCloud]:
    directory: Path = tmp_path_factory.mktemp("clouds")
    with EmbeddedCloud("contract", directory, timings=QUICK) as cloud:
        cloud.faults.no_boot(times=None)
        both = cloud.neutron.add_network("both", "127.0.0.0/24")
        cloud.neutron.add_subnet(both, "fd00:6::/64")
        cloud.neutron.add_subnet(both, "fd00:7::/64", service_types=["network:router_gateway"])
        slaac = cloud.neutron.add_network("slaac", "127.0.0.0/24")
        cloud.neutron.add_subnet(slaac, "fd00:8::/64", ipv6_address_mode="slaac")
        cloud.neutron.add_network("narrow", "127.0.0.0/24", "fd00:4::/126", "fd00:5::/126")
        yield cloud
        assert cloud.problems == []


REAL = pytest.param("real", marks=[pytest.mark.e2e, pytest.mark.timeout(600)])


@pytest.fixture(params=["memory", "openstack", REAL])
def stage(
    request: pytest.FixtureRequest, tag: Tag, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stage]:
    if request.param == "memory":
        memory = MemoryCloud()
        memory.quotas = dict(memory.quotas)
        yield Stage(memory, memory.quotas, memory)
        return
    if request.param == "real":
        real = RealCloud()
        try:
            yield Stage(real.cloud, {}, real)
        finally:
            real.clean(tag.migration_id)
        return
    embedded: EmbeddedCloud = request.getfixturevalue("embedded")
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(embedded.clouds_yaml))
    cloud = connect("contract")
    before = dict(embedded.quotas)
    try:
        yield Stage(cloud, embedded.quotas, embedded)
    finally:
        embedded.quotas |= before
        _clean(cloud)
        cloud.close()


def _clean(cloud: Cloud, prefix: str = "") -> None:
    """Delete in the order that find_resources promises to be right."""
    for resource in _of(cloud, prefix):
        delete(cloud, resource)


def _of(cloud: Cloud, prefix: str) -> list[Resource]:
    """What migrations have whose ids begin so: others may be at work on a real cloud."""
    found = cloud.find_resources()
    return [one for one in found if one.tag.migration_id.startswith(prefix)]


@pytest.fixture
def tag() -> Tag:
    return Tag(f"m-{uuid.uuid4().hex[:8]}", "destination-volume")


def boot(cloud: Cloud, migration_id: str, side: str = "source") -> Server:
    """Group, port and server of one side."""
    group = cloud.ensure_security_group(Tag(migration_id, f"{side}-security-group"), [])
    network = next(one for one in cloud.list_networks() if not one.external)
    port = cloud.ensure_port(Tag(migration_id, f"{side}-port"), network.id, group)
    return cloud.ensure_server(Tag(migration_id, f"{side}-server"), server_request(cloud, port.id))


def server_request(cloud: Cloud, port_id: str, user_data: bytes = b"#cloud-config\n") -> Any:
    flavor = min(cloud.list_flavors(), key=lambda one: one.ram_bytes)
    image = cloud.list_images()[0]
    return ServerRequest(flavor.id, image.id, port_id, user_data)


def kinds(resources: Any) -> list[ResourceKind]:
    return [resource.kind for resource in resources]


# Volumes.


def test_a_volume_is_found_by_id_and_by_name(stage: Stage, tag: Tag) -> None:
    volume_id = stage.add_volume(f"by-name-{tag.migration_id}")
    by_id = stage.cloud.find_volume(volume_id)
    assert stage.cloud.find_volume(f"by-name-{tag.migration_id}") == by_id
    assert (by_id.size_bytes, by_id.status, by_id.attachments) == (GIB, "available", ())


def test_all_volumes_are_listed_as_each_is_found(stage: Stage, tag: Tag) -> None:
    added = stage.add_volume(f"listed-{tag.migration_id}")
    made = stage.cloud.ensure_volume(tag, SMALL)
    listed = {volume.id: volume for volume in stage.cloud.list_volumes()}
    assert listed[added] == stage.cloud.find_volume(added)
    assert listed[made.id].metadata[MIGRATION_KEY] == tag.migration_id
    stage.cloud.delete_volume(added)
    assert added not in {volume.id for volume in stage.cloud.list_volumes()}


@pytest.mark.parametrize(
    "reference", ["no-such-volume", "00000000-0000-4000-8000-000000000000", "a/b ?#ü"]
)
def test_no_such_volume(stage: Stage, reference: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        stage.cloud.find_volume(reference)
    assert caught.value.reason == "VOLUME_NOT_FOUND"
    assert reference in caught.value.message


def test_an_ambiguous_name_is_refused_with_the_ids(stage: Stage, tag: Tag) -> None:
    ids = [stage.add_volume(f"twin-{tag.migration_id}") for _ in range(2)]
    with pytest.raises(PreconditionError) as caught:
        stage.cloud.find_volume(f"twin-{tag.migration_id}")
    assert caught.value.reason == "VOLUME_AMBIGUOUS"
    assert all(one in caught.value.message for one in ids)


def test_a_volume_is_made_once(stage: Stage, tag: Tag) -> None:
    first = stage.cloud.ensure_volume(tag, SMALL)
    again = stage.cloud.ensure_volume(tag, SMALL)
    assert first.id == again.id
    assert (again.status, again.name, again.size_bytes) == ("available", "data", GIB)
    assert again.metadata[MIGRATION_KEY] == tag.migration_id
    assert again.metadata[RESOURCE_KEY] == tag.resource


def test_a_volume_has_what_was_asked_for(stage: Stage, tag: Tag) -> None:
    kind = next(one.name for one in stage.cloud.list_volume_types() if not one.default)
    (zone, *_) = stage.cloud.list_volume_zones()
    request = VolumeRequest(
        name="boot",
        description="of a machine",
        size_bytes=GIB + 1,
        volume_type=kind,
        availability_zone=zone,
        bootable=True,
        metadata={"owner": "me"},
        image_metadata={"hw_firmware_type": "uefi", "os_distro": "debian"},
    )
    volume = stage.cloud.ensure_volume(tag, request)
    assert volume.size_bytes == 2 * GIB
    assert (volume.volume_type, volume.availability_zone) == (kind, zone)
    assert (volume.description, volume.bootable, volume.metadata["owner"]) == (
        "of a machine",
        True,
        "me",
    )
    assert volume.image_metadata["hw_firmware_type"] == "uefi"


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (VolumeRequest("n", "", GIB, volume_type="gone"), "VOLUME_TYPE_NOT_FOUND"),
        (VolumeRequest("n", "", GIB, availability_zone="gone"), "AVAILABILITY_ZONE_NOT_FOUND"),
    ],
    ids=["type", "zone"],
)
def test_a_type_or_zone_that_is_not_there(
    stage: Stage, tag: Tag, request_: VolumeRequest, reason: str
) -> None:
    with pytest.raises(NotFoundError) as caught:
        stage.cloud.ensure_volume(tag, request_)
    assert caught.value.reason == reason
    there = [*stage.cloud.list_volume_zones()]
    there += [one.name for one in stage.cloud.list_volume_types()]
    assert any(name in caught.value.message for name in there)
    assert not stage.cloud.find_resources(tag.migration_id)


@pytest.mark.parametrize("resource", ["volumes", "gigabytes"])
def test_a_quota_of_volumes_is_named(stage: Stage, tag: Tag, resource: str) -> None:
    stage.quotas[resource] = 0
    with pytest.raises(CapacityError) as caught:
        stage.cloud.ensure_volume(tag, SMALL)
    assert caught.value.reason == f"QUOTA_{resource.upper()}"
    assert not stage.cloud.find_resources(tag.migration_id)


def test_a_released_volume_is_the_users_and_stays(stage: Stage, tag: Tag) -> None:
    volume = stage.cloud.ensure_volume(tag, SMALL)
    stage.cloud.release_volume(volume.id)
    stage.cloud.release_volume(volume.id)
    assert not stage.cloud.find_resources(tag.migration_id)
    assert not {MIGRATION_KEY, RESOURCE_KEY} & set(stage.cloud.find_volume(volume.id).metadata)
    stage.cloud.delete_volume(volume.id)


def test_deletion_of_a_volume_is_complete_and_repeatable(stage: Stage, tag: Tag) -> None:
    volume = stage.cloud.ensure_volume(tag, SMALL)
    stage.cloud.delete_volume(volume.id)
    with pytest.raises(NotFoundError):
        stage.cloud.find_volume(volume.id)
    stage.cloud.delete_volume(volume.id)
    stage.cloud.delete_volume(str(uuid.uuid4()))


# Network.


def test_port_and_group_are_made_once(stage: Stage, tag: Tag) -> None:
    group_tag, port_tag = Tag(tag.migration_id, "group"), Tag(tag.migration_id, "port")
    group = stage.cloud.ensure_security_group(group_tag, [])
    assert stage.cloud.ensure_security_group(group_tag, [IngressRule("10.0.0.7/32", 1)]) == group
    network = next(one for one in stage.cloud.list_networks() if not one.external)
    port = stage.cloud.ensure_port(port_tag, network.id, group)
    assert port.addresses
    assert stage.cloud.ensure_port(port_tag, network.id, group) == port


@pytest.mark.parametrize("ip_version", [4, 6])
def test_a_port_has_addresses_of_the_family_asked_for(
    stage: Stage, tag: Tag, ip_version: int
) -> None:
    group = stage.cloud.ensure_security_group(Tag(tag.migration_id, "group"), [])
    networks = [one for one in stage.cloud.list_networks() if one.ip_versions == {4, 6}]
    if not networks:
        pytest.skip("this cloud has no network with both families")
    for network in networks:
        own = Tag(tag.migration_id, f"{network.name}-port")
        port = stage.cloud.ensure_port(own, network.id, group, ip_version)
        assert port.addresses
        assert {ip_address(one).version for one in port.addresses} == {ip_version}
        assert stage.cloud.ensure_port(own, network.id, group, ip_version) == port


def test_a_port_has_addresses_of_all_families_else(stage: Stage, tag: Tag) -> None:
    group = stage.cloud.ensure_security_group(Tag(tag.migration_id, "group"), [])
    both = next((one for one in stage.cloud.list_networks() if one.ip_versions == {4, 6}), None)
    if both is None:
        pytest.skip("this cloud has no network with both families")
    port = stage.cloud.ensure_port(Tag(tag.migration_id, "port"), both.id, group)
    assert [ip_address(one).version for one in port.addresses] == [6, 4]


def test_a_network_without_the_family_gives_no_port(stage: Stage, tag: Tag) -> None:
    stage.knows_its_stock()
    if isinstance(stage.behind, MemoryCloud):
        stage.behind.networks = [replace(stage.behind.networks[0], ip_versions=frozenset({4}))]
    group = stage.cloud.ensure_security_group(Tag(tag.migration_id, "group"), [])
    old = next(one for one in stage.cloud.list_networks() if one.ip_versions == {4})
    with pytest.raises(PreconditionError) as caught:
        stage.cloud.ensure_port(Tag(tag.migration_id, "port"), old.id, group, 6)
    assert caught.value.reason == "PORT_WITHOUT_ADDRESS"
    assert kinds(stage.cloud.find_resources(tag.migration_id)) == [ResourceKind.SECURITY_GROUP]


def test_a_full_subnet_gives_way_to_the_next_of_its_family(stage: Stage, tag: Tag) -> None:
    if not isinstance(stage.behind, EmbeddedCloud):
        pytest.skip("only there a subnet is small")
    group = stage.cloud.ensure_security_group(Tag(tag.migration_id, "group"), [])
    narrow = next(one for one in stage.cloud.list_networks() if one.name == "narrow")
    ports = [
        stage.cloud.ensure_port(Tag(tag.migration_id, f"{n}-port"), narrow.id, group, 6)
        for n in range(2)
    ]
    assert {one.addresses[0] for one in ports} == {"fd00:4::2", "fd00:5::2"}
    with pytest.raises(CapacityError) as caught:
        stage.cloud.ensure_port(Tag(tag.migration_id, "port"), narrow.id, group, 6)
    assert caught.value.reason == "NO_ADDRESS_LEFT"


def port_of(stage: Stage, tag: Tag, network_name: str = "") -> Port:
    """A port on a network of the project that a router joins to the outside."""
    group = stage.cloud.ensure_security_group(Tag(tag.migration_id, "source-security-group"), [])
    inner = [one for one in stage.cloud.list_networks() if not one.external]
    wanted = {network_name} if network_name else {"own", "private"}
    network = next((one for one in inner if one.name in wanted), inner[0])
    return stage.cloud.ensure_port(Tag(tag.migration_id, "source-port"), network.id, group)


def external(stage: Stage) -> str:
    """Id of a network that floating IPs are of."""
    found = next((one.id for one in stage.cloud.list_networks() if one.external), None)
    if found is None:
        pytest.skip("this cloud has no external network")
    return found


def test_a_floating_ip_is_made_once_and_goes(stage: Stage, tag: Tag) -> None:
    network_id, port = external(stage), port_of(stage, tag)
    own = Tag(tag.migration_id, "source-floating-ip")
    made = stage.cloud.ensure_floating_ip(own, port, network_id)
    assert ip_address(made.address).version == 4
    assert made.address not in port.addresses
    assert stage.cloud.ensure_floating_ip(own, port, network_id) == made
    found = stage.cloud.find_resources(tag.migration_id)
    assert kinds(found) == [
        ResourceKind.FLOATING_IP,
        ResourceKind.PORT,
        ResourceKind.SECURITY_GROUP,
    ]
    assert found[0] == Resource(ResourceKind.FLOATING_IP, made.id, made.address, own)
    for _ in range(2):
        stage.cloud.delete_floating_ip(made.id)
    assert ResourceKind.FLOATING_IP not in kinds(stage.cloud.find_resources(tag.migration_id))


def test_a_floating_ip_outlives_its_port_and_is_tied_to_the_next(stage: Stage, tag: Tag) -> None:
    network_id, port = external(stage), port_of(stage, tag)
    own = Tag(tag.migration_id, "source-floating-ip")
    made = stage.cloud.ensure_floating_ip(own, port, network_id)
    stage.cloud.delete_port(port.id)
    assert made.id in {one.id for one in stage.cloud.find_resources(tag.migration_id)}
    assert stage.cloud.ensure_floating_ip(own, port_of(stage, tag), network_id) == made


def test_floating_ips_have_a_quota(stage: Stage, tag: Tag) -> None:
    network_id, port = external(stage), port_of(stage, tag)
    left = stage.cloud.quota().left["floating_ips"]
    own = Tag(tag.migration_id, "source-floating-ip")
    stage.cloud.ensure_floating_ip(own, port, network_id)
    assert left is not None
    assert stage.cloud.quota().left["floating_ips"] == left - 1
    stage.quotas["floating_ips" if isinstance(stage.behind, MemoryCloud) else "floatingip"] = 1
    other = Tag(tag.migration_id, "destination-floating-ip")
    with pytest.raises(CapacityError) as caught:
        stage.cloud.ensure_floating_ip(other, port, network_id)
    assert caught.value.reason == "QUOTA_FLOATING_IPS"


def test_without_a_router_there_is_no_floating_ip(stage: Stage, tag: Tag) -> None:
    stage.knows_its_stock()
    if isinstance(stage.behind, MemoryCloud):
        stage.behind.routed = False
    apart = "" if isinstance(stage.behind, MemoryCloud) else "both"
    with pytest.raises(PreconditionError) as caught:
        stage.cloud.ensure_floating_ip(tag, port_of(stage, tag, apart), external(stage))
    assert caught.value.reason == "FLOATING_IP_UNROUTED"
    assert ResourceKind.FLOATING_IP not in kinds(stage.cloud.find_resources(tag.migration_id))


def test_a_port_without_ipv4_has_no_floating_ip(stage: Stage, tag: Tag) -> None:
    port = Port(str(uuid.uuid4()), ("fd00::7",))
    with pytest.raises(PreconditionError) as caught:
        stage.cloud.ensure_floating_ip(tag, port, external(stage))
    assert caught.value.reason == "FLOATING_IP_NEEDS_IPV4"


def test_a_router_says_what_it_hides_servers_behind(stage: Stage) -> None:
    stage.knows_its_stock()
    assert not isinstance(stage.behind, RealCloud)
    networks = {one.name: one.id for one in stage.cloud.list_networks()}
    if isinstance(stage.behind, MemoryCloud):
        stage.behind.outward = ("203.0.113.1",)
        assert list(stage.cloud.outward_addresses(networks["own"])) == ["203.0.113.1"]
        return
    gateway = stage.behind.neutron.router["external_gateway_info"]
    address = gateway["external_fixed_ips"][0]["ip_address"]
    assert list(stage.cloud.outward_addresses(networks["private"])) == [address]
    assert not stage.cloud.outward_addresses(networks["both"])
    gateway["enable_snat"] = False
    try:
        assert not stage.cloud.outward_addresses(networks["private"])
    finally:
        gateway["enable_snat"] = True


def test_a_group_in_use_is_not_deleted_and_then_is(stage: Stage, tag: Tag) -> None:
    group = stage.cloud.ensure_security_group(Tag(tag.migration_id, "group"), [])
    network = next(one for one in stage.cloud.list_networks() if not one.external)
    port = stage.cloud.ensure_port(Tag(tag.migration_id, "port"), network.id, group)
    for _ in range(2):
        stage.cloud.delete_port(port.id)
    for _ in range(2):
        stage.cloud.delete_security_group(group)
    assert not stage.cloud.find_resources(tag.migration_id)


def test_a_quota_of_ports_is_named(stage: Stage, tag: Tag) -> None:
    group = stage.cloud.ensure_security_group(Tag(tag.migration_id, "group"), [])
    network = next(one for one in stage.cloud.list_networks() if not one.external)
    stage.quotas["ports" if isinstance(stage.behind, MemoryCloud) else "port"] = 0
    with pytest.raises(CapacityError) as caught:
        stage.cloud.ensure_port(Tag(tag.migration_id, "port"), network.id, group)
    assert caught.value.reason == "QUOTA_PORTS"


# Servers and attachments.


def test_a_server_is_made_once_and_goes(stage: Stage, tag: Tag) -> None:
    server = boot(stage.cloud, tag.migration_id)
    assert server.status == "ACTIVE"
    assert boot(stage.cloud, tag.migration_id).id == server.id
    for _ in range(2):
        stage.cloud.delete_server(server.id)
    assert kinds(stage.cloud.find_resources(tag.migration_id)) == [
        ResourceKind.PORT,
        ResourceKind.SECURITY_GROUP,
    ]


def test_user_data_that_is_too_large_is_refused(stage: Stage, tag: Tag) -> None:
    with pytest.raises(UsageError) as caught:
        stage.cloud.ensure_server(tag, ServerRequest("f", "i", "p", bytes(49_152)))
    assert caught.value.reason == "USER_DATA_TOO_LARGE"


def test_user_data_that_just_fits_is_taken(stage: Stage, tag: Tag) -> None:
    group = stage.cloud.ensure_security_group(Tag(tag.migration_id, "group"), [])
    network = next(one for one in stage.cloud.list_networks() if not one.external)
    port = stage.cloud.ensure_port(Tag(tag.migration_id, "port"), network.id, group)
    request = server_request(stage.cloud, port.id, b"#" * 49_149)
    assert stage.cloud.ensure_server(tag, request).status == "ACTIVE"


def test_a_quota_of_servers_is_named(stage: Stage, tag: Tag) -> None:
    stage.quotas["instances"] = 0
    with pytest.raises(CapacityError) as caught:
        boot(stage.cloud, tag.migration_id)
    assert caught.value.reason == "QUOTA_INSTANCES"


def test_the_console_of_nobody_is_empty(stage: Stage) -> None:
    assert stage.cloud.console_log(str(uuid.uuid4()), 10) == ""


def test_attach_and_detach_may_be_repeated(stage: Stage, tag: Tag) -> None:
    server = boot(stage.cloud, tag.migration_id)
    volume = stage.cloud.ensure_volume(tag, SMALL)
    for _ in range(2):
        stage.cloud.attach_volume(server.id, volume.id)
        seen = stage.cloud.find_volume(volume.id)
        assert seen.status == "in-use"
        assert [tie.server_id for tie in seen.attachments] == [server.id]
    assert stage.cloud.ensure_volume(tag, SMALL).id == volume.id
    for _ in range(2):
        stage.cloud.detach_volume(server.id, volume.id)
        assert stage.cloud.find_volume(volume.id).status == "available"


def test_a_volume_attached_elsewhere_is_left_alone(stage: Stage, tag: Tag) -> None:
    one, other = (boot(stage.cloud, tag.migration_id, side) for side in ("source", "sink"))
    volume = stage.cloud.ensure_volume(tag, SMALL)
    stage.cloud.attach_volume(one.id, volume.id)
    with pytest.raises(PreconditionError) as caught:
        stage.cloud.attach_volume(other.id, volume.id)
    assert caught.value.reason == "VOLUME_ATTACHED"
    stage.cloud.detach_volume(other.id, volume.id)
    assert stage.cloud.find_volume(volume.id).status == "in-use"


def test_what_is_gone_is_detached(stage: Stage, tag: Tag) -> None:
    volume = stage.cloud.ensure_volume(tag, SMALL)
    stage.cloud.detach_volume(str(uuid.uuid4()), volume.id)
    stage.cloud.detach_volume(str(uuid.uuid4()), str(uuid.uuid4()))
    server = boot(stage.cloud, tag.migration_id)
    stage.cloud.attach_volume(server.id, volume.id)
    stage.cloud.delete_server(server.id)
    stage.cloud.detach_volume(server.id, volume.id)
    assert stage.cloud.find_volume(volume.id).status == "available"


@pytest.mark.parametrize("missing", ["server", "volume"])
def test_attaching_what_is_not_there(stage: Stage, tag: Tag, missing: str) -> None:
    nobody = str(uuid.uuid4())
    server_id = nobody if missing == "server" else boot(stage.cloud, tag.migration_id).id
    volume_id = nobody if missing == "volume" else stage.cloud.ensure_volume(tag, SMALL).id
    with pytest.raises(NotFoundError) as caught:
        stage.cloud.attach_volume(server_id, volume_id)
    assert caught.value.reason == f"{missing.upper()}_NOT_FOUND"


# All of it.


def test_everything_of_ours_is_found_in_order_of_deletion(stage: Stage, tag: Tag) -> None:
    server = boot(stage.cloud, tag.migration_id)
    volume = stage.cloud.ensure_volume(tag, SMALL)
    stage.add_volume("somebody-else's")
    found = stage.cloud.find_resources(tag.migration_id)
    assert kinds(found) == [
        ResourceKind.SERVER,
        ResourceKind.PORT,
        ResourceKind.SECURITY_GROUP,
        ResourceKind.VOLUME,
    ]
    assert found[0] == Resource(
        ResourceKind.SERVER, server.id, server.name, Tag(tag.migration_id, "source-server")
    )
    assert (found[3].id, found[3].tag) == (volume.id, tag)
    assert {one.tag.resource for one in found[1:3]} == {"source-port", "source-security-group"}


def test_only_the_kinds_asked_for_are_found(stage: Stage, tag: Tag) -> None:
    server, volume = boot(stage.cloud, tag.migration_id), stage.cloud.ensure_volume(tag, SMALL)
    for kind, own in ((ResourceKind.SERVER, server.id), (ResourceKind.VOLUME, volume.id)):
        assert [one.id for one in stage.cloud.find_resources(tag.migration_id, {kind})] == [own]
    assert kinds(stage.cloud.find_resources(tag.migration_id, OF_INSTANCES)) == [
        ResourceKind.SERVER,
        ResourceKind.PORT,
        ResourceKind.SECURITY_GROUP,
    ]
    assert stage.cloud.find_resources(tag.migration_id, ()) == []


def test_migrations_do_not_see_each_other(stage: Stage, tag: Tag) -> None:
    longer = Tag(f"{tag.migration_id}-x", tag.resource)
    ids = {one: stage.cloud.ensure_volume(one, SMALL).id for one in (tag, longer)}
    groups = {
        one: stage.cloud.ensure_security_group(Tag(one.migration_id, "group"), [])
        for one in (tag, longer)
    }
    for one in (tag, longer):
        found = stage.cloud.find_resources(one.migration_id)
        assert [resource.id for resource in found] == [groups[one], ids[one]]
    every = {resource.id for resource in _of(stage.cloud, tag.migration_id)}
    assert every == {*ids.values(), *groups.values()}


def test_quota_falls_with_what_is_made(stage: Stage, tag: Tag) -> None:
    before = stage.cloud.quota().left
    boot(stage.cloud, tag.migration_id)
    stage.cloud.ensure_volume(tag, SMALL)
    after = stage.cloud.quota().left
    fell = {key: (before[key] or 0) - (after[key] or 0) for key in before}
    assert fell["ram_bytes"] == min(one.ram_bytes for one in stage.cloud.list_flavors())
    assert {key: fell[key] for key in fell if key not in {"ram_bytes", "security_group_rules"}} == {
        "instances": 1,
        "cores": 1,
        "volumes": 1,
        "gigabytes": 1,
        "ports": 1,
        "security_groups": 1,
        "floating_ips": 0,
    }


@pytest.mark.parametrize("name", ["cores", "gigabytes", "volumes", "ports", "floating_ips"])
def test_a_quota_that_is_asked_for_is_told(stage: Stage, name: str) -> None:
    assert stage.cloud.quota([name]).left[name] == stage.cloud.quota().left[name]


def test_a_quota_of_one_volume_type_is_told_and_named(stage: Stage, tag: Tag) -> None:
    assert "gigabytes_fast" not in stage.cloud.quota().left
    stage.quotas["gigabytes_fast"] = 2
    stage.cloud.ensure_volume(tag, replace(SMALL, volume_type="fast"))
    assert stage.cloud.quota().left["gigabytes_fast"] == 1
    stage.quotas["gigabytes_fast"] = 1
    other = Tag(tag.migration_id, "other-volume")
    with pytest.raises(CapacityError) as caught:
        stage.cloud.ensure_volume(other, replace(SMALL, volume_type="fast"))
    assert caught.value.reason.startswith("QUOTA_GIGABYTES")


def test_types_and_zones_of_volumes(stage: Stage) -> None:
    stage.knows_its_stock()
    kinds = stage.cloud.list_volume_types()
    found = [(one.name, one.default) for one in kinds if one.name != "__DEFAULT__"]
    assert found == [("standard", True), ("fast", False)]
    assert stage.cloud.list_volume_zones() in (["nova"], ("nova",))


def test_a_type_says_what_its_volumes_are(stage: Stage, tag: Tag) -> None:
    stage.knows_its_stock()
    assert not isinstance(stage.behind, RealCloud)
    if isinstance(stage.behind, MemoryCloud):
        stage.behind.kinds["fast"] = VolumeType("fast", "fast", encrypted=True, multiattach=True)
    else:
        stage.behind.cinder.encrypted_types.add("fast")
        stage.behind.cinder.multiattach_types.add("fast")
    try:
        fast = next(one for one in stage.cloud.list_volume_types() if one.name == "fast")
        volume = stage.cloud.ensure_volume(tag, replace(SMALL, volume_type="fast"))
    finally:
        if isinstance(stage.behind, EmbeddedCloud):
            stage.behind.cinder.encrypted_types.clear()
            stage.behind.cinder.multiattach_types.clear()
    assert fast.multiattach is True
    assert fast.encrypted is not False
    assert (volume.encrypted, volume.multiattach) == (True, True)
    # Nova takes such a volume from microversion 2.60 on only.
    server = boot(stage.cloud, tag.migration_id)
    stage.cloud.attach_volume(server.id, volume.id)
    assert stage.cloud.find_volume(volume.id).status == "in-use"


def test_a_volume_becomes_read_only(stage: Stage, tag: Tag) -> None:
    volume = stage.cloud.ensure_volume(tag, SMALL)
    assert not volume.read_only
    for _ in range(2):
        stage.cloud.set_read_only(volume.id)
    assert stage.cloud.find_volume(volume.id).read_only


def test_every_service_is_asked(stage: Stage) -> None:
    access = stage.cloud.access()
    assert "member" in access.roles
    assert not access.refusals
    assert access.clock_ahead_seconds is not None
    assert abs(access.clock_ahead_seconds) < 5


def test_what_there_is_to_choose_from(stage: Stage) -> None:
    assert all(one.ram_bytes > 0 and one.vcpus > 0 for one in stage.cloud.list_flavors())
    assert any(one.ip_versions for one in stage.cloud.list_networks())
    stage.knows_its_stock()
    debian = next(one for one in stage.cloud.list_images() if one.name == "debian-12")
    assert debian.status == "active"
    assert debian.properties["os_distro"] == "debian"
    assert debian.min_disk_bytes == 2 * GIB


def test_threads_share_one_cloud(stage: Stage, tag: Tag) -> None:
    tags = [Tag(f"{tag.migration_id}-{n}", "destination-volume") for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda one: stage.cloud.ensure_volume(one, SMALL), tags))
        list(pool.map(lambda volume: stage.cloud.delete_volume(volume.id), made))
    assert len({volume.id for volume in made}) == 4
    assert not _of(stage.cloud, tag.migration_id)


def test_errors_are_ours(stage: Stage) -> None:
    with pytest.raises(BlockferryError):
        stage.cloud.ensure_port(Tag("m-1", "port"), str(uuid.uuid4()), str(uuid.uuid4()))


def test_close_may_be_repeated(stage: Stage) -> None:
    stage.cloud.close()
    stage.cloud.close()
    if isinstance(stage.behind, EmbeddedCloud):
        stage.cloud = connect("contract")
