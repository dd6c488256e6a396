"""What the temp instance is made of, where nobody said.

Rules:
* What a person named, by id or name, is taken as it is; no other is looked at.
* An image with this very agent baked in comes first: it boots without an index.
* Else a stock Ubuntu or Debian with Python >= 3.10 (Ubuntu 22.04, Debian 12),
  the newest: the base cloud-config is made for these two.
* The flavor is the smallest that carries agent and image; how many vCPUs it had better have is
  decided in sizing.py.
* The network is chosen only when there is one sensible choice: guessing between
  two would put the instance where its peer may not reach it.

Pure: lists in, one of them out.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

from blockferry import __version__
from blockferry.errors import BlockferryError, CapacityError, NotFoundError, PreconditionError
from blockferry.limits import GIB, MIB
from blockferry_controller.clouds.port import Flavor, Image, Network, VolumeType

AGENT_RAM_BYTES: Final = 480 * MIB
"""Least memory of a flavor: "512 MB" flavors of some clouds have a little less."""
LANE_RAM_BYTES: Final = 192 * MIB
"""What each further agent of an instance needs: at most 174 MiB were measured."""
AGENT_PROPERTY: Final = "blockferry_agent"
"""Image property: version of the agent that the image holds."""

_LISTED = 12
_OLDEST: Final = {"ubuntu": (22, 4), "debian": (12, 0)}
"""First release whose python3 is at least 3.10."""
_CODENAMES: Final = {
    "bookworm": ("debian", (12, 0)),
    "trixie": ("debian", (13, 0)),
    "jammy": ("ubuntu", (22, 4)),
    "noble": ("ubuntu", (24, 4)),
    "questing": ("ubuntu", (25, 10)),
}
_NAMED_RELEASE = re.compile(r"\b(ubuntu|debian)\D{0,20}?(\d{1,2}(?:\.\d{1,2})?)\b")
_SPECIAL = re.compile(
    r"amphora|baremetal|capi|cuda|desktop|gpu|ironic|k8s|kube|nvidia|rescue|snapshot|windows"
)
"""In the name of an image that is made for something else than a plain server."""
_ARCHITECTURES: Final = {
    "x86_64": re.compile(r"x86[_-]64|amd64"),
    "aarch64": re.compile(r"aarch64|arm64"),
    "other": re.compile(r"\barm\b|armhf|i[36]86|ppc64|riscv|s390"),
}

_T = TypeVar("_T", Flavor, Image, Network, VolumeType)


def choose_flavor(flavors: Sequence[Flavor], image: Image, wanted: str) -> Flavor:
    """The first of `fitting_flavors`."""
    return fitting_flavors(flavors, image, wanted)[0]


def fitting_flavors(
    flavors: Sequence[Flavor], image: Image, wanted: str, lanes: int = 1
) -> list[Flavor]:
    """Only the flavor `wanted` by id or name, else all that carry agents and image, best first.

    Args:
        flavors: As the cloud lists them.
        image: What is booted.
        wanted: Empty: choose.
        lanes: Agents of an instance.

    Raises:
        NotFoundError: FLAVOR_NOT_FOUND.
        CapacityError: NO_SUITABLE_FLAVOR, none is large enough.
    """
    if wanted:
        named = _by_reference(flavors, wanted)
        if not named:
            raise NotFoundError(
                "FLAVOR_NOT_FOUND",
                f"There is no flavor {wanted}. There are: {_listing(flavors, _flavor_text)}.",
                flavor=wanted,
            )
        return named[:1]
    ram_bytes = _ram_needed(image, lanes)
    fitting = [flavor for flavor in flavors if _carries(flavor, image, ram_bytes)]
    if not fitting:
        raise CapacityError(
            "NO_SUITABLE_FLAVOR",
            f"No flavor has {ram_bytes // MIB} MiB of memory and "
            f"{_gib(image.min_disk_bytes)} of disk for image {image.name}. "
            f"There are: {_listing(flavors, _flavor_text)}. "
            "Name one with --flavor, or ask for a larger one.",
            image=image.id,
        )
    return sorted(fitting, key=_flavor_size)


def choose_image(
    images: Sequence[Image], wanted: str, agent_version: str, architecture: str = "x86_64"
) -> Image:
    """The image `wanted` by id or name, else a prepared one, else the newest stock one.

    Args:
        images: As the cloud lists them.
        wanted: Id or name; empty: choose. Of several with the name, the newest.
        agent_version: What an image's `blockferry_agent` property must say.
        architecture: `x86_64` or `aarch64`; an image that does not tell passes
            for x86_64.

    Raises:
        NotFoundError: IMAGE_NOT_FOUND, NO_SUITABLE_IMAGE.
    """
    if wanted:
        named = _by_reference(images, wanted)
        if not named:
            raise NotFoundError(
                "IMAGE_NOT_FOUND",
                f"There is no active image {wanted}. There are: {_listing(images, _image_text)}.",
                image=wanted,
            )
        return max(named, key=_age)
    usable = [
        image
        for image in images
        if image.status.lower() == "active" and _architecture(image) == architecture
    ]
    prepared = [image for image in usable if is_prepared(image, agent_version)]
    stock = [image for image in usable if _is_stock(image)]
    if not prepared and not stock:
        raise NotFoundError(
            "NO_SUITABLE_IMAGE",
            f"No active {architecture} image holds agent {agent_version} or is a stock Ubuntu >= "
            f"22.04 or Debian >= 12. There are: {_listing(images, _image_text)}. "
            "Name one with --image, or upload a cloud image.",
            architecture=architecture,
        )
    return max(prepared or stock, key=_age)


def is_prepared(image: Image, agent_version: str = __version__) -> bool:
    """Whether the image holds exactly this agent: another version is as good as none."""
    return image.properties.get(AGENT_PROPERTY) == agent_version


def choose_network(networks: Sequence[Network], wanted: str, ip_version: int = 0) -> Network:
    """The network `wanted` by id or name, else the only sensible one.

    The project's own networks come before shared ones, those before external
    ones; among equals the only one with IPv6 is taken.

    Args:
        networks: As the cloud lists them.
        wanted: Id or name; empty: choose.
        ip_version: Family that it must have, 4 or 6; 0 for any.

    Raises:
        NotFoundError: NETWORK_NOT_FOUND, NO_SUITABLE_NETWORK.
        PreconditionError: NETWORK_AMBIGUOUS; NETWORK_WITHOUT_FAMILY, for the one wanted.
    """
    if wanted:
        named = _by_reference(networks, wanted)
        if not named:
            raise NotFoundError(
                "NETWORK_NOT_FOUND",
                f"There is no network {wanted}. There are: {_listing(networks, _network_text)}.",
                network=wanted,
            )
        return _with_family(_only(named, ip_version), ip_version)
    addressed = [network for network in networks if _usable(network, ip_version)]
    own = [network for network in addressed if not network.external and not network.shared]
    inner = [network for network in addressed if not network.external]
    for group in (own, inner, addressed):
        if group:
            return _only(group, ip_version)
    family = f"an IPv{ip_version}" if ip_version else "a"
    raise NotFoundError(
        "NO_SUITABLE_NETWORK",
        f"The project has no network with {family} subnet to put the temp instance on. "
        f"There are: {_listing(networks, _network_text)}. Create one, or name one with --network.",
    )


def external_networks(networks: Sequence[Network], wanted: str) -> list[Network]:
    """Networks that floating IPs may be of: those `wanted` by id or name, else all external ones.

    Raises:
        NotFoundError: NETWORK_NOT_FOUND, for the one wanted only.
    """
    external = [network for network in networks if network.external]
    if not wanted:
        return external
    named = _by_reference(external, wanted)
    if not named:
        raise NotFoundError(
            "NETWORK_NOT_FOUND",
            f"There is no external network {wanted}. There are: "
            f"{_listing(external, _network_text)}. Name another with --external-network.",
            network=wanted,
        )
    return list(named)


def no_external_network(cloud: str) -> BlockferryError:
    """The error for a floating IP that must be, where `external_networks` are none."""
    return NotFoundError(
        "NO_EXTERNAL_NETWORK",
        f"{cloud} shows no external network that a floating IP could be of; leave "
        "--floating-ip always out, or have one made visible to the project",
        cloud=cloud,
    )


def choose_volume_type(types: Sequence[VolumeType], wanted: str, theirs: str) -> VolumeType:
    """The volume type `wanted` by id or name, else the one of the name `theirs`, else the default.

    Returns:
        With an empty name when the cloud's default is not known.

    Raises:
        NotFoundError: VOLUME_TYPE_NOT_FOUND, for the one wanted only.
    """
    named = _by_reference(types, wanted or theirs)
    if named:
        return named[0]
    if wanted:
        raise NotFoundError(
            "VOLUME_TYPE_NOT_FOUND",
            f"There is no volume type {wanted} at the destination. "
            f"There are: {_listing(types, lambda one: one.name)}. Choose one with --to-type.",
            volume_type=wanted,
        )
    default = VolumeType("", "", default=True)
    return next((one for one in types if one.default), default)


def choose_volume_zone(zones: Sequence[str], wanted: str, theirs: str) -> str:
    """The availability zone `wanted`, else the one of the name `theirs`, else empty: the default.

    Raises:
        NotFoundError: AVAILABILITY_ZONE_NOT_FOUND, for the one wanted only.
    """
    if wanted and wanted not in zones:
        raise NotFoundError(
            "AVAILABILITY_ZONE_NOT_FOUND",
            f"There is no availability zone {wanted} for volumes at the destination. "
            f"There are: {', '.join(sorted(zones)) or 'none'}. Choose one with --to-az.",
            availability_zone=wanted,
        )
    return wanted or (theirs if theirs in zones else "")


def _usable(network: Network, ip_version: int) -> bool:
    return ip_version in network.ip_versions if ip_version else bool(network.ip_versions)


def _with_family(network: Network, ip_version: int) -> Network:
    if ip_version and ip_version not in network.ip_versions:
        raise PreconditionError(
            "NETWORK_WITHOUT_FAMILY",
            f"Network {_network_text(network)} has no IPv{ip_version} subnet. Name another with "
            "--network, or another family with --ip-version.",
            network=network.id,
            ip_version=ip_version,
        )
    return network


def _only(networks: Sequence[Network], ip_version: int) -> Network:
    if len(networks) == 1:
        return networks[0]
    fitting = [network for network in networks if _usable(network, ip_version)]
    if len(fitting) == 1:
        return fitting[0]
    with_ipv6 = [network for network in networks if 6 in network.ip_versions]
    if len(with_ipv6) == 1:
        return with_ipv6[0]
    raise PreconditionError(
        "NETWORK_AMBIGUOUS",
        f"Several networks would do: {_listing(with_ipv6 or networks, _network_text)}. "
        "Name one by its id with --network.",
    )


def _by_reference(items: Iterable[_T], reference: str) -> list[_T]:
    """Ids win over names: a name may look like another's id."""
    known = list(items)
    by_id = [item for item in known if item.id == reference]
    return by_id or [item for item in known if item.name == reference]


def _carries(flavor: Flavor, image: Image, ram_bytes: int) -> bool:
    disk_fits = flavor.disk_bytes == 0 or flavor.disk_bytes >= image.min_disk_bytes
    return disk_fits and flavor.ram_bytes >= ram_bytes


def _ram_needed(image: Image, lanes: int) -> int:
    return max(AGENT_RAM_BYTES, image.min_ram_bytes) + (lanes - 1) * LANE_RAM_BYTES


def _flavor_size(flavor: Flavor) -> tuple[int, int, bool, int, str]:
    """Memory is what costs; a disk of its own is simpler than a volume for the root."""
    return (
        flavor.ram_bytes,
        flavor.vcpus,
        flavor.disk_bytes == 0,
        flavor.disk_bytes,
        flavor.name,
    )


def _age(image: Image) -> tuple[str, str]:
    return image.created_at, image.id


def _architecture(image: Image) -> str:
    told = f"{image.properties.get('architecture', '')} {image.name}".lower()
    for architecture, pattern in _ARCHITECTURES.items():
        if pattern.search(told):
            return architecture
    return "x86_64"


def _is_stock(image: Image) -> bool:
    kind = image.properties.get("image_type", "")
    if kind == "snapshot" or _SPECIAL.search(image.name.lower()):
        return False
    release = _release(image)
    return release is not None and release[1] >= _OLDEST[release[0]]


def _release(image: Image) -> tuple[str, tuple[int, int]] | None:
    """Distribution and version, from the properties or else from the name."""
    distribution = image.properties.get("os_distro", "").lower()
    version = _version(image.properties.get("os_version", ""))
    if distribution and distribution not in _OLDEST:
        return None
    if distribution and version is not None:
        return distribution, version
    name = image.name.lower()
    match = _NAMED_RELEASE.search(name)
    if match is not None:
        named_version = _version(match.group(2))
        return (match.group(1), named_version) if named_version is not None else None
    return next((known for word, known in _CODENAMES.items() if word in name), None)


def _version(text: str) -> tuple[int, int] | None:
    match = re.match(r"(\d+)(?:\.(\d+))?", text.strip())
    return None if match is None else (int(match.group(1)), int(match.group(2) or 0))


def _listing(items: Sequence[_T], text: Callable[[_T], str]) -> str:
    shown = ", ".join(sorted(text(item) for item in items)[:_LISTED])
    more = len(items) - _LISTED
    return (shown or "none") + (f" and {more} more" if more > 0 else "")


def _flavor_text(flavor: Flavor) -> str:
    disk = _gib(flavor.disk_bytes) if flavor.disk_bytes else "no own"
    return f"{flavor.name} ({flavor.vcpus} vCPU, {flavor.ram_bytes // MIB} MiB, {disk} disk)"


def _image_text(image: Image) -> str:
    return f"{image.name} ({image.id})"


def _network_text(network: Network) -> str:
    families = "+".join(f"IPv{version}" for version in sorted(network.ip_versions)) or "no subnet"
    return f"{network.name} ({network.id}, {families})"


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / GIB:.3g} GiB"
