"""Floating IPs, and the addresses with which a network's packets leave the cloud.

Sources of what is not obvious (api-ref network v2.0):
* A floating IP has no name. Whose it is, is in its description, which is there from the
  start; the tag of Neutron follows in a call of its own, for people to list by.
* A port with several IPv4 addresses is 409 unless one of them is named; so one always is.
* An external network that no router joins to the port's subnet is 404
  `ExternalGatewayForFloatingIPNotFound`; nothing is made then.
* With SNAT, instances without a floating IP are seen as their router's address on the
  external network: `external_gateway_info`, which the router's owner may read.
"""

from typing import Final

from blockferry.errors import ForbiddenError, NotFoundError, PreconditionError
from blockferry_controller.clouds.openstack.networking import put_tag
from blockferry_controller.clouds.openstack.rest import Body, Rest, Service, segment
from blockferry_controller.clouds.port import TAG_PREFIX, FloatingIp, Port, Tag

_ROUTER_INTERFACES: Final = (
    "network:router_interface",
    "network:router_interface_distributed",
    "network:ha_router_replicated_interface",
)


class FloatingIps:
    """The floating IPs of one project. Thread-safe."""

    def __init__(self, rest: Rest, project_id: str) -> None:
        self._rest = rest
        self._project = {"project_id": project_id} if project_id else {}

    def ensure(self, tag: Tag, port: Port, network_id: str) -> FloatingIp:
        """See Cloud.ensure_floating_ip."""
        fixed = next((one for one in port.addresses if ":" not in one), None)
        if fixed is None:
            raise PreconditionError(
                "FLOATING_IP_NEEDS_IPV4",
                f"Port {port.id} in {self._rest.cloud} has no IPv4 address for a floating IP to "
                "stand for. Choose a network with IPv4 by --network.",
                port=port.id,
            )
        tie = {"port_id": port.id, "fixed_ip_address": fixed}
        body = self._rest.find_or_create(
            lambda: self._find(tag), lambda: self._create(tag, network_id, tie)
        )
        if (body.get("port_id"), body.get("fixed_ip_address")) != (port.id, fixed):
            body = self._rest.put(
                Service.NETWORK,
                f"/floatingips/{segment(str(body['id']))}",
                f"tie floating IP {body['floating_ip_address']} to port {port.id}",
                {"floatingip": tie},
            )["floatingip"]
        put_tag(self._rest, "floatingips", body, tag)
        return FloatingIp(str(body["id"]), str(body["floating_ip_address"]))

    def delete(self, floating_ip_id: str) -> None:
        """See Cloud.delete_floating_ip."""
        path = f"/floatingips/{segment(floating_ip_id)}"
        self._rest.delete(Service.NETWORK, path, f"delete floating IP {floating_ip_id}")

    def tagged(self, migration_id: str | None) -> list[tuple[str, str, Tag]]:
        """Id, address and tag of what is ours; none where the cloud has no such thing."""
        try:
            bodies = self._list()
        except (NotFoundError, ForbiddenError):
            return []
        return [
            (str(body["id"]), str(body["floating_ip_address"]), tag)
            for body in bodies
            if (tag := _read_tag(body)) and migration_id in {None, tag.migration_id}
        ]

    def outward(self, network_id: str) -> list[str]:
        """See Cloud.outward_addresses."""
        try:
            routers = self._rest.items(
                Service.NETWORK, "/routers", "routers", "list routers", self._project
            )
            joined = self._routers_of(network_id)
        except (NotFoundError, ForbiddenError):
            return []
        found = [
            str(one["ip_address"])
            for router in routers
            if str(router["id"]) in joined
            for one in _translated(router)
        ]
        return sorted({one for one in found if ":" not in one})

    def _routers_of(self, network_id: str) -> set[str]:
        what = f"list ports of network {network_id}"
        query = {"network_id": network_id}
        ports = self._rest.items(Service.NETWORK, "/ports", "ports", what, query)
        return {
            str(port["device_id"])
            for port in ports
            if port.get("device_owner") in _ROUTER_INTERFACES
        }

    def _list(self) -> list[Body]:
        return self._rest.items(
            Service.NETWORK, "/floatingips", "floatingips", "list floating IPs", self._project
        )

    def _find(self, tag: Tag) -> Body | None:
        return next((body for body in self._list() if _read_tag(body) == tag), None)

    def _create(self, tag: Tag, network_id: str, tie: Body) -> Body:
        fields = {"floating_network_id": network_id, "description": _description(tag), **tie}
        what = f"make a floating IP of network {network_id}"
        try:
            made = self._rest.post(Service.NETWORK, "/floatingips", {"floatingip": fields}, what)
        except NotFoundError as error:
            if "ExternalGatewayForFloatingIPNotFound" not in error.message:
                raise
            raise PreconditionError(
                "FLOATING_IP_UNROUTED",
                f"{error.message} Join the two by a router, or name another network with "
                "--network or --external-network.",
                network=network_id,
            ) from error
        return dict(made["floatingip"])


def _translated(router: Body) -> list[Body]:
    """The router's addresses on its external network, where it hides others behind them."""
    gateway = router.get("external_gateway_info") or {}
    return list(gateway.get("external_fixed_ips") or []) if gateway.get("enable_snat", True) else []


def _description(tag: Tag) -> str:
    return f"{TAG_PREFIX}{tag.migration_id} {tag.resource}"


def _read_tag(body: Body) -> Tag | None:
    migration, _, resource = str(body.get("description") or "").partition(" ")
    if not migration.startswith(TAG_PREFIX) or not resource:
        return None
    return Tag(migration.removeprefix(TAG_PREFIX), resource)
