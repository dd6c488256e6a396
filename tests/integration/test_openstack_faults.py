"""The adapter on a cloud that misbehaves: lost answers, outages, refusals, stuck states."""

import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from msgspec.structs import replace

from blockferry.errors import (
    AuthenticationError,
    BlockferryError,
    CapacityError,
    DeadlineError,
    ForbiddenError,
    NotFoundError,
    PreconditionError,
    UnreachableError,
    UsageError,
)
from blockferry.limits import GIB
from blockferry_controller.clouds.openstack import connect
from blockferry_controller.clouds.openstack import session as session_module
from blockferry_controller.clouds.openstack.cloud import OpenStackCloud
from blockferry_controller.clouds.openstack.session import open_session
from blockferry_controller.clouds.openstack.waiting import Patience
from blockferry_controller.clouds.port import (
    IngressRule,
    Port,
    Server,
    ServerRequest,
    Tag,
    VolumeRequest,
)
from tests.sim import EmbeddedCloud, Timings, flavor
from tests.sim.guest.programs import make_programs

USER_DATA = b"#cloud-config\nhostname: here\n"
SMALL = VolumeRequest("data", "", GIB)
QUICK = Timings(0.01, 0.01, 0.02, 0.02, 0.01, 0.01)
FLAVORS = (flavor("m1.nano", 1, 512, 3), flavor("c1.nano", 1, 512, 0))


class HastyClock:
    """Goes a thousand times too fast: minutes of patience pass in a moment."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)
        time.sleep(min(seconds, 5.0) / 1000)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedCloud]:
    directory: Path = tmp_path_factory.mktemp("clouds")
    with EmbeddedCloud("faulty", directory, timings=QUICK, flavors=FLAVORS) as cloud:
        # The first guest's boot would make them, which takes longer than a hasty clock waits.
        make_programs(cloud.directory / "programs")
        yield cloud
        assert cloud.problems == []


@pytest.fixture(autouse=True)
def no_fault_stays(embedded: EmbeddedCloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(embedded.clouds_yaml))
    embedded.faults.clear()
    embedded.faults.no_boot(times=None)
    embedded.requests.clear()
    yield
    embedded.faults.clear()


@pytest.fixture
def clock() -> HastyClock:
    return HastyClock()


@pytest.fixture
def cloud(embedded: EmbeddedCloud, clock: HastyClock) -> Iterator[OpenStackCloud]:
    adapter = OpenStackCloud(open_session("faulty"), Patience(clock))
    yield adapter
    embedded.faults.clear()
    for resource in adapter.find_resources():
        if resource.kind.value == "server":
            adapter.delete_server(resource.id)
    for volume in list(embedded.cinder.volumes.values()):
        embedded.cinder.states.unreserve(volume)
        adapter.delete_volume(volume.id)
    for resource in adapter.find_resources():
        delete = adapter.delete_port if resource.kind.value == "port" else None
        (delete or adapter.delete_security_group)(resource.id)
    adapter.close()


@pytest.fixture
def tag() -> Tag:
    return Tag(f"m-{uuid.uuid4().hex[:8]}", "source-server")


def make_port(cloud: OpenStackCloud, tag: Tag) -> Port:
    group = cloud.ensure_security_group(Tag(tag.migration_id, "security-group"), [])
    network = next(one for one in cloud.list_networks() if not one.external)
    return cloud.ensure_port(Tag(tag.migration_id, "port"), network.id, group)


def boot(cloud: OpenStackCloud, tag: Tag, flavor_name: str = "m1.nano") -> Server:
    port = make_port(cloud, tag)
    chosen = next(one for one in cloud.list_flavors() if one.name == flavor_name)
    image = cloud.list_images()[0]
    return cloud.ensure_server(tag, ServerRequest(chosen.id, image.id, port.id, USER_DATA))


def asked(embedded: EmbeddedCloud, method: str, ending: str) -> int:
    """How often the cloud answered a request of that kind."""
    return sum(verb == method and path.endswith(ending) for _, verb, path, _ in embedded.requests)


# Answers that are lost: what was made is found again.


@pytest.mark.parametrize("resource", ["volumes", "servers", "ports", "security-groups"])
def test_a_lost_answer_makes_nothing_twice(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag, resource: str
) -> None:
    embedded.faults.lose_response("POST", rf"/{resource}$")
    boot(cloud, tag)
    cloud.ensure_volume(tag, SMALL)
    assert [one.kind.value for one in cloud.find_resources(tag.migration_id)] == [
        "server",
        "port",
        "security group",
        "volume",
    ]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", r"/security-group-rules$"),
        ("DELETE", r"/security-group-rules/"),
        ("PUT", r"/tags/"),
        ("POST", r"/os-volume_attachments$"),
        ("DELETE", r"/os-volume_attachments/"),
        ("DELETE", r"/servers/"),
        ("DELETE", r"/volumes/"),
        ("DELETE", r"/ports/"),
        ("DELETE", r"/security-groups/"),
    ],
    ids=lambda value: value.strip("/$"),
)
def test_a_lost_answer_to_anything_else_is_harmless(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag, method: str, path: str
) -> None:
    embedded.faults.lose_response(method, path)
    group = cloud.ensure_security_group(
        Tag(tag.migration_id, "security-group"), [IngressRule("10.0.0.7/32", 7443)]
    )
    port = make_port(cloud, tag)
    server = boot(cloud, tag)
    volume = cloud.ensure_volume(tag, SMALL)
    cloud.attach_volume(server.id, volume.id)
    cloud.detach_volume(server.id, volume.id)
    cloud.delete_server(server.id)
    cloud.delete_port(port.id)
    cloud.delete_security_group(group)
    cloud.delete_volume(volume.id)
    assert not cloud.find_resources(tag.migration_id)


# Outages.


def test_an_outage_is_sat_out(embedded: EmbeddedCloud, cloud: OpenStackCloud) -> None:
    volume_id = embedded.make_volume("there")
    embedded.faults.fail("GET", r"/volumes/", status=500, times=3)
    embedded.faults.drop("GET", r"/volumes/", times=2)
    assert cloud.find_volume(volume_id).id == volume_id


def test_an_outage_that_does_not_end(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, clock: HastyClock
) -> None:
    embedded.faults.fail("GET", r"/volumes/detail", status=503, times=None)
    with pytest.raises(UnreachableError, match=r"list volumes.*503") as caught:
        cloud.find_volume("x")
    assert caught.value.reason == "CLOUD_FAILS"
    assert type(caught.value) is UnreachableError
    assert 120 <= clock.now < 200


def test_the_rate_a_cloud_asks_for_is_kept(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, clock: HastyClock
) -> None:
    embedded.faults.fail("GET", r"/flavors", status=429, headers={"Retry-After": "17"})
    assert cloud.list_flavors()
    assert 17.0 in clock.slept


def test_an_api_that_falls_silent(
    embedded: EmbeddedCloud, clock: HastyClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert session_module.ANSWER_SECONDS >= 30
    monkeypatch.setattr(session_module, "ANSWER_SECONDS", 0.2)
    adapter = OpenStackCloud(open_session("faulty"), Patience(clock, outage_seconds=1))
    adapter.list_flavors()
    embedded.faults.delay("GET", r"/flavors", seconds=0.6, times=1)
    assert adapter.list_flavors()
    embedded.faults.delay("GET", r"/flavors", seconds=0.6, times=None)
    with pytest.raises(UnreachableError) as caught:
        adapter.list_flavors()
    assert caught.value.reason == "CLOUD_UNREACHABLE"
    adapter.close()


def test_an_expired_token_is_renewed(embedded: EmbeddedCloud, cloud: OpenStackCloud) -> None:
    cloud.list_flavors()
    embedded.expire_tokens()
    assert cloud.list_flavors()


# Servers.


def test_a_server_is_what_was_asked_for(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag
) -> None:
    made = embedded.nova.servers[boot(cloud, tag).id]
    assert (made.name, made.user_data, made.config_drive) == (tag.name, USER_DATA, True)
    assert made.metadata == {
        "blockferry_migration": tag.migration_id,
        "blockferry_resource": tag.resource,
    }
    assert made.key_name is None
    assert made.made_ports == []
    assert made.image_id


def test_a_flavor_without_disk_boots_from_a_volume_that_goes_too(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag
) -> None:
    server = boot(cloud, tag, "c1.nano")
    (root,) = embedded.nova.servers[server.id].volumes
    assert root.delete_on_termination
    assert embedded.cinder.volumes[root.volume_id].size_gib >= 4
    cloud.delete_server(server.id)
    assert until(lambda: root.volume_id not in embedded.cinder.volumes)


def test_a_server_in_error_is_made_anew_once(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag
) -> None:
    embedded.faults.no_valid_host(times=1)
    assert boot(cloud, tag).status == "ACTIVE"
    assert asked(embedded, "POST", "/servers") == 2
    assert len(embedded.nova.servers) == 1


@pytest.mark.parametrize(
    ("fault", "cls", "reason"),
    [
        ("no_valid_host", CapacityError, "NO_VALID_HOST"),
        ("build_error", PreconditionError, "SERVER_ERROR"),
    ],
)
def test_a_server_that_stays_in_error(
    embedded: EmbeddedCloud,
    cloud: OpenStackCloud,
    tag: Tag,
    fault: str,
    cls: type[BlockferryError],
    reason: str,
) -> None:
    getattr(embedded.faults, fault)(times=None)
    with pytest.raises(cls) as caught:
        boot(cloud, tag)
    assert caught.value.reason == reason
    assert asked(embedded, "POST", "/servers") == 2


def test_a_server_that_is_off_is_started(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag
) -> None:
    server = boot(cloud, tag)
    embedded.nova.servers[server.id].set("SHUTOFF")
    assert boot(cloud, tag) == server
    assert asked(embedded, "POST", "/action") == 1


def test_a_server_that_never_builds(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag, clock: HastyClock
) -> None:
    embedded.faults.stick("BUILD")
    with pytest.raises(DeadlineError, match="ACTIVE"):
        boot(cloud, tag)
    assert clock.now >= 600


def test_a_port_that_is_still_bound_is_waited_for(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag
) -> None:
    embedded.faults.fail("POST", r"/servers$", status=409, times=2)
    assert boot(cloud, tag).status == "ACTIVE"


# Volumes and attachments.


def test_a_volume_that_fails_is_deleted(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag
) -> None:
    embedded.faults.volume_error()
    with pytest.raises(PreconditionError) as caught:
        cloud.ensure_volume(tag, SMALL)
    assert caught.value.reason == "VOLUME_ERROR"
    assert not embedded.cinder.volumes
    assert cloud.ensure_volume(tag, SMALL).status == "available"


def test_a_volume_that_fails_later_is_kept(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag
) -> None:
    volume = cloud.ensure_volume(tag, SMALL)
    embedded.cinder.states.set(embedded.cinder.volumes[volume.id], "error")
    with pytest.raises(PreconditionError) as caught:
        cloud.ensure_volume(tag, SMALL)
    assert caught.value.reason == "VOLUME_ERROR"
    assert volume.id in embedded.cinder.volumes


def test_a_volume_that_is_too_small_by_now(cloud: OpenStackCloud, tag: Tag) -> None:
    cloud.ensure_volume(tag, SMALL)
    with pytest.raises(PreconditionError) as caught:
        cloud.ensure_volume(tag, replace(SMALL, size_bytes=2 * GIB))
    assert caught.value.reason == "VOLUME_SIZE"


def test_image_metadata_that_another_cloud_refuses_is_left_out(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag
) -> None:
    metadata = {
        "hw_firmware_type": "uefi",
        "image_id": str(uuid.uuid4()),
        "cinder_encryption_key_id": str(uuid.uuid4()),
        "long": "x" * 300,
        "os_distro": "debian",
    }
    embedded.faults.fail("POST", r"/volumes/[^/]*/action", status=200, body={}, times=1)
    embedded.faults.fail("POST", r"/volumes/[^/]*/action", status=400, times=2)
    request = replace(SMALL, bootable=True, image_metadata=metadata)
    volume = cloud.ensure_volume(tag, request)
    assert volume.image_metadata == {"os_distro": "debian"}
    again = cloud.ensure_volume(tag, request)
    assert again.image_metadata == {"hw_firmware_type": "uefi", "os_distro": "debian"}
    assert again.bootable


def test_flags_of_a_volume_are_no_metadata(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag
) -> None:
    volume_id = embedded.make_volume("flagged", metadata={"mine": "1"})
    embedded.cinder.volumes[volume_id].read_only = True
    volume = cloud.find_volume(volume_id)
    assert volume.read_only
    assert volume.metadata == {"mine": "1"}


def test_a_volume_in_use_is_not_deleted(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag
) -> None:
    server, volume = boot(cloud, tag), cloud.ensure_volume(tag, SMALL)
    cloud.attach_volume(server.id, volume.id)
    with pytest.raises(PreconditionError) as caught:
        cloud.delete_volume(volume.id)
    assert caught.value.reason == "VOLUME_ATTACHED"
    assert asked(embedded, "DELETE", volume.id) == 0


def test_an_attachment_that_fails_is_tried_again(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag
) -> None:
    server, volume = boot(cloud, tag), cloud.ensure_volume(tag, SMALL)
    embedded.faults.attach_error(times=1)
    cloud.attach_volume(server.id, volume.id)
    assert cloud.find_volume(volume.id).status == "in-use"


def test_an_attachment_that_fails_twice(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag
) -> None:
    server, volume = boot(cloud, tag), cloud.ensure_volume(tag, SMALL)
    embedded.faults.attach_error(times=None)
    with pytest.raises(PreconditionError) as caught:
        cloud.attach_volume(server.id, volume.id)
    assert caught.value.reason == "ATTACH_FAILED"
    assert cloud.find_volume(volume.id).status == "available"


def test_an_attachment_that_the_cloud_refuses(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag
) -> None:
    server, volume = boot(cloud, tag), cloud.ensure_volume(tag, SMALL)
    zones = {"badRequest": {"code": 400, "message": "volume and instance in other zones"}}
    embedded.faults.fail("POST", "os-volume_attachments", status=400, body=zones)
    with pytest.raises(PreconditionError, match="other zones") as caught:
        cloud.attach_volume(server.id, volume.id)
    assert caught.value.reason == "CLOUD_REFUSED"


@pytest.mark.parametrize("verb", ["attach", "detach"])
def test_a_busy_server_is_asked_again(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag, verb: str
) -> None:
    server, volume = boot(cloud, tag), cloud.ensure_volume(tag, SMALL)
    method = {"attach": "POST", "detach": "DELETE"}[verb]
    embedded.faults.fail(method, "os-volume_attachments", status=409, times=3)
    cloud.attach_volume(server.id, volume.id)
    cloud.detach_volume(server.id, volume.id)
    assert cloud.find_volume(volume.id).status == "available"


@pytest.mark.parametrize("state", ["reserved", "attaching", "detaching"])
def test_a_volume_that_is_stuck(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag, state: str
) -> None:
    server, volume = boot(cloud, tag), cloud.ensure_volume(tag, SMALL)
    embedded.faults.stick(state)

    def there_and_back() -> None:
        cloud.attach_volume(server.id, volume.id)
        cloud.detach_volume(server.id, volume.id)

    with pytest.raises(PreconditionError, match=f"is {state}") as caught:
        there_and_back()
    assert caught.value.reason == "VOLUME_STATE"


# Network.


def test_a_group_has_exactly_the_rules_given(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag
) -> None:
    first = [IngressRule("10.0.0.7/32", 7443), IngressRule("fd00::7/128", 7443)]
    group = cloud.ensure_security_group(tag, first)
    assert ingress(embedded, group) == {("IPv4", "10.0.0.7/32"), ("IPv6", "fd00::7/128")}
    cloud.ensure_security_group(tag, [*first[1:], IngressRule("10.0.0.9", 7443)])
    assert ingress(embedded, group) == {("IPv6", "fd00::7/128"), ("IPv4", "10.0.0.9/32")}
    embedded.requests.clear()
    cloud.ensure_security_group(tag, [*first[1:], IngressRule("10.0.0.9/32", 7443)])
    assert {verb for _, verb, _, _ in embedded.requests} == {"GET"}
    egress = [one for one in rules(embedded, group) if one["direction"] == "egress"]
    assert {one["ethertype"] for one in egress} == {"IPv4", "IPv6"}
    assert all(one["remote_ip_prefix"] is None and one["protocol"] is None for one in egress)


def test_an_address_range_that_is_none(cloud: OpenStackCloud, tag: Tag) -> None:
    with pytest.raises(UsageError) as caught:
        cloud.ensure_security_group(tag, [IngressRule("peer.example", 7443)])
    assert caught.value.reason == "BAD_ADDRESS_RANGE"


def test_without_the_tag_extension_name_and_description_do(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded.neutron, "extensions", ())
    port = make_port(cloud, tag)
    assert make_port(cloud, tag) == port
    found = cloud.find_resources(tag.migration_id)
    assert [(one.kind.value, one.tag.resource) for one in found] == [
        ("port", "port"),
        ("security group", "security-group"),
    ]
    assert [one.id for one in cloud.find_resources()] == [one.id for one in found]


def rules(embedded: EmbeddedCloud, group: str) -> list[dict[str, object]]:
    every = embedded.neutron.data["security_group_rules"].values()
    return [rule for rule in every if rule["security_group_id"] == group]


def ingress(embedded: EmbeddedCloud, group: str) -> set[tuple[object, object]]:
    return {
        (rule["ethertype"], rule["remote_ip_prefix"])
        for rule in rules(embedded, group)
        if rule["direction"] == "ingress"
        and (rule["protocol"], rule["port_range_min"], rule["port_range_max"])
        == ("tcp", 7443, 7443)
    }


def until(true: Callable[[], bool]) -> bool:
    end = time.monotonic() + 5
    while not true() and time.monotonic() < end:
        time.sleep(0.01)
    return true()


# Connecting.


def entry(embedded: EmbeddedCloud, tmp_path: Path, **auth: str) -> None:
    """A clouds.yaml whose cloud `other` is the embedded one but for `auth`."""
    clouds = yaml.safe_load(embedded.clouds_yaml.read_text())["clouds"]
    other = {**clouds["faulty"], "auth": {**clouds["faulty"]["auth"], **auth}}
    (tmp_path / "clouds.yaml").write_text(yaml.safe_dump({"clouds": {"other": other}}))


@pytest.fixture
def other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))
    monkeypatch.setattr(session_module, "FIRST_CONTACT_SECONDS", 0.2)
    return tmp_path


def test_two_names_of_one_project_have_one_identity(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, other_file: Path
) -> None:
    url = f"{embedded.keystone.url}/"
    entry(embedded, other_file, auth_url=url)
    other = connect("other")
    assert other.identity == cloud.identity
    assert embedded.project_id in other.identity
    assert (other.name, cloud.name) == ("other", "faulty")
    other.close()


def test_the_library_repeats_nothing_on_its_own(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag, other_file: Path
) -> None:
    """`connect_retries` in clouds.yaml would send a creation again whose answer is lost."""
    entry(embedded, other_file)
    clouds = yaml.safe_load((other_file / "clouds.yaml").read_text())
    clouds["clouds"]["other"] |= {"connect_retries": 2, "status_code_retries": 2}
    (other_file / "clouds.yaml").write_text(yaml.safe_dump(clouds))
    other = connect("other")
    embedded.faults.lose_response("POST", r"/volumes$")
    other.ensure_volume(tag, SMALL)
    assert len(other.find_resources(tag.migration_id)) == 1
    other.close()


def test_an_unknown_cloud_is_told_with_those_there_are(embedded: EmbeddedCloud) -> None:
    with pytest.raises(NotFoundError) as caught:
        connect("nowhere")
    assert caught.value.reason == "CLOUD_NOT_FOUND"
    assert "faulty" in caught.value.message
    assert str(embedded.clouds_yaml) in caught.value.message


def test_no_clouds_yaml_at_all(other_file: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no file .*clouds\.yaml") as caught:
        connect("nowhere")
    assert caught.value.reason == "CLOUD_NOT_FOUND"


def test_a_clouds_yaml_that_is_none(other_file: Path) -> None:
    (other_file / "clouds.yaml").write_text("clouds: [")
    with pytest.raises(UsageError) as caught:
        connect("nowhere")
    assert caught.value.reason == "CLOUDS_FILE_UNREADABLE"


@pytest.mark.parametrize(
    ("auth", "cls", "reason"),
    [
        ({"password": "wrong"}, AuthenticationError, "AUTHENTICATION_REFUSED"),
        ({"project_name": "wrong"}, AuthenticationError, "AUTHENTICATION_REFUSED"),
        ({"auth_url": "http://127.0.0.1:9/v3"}, UnreachableError, "CLOUD_UNREACHABLE"),
        ({"auth_url": ""}, AuthenticationError, "CREDENTIALS_INCOMPLETE"),
    ],
    ids=["password", "project", "endpoint-down", "no-url"],
)
def test_a_cloud_that_cannot_be_entered(
    embedded: EmbeddedCloud,
    other_file: Path,
    auth: dict[str, str],
    cls: type[BlockferryError],
    reason: str,
) -> None:
    entry(embedded, other_file, **auth)
    with pytest.raises(cls) as caught:
        connect("other")
    assert caught.value.reason == reason
    assert "wrong" not in caught.value.message or "project" in caught.value.message
    assert "not-a-secret" not in caught.value.message


def test_a_policy_that_forbids(embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag) -> None:
    policy = {"forbidden": {"code": 403, "message": "Policy doesn't allow volume:create."}}
    embedded.faults.fail("POST", r"/volumes$", status=403, body=policy)
    with pytest.raises(ForbiddenError) as caught:
        cloud.ensure_volume(tag, SMALL)
    assert caught.value.reason == "CLOUD_FORBIDS"
