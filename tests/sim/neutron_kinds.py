"""What is particular to each kind of Neutron's resources when it is created."""

from __future__ import annotations

import ipaddress
import secrets
import uuid
from typing import TYPE_CHECKING

from tests.sim.http import Json
from tests.sim.neutron_rules import NeutronError, new_rule

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.sim.neutron import Neutron


STATELESS = {"slaac", "dhcpv6-stateless"}
"""Modes of subnets that every port of the network gets an address of."""


def _no_address(network: Json) -> NeutronError:
    message = f"No more IP addresses available on network {network['id']}."
    return NeutronError(409, "IpAddressGenerationFailure", message)


class Kinds:
    """Makes the attributes of new resources, addresses included."""

    def __init__(self, neutron: Neutron) -> None:
        self._neutron = neutron
        self._next_host: dict[str, int] = {}
        self._creators: dict[str, Callable[[Json], Json]] = {
            "networks": self._network,
            "subnets": self._subnet,
            "ports": self._port,
            "security_groups": self._group,
            "security_group_rules": self._rule,
            "floatingips": self._floating_ip,
            "routers": self._router,
        }

    def new(self, collection: str, asked: Json) -> Json:
        """Attributes of a new resource.

        Raises:
            NeutronError: the request cannot be met.
        """
        return self._creators[collection](asked)

    def _network(self, asked: Json) -> Json:
        return {
            "admin_state_up": True,
            "status": "ACTIVE",
            "shared": bool(asked.get("shared", False)),
            "router:external": bool(asked.get("router:external", False)),
            "port_security_enabled": True,
            "mtu": 1450,
            "subnets": [],
            "availability_zones": ["nova"],
            "availability_zone_hints": [],
            "is_default": False,
        }

    def _subnet(self, asked: Json) -> Json:
        network = self._neutron.find("networks", asked.get("network_id", ""))
        cidr = ipaddress.ip_network(asked["cidr"])
        subnet_id = str(uuid.uuid4())
        network["subnets"].append(subnet_id)
        pools = [{"start": str(cidr[2]), "end": str(cidr[-2])}]
        return {
            "id": subnet_id,
            "network_id": network["id"],
            "cidr": str(cidr),
            "ip_version": cidr.version,
            "gateway_ip": str(cidr[1]),
            "allocation_pools": pools,
            "enable_dhcp": True,
            "dns_nameservers": [],
            "host_routes": [],
            "ipv6_ra_mode": asked.get("ipv6_ra_mode"),
            "ipv6_address_mode": asked.get("ipv6_address_mode"),
            "service_types": list(asked.get("service_types") or []),
        }

    def _port(self, asked: Json) -> Json:
        network = self._neutron.find("networks", asked.get("network_id", ""))
        groups = asked.get("security_groups")
        groups = [self._neutron.default_group["id"]] if groups is None else groups
        for group in groups:
            self._neutron.find("security_groups", group)
        mac = ":".join(["fa", "16", "3e", *(secrets.token_hex(1) for _ in range(3))])
        return {
            "network_id": network["id"],
            "mac_address": asked.get("mac_address", mac),
            "admin_state_up": bool(asked.get("admin_state_up", True)),
            "status": "DOWN",
            "device_id": asked.get("device_id", ""),
            "device_owner": asked.get("device_owner", ""),
            "fixed_ips": self._fixed_ips(network, asked.get("fixed_ips")),
            "security_groups": list(groups),
            "allowed_address_pairs": asked.get("allowed_address_pairs", []),
            "extra_dhcp_opts": [],
            "port_security_enabled": bool(asked.get("port_security_enabled", True)),
            "binding:vnic_type": asked.get("binding:vnic_type", "normal"),
            "dns_name": "",
        }

    def _fixed_ips(self, network: Json, asked: list[Json] | None) -> list[Json]:
        """As Neutron gives them: one a family, or what is asked for; and every SLAAC subnet's."""
        if asked == []:
            return []
        subnets = [self._neutron.find("subnets", one) for one in network["subnets"]]
        slaac = [one for one in subnets if one["ipv6_address_mode"] in STATELESS]
        others = [one for one in subnets if one not in slaac and not one["service_types"]]
        given = [self._asked_address(network, one, subnets) for one in asked or []]
        if asked is None:
            families = [[s for s in others if s["ip_version"] == version] for version in (4, 6)]
            given = [self._one_of(network, family) for family in families if family]
        served = {one["subnet_id"] for one in given}
        given += [self._one_of(network, [one]) for one in slaac if one["id"] not in served]
        if not given:
            raise _no_address(network)
        return given

    def _asked_address(self, network: Json, asked: Json, subnets: list[Json]) -> Json:
        address = asked.get("ip_address")
        if address in self._taken():
            message = f"IP address {address} already allocated in subnet."
            raise NeutronError(409, "IpAddressAlreadyAllocated", message)
        if address:
            return {"subnet_id": asked.get("subnet_id") or subnets[0]["id"], "ip_address": address}
        wanted = asked.get("subnet_id", "")
        subnet = self._neutron.find("subnets", wanted)
        if subnet not in subnets:
            message = (
                f"Invalid input for operation: Failed to create port on network {network['id']}"
                f", because fixed_ips included invalid subnet {wanted}."
            )
            raise NeutronError(400, "InvalidInput", message)
        return self._one_of(network, [subnet])

    def _one_of(self, network: Json, subnets: list[Json]) -> Json:
        taken = self._taken()
        for subnet in subnets:
            address = self._next_address(subnet, taken)
            if address:
                return {"subnet_id": subnet["id"], "ip_address": address}
        raise _no_address(network)

    def _taken(self) -> set[str]:
        data = self._neutron.data
        taken = {ip["ip_address"] for port in data["ports"].values() for ip in port["fixed_ips"]}
        taken |= {one["floating_ip_address"] for one in data["floatingips"].values()}
        for router in data["routers"].values():
            gateway = router["external_gateway_info"] or {"external_fixed_ips": []}
            taken |= {one["ip_address"] for one in gateway["external_fixed_ips"]}
        return taken

    def _next_address(self, subnet: Json, taken: set[str]) -> str:
        """The next free address, going round, so that a freed one rests for a while."""
        cidr = ipaddress.ip_network(subnet["cidr"])
        hosts = min(cidr.num_addresses, 1 << 16) - 3
        begin = self._next_host.get(subnet["id"], 0)
        for step in range(hosts):
            host = (begin + step) % hosts
            address = str(cidr[2 + host])
            if address not in taken:
                self._next_host[subnet["id"]] = host + 1
                return address
        return ""

    def _group(self, asked: Json) -> Json:
        name = asked.get("name")
        if name == "default" and self._neutron.data["security_groups"]:
            message = "Default security group already exists."
            raise NeutronError(409, "SecurityGroupDefaultAlreadyExists", message)
        return {"stateful": True, "shared": False}

    def _rule(self, asked: Json) -> Json:
        group = self._neutron.find("security_groups", asked.get("security_group_id", ""))
        rule = new_rule(asked)
        for other in self._neutron.data["security_group_rules"].values():
            if all(other[key] == value for key, value in rule.items()):
                message = f"Security group rule already exists. Rule id is {other['id']}."
                raise NeutronError(409, "SecurityGroupRuleExists", message)
        group["revision_number"] += 1
        return rule

    def _floating_ip(self, asked: Json) -> Json:
        network = self._neutron.find("networks", asked.get("floating_network_id", ""))
        address = self._fixed_ips(network, None)[0]["ip_address"]
        return self._neutron.floating.new(asked, address)

    def _router(self, asked: Json) -> Json:
        gateway = asked.get("external_gateway_info")
        if gateway:
            network = self._neutron.find("networks", gateway["network_id"])
            fixed = self._fixed_ips(network, None)
            gateway = {"enable_snat": True, **gateway, "external_fixed_ips": fixed}
        return {"admin_state_up": True, "status": "ACTIVE", "external_gateway_info": gateway}
