"""What each verb costs a cloud: the requests, one by one, where nothing goes wrong.

A request more is a change of this table. Looks of a wait are one each here: the embedded
cloud is done by the time of the first, for which is waited longer than usual.
"""

import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from blockferry.limits import GIB
from blockferry_controller.clock import SystemClock
from blockferry_controller.clouds.openstack.cloud import OpenStackCloud
from blockferry_controller.clouds.openstack.session import open_session
from blockferry_controller.clouds.openstack.waiting import Patience
from blockferry_controller.clouds.port import (
    IngressRule,
    Port,
    ResourceKind,
    ServerRequest,
    Tag,
    VolumeRequest,
)
from tests.sim import EmbeddedCloud, Timings
from tests.sim.tally import kind_of

SMALL = VolumeRequest("data", "", GIB)
QUICK = Timings(0.01, 0.01, 0.02, 0.02, 0.01, 0.01)
RULES = [IngressRule("10.0.0.7/32", 7443), IngressRule("fd00::7/128", 7443)]
ATTACHMENT = "/servers/{id}/os-volume_attachments"


class LateClock(SystemClock):
    """However busy this machine is, what is waited for has happened."""

    def sleep(self, seconds: float) -> None:
        super().sleep(max(seconds, 0.5))


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedCloud]:
    directory: Path = tmp_path_factory.mktemp("clouds")
    with EmbeddedCloud("counted", directory, timings=QUICK) as cloud:
        cloud.faults.no_boot(times=None)
        yield cloud
        assert cloud.problems == []


@pytest.fixture
def cloud(embedded: EmbeddedCloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenStackCloud]:
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(embedded.clouds_yaml))
    with closing(OpenStackCloud(open_session("counted"), Patience(LateClock()))) as adapter:
        adapter.access()  # versions are looked for once in a process
        yield adapter


@pytest.fixture
def tag() -> Tag:
    return Tag(f"m-{uuid.uuid4().hex[:8]}", "source-server")


@pytest.fixture
def port(cloud: OpenStackCloud, tag: Tag) -> Port:
    group = cloud.ensure_security_group(Tag(tag.migration_id, "group"), [])
    network = next(one for one in cloud.list_networks() if not one.external)
    return cloud.ensure_port(Tag(tag.migration_id, "port"), network.id, group)


@pytest.fixture
def request_(cloud: OpenStackCloud, port: Port) -> ServerRequest:
    flavor, image = cloud.list_flavors()[0], cloud.list_images()[0]
    return ServerRequest(flavor.id, image.id, port.id, b"#cloud-config\n")


def costs(embedded: EmbeddedCloud, verb: Callable[[], object]) -> list[str]:
    """The requests that a call of a verb makes."""
    embedded.requests.clear()
    verb()
    return [kind_of(method, path) for _, method, path, _ in embedded.requests]


def test_a_volume(embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag) -> None:
    made = costs(embedded, lambda: cloud.ensure_volume(tag, SMALL))
    assert made == ["GET /volumes/detail", "POST /volumes", "GET /volumes/detail"]
    there = costs(embedded, lambda: cloud.ensure_volume(tag, SMALL))
    assert there == ["GET /volumes/detail"]


def test_a_group_and_its_rules(embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag) -> None:
    made = costs(embedded, lambda: cloud.ensure_security_group(tag, []))
    assert made == [
        "GET /security-groups",
        "POST /security-groups",
        "GET /security-groups",
        "PUT /security-groups/{id}/tags/{tag}",
    ]
    opened = costs(embedded, lambda: cloud.ensure_security_group(tag, RULES))
    assert opened == ["GET /security-groups", "POST /security-group-rules"]
    assert costs(embedded, lambda: cloud.ensure_security_group(tag, RULES)) == opened[:1]


def test_a_server(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag, request_: ServerRequest
) -> None:
    def boot() -> list[str]:
        """But for what is asked once, and for looks at a guest whose disk is being made."""
        asked = costs(embedded, lambda: cloud.ensure_server(tag, request_))
        return [one for one in asked if one not in {"GET /flavors/{id}", "GET /servers/{id}"}]

    made = ["GET /servers/detail", "POST /servers", "GET /servers/detail"]
    assert boot() == made
    assert boot() == made[:1]
    server = cloud.ensure_server(tag, request_)
    gone = costs(embedded, lambda: cloud.delete_server(server.id))
    assert gone == ["DELETE /servers/{id}", "GET /servers/{id}"]
    assert costs(embedded, lambda: cloud.delete_server(server.id)) == gone[:1]
    assert boot() == made


def test_an_attachment(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, tag: Tag, request_: ServerRequest
) -> None:
    server, volume = cloud.ensure_server(tag, request_), cloud.ensure_volume(tag, SMALL)
    tied = costs(embedded, lambda: cloud.attach_volume(server.id, volume.id))
    assert tied == ["GET /volumes/{id}", f"POST {ATTACHMENT}", "GET /volumes/{id}"]
    again = costs(embedded, lambda: cloud.attach_volume(server.id, volume.id))
    assert again == ["GET /volumes/{id}", f"GET {ATTACHMENT}/{{id}}"]
    let_go = costs(embedded, lambda: cloud.detach_volume(server.id, volume.id))
    assert let_go == [f"DELETE {ATTACHMENT}/{{id}}", "GET /volumes/{id}"]
    assert costs(embedded, lambda: cloud.detach_volume(server.id, volume.id)) == let_go


@pytest.mark.parametrize(
    ("kind", "lists"),
    [
        (ResourceKind.SERVER, "/servers/detail"),
        (ResourceKind.FLOATING_IP, "/floatingips"),
        (ResourceKind.PORT, "/ports"),
        (ResourceKind.SECURITY_GROUP, "/security-groups"),
        (ResourceKind.VOLUME, "/volumes/detail"),
    ],
)
def test_what_is_ours(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, kind: ResourceKind, lists: str
) -> None:
    assert costs(embedded, lambda: cloud.find_resources("m-1", {kind})) == [f"GET {lists}"]


@pytest.mark.parametrize(
    ("name", "tells"),
    [
        ("cores", "/limits"),
        ("gigabytes", "/os-quota-sets/{id}"),
        ("gigabytes_fast", "/os-quota-sets/{id}"),
        ("ports", "/quotas/{id}/details.json"),
    ],
)
def test_a_quota(embedded: EmbeddedCloud, cloud: OpenStackCloud, name: str, tells: str) -> None:
    assert costs(embedded, lambda: cloud.quota([name])) == [f"GET {tells}"]
    assert len(costs(embedded, cloud.quota)) == 3


def test_volumes_quotas_of_whoever_may_not_read_them(
    embedded: EmbeddedCloud, cloud: OpenStackCloud
) -> None:
    told = cloud.quota(["gigabytes"]).left["gigabytes"]
    embedded.faults.fail("GET", "/os-quota-sets/", status=403)
    assert cloud.quota(["gigabytes"]).left["gigabytes"] == told
