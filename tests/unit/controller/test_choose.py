"""What is chosen for the temp instance: a row per case."""

from collections.abc import Callable

import pytest

from blockferry.errors import BlockferryError, NotFoundError
from blockferry.limits import GIB, MIB
from blockferry_controller.clouds.port import Flavor, Image, Network
from blockferry_controller.migration.choose import (
    choose_flavor,
    choose_image,
    choose_network,
    external_networks,
    is_prepared,
)

VERSION = "1.2.3"


def outcome(choose: Callable[[], Flavor | Image | Network]) -> str:
    """The name of what is chosen, or the reason why nothing is."""
    try:
        return choose().name
    except BlockferryError as error:
        return error.reason


def flavor(name: str, ram_mib: int, disk_gib: int, vcpus: int = 1) -> Flavor:
    return Flavor(f"id-{name}", name, vcpus, ram_mib * MIB, disk_gib * GIB)


def image(
    name: str,
    *,
    created: str = "2026-01-01T00:00:00Z",
    disk_gib: int = 0,
    ram_mib: int = 0,
    status: str = "active",
    **properties: str,
) -> Image:
    return Image(
        f"id-{name}", name, status, disk_gib * GIB, ram_mib * MIB, 1 * GIB, created, properties
    )


def network(
    name: str, ip: str = "4", *, external: bool = False, shared: bool = False, net_id: str = ""
) -> Network:
    return Network(net_id or f"id-{name}", name, external, shared, frozenset(int(c) for c in ip))


NANO, SMALL, BIG = flavor("nano", 512, 3), flavor("small", 1024, 5), flavor("big", 8192, 80, 4)
TINY, VOLUME_ROOT = flavor("tiny", 256, 1), flavor("volume-root", 512, 0)


@pytest.mark.parametrize(
    ("flavors", "needs", "wanted", "chosen"),
    [
        pytest.param([BIG, SMALL, NANO, TINY], image("i"), "", "nano", id="smallest-that-carries"),
        pytest.param([flavor("a", 481, 1), BIG], image("i"), "", "a", id="a-little-under-512"),
        pytest.param([flavor("a", 479, 1), BIG], image("i"), "", "big", id="too-little-memory"),
        pytest.param([NANO, SMALL], image("i", disk_gib=4), "", "small", id="image-needs-disk"),
        pytest.param([NANO, BIG], image("i", ram_mib=2048), "", "big", id="image-needs-memory"),
        pytest.param([VOLUME_ROOT], image("i", disk_gib=9), "", "volume-root", id="image-decides"),
        pytest.param([VOLUME_ROOT, NANO], image("i"), "", "nano", id="own-disk-is-simpler"),
        pytest.param([flavor("a", 512, 3, 2), NANO], image("i"), "", "nano", id="fewer-cpus"),
        pytest.param([BIG, TINY], image("i"), "tiny", "tiny", id="named-is-taken-as-it-is"),
        pytest.param([BIG, TINY], image("i"), "id-tiny", "tiny", id="named-by-id"),
        pytest.param([BIG], image("i"), "gone", "FLAVOR_NOT_FOUND", id="named-is-not-there"),
        pytest.param([TINY], image("i"), "", "NO_SUITABLE_FLAVOR", id="none-is-large-enough"),
        pytest.param([], image("i"), "", "NO_SUITABLE_FLAVOR", id="none-at-all"),
    ],
)
def test_choose_flavor(flavors: list[Flavor], needs: Image, wanted: str, chosen: str) -> None:
    assert outcome(lambda: choose_flavor(flavors, needs, wanted)) == chosen


OLD, NEW = "2025-01-01T00:00:00Z", "2026-06-01T00:00:00Z"
DEBIAN = image("deb", os_distro="debian", os_version="12", created=OLD)
UBUNTU = image("ubu", os_distro="ubuntu", os_version="24.04", created=NEW)
PREPARED = image("ready", blockferry_agent=VERSION, created=OLD)


@pytest.mark.parametrize(
    ("images", "wanted", "chosen"),
    [
        pytest.param([UBUNTU, PREPARED, DEBIAN], "", "ready", id="prepared-first"),
        pytest.param([UBUNTU, image("old", blockferry_agent="1.2.2")], "", "ubu", id="other-agent"),
        pytest.param([DEBIAN, UBUNTU], "", "ubu", id="newest"),
        pytest.param([UBUNTU, DEBIAN], "deb", "deb", id="named"),
        pytest.param([UBUNTU, DEBIAN], "id-deb", "deb", id="named-by-id"),
        pytest.param([image("rocky-9")], "rocky-9", "rocky-9", id="named-whatever-it-is"),
        pytest.param([UBUNTU], "gone", "IMAGE_NOT_FOUND", id="named-is-not-there"),
        pytest.param([image("Ubuntu 22.04 LTS")], "", "Ubuntu 22.04 LTS", id="by-name"),
        pytest.param([image("debian-12-generic")], "", "debian-12-generic", id="by-name-dashes"),
        pytest.param([image("GNU/Debian 13")], "", "GNU/Debian 13", id="by-name-words"),
        pytest.param([image("noble-server-cloudimg")], "", "noble-server-cloudimg", id="codename"),
        pytest.param([image("ubuntu-20.04")], "", "NO_SUITABLE_IMAGE", id="python-too-old"),
        pytest.param([image("debian-11")], "", "NO_SUITABLE_IMAGE", id="debian-too-old"),
        pytest.param([image("focal", os_distro="ubuntu")], "", "NO_SUITABLE_IMAGE", id="unknown"),
        pytest.param([image("rocky-9", os_distro="rocky")], "", "NO_SUITABLE_IMAGE", id="other"),
        pytest.param(
            [image("debian-12", os_distro="rocky")], "", "NO_SUITABLE_IMAGE", id="property-wins"
        ),
        pytest.param([image("debian-12-arm64")], "", "NO_SUITABLE_IMAGE", id="other-architecture"),
        pytest.param(
            [image("debian-12", architecture="aarch64")], "", "NO_SUITABLE_IMAGE", id="aarch64"
        ),
        pytest.param(
            [image("d", os_distro="debian", os_version="12", architecture="x86_64")],
            "",
            "d",
            id="x86_64",
        ),
        pytest.param([image("ubuntu-24.04-kube-1.31")], "", "NO_SUITABLE_IMAGE", id="kubernetes"),
        pytest.param(
            [image("debian-12", image_type="snapshot")], "", "NO_SUITABLE_IMAGE", id="snapshot"
        ),
        pytest.param(
            [image("debian-12", status="queued")], "", "NO_SUITABLE_IMAGE", id="not-active"
        ),
        pytest.param([], "", "NO_SUITABLE_IMAGE", id="none-at-all"),
    ],
)
def test_choose_image(images: list[Image], wanted: str, chosen: str) -> None:
    assert outcome(lambda: choose_image(images, wanted, VERSION)) == chosen


def test_image_of_the_wanted_architecture_is_chosen() -> None:
    images = [DEBIAN, image("debian-12-arm64")]
    assert choose_image(images, "", VERSION, "aarch64").name == "debian-12-arm64"


def test_of_several_images_with_the_name_the_newest_is_taken() -> None:
    older, newer = image("same", created=OLD), image("same", created=NEW)
    assert choose_image([newer, older], "same", VERSION) is newer


def test_another_version_of_the_agent_is_as_good_as_none() -> None:
    assert is_prepared(PREPARED, VERSION)
    assert not is_prepared(PREPARED, "9.9.9")
    assert not is_prepared(DEBIAN, "")


OWN, OWN6 = network("own"), network("own6", "46")
SHARED = network("shared", shared=True)
PUBLIC = network("public", external=True)


@pytest.mark.parametrize(
    ("networks", "wanted", "chosen"),
    [
        pytest.param([PUBLIC, SHARED, OWN], "", "own", id="the-project's-own"),
        pytest.param([PUBLIC, SHARED], "", "shared", id="shared-before-external"),
        pytest.param([PUBLIC], "", "public", id="the-only-one"),
        pytest.param([OWN, OWN6], "", "own6", id="the-only-one-with-ipv6"),
        pytest.param([OWN, network("b")], "", "NETWORK_AMBIGUOUS", id="two"),
        pytest.param([OWN6, network("b", "6")], "", "NETWORK_AMBIGUOUS", id="two-with-ipv6"),
        pytest.param([network("bare", ""), OWN], "", "own", id="one-without-subnet"),
        pytest.param([network("bare", "")], "", "NO_SUITABLE_NETWORK", id="no-subnet-at-all"),
        pytest.param([], "", "NO_SUITABLE_NETWORK", id="none"),
        pytest.param([OWN, PUBLIC], "public", "public", id="named"),
        pytest.param([OWN, PUBLIC], "id-public", "public", id="named-by-id"),
        pytest.param([OWN], "gone", "NETWORK_NOT_FOUND", id="named-is-not-there"),
        pytest.param(
            [network("n", net_id="1"), network("n", net_id="2")],
            "n",
            "NETWORK_AMBIGUOUS",
            id="named-two",
        ),
    ],
)
def test_choose_network(networks: list[Network], wanted: str, chosen: str) -> None:
    assert outcome(lambda: choose_network(networks, wanted)) == chosen


@pytest.mark.parametrize(
    ("networks", "wanted", "ip_version", "chosen"),
    [
        pytest.param([OWN, OWN6], "", 4, "own6", id="both-have-it"),
        pytest.param([OWN, network("v6", "6")], "", 4, "own", id="only-one-has-ipv4"),
        pytest.param([OWN, SHARED, OWN6], "", 6, "own6", id="only-one-has-ipv6"),
        pytest.param([OWN, SHARED], "", 6, "NO_SUITABLE_NETWORK", id="none-has-it"),
        pytest.param([OWN, OWN6], "own", 6, "NETWORK_WITHOUT_FAMILY", id="named-has-it-not"),
        pytest.param([OWN, OWN6], "own6", 4, "own6", id="named-has-it"),
        pytest.param(
            [network("n", "4", net_id="1"), network("n", "6", net_id="2")],
            "n", 4, "n", id="of-two-named-the-one-that-has-it",
        ),
    ],
)  # fmt: skip
def test_choose_network_of_a_family(
    networks: list[Network], wanted: str, ip_version: int, chosen: str
) -> None:
    assert outcome(lambda: choose_network(networks, wanted, ip_version)) == chosen


@pytest.mark.parametrize(
    ("wanted", "found"),
    [("", ["public", "other"]), ("other", ["other"]), ("id-public", ["public"])],
)
def test_networks_of_floating_ips(wanted: str, found: list[str]) -> None:
    networks = [OWN, PUBLIC, network("other", external=True)]
    assert [one.name for one in external_networks(networks, wanted)] == found


def test_a_network_that_is_not_external_has_no_floating_ips() -> None:
    with pytest.raises(NotFoundError, match=r"no external network own\..*public"):
        external_networks([OWN, PUBLIC], "own")


def test_messages_name_what_is_there_and_stay_short() -> None:
    with pytest.raises(BlockferryError, match=r"small .* and 88 more") as caught:
        choose_flavor([SMALL, *(flavor(f"z{n}", 1, 1) for n in range(99))], image("i"), "x")
    assert len(caught.value.message) < 1000
