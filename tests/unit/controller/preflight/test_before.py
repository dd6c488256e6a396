"""Every check before anything is made: a row per way in which it comes out."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from msgspec.structs import replace

from blockferry import __version__
from blockferry.errors import BlockferryError, ForbiddenError, UnreachableError, UsageError
from blockferry.limits import GIB, MIB
from blockferry_controller.clouds.port import Access, Attachment, Flavor, Network, VolumeType
from blockferry_controller.engine.state import StateStore
from blockferry_controller.migration.preflight import BEFORE, BOOTED, skippable
from blockferry_controller.migration.preflight.check import SKIPPED, Outcome
from blockferry_controller.spec import Endpoint, Kind, Placement
from tests.fakes.cloud import MemoryCloud
from tests.unit.controller.preflight.stage import Stage

OPTIONAL = [rule.name for rule in BEFORE if not rule.needed]


@pytest.fixture
def stage(store: StateStore) -> Stage:
    stage = Stage(store)
    stage.east.add_volume("data", 2 * GIB)
    return stage


@pytest.mark.parametrize(
    ("set_up", "said"),
    [
        pytest.param(lambda stage: None, "could be made of public", id="could"),
        pytest.param(lambda s: s.place(floating_ip="always"), "will be made", id="will"),
        pytest.param(lambda s: s.place(floating_ip="never"), "none is wanted", id="may not"),
        pytest.param(lambda s: s.place(ip_version=6), "none will be needed", id="of no use"),
        pytest.param(lambda s: share(s.east), "none will be needed", id="routed network"),
    ],
)
def test_a_floating_ip_is_foreseen(
    stage: Stage, set_up: Callable[[Stage], None], said: str
) -> None:
    set_up(stage)
    check = stage.checks()["source-floating-ip"]
    assert check.outcome is Outcome.OK
    assert said in check.detail


def share(cloud: MemoryCloud) -> None:
    cloud.networks = [replace(cloud.networks[0], shared=True)]


def test_all_is_well(stage: Stage) -> None:
    checks = stage.checks()

    assert list(checks) == [rule.name for rule in BEFORE]
    doubts = {name: check for name, check in checks.items() if check.outcome is not Outcome.OK}
    assert list(doubts) == ["wheels"], "a stock image without --wheels needs PyPI"
    assert not {verb for verb in stage.east.verbs + stage.west.verbs if "ensure" in verb}


def same_project(stage: Stage) -> None:
    stage.west = stage.east


def looks_on(stage: Stage) -> None:
    stage.west.standing = Access(frozenset({"reader"}))


def no_image_service(stage: Stage) -> None:
    error = UnreachableError("CLOUD_UNREACHABLE", "image: nobody there")
    stage.east.standing = Access(frozenset({"member"}), {"image": error})


def forbidden(stage: Stage) -> None:
    error = ForbiddenError("CLOUD_FORBIDS", "no")
    stage.west.standing = Access(frozenset({"member"}), {"compute": error})


def not_there(stage: Stage) -> None:
    stage.ask(source=Endpoint("east", "nothing"))


def twins(stage: Stage) -> None:
    stage.east.add_volume("data")


def in_use(stage: Stage) -> None:
    volume = stage.east.find_volume("data")
    tied = replace(volume, status="in-use", attachments=(Attachment("shop-1", "/dev/vdb"),))
    stage.east.volumes[volume.id] = tied


def stuck(stage: Stage) -> None:
    volume = stage.east.find_volume("data")
    stage.east.volumes[volume.id] = replace(volume, status="reserved")


def smaller(stage: Stage) -> None:
    stage.ask(to_size_bytes=GIB)


def unknown_type(stage: Stage) -> None:
    stage.ask(to_type="gold")


def mapped_to_nothing(stage: Stage) -> None:
    stage.ask(types={"standard": "gold"})


def unknown_zone(stage: Stage) -> None:
    stage.ask(to_availability_zone="moon")


def secret_to_plain(stage: Stage) -> None:
    volume = stage.east.find_volume("data")
    stage.east.volumes[volume.id] = replace(volume, encrypted=True)


def shared_to_single(stage: Stage) -> None:
    volume = stage.east.find_volume("data")
    stage.east.volumes[volume.id] = replace(volume, multiattach=True)


def no_image(stage: Stage) -> None:
    stage.west.images.clear()


def no_flavor(stage: Stage) -> None:
    stage.east.flavors = [Flavor("t", "tiny", 1, 64 * MIB, GIB)]


def two_networks(stage: Stage) -> None:
    other = Network("n-2", "other", external=False, shared=False, ip_versions=frozenset({4, 6}))
    stage.west.networks.append(other)


def no_ipv6(stage: Stage) -> None:
    stage.place(ip_version=6)
    stage.east.networks = [replace(stage.east.networks[0], ip_versions=frozenset({4}))]


def no_ipv6_where_named(stage: Stage) -> None:
    stage.place(ip_version=6, network="own")
    stage.west.networks = [replace(stage.west.networks[0], ip_versions=frozenset({4}))]


def named_no_floating_network(stage: Stage) -> None:
    stage.place(external_network="own")
    stage.west.networks.append(replace(stage.west.networks[1], id="n", name="own"))


def only_own(cloud: MemoryCloud) -> None:
    cloud.networks = [one for one in cloud.networks if not one.external]


def always_without_external(stage: Stage) -> None:
    stage.place(floating_ip="always")
    only_own(stage.west)


def always_without_quota(stage: Stage) -> None:
    stage.place(floating_ip="always")
    used_up("floating_ips")(stage)


def without_external(stage: Stage) -> None:
    only_own(stage.west)


def too_much_user_data(stage: Stage) -> None:
    stage.place(wheels="https://wheels.example/" + "".join(map(str, range(40_000))))


def used_up(resource: str, left: int = 0) -> Callable[[Stage], None]:
    def use_up(stage: Stage) -> None:
        stage.west.quotas = {**stage.west.quotas, resource: left}

    use_up.__name__ = f"no {resource}"
    return use_up


@pytest.mark.parametrize(
    ("set_up", "name", "reason", "exit_code"),
    [
        (same_project, "clouds", "SAME_CLOUD", 12),
        (no_image_service, "source-access", "CLOUD_UNREACHABLE", 16),
        (forbidden, "destination-access", "CLOUD_FORBIDS", 10),
        (looks_on, "destination-access", "ROLE_TOO_SMALL", 10),
        (not_there, "source-volume", "VOLUME_NOT_FOUND", 11),
        (twins, "source-volume", "VOLUME_AMBIGUOUS", 12),
        (in_use, "source-state", "VOLUME_ATTACHED", 12),
        (stuck, "source-state", "VOLUME_STATE", 12),
        (smaller, "destination-size", "DESTINATION_TOO_SMALL", 12),
        (unknown_type, "volume-type", "VOLUME_TYPE_NOT_FOUND", 11),
        (mapped_to_nothing, "volume-type", "VOLUME_TYPE_NOT_FOUND", 11),
        (unknown_zone, "availability-zone", "AVAILABILITY_ZONE_NOT_FOUND", 11),
        (secret_to_plain, "encryption", "ENCRYPTION_LOST", 12),
        (shared_to_single, "multiattach", "MULTIATTACH_LOST", 12),
        (no_flavor, "source-instance", "NO_SUITABLE_FLAVOR", 14),
        (no_image, "destination-instance", "NO_SUITABLE_IMAGE", 11),
        (two_networks, "destination-network", "NETWORK_AMBIGUOUS", 12),
        (no_ipv6, "source-network", "NO_SUITABLE_NETWORK", 11),
        (no_ipv6_where_named, "destination-network", "NETWORK_WITHOUT_FAMILY", 12),
        (named_no_floating_network, "source-floating-ip", "NETWORK_NOT_FOUND", 11),
        (always_without_external, "destination-floating-ip", "NO_EXTERNAL_NETWORK", 11),
        (always_without_quota, "destination-quota", "QUOTA_FLOATING_IPS", 14),
        (too_much_user_data, "user-data", "USER_DATA_TOO_LARGE", 2),
        (used_up("instances"), "destination-quota", "QUOTA_INSTANCES", 14),
        (used_up("cores"), "destination-quota", "QUOTA_CORES", 14),
        (used_up("ram_bytes", 100 * MIB), "destination-quota", "QUOTA_RAM_BYTES", 14),
        (used_up("volumes"), "destination-quota", "QUOTA_VOLUMES", 14),
        (used_up("gigabytes", 1), "destination-quota", "QUOTA_GIGABYTES", 14),
        (used_up("gigabytes_standard", 1), "destination-quota", "QUOTA_GIGABYTES_OF_TYPE", 14),
        (used_up("ports"), "destination-quota", "QUOTA_PORTS", 14),
        (used_up("security_groups"), "destination-quota", "QUOTA_SECURITY_GROUPS", 14),
        (used_up("security_group_rules", 5), "destination-quota", "QUOTA_SECURITY_GROUP_RULES", 14),
    ],
)
def test_what_fails(
    stage: Stage, set_up: Callable[[Stage], None], name: str, reason: str, exit_code: int
) -> None:
    set_up(stage)

    checks = stage.checks()

    assert checks[name].outcome is Outcome.FAIL
    error = checks[name].error
    assert error is not None
    assert (error.reason, error.meaning.exit_code) == (reason, exit_code)
    assert checks[name].detail == error.message
    failed = [check.name for check in checks.values() if check.outcome is Outcome.FAIL]
    assert failed == [name], "it alone"
    with pytest.raises(BlockferryError) as caught:
        stage.enforce()
    assert caught.value.reason == reason


def slow_clock(stage: Stage) -> None:
    stage.east.standing = Access(frozenset({"member"}), {}, -90.0)


def no_such_type(stage: Stage) -> None:
    stage.west.volume_types = ["other"]


def untold_encryption(stage: Stage) -> None:
    secret_to_plain(stage)
    stage.west.kinds["standard"] = VolumeType("standard", "standard")


def allowed_downgrade(stage: Stage) -> None:
    secret_to_plain(stage)
    stage.ask(allow_downgrade=True)


def a_key_of_this_cloud(stage: Stage) -> None:
    volume = stage.east.find_volume("data")
    image = {"hw_firmware_type": "uefi", "cinder_encryption_key_id": "k"}
    stage.east.volumes[volume.id] = replace(volume, bootable=True, image_metadata=image)


def no_common_family(stage: Stage) -> None:
    for cloud, version in ((stage.east, 4), (stage.west, 6)):
        cloud.networks = [replace(cloud.networks[0], ip_versions=frozenset({version}))]


def no_common_choice(stage: Stage) -> None:
    old, new = (replace(stage.spec.source, placement=Placement(ip_version=n)) for n in (4, 6))
    stage.ask(source=old, destination=replace(new, cloud="west", volume=""))


def short_window(stage: Stage) -> None:
    stage.ask(max_duration_seconds=1)


@pytest.mark.parametrize(
    ("set_up", "name", "said"),
    [
        (slow_clock, "source-clock", "behind"),
        (no_such_type, "volume-type", "--to-type"),
        (untold_encryption, "encryption", "does not tell"),
        (allowed_downgrade, "encryption", "--allow-downgrade"),
        (allowed_downgrade, "fidelity", "encrypted (true becomes false"),
        (a_key_of_this_cloud, "fidelity", "image metadata cinder_encryption_key_id (of use"),
        (no_such_type, "fidelity", "volume_type (standard becomes other"),
        (no_common_family, "address-family", "--network"),
        (no_common_choice, "address-family", "own in west (IPv6)"),
        (without_external, "destination-floating-ip", "there is no external network"),
        (used_up("floating_ips"), "destination-floating-ip", "the quota leaves none"),
        (short_window, "duration", "--max-duration 1.0 s"),
    ],
)
def test_what_warns(stage: Stage, set_up: Callable[[Stage], None], name: str, said: str) -> None:
    set_up(stage)

    checks = stage.checks()

    assert checks[name].outcome is Outcome.WARN
    assert said in checks[name].detail
    stage.enforce()
    assert any(said in warning for warning in stage.warnings), "people are told, and it goes on"


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        (VolumeType("vault", "vault", encrypted=True, multiattach=True), Outcome.OK),
        (VolumeType("vault", "vault", encrypted=False, multiattach=False), Outcome.FAIL),
        (VolumeType("vault", "vault"), Outcome.WARN),
    ],
    ids=["offered", "not offered", "not told"],
)
def test_what_the_type_there_offers(stage: Stage, kind: VolumeType, outcome: Outcome) -> None:
    secret_to_plain(stage)
    shared_to_single(stage)
    stage.west.volume_types.append("vault")
    stage.west.kinds["vault"] = kind
    stage.ask(types={"standard": "vault"})

    checks = stage.checks()

    assert checks["volume-type"].detail == "vault", "as the configuration maps it"
    assert [checks[name].outcome for name in ("encryption", "multiattach")] == [outcome] * 2


def test_zones_are_mapped_too(stage: Stage) -> None:
    stage.west.zones += ["cellar"]
    stage.ask(zones={"nova": "cellar"})
    assert stage.checks()["availability-zone"].detail == "cellar"
    assert stage.checks()["fidelity"].outcome is Outcome.OK, "asked for, so no loss"


def test_a_flavor_without_a_disk_takes_a_volume_on_both_sides(stage: Stage) -> None:
    for cloud in (stage.east, stage.west):
        cloud.flavors = [replace(cloud.flavors[0], disk_bytes=0)]
    stage.east.quotas = {**stage.east.quotas, "volumes": 1}
    checks = stage.checks()
    assert checks["source-quota"].error is not None
    assert checks["source-quota"].error.reason == "QUOTA_VOLUMES"
    stage.east.quotas = {**stage.east.quotas, "volumes": 2}
    assert stage.checks()["source-quota"].outcome is Outcome.OK


@pytest.mark.parametrize("name", OPTIONAL)
def test_each_check_can_be_skipped(stage: Stage, name: str) -> None:
    stage.ask(skip_checks=skippable([name]))
    checks = stage.checks()
    assert (checks[name].outcome, checks[name].detail) == (Outcome.WARN, SKIPPED)
    assert len(checks) == len(BEFORE), "nothing that builds on it is left out"


def test_a_skipped_check_does_not_fail(stage: Stage) -> None:
    secret_to_plain(stage)
    stage.ask(skip_checks=("encryption",))
    stage.enforce()


@pytest.mark.parametrize(
    ("name", "reason"), [("qutoa", "CHECK_UNKNOWN"), ("source-volume", "CHECK_NEEDED")]
)
def test_what_cannot_be_skipped_is_answered_with_what_can(name: str, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        skippable(["clouds", name])
    assert caught.value.reason == reason
    for rule in (*BEFORE, *BOOTED):
        assert (rule.name in caught.value.message.split(" are ")[1]) is not rule.needed, rule.name


def test_a_check_after_one_that_failed_is_not_made(stage: Stage) -> None:
    not_there(stage)
    names = set(stage.checks())
    assert not names & {"source-state", "volume-type", "fidelity", "destination-quota"}
    assert names >= {"clouds", "destination-instance", "source-quota", "user-data"}


def test_rules_come_after_what_they_build_on() -> None:
    seen: set[str] = set()
    for rule in BEFORE:
        assert seen >= set(rule.after), rule.name
        seen.add(rule.name)
    assert len({rule.name for rule in (*BEFORE, *BOOTED)}) == len(BEFORE) + len(BOOTED)


def test_files_of_this_machine_have_neither_type_nor_zone(stage: Stage) -> None:
    stage.west.add_volume("copy", GIB)
    stage.ask(kind=Kind.COPY, destination=Endpoint("west", "copy"))
    checks = stage.checks()
    assert checks["volume-type"].outcome is Outcome.OK
    assert checks["destination-size"].error is not None
    assert checks["destination-size"].error.reason == "DESTINATION_TOO_SMALL"


class Wheels(BaseHTTPRequestHandler):
    """`/page` links wheels, `/simple/grpcio/` is an index's page, `/empty` links nothing."""

    def do_GET(self) -> None:
        pages = {
            "/page": b"<a href='grpcio-1.85-cp312.whl'>grpcio</a>",
            "/simple": b"<a href='blake3/'>blake3</a>",
            "/simple/grpcio/": b"<a href='grpcio-1.85-cp312.whl'>it</a>",
            "/empty": b"",
            "/empty/grpcio/": b"",
        }
        self.send_response(200 if self.path in pages else 404)
        self.end_headers()
        self.wfile.write(pages.get(self.path, b""))

    def log_message(self, *_: object) -> None:
        """Not into the tests' output."""


@contextmanager
def wheels() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Wheels) as server:
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("path", "outcome", "said"),
    [
        ("http://{}/page", Outcome.OK, "answers"),
        ("http://{}/simple", Outcome.OK, "answers"),
        ("http://me:geheim@{}/nothing", Outcome.WARN, "does not answer here"),
        ("http://{}/empty", Outcome.WARN, "links no wheel"),
        ("http://127.0.0.1:9/x", Outcome.WARN, "does not answer here"),
        ("ftp://{}/page", Outcome.WARN, "not an http"),
        ("http://[", Outcome.WARN, "not a URL"),
    ],
)
def test_wheels(stage: Stage, path: str, outcome: Outcome, said: str) -> None:
    with wheels() as place:
        stage.place(wheels=path.format(place))
        check = stage.checks()["wheels"]
    assert check.outcome is outcome, check.detail
    assert said in check.detail
    assert "geheim" not in check.detail


@pytest.mark.parametrize(
    ("place", "ip_version", "reason"),
    [
        ("http://192.0.2.1/", 6, "WHEELS_UNREACHABLE"),
        ("http://[2001:db8::1]/", 4, "WHEELS_UNREACHABLE"),
        ("{}/page", 4, ""),
    ],
)
def test_wheels_at_an_address_of_another_family(
    stage: Stage, place: str, ip_version: int, reason: str
) -> None:
    with wheels() as offered:
        stage.place(wheels=place.format(offered), ip_version=ip_version)
        check = stage.checks()["wheels"]
    assert (check.error.reason if check.error else "") == reason, check.detail


@pytest.mark.parametrize(
    ("bus", "outcome"),
    [("ide", Outcome.WARN), ("SATA", Outcome.WARN), ("virtio", Outcome.OK), ("scsi", Outcome.OK)],
)
def test_an_image_whose_disks_cannot_come_later(stage: Stage, bus: str, outcome: Outcome) -> None:
    image = stage.west.images[0]
    properties = {**image.properties, "hw_disk_bus": bus}
    stage.west.images = [replace(image, properties=properties)]
    found = stage.checks()
    assert found["source-instance"].outcome is Outcome.OK
    check = found["destination-instance"]
    assert check.outcome is outcome
    assert ("--image" in check.detail) is (outcome is Outcome.WARN)


def test_a_prepared_image_needs_no_wheels(stage: Stage) -> None:
    for cloud in (stage.east, stage.west):
        properties = {"blockferry_agent": __version__}
        cloud.images = [replace(cloud.images[0], properties=properties)]
    assert stage.checks()["wheels"].outcome is Outcome.OK
