"""OpenStackCloud: the port's verbs, each in the module of its service."""

from collections.abc import Collection, Sequence

from blockferry_controller.clouds.openstack.access import Standing
from blockferry_controller.clouds.openstack.attachments import Attachments
from blockferry_controller.clouds.openstack.catalogue import Catalogue
from blockferry_controller.clouds.openstack.floating import FloatingIps
from blockferry_controller.clouds.openstack.networking import Networking
from blockferry_controller.clouds.openstack.rest import Rest
from blockferry_controller.clouds.openstack.servers import Servers
from blockferry_controller.clouds.openstack.session import Session
from blockferry_controller.clouds.openstack.tagged import Tagged
from blockferry_controller.clouds.openstack.volume_kinds import VolumeKinds
from blockferry_controller.clouds.openstack.volume_making import VolumeMaking
from blockferry_controller.clouds.openstack.volumes import Volumes
from blockferry_controller.clouds.openstack.waiting import Patience
from blockferry_controller.clouds.port import (
    ALL_KINDS,
    Access,
    Flavor,
    FloatingIp,
    Image,
    IngressRule,
    Network,
    Port,
    Quota,
    Resource,
    ResourceKind,
    Server,
    ServerRequest,
    Tag,
    Volume,
    VolumeRequest,
    VolumeType,
)
from blockferry_controller.config import CallRates


class OpenStackCloud:
    """One project of one OpenStack cloud; implements Cloud, see there for each verb."""

    def __init__(
        self,
        session: Session,
        patience: Patience | None = None,
        rates: CallRates | None = None,
    ) -> None:
        self._session = session
        rest = Rest(session.connection, session.name, patience or Patience(), rates or CallRates())
        self._volumes = Volumes(rest)
        self._making = VolumeMaking(rest, self._volumes)
        self._attachments = Attachments(rest, self._volumes)
        self._servers = Servers(rest)
        self._networking = Networking(rest, session.project_id)
        self._floating_ips = FloatingIps(rest, session.project_id)
        self._everything = Tagged(
            self._servers, self._floating_ips, self._networking, self._volumes
        )
        self._catalogue = Catalogue(rest, session.project_id)
        self._kinds = VolumeKinds(rest)
        self._standing = Standing(rest, session.roles)

    @property
    def name(self) -> str:
        """See Cloud."""
        return self._session.name

    @property
    def identity(self) -> str:
        """See Cloud."""
        return self._session.identity

    def find_volume(self, reference: str) -> Volume:
        """See Cloud."""
        return self._volumes.find(reference)

    def list_volumes(self) -> Sequence[Volume]:
        """See Cloud."""
        return self._volumes.all()

    def ensure_volume(self, tag: Tag, request: VolumeRequest) -> Volume:
        """See Cloud."""
        return self._making.ensure(tag, request)

    def release_volume(self, volume_id: str) -> None:
        """See Cloud."""
        self._volumes.release(volume_id)

    def set_read_only(self, volume_id: str) -> None:
        """See Cloud."""
        self._volumes.set_read_only(volume_id)

    def access(self) -> Access:
        """See Cloud."""
        return self._standing.access()

    def list_volume_types(self) -> Sequence[VolumeType]:
        """See Cloud."""
        return self._kinds.types()

    def list_volume_zones(self) -> Sequence[str]:
        """See Cloud."""
        return self._kinds.zones()

    def list_flavors(self) -> Sequence[Flavor]:
        """See Cloud."""
        return self._catalogue.flavors()

    def list_images(self) -> Sequence[Image]:
        """See Cloud."""
        return self._catalogue.images()

    def list_networks(self) -> Sequence[Network]:
        """See Cloud."""
        return self._catalogue.networks()

    def quota(self, names: Collection[str] = ()) -> Quota:
        """See Cloud."""
        return self._catalogue.quota(names)

    def ensure_security_group(self, tag: Tag, rules: Sequence[IngressRule]) -> str:
        """See Cloud."""
        return self._networking.ensure_security_group(tag, rules)

    def ensure_port(
        self, tag: Tag, network_id: str, security_group_id: str, ip_version: int = 0
    ) -> Port:
        """See Cloud."""
        return self._networking.ensure_port(tag, network_id, security_group_id, ip_version)

    def outward_addresses(self, network_id: str) -> Sequence[str]:
        """See Cloud."""
        return self._floating_ips.outward(network_id)

    def ensure_floating_ip(self, tag: Tag, port: Port, network_id: str) -> FloatingIp:
        """See Cloud."""
        return self._floating_ips.ensure(tag, port, network_id)

    def ensure_server(self, tag: Tag, request: ServerRequest) -> Server:
        """See Cloud."""
        return self._servers.ensure(tag, request)

    def console_log(self, server_id: str, lines: int) -> str:
        """See Cloud."""
        return self._servers.console_log(server_id, lines)

    def attach_volume(self, server_id: str, volume_id: str) -> None:
        """See Cloud."""
        self._attachments.attach(server_id, volume_id)

    def detach_volume(self, server_id: str, volume_id: str) -> None:
        """See Cloud."""
        self._attachments.detach(server_id, volume_id)

    def delete_server(self, server_id: str) -> None:
        """See Cloud."""
        self._servers.delete(server_id)

    def delete_floating_ip(self, floating_ip_id: str) -> None:
        """See Cloud."""
        self._floating_ips.delete(floating_ip_id)

    def delete_port(self, port_id: str) -> None:
        """See Cloud."""
        self._networking.delete_port(port_id)

    def delete_security_group(self, group_id: str) -> None:
        """See Cloud."""
        self._networking.delete_security_group(group_id)

    def delete_volume(self, volume_id: str) -> None:
        """See Cloud."""
        self._volumes.delete(volume_id)

    def find_resources(
        self, migration_id: str | None = None, kinds: Collection[ResourceKind] = ALL_KINDS
    ) -> Sequence[Resource]:
        """See Cloud."""
        return self._everything.find(migration_id, kinds)

    def close(self) -> None:
        """See Cloud."""
        self._session.close()
