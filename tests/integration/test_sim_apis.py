"""The embedded clouds answer the unmodified openstacksdk as OpenStack does.

Expected statuses and texts are those of the API references of Nova, Cinder and
Neutron; where the sdk hides them, the raw answer is looked at.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from keystoneauth1.exceptions import ConnectFailure
from openstack import exceptions
from openstack.config import OpenStackConfig
from openstack.connection import Connection

from tests.sim import EmbeddedCloud, EmbeddedClouds, Timings

pytestmark = [
    pytest.mark.filterwarnings(f"ignore::openstack.warnings.RemovedInSDK{number}Warning")
    for number in (50, 60)
]
QUICK = Timings(0.02, 0.02, 0.02, 0.02, 0.02, 0.02)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedCloud]:
    with EmbeddedCloud("solo", tmp_path_factory.mktemp("solo"), timings=QUICK) as cloud:
        cloud.faults.no_boot(times=None)
        yield cloud


@pytest.fixture
def cloud(running: EmbeddedCloud) -> Iterator[EmbeddedCloud]:
    """The cloud, emptied and with its quotas as before afterwards."""
    quotas = dict(running.quotas)
    yield running
    running.quotas.update(quotas)
    running.faults.clear()
    running.faults.no_boot(times=None)
    with running.lock:
        for server in list(running.nova.servers.values()):
            running.nova.volumes.give_back(server)
        running.nova.servers.clear()
        running.cinder.volumes.clear()
        running.neutron.data["ports"].clear()
    assert running.problems == []


@pytest.fixture(scope="module")
def client(running: EmbeddedCloud) -> Iterator[Connection]:
    with running.connect() as connection:
        yield connection


def port(client: Connection) -> Any:
    network = next(n for n in client.network.networks() if not n.is_router_external)
    return client.network.create_port(network_id=network.id, name="ours")


def server_body(cloud: EmbeddedCloud, **more: Any) -> dict[str, Any]:
    image = next(iter(cloud.glance.images))
    flavor = next(iter(cloud.nova.flavors))
    body = {"name": "s", "imageRef": image, "flavorRef": flavor, "networks": "none", **more}
    return {"server": body}


def server(cloud: EmbeddedCloud, client: Connection) -> Any:
    body = server_body(cloud)["server"]
    made = client.compute.create_server(
        name="s", image_id=body["imageRef"], flavor_id=body["flavorRef"], networks="none"
    )
    return client.compute.wait_for_server(made, interval=0.02, wait=10)


def settle(client: Connection, volume_id: str, status: str) -> Any:
    volume = client.block_storage.get_volume(volume_id)
    return client.block_storage.wait_for_status(volume, status, interval=0.02, wait=10)


# --- Keystone ---


def test_clouds_yaml_names_both_clouds_of_a_pair(tmp_path: Path) -> None:
    with EmbeddedClouds(tmp_path) as clouds:
        config = OpenStackConfig(config_files=[str(clouds.clouds_yaml)], load_envvars=False)
        projects = set()
        for name in ("east", "west"):
            with Connection(config=config.get_one(name)) as connection:
                projects.add(connection.current_project_id)
        assert len(projects) == 2
        assert clouds.east.address != clouds.west.address
        assert clouds.east.tenant_cidr != clouds.west.tenant_cidr
        with Connection(config=config.get_one("west-admin")) as operator:
            assert operator.current_project_id == clouds.west.project_id


def test_a_wrong_password_is_401(cloud: EmbeddedCloud) -> None:
    config = OpenStackConfig(config_files=[str(cloud.clouds_yaml)], load_envvars=False)
    region = config.get_one("solo", auth={"password": "wrong"})
    refused = pytest.raises(exceptions.SDKException, match=r"requires authentication.*HTTP 401")
    with Connection(config=region) as connection, refused:
        connection.authorize()


def test_a_client_outlives_its_token(cloud: EmbeddedCloud, client: Connection) -> None:
    before = client.auth_token
    cloud.expire_tokens()
    assert list(client.block_storage.volumes()) == []
    assert client.auth_token != before


# --- microversions and errors in general ---


@pytest.mark.parametrize(
    ("service", "asked", "status", "answered"),
    [
        pytest.param("compute", None, 200, "compute 2.1", id="nova default"),
        pytest.param("compute", "compute 2.96", 200, "compute 2.96", id="nova highest"),
        pytest.param("compute", "compute latest", 200, "compute 2.96", id="nova latest"),
        pytest.param("compute", "compute 2.999", 406, None, id="nova too high"),
        pytest.param("compute", "compute two", 400, None, id="nova nonsense"),
        pytest.param("block_storage", "volume 3.70", 200, "volume 3.70", id="cinder highest"),
        pytest.param("block_storage", "volume 3.71", 406, None, id="cinder too high"),
    ],
)
def test_microversions(
    client: Connection, service: str, asked: str | None, status: int, answered: str | None
) -> None:
    headers = {"OpenStack-API-Version": asked} if asked else {}
    answer = getattr(client, service).get("/limits", headers=headers)
    assert answer.status_code == status
    assert answered is None or answer.headers["OpenStack-API-Version"] == answered
    assert answer.headers["x-openstack-request-id"].startswith("req-")


@pytest.mark.parametrize(
    ("service", "path", "body"),
    [
        pytest.param(
            "compute",
            "/servers/nope",
            {"itemNotFound": {"code": 404, "message": "Instance nope could not be found."}},
            id="nova",
        ),
        pytest.param(
            "block_storage",
            "/volumes/nope",
            {"itemNotFound": {"code": 404, "message": "Volume nope could not be found."}},
            id="cinder",
        ),
        pytest.param(
            "network",
            "/ports/nope",
            {
                "NeutronError": {
                    "type": "PortNotFound",
                    "message": "Port nope could not be found.",
                    "detail": "",
                }
            },
            id="neutron",
        ),
    ],
)
def test_what_is_not_there(client: Connection, service: str, path: str, body: Any) -> None:
    answer = getattr(client, service).get(path)
    assert answer.status_code == 404
    assert answer.json() == body


# --- Cinder ---


def test_the_life_of_a_volume(cloud: EmbeddedCloud, client: Connection) -> None:
    made = client.block_storage.create_volume(name="v", size=2, metadata={"a": "b"})
    assert made.status == "creating"
    volume = settle(client, made.id, "available")
    assert (volume.size, volume.volume_type, volume.is_bootable) == (2, "standard", False)
    assert cloud.volume_path(made.id).stat().st_size == 2 << 30
    client.block_storage.set_volume_bootable_status(volume, True)
    client.block_storage.set_volume_image_metadata(volume, hw_firmware_type="uefi")
    volume = client.block_storage.get_volume(made.id)
    assert volume.is_bootable
    assert volume.volume_image_metadata == {"hw_firmware_type": "uefi"}
    found = [v.id for v in client.block_storage.volumes(name="v", status="available")]
    assert found == [made.id]
    client.block_storage.delete_volume(made.id, ignore_missing=False)
    client.block_storage.wait_for_delete(volume, interval=0.02, wait=10)
    assert not cloud.volume_path(made.id).exists()


def test_a_volume_is_filtered_by_metadata_only_in_literal_form(
    cloud: EmbeddedCloud, client: Connection
) -> None:
    cloud.make_volume("one", metadata={"k": "1"})
    cloud.make_volume("two", metadata={"k": "2"})
    answer = client.block_storage.get("/volumes/detail", params={"metadata": "{'k': '2'}"})
    assert [volume["name"] for volume in answer.json()["volumes"]] == ["two"]


@pytest.mark.parametrize(
    ("quota", "message"),
    [
        pytest.param(
            {"volumes": 0},
            "VolumeLimitExceeded: Maximum number of volumes allowed (0) exceeded for quota "
            "'volumes'.",
            id="volumes",
        ),
        pytest.param(
            {"gigabytes": 1},
            "VolumeSizeExceedsAvailableQuota: Requested volume or snapshot exceeds allowed "
            "gigabytes quota. Requested 2G, quota is 1G and 0G has been consumed.",
            id="gigabytes",
        ),
    ],
)
def test_cinder_quotas_are_413(
    cloud: EmbeddedCloud, client: Connection, quota: dict[str, int], message: str
) -> None:
    cloud.quotas.update(quota)
    answer = client.block_storage.post("/volumes", json={"volume": {"size": 2}})
    assert answer.status_code == 413
    assert answer.json() == {"overLimit": {"code": 413, "message": message, "retryAfter": "0"}}


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        pytest.param({"size": 1, "volume_type": "gold"}, 404, id="unknown type"),
        pytest.param({"size": 1, "availability_zone": "mars"}, 400, id="unknown zone"),
        pytest.param({"size": 0}, 400, id="no size"),
        pytest.param({"size": 9, "imageRef": "nope"}, 400, id="unknown image"),
        pytest.param({"size": 1, "metadata": {"k": "x" * 256}}, 400, id="long metadata"),
    ],
)
def test_volumes_cinder_refuses(client: Connection, asked: dict[str, Any], status: int) -> None:
    answer = client.block_storage.post("/volumes", json={"volume": asked})
    assert answer.status_code == status


def test_an_image_needs_its_minimal_disk(cloud: EmbeddedCloud, client: Connection) -> None:
    image = next(iter(cloud.glance.images.values()))
    path, asked = "/volumes", {"imageRef": image["id"]}
    answer = client.block_storage.post(path, json={"volume": {**asked, "size": 1}})
    assert "smaller than the image minDisk size 2GB" in answer.json()["badRequest"]["message"]


def test_only_an_admin_resets_a_state(cloud: EmbeddedCloud, client: Connection) -> None:
    volume_id = cloud.make_volume("v")
    with pytest.raises(exceptions.ForbiddenException):
        client.block_storage.reset_volume_status(volume_id, status="error")
    with cloud.connect("admin") as admin:
        admin.block_storage.reset_volume_status(volume_id, status="error")
    assert client.block_storage.get_volume(volume_id).status == "error"


def test_an_operator_makes_types(cloud: EmbeddedCloud, client: Connection) -> None:
    asked: dict[str, Any] = {"name": "shared", "extra_specs": {"multiattach": "<is> True"}}
    with pytest.raises(exceptions.ForbiddenException):
        client.block_storage.create_type(**asked)
    with cloud.connect("admin") as admin:
        made: Any = admin.block_storage.create_type(**asked)
        with pytest.raises(exceptions.ConflictException):
            admin.block_storage.create_type(**asked)
        volume: Any = client.block_storage.create_volume(size=1, volume_type="shared")
        assert volume.is_multiattach
        with pytest.raises(exceptions.BadRequestException, match="still in use"):
            admin.block_storage.delete_type(made)
        settle(client, volume.id, "available")
        client.block_storage.delete_volume(volume)
        client.block_storage.wait_for_delete(volume, interval=0.02, wait=10)
        admin.block_storage.delete_type(made)
    assert "shared" not in {one.name for one in client.block_storage.types()}


@pytest.mark.parametrize("what", ["compute", "block_storage", "network"])
def test_a_reader_changes_nothing(cloud: EmbeddedCloud, what: str) -> None:
    path = {"compute": "/servers", "block_storage": "/volumes", "network": "/ports"}[what]
    with cloud.connect("reader") as reader:
        assert getattr(reader, what).get(path).status_code == 200
        assert getattr(reader, what).post(path, json={}).status_code == 403


def test_pages_are_followed(cloud: EmbeddedCloud, client: Connection) -> None:
    names = {f"v{number}" for number in range(5)}
    for name in names:
        cloud.make_volume(name)
    assert {volume.name for volume in client.block_storage.volumes(limit=2)} == names


def test_a_thick_volume_is_not_zero(tmp_path: Path) -> None:
    with EmbeddedCloud("thick", tmp_path, thick=True) as cloud:
        path = cloud.volume_path(cloud.make_volume("v"))
        with path.open("rb") as volume:
            content = volume.read(1 << 20)
    assert content.count(0) < len(content) // 2


# --- attaching ---


def test_a_volume_is_attached_and_detached(cloud: EmbeddedCloud, client: Connection) -> None:
    ours, volume_id = server(cloud, client), cloud.make_volume("v")
    client.compute.create_volume_attachment(ours, volume=volume_id)
    volume = settle(client, volume_id, "in-use")
    assert volume.attachments[0]["server_id"] == ours.id
    assert volume.metadata == {}
    again = client.compute.post(
        f"/servers/{ours.id}/os-volume_attachments",
        json={"volumeAttachment": {"volumeId": volume_id}},
    )
    assert again.status_code == 400
    assert client.block_storage.delete(f"/volumes/{volume_id}").status_code == 400
    client.compute.delete_volume_attachment(ours, volume_id, ignore_missing=False)
    assert settle(client, volume_id, "available").attachments == []
    gone = client.compute.delete(f"/servers/{ours.id}/os-volume_attachments/{volume_id}")
    assert gone.status_code == 404


@pytest.mark.parametrize("state", ["reserved", "attaching", "detaching"])
def test_a_volume_may_stick(cloud: EmbeddedCloud, client: Connection, state: str) -> None:
    ours, volume_id = server(cloud, client), cloud.make_volume("v")
    cloud.faults.stick(state)
    client.compute.create_volume_attachment(ours, volume=volume_id)
    if state == "detaching":
        settle(client, volume_id, "in-use")
        client.compute.delete_volume_attachment(ours, volume_id)
    settle(client, volume_id, state)
    client.compute.delete_server(ours)
    client.compute.wait_for_delete(ours, interval=0.02, wait=10)
    assert client.block_storage.get_volume(volume_id).status == "available"


# --- Nova ---


@pytest.mark.parametrize(
    ("quota", "names"),
    [
        pytest.param({"instances": 0}, "instances", id="instances"),
        pytest.param({"cores": 0}, "cores", id="cores"),
        pytest.param({"instances": 0, "ram": 100}, "instances, ram", id="two at once"),
    ],
)
def test_nova_quotas_are_403(
    cloud: EmbeddedCloud, client: Connection, quota: dict[str, int], names: str
) -> None:
    cloud.quotas.update(quota)
    answer = client.compute.post("/servers", json=server_body(cloud))
    assert answer.status_code == 403
    assert answer.json()["forbidden"]["message"].startswith(f"Quota exceeded for {names}: ")


@pytest.mark.parametrize(
    ("change", "status"),
    [
        pytest.param({"imageRef": "nope"}, 400, id="unknown image"),
        pytest.param({"flavorRef": "nope"}, 400, id="unknown flavor"),
        pytest.param({"availability_zone": "mars"}, 400, id="unknown zone"),
        pytest.param({"networks": [{"port": "nope"}]}, 400, id="unknown port"),
        pytest.param({"user_data": "A" * 65_536}, 400, id="user-data too long"),
        pytest.param({"user_data": "%%%%"}, 400, id="user-data no base64"),
        pytest.param({"user_data": "A" * 65_532}, 202, id="longest user-data"),
    ],
)
def test_servers_nova_refuses(
    cloud: EmbeddedCloud, client: Connection, change: dict[str, Any], status: int
) -> None:
    answer = client.compute.post("/servers", json=server_body(cloud, **change))
    assert answer.status_code == status, answer.text


def test_a_port_outlives_its_server_and_has_one_at_a_time(
    cloud: EmbeddedCloud, client: Connection
) -> None:
    ours = port(client)
    body = server_body(cloud, networks=[{"port": ours.id}], metadata={"k": "v"})
    created = client.compute.post("/servers", json=body).json()["server"]
    assert client.compute.post("/servers", json=body).status_code == 409
    made = client.compute.wait_for_server(
        client.compute.get_server(created["id"]), interval=0.02, wait=10
    )
    address = ours.fixed_ips[0]["ip_address"]
    assert made.addresses["private"][0]["addr"] == address
    assert address.startswith(cloud.tenant_cidr.rsplit(".", 1)[0])
    assert [s.id for s in client.compute.servers(name="^s$")] == [made.id]
    client.compute.delete_server(made)
    client.compute.wait_for_delete(made, interval=0.02, wait=10)
    assert client.network.get_port(ours.id).device_id == ""


def test_no_valid_host(cloud: EmbeddedCloud, client: Connection) -> None:
    cloud.faults.no_valid_host()
    created = client.compute.post("/servers", json=server_body(cloud)).json()["server"]
    made = client.compute.get_server(created["id"])
    with pytest.raises(exceptions.ResourceFailure):
        client.compute.wait_for_server(made, interval=0.02, wait=10)
    assert "No valid host was found." in client.compute.get_server(made.id).fault["message"]


def test_servers_are_stopped_and_started_only_where_it_makes_sense(
    cloud: EmbeddedCloud, client: Connection
) -> None:
    ours = server(cloud, client)
    answer = client.compute.post(f"/servers/{ours.id}/action", json={"os-start": None})
    assert answer.status_code == 409
    assert "conflictingRequest" in answer.json()


# --- Neutron ---


def test_security_groups_rules_and_tags(cloud: EmbeddedCloud, client: Connection) -> None:
    group = client.network.create_security_group(name="g")
    assert [rule["direction"] for rule in group.security_group_rules] == ["egress", "egress"]
    rule = {
        "security_group_id": group.id,
        "direction": "ingress",
        "protocol": "tcp",
        "port_range_min": 7443,
        "port_range_max": 7443,
        "remote_ip_prefix": "10.0.0.7/32",
    }
    client.network.create_security_group_rule(**rule)
    with pytest.raises(exceptions.ConflictException):
        client.network.create_security_group_rule(**rule)
    client.network.set_tags(group, ["blockferry-migration=1", "other"])
    assert [g.id for g in client.network.security_groups(tags="other")] == [group.id]
    assert list(client.network.security_groups(tags="nobody")) == []
    ours = port(client)
    client.network.update_port(ours, security_group_ids=[group.id])
    with pytest.raises(exceptions.ConflictException):
        client.network.delete_security_group(group)
    client.network.delete_port(ours)
    client.network.delete_security_group(group)


def test_an_operator_sets_limits(cloud: EmbeddedCloud, client: Connection) -> None:
    asked = (("compute", "os-quota-sets", {"quota_set": {"instances": 1}}),
             ("network", "quotas", {"quota": {"security_group": 0}}))  # fmt: skip
    with cloud.connect("admin") as admin:
        for service, path, limits in asked:
            (key,) = limits
            place = f"/{path}/{cloud.project_id}"
            before = getattr(client, service).get(place).json()[key]
            assert getattr(client, service).put(place, json=limits).status_code == 403
            assert getattr(client, service).get(place).json()[key] == before
            nonsense = {key: {"instances": "many", "subnet_pool": 1}}
            assert getattr(admin, service).put(place, json=nonsense).status_code == 400
            assert getattr(admin, service).put(place, json=limits).status_code == 200
            assert getattr(client, service).get(place).json()[key] == before | limits[key]
    answer = client.network.post("/security-groups", json={"security_group": {"name": "x"}})
    assert answer.status_code == 409


def test_neutron_quotas_are_409(cloud: EmbeddedCloud, client: Connection) -> None:
    cloud.quotas["security_group"] = 1
    answer = client.network.post("/security-groups", json={"security_group": {"name": "x"}})
    assert answer.status_code == 409
    assert answer.json()["NeutronError"]["type"] == "OverQuota"


def test_a_port_has_an_address_of_each_family(tmp_path: Path) -> None:
    with EmbeddedCloud("both", tmp_path, ipv6_cidr="fd00:1::/64") as cloud:
        with cloud.connect() as client:
            ours = port(client)
        old, new = (ip_address(one["ip_address"]) for one in ours.fixed_ips)
        assert old in ip_network(cloud.tenant_cidr)
        assert new in ip_network("fd00:1::/64")


# --- faults ---


def test_injected_faults_happen_as_often_as_asked(cloud: EmbeddedCloud, client: Connection) -> None:
    cloud.faults.fail("GET", r"/limits$", status=503, times=2, service="cinder")
    statuses = [client.block_storage.get("/limits").status_code for _ in range(3)]
    assert statuses == [503, 503, 200]


def test_an_answer_may_be_lost_though_the_work_is_done(
    cloud: EmbeddedCloud, client: Connection
) -> None:
    cloud.faults.lose_response("POST", r"/volumes$")
    # The SDK that Python 3.10 gets would ask again by itself.
    client.block_storage.connect_retries = 0
    with pytest.raises(ConnectFailure):
        client.block_storage.create_volume(name="lost", size=1)
    assert [volume.name for volume in client.block_storage.volumes()] == ["lost"]


def test_base64_of_user_data_reaches_the_guest(cloud: EmbeddedCloud, client: Connection) -> None:
    text = base64.b64encode(b"#cloud-config\n").decode()
    created = client.compute.post("/servers", json=server_body(cloud, user_data=text)).json()
    made = client.compute.get_server(created["server"]["id"])
    client.compute.wait_for_server(made, interval=0.02, wait=10)
    stored = cloud.directory / "instances" / made.id / "user-data"
    assert stored.read_bytes() == b"#cloud-config\n"
