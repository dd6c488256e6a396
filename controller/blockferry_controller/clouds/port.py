"""The cloud as a migration needs it: verbs of our domain, idempotent by tag.

Rules for every implementation:
* Whatever it creates carries the tag of its migration: `blockferry_migration`
  (and `blockferry_resource`, the role within the migration) in the metadata of
  volumes and servers, the tag `blockferry-migration=<id>` and the id in the
  name of ports and security groups, and in the description of floating IPs.
  Every `ensure_…` first looks for that tag and returns what it finds; it
  creates only what is not there. So every call may be repeated after a crash
  at any point.
* `ensure_…`, `attach_volume`, `detach_volume` and `delete_…` return only when
  the cloud has reached the state asked for. They wait by polling, with a
  deadline on progress, never on a fixed sleep.
* What is already gone is deleted: NotFound on delete or detach is success.
* Errors are ours (blockferry.errors): NotFoundError, PreconditionError,
  CapacityError (quota or no valid host), AuthenticationError, ForbiddenError,
  UnreachableError, DeadlineError. Types of a cloud's library stop here.
* Thread-safe: several migrations share one object.
"""

from collections.abc import Collection, Mapping, Sequence
from enum import Enum
from typing import Final, Protocol

from msgspec import Struct, field

from blockferry.errors import BlockferryError

MIGRATION_KEY: Final = "blockferry_migration"
"""Metadata key on volumes and servers whose value is the migration's id."""
RESOURCE_KEY: Final = "blockferry_resource"
"""Metadata key beside it: `destination-volume` or `source-server` and the like."""
AGENT_ENDED: Final = "blockferry: agent ended"
"""In a console: the instance has no agent any more, nor will it have one by itself."""
TAG_PREFIX: Final = "blockferry-migration="
"""Neutron tag, followed by the migration's id."""


class ResourceKind(Enum):
    """Kinds of what Blockferry makes, in the order in which they are deleted."""

    SERVER = "server"
    FLOATING_IP = "floating IP"
    PORT = "port"
    SECURITY_GROUP = "security group"
    VOLUME = "volume"


ALL_KINDS: Final = frozenset(ResourceKind)
OF_INSTANCES: Final = ALL_KINDS - {ResourceKind.VOLUME}
"""What is made for a temp instance, and goes with it."""


class Tag(Struct, frozen=True):
    """Whose a resource is.

    Attributes:
        migration_id: See blockferry.identity; of a pair that serves several, the pair's.
        resource: What it is within the migration, for example `source-server`.
    """

    migration_id: str
    resource: str

    @property
    def name(self) -> str:
        """Name given to the resource, for people."""
        return f"blockferry-{self.migration_id}-{self.resource}"


class Attachment(Struct, frozen=True):
    """A volume's tie to a server.

    Attributes:
        server_id: Nova's id; empty when the cloud does not tell.
        device: Path the cloud claims, for people only: never trusted.
    """

    server_id: str
    device: str


class Volume(Struct, frozen=True):
    """A volume as Cinder describes it.

    Attributes:
        size_bytes: Multiple of 1 GiB on OpenStack.
        status: Lower case as Cinder's: `available`, `in-use`, `reserved`, `error`…
        image_metadata: `volume_image_metadata`; empty when not bootable.
        path: Where it is on the server, when a person named it (this machine as a
            cloud); empty on OpenStack, where the agent finds it by its serial.
        project_id: Whose it is; empty where the cloud does not tell.
    """

    id: str
    name: str
    description: str
    size_bytes: int
    status: str
    volume_type: str
    availability_zone: str
    bootable: bool
    read_only: bool
    encrypted: bool
    multiattach: bool
    metadata: Mapping[str, str]
    image_metadata: Mapping[str, str]
    attachments: tuple[Attachment, ...]
    path: str = ""
    project_id: str = ""


class VolumeRequest(Struct, frozen=True):
    """The volume to be made at the destination.

    Attributes:
        size_bytes: Rounded up to whole GiB by clouds that must.
        volume_type: Empty for the cloud's default.
        availability_zone: Empty for the cloud's default.
        image_metadata: Set after creation; what only means something to another cloud is
            left out.
    """

    name: str
    description: str
    size_bytes: int
    volume_type: str = ""
    availability_zone: str = ""
    bootable: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)
    image_metadata: Mapping[str, str] = field(default_factory=dict)


class VolumeType(Struct, frozen=True):
    """A kind of volume that the project may make.

    Attributes:
        default: Whether a volume gets it that names none.
        encrypted, multiattach: What its volumes are; None where the cloud does not tell.
    """

    id: str
    name: str
    default: bool = False
    encrypted: bool | None = None
    multiattach: bool | None = None


class Access(Struct, frozen=True):
    """How the cloud answers us: every service was asked something cheap.

    Attributes:
        roles: Ours in the project, lower case; empty where the cloud does not tell.
        refusals: Why a service does not answer, by its name (`compute`, `block storage`,
            `network`, `image`); empty when all do.
        clock_ahead_seconds: The cloud's clock less ours, to about a second; None where
            its answers have no date.
    """

    roles: frozenset[str] = frozenset()
    refusals: Mapping[str, BlockferryError] = field(default_factory=dict)
    clock_ahead_seconds: float | None = None


class Flavor(Struct, frozen=True):
    """A server size. `disk_bytes` 0 means that the image decides."""

    id: str
    name: str
    vcpus: int
    ram_bytes: int
    disk_bytes: int


class Image(Struct, frozen=True):
    """A bootable image.

    Attributes:
        min_disk_bytes, min_ram_bytes: What the image asks of a flavor.
        created_at: ISO 8601, sorts as text.
        properties: Lower case keys: `os_distro`, `os_version`, `architecture`,
            `blockferry_agent` (version of a baked-in agent)…
    """

    id: str
    name: str
    status: str
    min_disk_bytes: int
    min_ram_bytes: int
    size_bytes: int
    created_at: str
    properties: Mapping[str, str]


class Network(Struct, frozen=True):
    """A network a server can be put on.

    Attributes:
        external: Only for floating IPs on many clouds.
        ip_versions: Families its subnets have, subset of {4, 6}.
    """

    id: str
    name: str
    external: bool
    shared: bool
    ip_versions: frozenset[int]


class IngressRule(Struct, frozen=True):
    """TCP let in from one address range.

    Attributes:
        remote_cidr: For example `10.0.0.7/32` or `fd00::7/128`.
        port: The first that is let in to.
        ports: How many, one after another, from 1 on.
    """

    remote_cidr: str
    port: int
    ports: int = 1


class Port(Struct, frozen=True):
    """A Neutron port. `addresses`: fixed IPs, IPv6 first."""

    id: str
    addresses: tuple[str, ...]


class FloatingIp(Struct, frozen=True):
    """A public IPv4 address that stands for a port's fixed one."""

    id: str
    address: str


class ServerRequest(Struct, frozen=True):
    """A temp instance to be booted.

    Attributes:
        user_data: As cloud-init gets it, before base64.
        availability_zone: Empty for the cloud's choice.
    """

    flavor_id: str
    image_id: str
    port_id: str
    user_data: bytes
    availability_zone: str = ""


class Server(Struct, frozen=True):
    """A server as Nova describes it. `status` upper case: ACTIVE, BUILD, ERROR and so on."""

    id: str
    name: str
    status: str


class Quota(Struct, frozen=True):
    """What is left, by Nova's and Cinder's names; None where a cloud does not tell.

    Keys: instances, cores, ram_bytes, volumes, gigabytes, ports, security_groups,
    security_group_rules, floating_ips. A value of -1 at the cloud (unlimited) is None here.
    Quotas for one volume type, where there are any: gigabytes_<type name>, volumes_<type name>.
    """

    left: Mapping[str, int | None]


class Resource(Struct, frozen=True):
    """Something that carries our tag."""

    kind: ResourceKind
    id: str
    name: str
    tag: Tag


class Cloud(Protocol):
    """One project of one cloud."""

    @property
    def name(self) -> str:
        """As in clouds.yaml."""
        ...

    @property
    def identity(self) -> str:
        """Tells one project of one cloud from every other: endpoint, region, project."""
        ...

    def find_volume(self, reference: str) -> Volume:
        """The volume with this id, else with this name.

        Raises:
            NotFoundError: VOLUME_NOT_FOUND.
            PreconditionError: VOLUME_AMBIGUOUS, several carry the name; names their ids.
        """
        ...

    def list_volumes(self) -> Sequence[Volume]:
        """All volumes of the project, in any state; those of ours carry our tag."""
        ...

    def ensure_volume(self, tag: Tag, request: VolumeRequest) -> Volume:
        """A volume that fits `request`, `available`.

        Raises:
            CapacityError: quota or no backend with the space.
            PreconditionError: VOLUME_ERROR when it went into `error`.
            NotFoundError: VOLUME_TYPE_NOT_FOUND, AVAILABILITY_ZONE_NOT_FOUND.
        """
        ...

    def release_volume(self, volume_id: str) -> None:
        """Take our tag off a volume that now belongs to the user."""
        ...

    def set_read_only(self, volume_id: str) -> None:
        """Set the flag that lets an `available` volume only be read. Idempotent.

        Raises:
            ForbiddenError, PreconditionError: the cloud does not let us.
        """
        ...

    def access(self) -> Access:
        """Ask every service something cheap; what they refuse is returned, not raised."""
        ...

    def list_volume_types(self) -> Sequence[VolumeType]:
        """All volume types the project may use; empty where there is no such notion."""
        ...

    def list_volume_zones(self) -> Sequence[str]:
        """Names of the availability zones that volumes can be made in now."""
        ...

    def list_flavors(self) -> Sequence[Flavor]:
        """All flavors the project may use."""
        ...

    def list_images(self) -> Sequence[Image]:
        """All active images the project may use."""
        ...

    def list_networks(self) -> Sequence[Network]:
        """All networks the project may use."""
        ...

    def quota(self, names: Collection[str] = ()) -> Quota:
        """What is left now.

        Args:
            names: What is wanted, by the names of Quota: services that tell of none of
                these are not asked. Empty: all.
        """
        ...

    def ensure_security_group(self, tag: Tag, rules: Sequence[IngressRule]) -> str:
        """The id of a group that lets in exactly `rules`, and all egress.

        Rules that are missing are added, others removed.
        """
        ...

    def ensure_port(
        self, tag: Tag, network_id: str, security_group_id: str, ip_version: int = 0
    ) -> Port:
        """A port on the network with that group, its addresses known.

        `ip_version`, 4 or 6, is the only family of the addresses asked for and told; 0 for
        all that the network gives.

        Raises:
            CapacityError: QUOTA_PORTS, NO_ADDRESS_LEFT.
            NotFoundError: no such network.
            PreconditionError: PORT_WITHOUT_ADDRESS, the network has none (of that family).
        """
        ...

    def outward_addresses(self, network_id: str) -> Sequence[str]:
        """IPv4 addresses that the outside sees servers on this network come from.

        Those of the routers that translate for it, as far as the cloud tells; empty where
        none does: fixed addresses, or floating IPs, are then what is seen.
        """
        ...

    def ensure_floating_ip(self, tag: Tag, port: Port, network_id: str) -> FloatingIp:
        """A floating IP of the external network, tied to the port's first IPv4 address.

        One of ours that is there is taken, whatever network it is of, and tied anew.

        Raises:
            CapacityError: QUOTA_FLOATING_IPS, NO_ADDRESS_LEFT.
            NotFoundError: no such network.
            PreconditionError: FLOATING_IP_NEEDS_IPV4; FLOATING_IP_UNROUTED, no router
                joins the network to the port's.
        """
        ...

    def ensure_server(self, tag: Tag, request: ServerRequest) -> Server:
        """A server that is ACTIVE. One of ours found in ERROR is deleted and made anew once.

        Raises:
            CapacityError: quota, or no valid host for the flavor.
            PreconditionError: SERVER_ERROR with Nova's fault message.
        """
        ...

    def console_log(self, server_id: str, lines: int) -> str:
        """The console's last lines; empty when the cloud does not give them."""
        ...

    def attach_volume(self, server_id: str, volume_id: str) -> None:
        """Attach; the volume is `in-use` by that server on return.

        Raises:
            PreconditionError: VOLUME_ATTACHED elsewhere, VOLUME_STATE.
        """
        ...

    def detach_volume(self, server_id: str, volume_id: str) -> None:
        """Detach; the volume is `available` on return. Server or volume gone is success."""
        ...

    def delete_server(self, server_id: str) -> None:
        """Delete and wait until it is gone."""
        ...

    def delete_floating_ip(self, floating_ip_id: str) -> None:
        """Delete: give the address back."""
        ...

    def delete_port(self, port_id: str) -> None:
        """Delete."""
        ...

    def delete_security_group(self, group_id: str) -> None:
        """Delete; waits out the moment in which a port still uses it."""
        ...

    def delete_volume(self, volume_id: str) -> None:
        """Delete and wait until it is gone."""
        ...

    def find_resources(
        self, migration_id: str | None = None, kinds: Collection[ResourceKind] = ALL_KINDS
    ) -> Sequence[Resource]:
        """All that carries our tag: of one migration, or of any. In order of deletion.

        Args:
            migration_id: Whose; None: anybody's.
            kinds: What is looked for: a cloud has a list for each, and is asked for no other.
        """
        ...

    def close(self) -> None:
        """Release connections. Idempotent."""
        ...
