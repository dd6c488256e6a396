"""Neutron's errors, and security group rules: what a request may say and what becomes of it."""

import ipaddress

from tests.sim.http import ApiError, Json

PROTOCOLS = {"tcp", "udp", "icmp", "icmpv6", "ipv6-icmp", "sctp", "any"}
FIELDS = (
    "security_group_id",
    "direction",
    "ethertype",
    "protocol",
    "port_range_min",
    "port_range_max",
    "remote_ip_prefix",
    "remote_group_id",
    "remote_address_group_id",
)


class NeutronError(ApiError):
    """An error in Neutron's form."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(status, message, kind=kind)


def default_rules(group_id: str) -> list[Json]:
    """What Neutron puts into every new group: all egress, both families."""
    return [
        {"security_group_id": group_id, "direction": "egress", "ethertype": ethertype}
        for ethertype in ("IPv4", "IPv6")
    ]


def new_rule(asked: Json) -> Json:
    """A rule as it is kept.

    Raises:
        NeutronError: 400 with Neutron's exception class.
    """
    rule: Json = {key: asked.get(key) for key in FIELDS}
    rule["ethertype"] = rule["ethertype"] or "IPv4"
    if rule["direction"] not in {"ingress", "egress"}:
        message = f"Invalid input for direction. Reason: '{rule['direction']}' is not in "
        raise ApiError(400, message + "['ingress', 'egress'].", kind="HTTPBadRequest")
    if rule["protocol"] is not None:
        rule["protocol"] = str(rule["protocol"]).lower()
        if rule["protocol"] not in PROTOCOLS and not rule["protocol"].isdigit():
            message = f"Security group rule protocol {rule['protocol']} not supported."
            raise NeutronError(400, "SecurityGroupRuleInvalidProtocol", message)
    _check_ports(rule)
    _check_prefix(rule)
    return rule


def _check_ports(rule: Json) -> None:
    low, high = rule["port_range_min"], rule["port_range_max"]
    if low is None and high is None:
        return
    if rule["protocol"] is None:
        message = "Must also specify protocol if port range is given."
        raise NeutronError(400, "SecurityGroupProtocolRequiredWithPorts", message)
    if low is None or high is None or not 1 <= int(low) <= int(high) <= 65535:
        message = "For TCP/UDP protocols, port_range_min must be <= port_range_max"
        raise NeutronError(400, "SecurityGroupInvalidPortRange", message)
    rule["port_range_min"], rule["port_range_max"] = int(low), int(high)


def _check_prefix(rule: Json) -> None:
    prefix = rule["remote_ip_prefix"]
    if prefix is None:
        return
    try:
        network = ipaddress.ip_network(prefix, strict=False)
    except ValueError as error:
        message = f"Invalid input for remote_ip_prefix. Reason: '{prefix}' is not a valid IP."
        raise NeutronError(400, "HTTPBadRequest", message) from error
    if rule["ethertype"] != f"IPv{network.version}":
        message = f"Conflicting value ethertype {rule['ethertype']} for CIDR {prefix}"
        raise NeutronError(400, "SecurityGroupRuleParameterConflict", message)
    rule["remote_ip_prefix"] = str(network)
