"""Ports and security groups.

Sources of what is not obvious (api-ref network v2.0):
* Tags are the extension `standard-attr-tag` (`PUT …/tags/{tag}`), in a call of their own
  after creation. A crash between the two leaves an untagged resource: so the name, which
  is there from the start, is what our own is looked for by, and the tag is put on again.
* A new security group has rules that let all egress out, unless the cloud's own
  templates (2023.2, "security-group-default-rules") say otherwise: rules are compared,
  never assumed. `remote_ip_prefix` null, 0.0.0.0/0 and ::/0 mean the same.
* A rule that exists is 409 `SecurityGroupRuleExists`; a group in use is 409
  `SecurityGroupInUse`.
* A group that is created, shown or listed comes with its rules. `POST /security-group-rules`
  takes a list of them ("Bulk create security group rule"): all are made or none is, and one
  that exists refuses all.
* An administrator sees every project's: lists ask for our project's own.
* A port that names a subnet in `fixed_ips` gets addresses of that one, and all the same
  one of every subnet whose `ipv6_address_mode` is slaac or dhcpv6-stateless: those that
  nobody asked for are left out of what we tell. Subnets with `service_types` are for
  those only.
"""

import ipaddress
import logging
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from blockferry.errors import (
    BusyError,
    CapacityError,
    DeadlineError,
    ForbiddenError,
    NotFoundError,
    PreconditionError,
    UsageError,
)
from blockferry_controller.clouds.openstack.rest import Body, Rest, Service, segment
from blockferry_controller.clouds.port import TAG_PREFIX, IngressRule, Port, Tag

_log = logging.getLogger(__name__)
_IN_USE_SECONDS: Final = 120.0
"""How long a group may be in use after its port was deleted."""


class _Rule(Struct, frozen=True):
    """A rule as compared: what it lets through. `cidr` empty is anywhere."""

    direction: str
    ethertype: str
    protocol: str
    first_port: int
    last_port: int
    cidr: str
    remote: str = ""


_EGRESS: Final = (_Rule("egress", "IPv4", "", 0, 0, ""), _Rule("egress", "IPv6", "", 0, 0, ""))


class Networking:
    """The ports and security groups of one project. Thread-safe."""

    def __init__(self, rest: Rest, project_id: str) -> None:
        self._rest = rest
        self._project = {"project_id": project_id} if project_id else {}

    def ensure_security_group(self, tag: Tag, rules: Sequence[IngressRule]) -> str:
        """See Cloud.ensure_security_group.

        Raises:
            UsageError: BAD_ADDRESS_RANGE.
        """
        wanted = dict.fromkeys([*(_ingress(rule) for rule in rules), *_EGRESS])
        group = self._found_or_made("security-groups", "security_groups", tag, {})
        own = str(group["id"])
        have = [(_read_rule(body), str(body["id"])) for body in self._rules(group)]
        there = {rule for rule, _ in have}
        # New ones first: what is open and stays wanted never closes.
        self._add_rules(own, [rule for rule in wanted if rule not in there])
        for rule, rule_id in have:
            if rule not in wanted:
                path = f"/security-group-rules/{segment(rule_id)}"
                self._rest.delete(Service.NETWORK, path, f"delete rule {rule_id}")
        return own

    def ensure_port(
        self, tag: Tag, network_id: str, security_group_id: str, ip_version: int = 0
    ) -> Port:
        """See Cloud.ensure_port.

        Raises:
            PreconditionError: PORT_WITHOUT_ADDRESS; some networks give none before a
                server is on them.
        """
        port = self._port(tag, network_id, security_group_id, ip_version)
        if port.get("security_groups") != [security_group_id]:
            port = self._rest.put(
                Service.NETWORK,
                f"/ports/{segment(str(port['id']))}",
                f"put port {port['id']} into its security group",
                {"port": {"security_groups": [security_group_id]}},
            )["port"]
        addresses = sorted(
            (str(one["ip_address"]) for one in port.get("fixed_ips") or []),
            key=lambda text: (-ipaddress.ip_address(text).version, text),
        )
        if ip_version:
            addresses = [
                one for one in addresses if ipaddress.ip_address(one).version == ip_version
            ]
        if not addresses:
            raise self._without_address(network_id, ip_version)
        return Port(str(port["id"]), tuple(addresses))

    def _port(self, tag: Tag, network_id: str, security_group_id: str, ip_version: int) -> Body:
        """Found or made; of a family's subnets the first with an address to give is taken."""
        fields = {"network_id": network_id, "security_groups": [security_group_id]}
        if not ip_version:
            return self._found_or_made("ports", "ports", tag, fields)
        full: CapacityError | None = None
        for subnet_id in self._subnets(network_id, ip_version):
            fixed_ips = [{"subnet_id": subnet_id}]
            try:
                return self._found_or_made(
                    "ports", "ports", tag, {**fields, "fixed_ips": fixed_ips}
                )
            except CapacityError as error:
                if error.reason != "NO_ADDRESS_LEFT":
                    raise
                full = error
        raise full or self._without_address(network_id, ip_version)

    def _subnets(self, network_id: str, ip_version: int) -> list[str]:
        """Ids of the family's subnets that servers may be on."""
        subnets = self._rest.items(
            Service.NETWORK,
            "/subnets",
            "subnets",
            f"list subnets of network {network_id}",
            {"network_id": network_id, "ip_version": str(ip_version)},
        )
        return [str(one["id"]) for one in subnets if _for_servers(one)]

    def _without_address(self, network_id: str, ip_version: int) -> PreconditionError:
        which = f"IPv{ip_version} address; leave --ip-version out, or" if ip_version else "address;"
        return PreconditionError(
            "PORT_WITHOUT_ADDRESS",
            f"Network {network_id} in {self._rest.cloud} gives a port no {which} "
            "choose a network with such a subnet by --network.",
            network=network_id,
        )

    def delete_port(self, port_id: str) -> None:
        """See Cloud.delete_port."""
        self._rest.delete(Service.NETWORK, f"/ports/{segment(port_id)}", f"delete port {port_id}")

    def delete_security_group(self, group_id: str) -> None:
        """See Cloud.delete_security_group.

        Raises:
            PreconditionError: SECURITY_GROUP_IN_USE, and stays so.
        """
        path = f"/security-groups/{segment(group_id)}"

        def attempt() -> bool:
            try:
                self._rest.delete(Service.NETWORK, path, f"delete security group {group_id}")
            except BusyError:
                return False
            return True

        try:
            self._rest.patience.until(
                attempt,
                bool,
                f"security group {group_id} to be out of use",
                within_seconds=_IN_USE_SECONDS,
            )
        except DeadlineError as error:
            raise PreconditionError(
                "SECURITY_GROUP_IN_USE",
                f"Security group {group_id} in {self._rest.cloud} is still in use by a port. "
                "Take it off that port, then clean up again.",
                group=group_id,
            ) from error

    def tagged(self, collection: str, migration_id: str | None) -> list[tuple[str, str, Tag]]:
        """Id, name and tag of what is ours among `ports` or `security-groups`."""
        bodies = self._list(collection, {})
        found = [(str(body["id"]), str(body["name"]), _read_tag(body)) for body in bodies]
        return [
            (resource_id, name, tag)
            for resource_id, name, tag in found
            if tag is not None and migration_id in {None, tag.migration_id}
        ]

    def _found_or_made(self, collection: str, key: str, tag: Tag, fields: Body) -> Body:
        singular = key.removesuffix("s")
        what = f"create {singular.replace('_', ' ')} {tag.name}"

        def find() -> Body | None:
            named = self._list(collection, {"name": tag.name})
            return next((body for body in named if body.get("name") == tag.name), None)

        def create() -> Body:
            body = {"name": tag.name, "description": _label(tag.migration_id), **fields}
            made = self._rest.post(Service.NETWORK, f"/{collection}", {singular: body}, what)
            return dict(made[singular])

        found = self._rest.find_or_create(find, create)
        put_tag(self._rest, collection, found, tag)
        return found

    def _list(self, collection: str, query: dict[str, str]) -> list[Body]:
        return self._rest.items(
            Service.NETWORK,
            f"/{collection}",
            collection.replace("-", "_"),
            f"list {collection.replace('-', ' ')}",
            {**self._project, **query},
        )

    def _rules(self, group: Body) -> list[Body]:
        """Those that the group itself tells, as whoever owns it is told; else the list of them."""
        told = group.get("security_group_rules")
        if told is not None:
            return list(told)
        group_id = str(group["id"])
        return self._rest.items(
            Service.NETWORK,
            "/security-group-rules",
            "security_group_rules",
            f"list rules of security group {group_id}",
            {"security_group_id": group_id},
        )

    def _add_rules(self, group_id: str, rules: Sequence[_Rule]) -> None:
        """All at once; where the cloud refuses that, one by one, to see which it means."""
        if len(rules) > 1:
            body = {"security_group_rules": [_rule_body(group_id, rule) for rule in rules]}
            what = f"add rules to security group {group_id}"
            try:
                self._rest.post(
                    Service.NETWORK, "/security-group-rules", body, what, repeatable=True
                )
                return
            except (BusyError, PreconditionError) as error:
                _log.debug("one by one: %s", error)
        for rule in rules:
            self._add_rule(group_id, rule)

    def _add_rule(self, group_id: str, rule: _Rule) -> None:
        try:
            self._rest.post(
                Service.NETWORK,
                "/security-group-rules",
                {"security_group_rule": _rule_body(group_id, rule)},
                f"add a rule for {rule.cidr or 'all'} to security group {group_id}",
                repeatable=True,
            )
        except BusyError as error:
            if "Exists" not in error.message and "exists" not in error.message:
                raise


def put_tag(rest: Rest, collection: str, body: Body, tag: Tag) -> None:
    """Tag it, where the cloud has tags; else name and description must do."""
    label = _label(tag.migration_id)
    if label in (body.get("tags") or []):
        return
    path = f"/{collection}/{segment(str(body['id']))}/tags/{segment(label)}"
    try:
        rest.put(Service.NETWORK, path, f"tag {tag.name}")
    except (NotFoundError, ForbiddenError, PreconditionError):
        return


def _label(migration_id: str) -> str:
    return f"{TAG_PREFIX}{migration_id}"


def _for_servers(subnet: Body) -> bool:
    """Whether it is not kept for routers and the like."""
    service_types = [str(one) for one in subnet.get("service_types") or []]
    return not service_types or any(one.startswith("compute:") for one in service_types)


def _anywhere(ethertype: str) -> str:
    return "0.0.0.0/0" if ethertype == "IPv4" else "::/0"


def _rule_body(group_id: str, rule: _Rule) -> Body:
    body: Body = {
        "security_group_id": group_id,
        "direction": rule.direction,
        "ethertype": rule.ethertype,
    }
    if rule.direction == "ingress":
        body |= {
            "protocol": rule.protocol,
            "port_range_min": rule.first_port,
            "port_range_max": rule.last_port,
            "remote_ip_prefix": rule.cidr or _anywhere(rule.ethertype),
        }
    return body


def _ingress(rule: IngressRule) -> _Rule:
    try:
        network = ipaddress.ip_network(rule.remote_cidr, strict=False)
    except ValueError as error:
        raise UsageError(
            "BAD_ADDRESS_RANGE",
            f"{rule.remote_cidr} is no address range such as 10.0.0.7/32 or fd00::7/128.",
            cidr=rule.remote_cidr,
        ) from error
    ethertype = f"IPv{network.version}"
    cidr = "" if network.prefixlen == 0 else str(network)
    last = rule.port + rule.ports - 1
    return _Rule("ingress", ethertype, "tcp", rule.port, last, cidr)


def _read_rule(body: Body) -> _Rule:
    cidr = str(body.get("remote_ip_prefix") or "")
    ethertype = str(body.get("ethertype") or "IPv4")
    if cidr:
        network = ipaddress.ip_network(cidr, strict=False)
        cidr = "" if network.prefixlen == 0 else str(network)
    protocol = str(body.get("protocol") or "").lower()
    return _Rule(
        str(body["direction"]),
        ethertype,
        "tcp" if protocol == "6" else protocol,
        int(body.get("port_range_min") or 0),
        int(body.get("port_range_max") or 0),
        cidr,
        str(body.get("remote_group_id") or body.get("remote_address_group_id") or ""),
    )


def _read_tag(body: Body) -> Tag | None:
    """Whose it is: by tag, else by description; the rest of its name is what it is."""
    labels = [*(body.get("tags") or []), str(body.get("description") or "")]
    for label in labels:
        migration_id = str(label).removeprefix(TAG_PREFIX)
        prefix = f"blockferry-{migration_id}-"
        if migration_id != label and str(body.get("name") or "").startswith(prefix):
            return Tag(migration_id, str(body["name"]).removeprefix(prefix))
    return None
