"""Reality is not what the APIs promised: the adapter finds out, and mends what is ours.

Each test is a row of the table in docs/clouds.md, "When a cloud misbehaves".
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec import structs

from blockferry.errors import (
    AuthenticationError,
    DeadlineError,
    NotFoundError,
    PreconditionError,
)
from blockferry.limits import GIB
from blockferry_controller.clouds.openstack.cloud import OpenStackCloud
from blockferry_controller.clouds.openstack.session import open_session
from blockferry_controller.clouds.openstack.waiting import Patience
from blockferry_controller.clouds.port import IngressRule, ResourceKind, Tag
from tests.integration.test_openstack_faults import (
    QUICK,
    SMALL,
    HastyClock,
    asked,
    boot,
    clock,
    cloud,
    embedded,
    make_port,
    no_fault_stays,
    tag,
)
from tests.sim import EmbeddedCloud, flavor
from tests.sim.service import Microversions

__all__ = ["clock", "cloud", "embedded", "no_fault_stays", "tag"]

OLDEST = (Microversions("compute", (2, 1), (2, 1)), Microversions("volume", (3, 0), (3, 0)))


@contextlib.contextmanager
def microversions(
    embedded: EmbeddedCloud, nova: Microversions, cinder: Microversions
) -> Iterator[None]:
    """The cloud speaks these for a while."""
    embedded.nova.microversions, embedded.cinder.microversions = nova, cinder
    try:
        yield
    finally:
        del embedded.nova.microversions, embedded.cinder.microversions


def cinder_status(embedded: EmbeddedCloud, volume_id: str, status: str) -> None:
    with embedded.lock:
        embedded.cinder.states.set(embedded.cinder.volumes[volume_id], status)


def attached(embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag) -> tuple[str, str]:
    """A server and a volume that is attached to it."""
    server, volume = boot(cloud, tag), cloud.ensure_volume(tag, SMALL)
    cloud.attach_volume(server.id, volume.id)
    return server.id, volume.id


# Attachments that exist on one side only.


@pytest.mark.parametrize("status", ["reserved", "attaching", "in-use", "detaching"])
@pytest.mark.parametrize("verb", ["attach", "detach"])
def test_a_record_that_nova_forgot_is_deleted(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag, status: str, verb: str
) -> None:
    server_id, volume_id = attached(embedded, cloud, tag)
    with embedded.lock:
        embedded.nova.volumes.forget(server_id, volume_id)
    cinder_status(embedded, volume_id, status)
    getattr(cloud, f"{verb}_volume")(server_id, volume_id)
    assert cloud.find_volume(volume_id).status == {"attach": "in-use", "detach": "available"}[verb]
    assert asked(embedded, "POST", "os-volume_attachments") == (2 if verb == "attach" else 1)


@pytest.mark.parametrize("status", ["reserved", "attaching", "in-use"])
def test_a_record_of_a_server_of_ours_that_is_gone_is_deleted(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag, status: str
) -> None:
    server_id, volume_id = attached(embedded, cloud, tag)
    with embedded.lock:
        embedded.nova.volumes.forget(server_id, volume_id)
    cloud.delete_server(server_id)
    cinder_status(embedded, volume_id, status)
    cloud.detach_volume(server_id, volume_id)
    assert cloud.find_volume(volume_id).status == "available"


def test_a_record_of_somebody_elses_lost_server_is_told_with_the_command(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag
) -> None:
    server_id, volume_id = attached(embedded, cloud, tag)
    with embedded.lock:
        embedded.nova.volumes.forget(server_id, volume_id)
    cloud.delete_server(server_id)
    cinder_status(embedded, volume_id, "reserved")
    record = embedded.cinder.volumes[volume_id].attachments[0].attachment_id
    other = boot(cloud, structs.replace(tag, resource="other"))
    with pytest.raises(PreconditionError, match=f"attachment delete {record}") as caught:
        cloud.attach_volume(other.id, volume_id)
    assert caught.value.reason == "ATTACHMENT_ORPHANED"
    assert asked(embedded, "DELETE", record) == 0


def test_a_record_that_may_not_be_deleted_is_told_with_the_command(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag
) -> None:
    server_id, volume_id = attached(embedded, cloud, tag)
    with embedded.lock:
        embedded.nova.volumes.forget(server_id, volume_id)
    embedded.faults.fail("DELETE", r"/attachments/", status=403, times=None)
    with pytest.raises(PreconditionError, match=r"attachment delete .*try again") as caught:
        cloud.detach_volume(server_id, volume_id)
    assert caught.value.reason == "ATTACHMENT_ORPHANED"


def test_a_record_on_a_cloud_without_the_records_api(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag
) -> None:
    server_id, volume_id = attached(embedded, cloud, tag)
    with embedded.lock:
        embedded.nova.volumes.forget(server_id, volume_id)
    cinder_status(embedded, volume_id, "attaching")
    with microversions(embedded, *OLDEST), pytest.raises(PreconditionError) as caught:
        cloud.detach_volume(server_id, volume_id)
    assert caught.value.reason == "VOLUME_STATE"
    assert "volume set --state available" in caught.value.message


def test_an_attachment_that_only_nova_has(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag, clock: HastyClock
) -> None:
    server_id, volume_id = attached(embedded, cloud, tag)
    with embedded.lock:
        embedded.cinder.states.unreserve(embedded.cinder.volumes[volume_id])
    began = clock.now
    with pytest.raises(PreconditionError, match="deleting the server") as caught:
        cloud.attach_volume(server_id, volume_id)
    assert caught.value.reason == "ATTACHMENT_HALF"
    assert 20 <= clock.now - began < 60
    cloud.detach_volume(server_id, volume_id)
    cloud.delete_server(server_id)
    assert cloud.find_volume(volume_id).status == "available"


def test_what_nova_is_only_slow_to_list_is_waited_for(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag
) -> None:
    server_id, volume_id = attached(embedded, cloud, tag)
    embedded.faults.fail("GET", rf"/os-volume_attachments/{volume_id}", status=404, times=2)
    cloud.attach_volume(server_id, volume_id)
    assert asked(embedded, "GET", "/attachments") == 0


# Deletion while something else goes on.


def test_a_server_that_is_busy_is_deleted_when_it_is_not(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag
) -> None:
    server_id, volume_id = attached(embedded, cloud, tag)
    embedded.faults.fail("DELETE", r"/servers/", status=409, times=3)
    cloud.delete_server(server_id)
    assert server_id not in embedded.nova.servers
    assert cloud.find_volume(volume_id).status == "available"


def test_a_volume_is_deleted_when_it_is_detached(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag
) -> None:
    _, volume_id = attached(embedded, cloud, tag)
    cinder_status(embedded, volume_id, "detaching")
    volume = embedded.cinder.volumes[volume_id]
    embedded.timeline.after(0.1, lambda: embedded.cinder.states.unreserve(volume))
    cloud.delete_volume(volume_id)
    assert volume_id not in embedded.cinder.volumes
    assert asked(embedded, "DELETE", volume_id) == 1


def test_a_server_that_is_never_gone(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag, clock: HastyClock
) -> None:
    server = boot(cloud, tag)
    embedded.faults.stick("deleting server")
    began = clock.now
    with pytest.raises(DeadlineError, match=f"server {server.id} .*to be gone"):
        cloud.delete_server(server.id)
    assert 600 <= clock.now - began < 700
    embedded.nova.servers[server.id].set("ACTIVE")


def test_a_server_that_builds_for_ever_is_deleted_all_the_same(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag
) -> None:
    embedded.faults.stick("BUILD")
    with pytest.raises(DeadlineError):
        boot(cloud, tag)
    (server,) = [
        one for one in cloud.find_resources(tag.migration_id) if one.kind is ResourceKind.SERVER
    ]
    cloud.delete_server(server.id)
    assert server.id not in embedded.nova.servers


def test_a_security_group_is_deleted_when_its_port_is_gone(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag
) -> None:
    group = cloud.ensure_security_group(tag, [])
    in_use = {"NeutronError": {"type": "SecurityGroupInUse", "message": "in use", "detail": ""}}
    embedded.faults.fail("DELETE", r"/security-groups/", status=409, body=in_use, times=4)
    cloud.delete_security_group(group)
    assert not cloud.find_resources(tag.migration_id)


# Eventual consistency: what was just made does not show at once.


@pytest.mark.parametrize("path", [r"/servers/[0-9a-f-]{36}$", r"/volumes/[0-9a-f-]{36}$"])
def test_what_was_just_made_may_be_404_at_first(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag, path: str
) -> None:
    embedded.faults.fail("GET", path, status=404, times=3)
    assert boot(cloud, tag).status == "ACTIVE"
    assert cloud.ensure_volume(tag, SMALL).status == "available"


def test_a_server_that_never_shows_is_told(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag
) -> None:
    embedded.faults.fail("GET", r"/servers/[0-9a-f-]{36}$", status=404, times=None)
    embedded.faults.fail("GET", r"/servers/detail$", status=200, body={"servers": []}, times=None)
    with pytest.raises(NotFoundError, match="vanished") as caught:
        boot(cloud, tag)
    assert caught.value.reason == "SERVER_NOT_FOUND"


def test_a_server_that_somebody_is_deleting_is_replaced(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is still listed, and still holds the port: neither is it taken, nor is this an error."""
    going = boot(cloud, tag)
    slow = dataclasses.replace(embedded.timings, server_delete=1.0)
    with monkeypatch.context() as patch, embedded.lock:
        patch.setattr(embedded, "timings", slow)
        embedded.nova.remove(embedded.nova.servers[going.id])
    with contextlib.closing(OpenStackCloud(open_session("faulty"), Patience())) as patient:
        fresh = boot(patient, tag)
    assert fresh.status == "ACTIVE"
    assert fresh.id != going.id
    assert list(embedded.nova.servers) == [fresh.id]


LISTS = [
    pytest.param("servers", r"/servers/detail$", {"servers": []}, id="servers"),
    pytest.param("volumes", r"/volumes/detail$", {"volumes": []}, id="volumes"),
    pytest.param("ports", r"/ports$", {"ports": []}, id="ports"),
    pytest.param("security-groups", r"/security-groups$", {"security_groups": []}, id="groups"),
]


@pytest.mark.parametrize("answer", ["comes", "is-lost"])
@pytest.mark.parametrize(("kind", "path", "empty"), LISTS)
def test_a_list_that_lags_makes_nothing_twice(
    embedded: EmbeddedCloud,
    cloud: OpenStackCloud,
    tag: Tag,
    kind: str,
    path: str,
    empty: object,
    answer: str,
) -> None:
    if answer == "is-lost":
        embedded.faults.lose_response("POST", rf"/{kind}$")
    # The first look is before the creation.
    embedded.faults.fail("GET", path, status=200, body=empty, times=4)
    boot(cloud, tag)
    boot(cloud, tag)
    cloud.ensure_volume(tag, SMALL)
    cloud.ensure_volume(tag, SMALL)
    assert [one.kind.value for one in cloud.find_resources(tag.migration_id)] == [
        *("server", "port", "security group", "volume")
    ]


def test_a_volume_that_nova_does_not_see_yet_is_attached(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag
) -> None:
    server, volume = boot(cloud, tag), cloud.ensure_volume(tag, SMALL)
    embedded.faults.fail("POST", "os-volume_attachments", status=404, times=2)
    cloud.attach_volume(server.id, volume.id)
    assert cloud.find_volume(volume.id).status == "in-use"


# Outages.


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_an_api_that_asks_for_time_gets_it(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, clock: HastyClock, tag: Tag, status: int
) -> None:
    embedded.faults.fail("POST", r"/volumes$", status=status, headers={"Retry-After": "13"})
    embedded.faults.fail("DELETE", r"/volumes/", status=status, headers={"Retry-After": "14"})
    volume = cloud.ensure_volume(tag, SMALL)
    cloud.delete_volume(volume.id)
    assert {13.0, 14.0} <= set(clock.slept)
    assert asked(embedded, "POST", "/volumes") == 2


# Tokens.


@contextlib.contextmanager
def other_cloud(
    directory: Path, monkeypatch: pytest.MonkeyPatch, **options: object
) -> Iterator[tuple[EmbeddedCloud, OpenStackCloud]]:
    """A cloud of its own, and the adapter on it."""
    kinds = (flavor("m1.nano", 1, 512, 3),)
    with EmbeddedCloud("other", directory, timings=QUICK, flavors=kinds, **options) as there:  # type: ignore[arg-type]
        there.faults.no_boot(times=None)
        monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(there.clouds_yaml))
        with contextlib.closing(OpenStackCloud(open_session("other"), Patience())) as adapter:
            yield there, adapter
        assert there.problems == []


def life(cloud: OpenStackCloud, tag: Tag) -> None:
    """Everything a migration asks of a cloud, once."""
    cloud.access()
    cloud.quota()
    assert cloud.list_volume_types()
    assert cloud.list_volume_zones()
    group = cloud.ensure_security_group(
        Tag(tag.migration_id, "security-group"), [IngressRule("10.0.0.7/32", 7443)]
    )
    port, server = make_port(cloud, tag), boot(cloud, tag)
    volume = cloud.ensure_volume(tag, structs.replace(SMALL, bootable=True))
    cloud.attach_volume(server.id, volume.id)
    cloud.console_log(server.id, 10)
    cloud.detach_volume(server.id, volume.id)
    cloud.delete_server(server.id)
    cloud.delete_port(port.id)
    cloud.delete_security_group(group)
    cloud.release_volume(volume.id)
    cloud.set_read_only(volume.id)
    assert cloud.find_volume(volume.id).size_bytes == GIB
    cloud.delete_volume(volume.id)
    assert not cloud.find_resources(tag.migration_id)


def test_tokens_that_live_a_second(
    tmp_path: Path, tag: Tag, monkeypatch: pytest.MonkeyPatch
) -> None:
    with other_cloud(tmp_path, monkeypatch, token_seconds=1.0) as (there, adapter):
        began = time.monotonic()
        while time.monotonic() - began < 2.5:
            life(adapter, tag)
        issued = [one for one in there.requests if one[:2] == ("keystone", "POST")]
    assert len(issued) > 3


def test_tokens_that_are_revoked_all_the_time(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag
) -> None:
    """A cloud that says an hour and means less: what comes back is 401, at any call."""
    refused = len([one for one in embedded.requests if one[3] == 401])
    served = 0

    def revoke() -> None:
        """A token is good for one answer at least, however slow this machine is."""
        nonlocal served
        now = len([one for one in embedded.requests if one[3] < 400 and "/auth/" not in one[1]])
        if now > served:
            served = now
            embedded.expire_tokens()
        if not done:
            embedded.timeline.after(0.05, revoke)

    done: list[bool] = []
    revoke()
    try:
        life(cloud, tag)
    finally:
        done.append(True)
    assert len([one for one in embedded.requests if one[3] == 401]) > refused + 3


def test_keystone_that_is_out_when_the_token_expires(
    embedded: EmbeddedCloud, cloud: OpenStackCloud
) -> None:
    cloud.list_flavors()
    embedded.expire_tokens()
    embedded.faults.fail("POST", r"/auth/tokens$", status=503, times=2)
    embedded.faults.drop("POST", r"/auth/tokens$", times=1)
    assert cloud.list_flavors()


def test_a_password_that_is_changed_in_the_middle(
    embedded: EmbeddedCloud, cloud: OpenStackCloud
) -> None:
    cloud.list_flavors()
    embedded.expire_tokens()
    embedded.faults.fail("POST", r"/auth/tokens$", status=401, times=None)
    with pytest.raises(AuthenticationError, match=r"clouds\.yaml") as caught:
        cloud.list_flavors()
    assert caught.value.reason == "AUTHENTICATION_REFUSED"


# Catalogs with only some services.

VERBS: dict[str, tuple[str, Callable[[OpenStackCloud], object]]] = {
    "nova": ("compute", lambda cloud: cloud.list_flavors()),
    "cinder": ("block storage", lambda cloud: cloud.find_volume("data")),
    "neutron": ("network", lambda cloud: cloud.list_networks()),
    "glance": ("image", lambda cloud: cloud.list_images()),
}


@pytest.mark.parametrize("missing", VERBS)
def test_a_service_that_the_catalog_does_not_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    name, verb = VERBS[missing]
    with other_cloud(tmp_path, monkeypatch) as (there, _):
        there.keystone.unlisted.add(missing)
        with contextlib.closing(OpenStackCloud(open_session("other"), Patience())) as cloud:
            told = cloud.access()
            assert set(told.refusals) == {name}
            assert told.refusals[name].reason == "SERVICE_NOT_FOUND"
            with pytest.raises(NotFoundError, match="region_name") as caught:
                verb(cloud)
            assert caught.value.reason == "SERVICE_NOT_FOUND"
            for other, (_, works) in VERBS.items():
                if other not in {missing, "cinder"}:
                    works(cloud)


# Microversions.


@pytest.mark.parametrize(
    "spoken",
    [
        pytest.param(OLDEST, id="nova-2.1-cinder-3.0"),
        pytest.param(
            (Microversions("compute", (2, 1), (2, 60)), Microversions("volume", (3, 0), (3, 27))),
            id="nova-2.60-cinder-3.27",
        ),
        pytest.param(
            (Microversions("compute", (2, 1), (2, 96)), Microversions("volume", (3, 0), (3, 70))),
            id="nova-2.96-cinder-3.70",
        ),
    ],
)
def test_old_and_new_microversions(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tag: Tag,
    spoken: tuple[Microversions, Microversions],
) -> None:
    with (
        other_cloud(tmp_path, monkeypatch) as (there, adapter),
        microversions(there, *spoken),
    ):
        life(adapter, tag)
        assert 406 not in {status for _, _, _, status in there.requests}


def test_a_volume_in_error_on_a_cloud_without_messages(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag
) -> None:
    embedded.faults.volume_error()
    with microversions(embedded, *OLDEST), pytest.raises(PreconditionError) as caught:
        cloud.ensure_volume(tag, SMALL)
    assert caught.value.reason == "VOLUME_ERROR"
    assert "does not say why" in caught.value.message


# Deleted by somebody else.


@pytest.mark.parametrize("kind", ["server", "port", "group", "volume"])
def test_what_somebody_else_deleted_is_deleted(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag, kind: str
) -> None:
    server_id, volume_id = attached(embedded, cloud, tag)
    port = make_port(cloud, tag)
    group = cloud.ensure_security_group(Tag(tag.migration_id, "security-group"), [])
    with embedded.lock:
        if kind == "server":
            embedded.nova.volumes.give_back(embedded.nova.servers.pop(server_id))
        elif kind == "volume":
            del embedded.cinder.volumes[volume_id]
        else:
            name, ours = {"port": ("ports", port.id), "group": ("security_groups", group)}[kind]
            del embedded.neutron.data[name][ours]
    cloud.detach_volume(server_id, volume_id)
    cloud.delete_server(server_id)
    cloud.delete_port(port.id)
    cloud.delete_security_group(group)
    cloud.delete_volume(volume_id)
    assert not cloud.find_resources(tag.migration_id)
