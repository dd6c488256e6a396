"""Neutron's routers and floating IPs: who is joined to whom, and what stands for what.

A floating IP is an address of this machine: its ports 7443 to 7450 lead to the same ports of the
instance (tests/sim/translation.py). All other rules are those of the real Neutron.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.sim.http import Json
from tests.sim.neutron_rules import NeutronError

if TYPE_CHECKING:
    from tests.sim.neutron import Neutron

INTERFACE = "network:router_interface"


class Floating:
    """What is particular to floating IPs and routers. Called under the cloud's lock."""

    def __init__(self, neutron: Neutron) -> None:
        self._neutron = neutron

    def new(self, asked: Json, address: str) -> Json:
        """Attributes of a new floating IP of the address.

        Raises:
            NeutronError: it cannot stand for the port.
        """
        network_id = str(asked.get("floating_network_id", ""))
        if not self._neutron.find("networks", network_id)["router:external"]:
            message = (
                f"Bad floatingip request: Network {network_id} is not a valid external network."
            )
            raise NeutronError(400, "BadRequest", message)
        made: Json = {"floating_network_id": network_id, "floating_ip_address": address}
        return made | self.tie(made, asked.get("port_id"), asked.get("fixed_ip_address"))

    def tie(self, floating_ip: Json, port_id: str | None, fixed: str | None) -> Json:
        """What changes when the floating IP is to stand for a port, or for none."""
        if not port_id:
            return {"port_id": None, "fixed_ip_address": None, "router_id": None, "status": "DOWN"}
        port = self._neutron.find("ports", port_id)
        chosen = self._fixed_ip(port, fixed)
        router_id = self._router(floating_ip["floating_network_id"], chosen["subnet_id"], port_id)
        for other in self._neutron.data["floatingips"].values():
            taken = (other["port_id"], other["fixed_ip_address"])
            if taken == (port_id, chosen["ip_address"]) and other is not floating_ip:
                message = (
                    f"Cannot associate floating IP {floating_ip['floating_ip_address']} with port "
                    f"{port_id} using fixed IP {chosen['ip_address']}, as that fixed IP already "
                    f"has a floating IP on external network {other['floating_network_id']}."
                )
                raise NeutronError(409, "FloatingIPPortAlreadyAssociated", message)
        return {
            "port_id": port_id,
            "fixed_ip_address": chosen["ip_address"],
            "router_id": router_id,
            "status": "ACTIVE",
        }

    def forget_port(self, port_id: str) -> None:
        """A port that goes leaves its floating IPs behind."""
        for floating_ip in self._neutron.data["floatingips"].values():
            if floating_ip["port_id"] == port_id:
                floating_ip.update(self.tie(floating_ip, None, None))

    def join(self, external: Json, *networks: Json, snat: bool = True) -> Json:
        """A router of the project between an external network and all subnets of others."""
        gateway = {"network_id": external["id"], "enable_snat": snat}
        router = self._neutron.create(
            "routers", {"name": "router", "external_gateway_info": gateway}, system=True
        )
        for network in networks:
            for subnet_id in network["subnets"]:
                subnet = self._neutron.find("subnets", subnet_id)
                fixed_ip = {"subnet_id": subnet_id, "ip_address": subnet["gateway_ip"]}
                asked = {
                    "network_id": network["id"],
                    "fixed_ips": [fixed_ip],
                    "device_id": router["id"],
                    "device_owner": INTERFACE,
                }
                self._neutron.create("ports", asked, system=True)
        return router

    def _fixed_ip(self, port: Json, fixed: str | None) -> Json:
        old = [one for one in port["fixed_ips"] if ":" not in one["ip_address"]]
        named: list[Json] = [one for one in old if fixed in {None, one["ip_address"]}]
        if len(named) == 1:
            return named[0]
        if named:
            message = (
                f"Port {port['id']} has multiple fixed IPv4 addresses. Must provide a specific "
                "IPv4 address when assigning a floating IP"
            )
            raise NeutronError(400, "BadRequest", message)
        message = f"Bad floatingip request: Port {port['id']} does not have fixed ip {fixed}."
        raise NeutronError(400, "BadRequest", message)

    def _router(self, external_id: str, subnet_id: str, port_id: str) -> str:
        for port in self._neutron.data["ports"].values():
            on = {one["subnet_id"] for one in port["fixed_ips"]}
            if port["device_owner"] == INTERFACE and subnet_id in on:
                gateway = self._neutron.find("routers", port["device_id"])["external_gateway_info"]
                if gateway and gateway["network_id"] == external_id:
                    return str(port["device_id"])
        message = (
            f"External network {external_id} is not reachable from subnet {subnet_id}.  "
            f"Therefore, cannot associate Port {port_id} with a Floating IP."
        )
        raise NeutronError(404, "ExternalGatewayForFloatingIPNotFound", message)
