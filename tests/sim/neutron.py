"""Neutron v2.0: networks, ports with addresses, security groups, tags, quotas.

Every resource is kept as the JSON its API shows. Security groups are kept, not
enforced: servers live on this machine's loopback.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
import uuid
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from tests.sim.http import ApiError, Json, Request, Response
from tests.sim.neutron_rules import default_rules, new_rule
from tests.sim.service import Service, page_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.sim.cloud import EmbeddedCloud

COLLECTIONS = {
    "networks": "network",
    "subnets": "subnet",
    "ports": "port",
    "security_groups": "security_group",
    "security_group_rules": "security_group_rule",
    "floatingips": "floatingip",
    "routers": "router",
}
"""Key of a list in a body → key of one resource; paths write `-` for `_`."""
NOT_FOUND = {
    "networks": ("NetworkNotFound", "Network {} could not be found."),
    "subnets": ("SubnetNotFound", "Subnet {} could not be found."),
    "ports": ("PortNotFound", "Port {} could not be found."),
    "security_groups": ("SecurityGroupNotFound", "Security group {} does not exist"),
    "security_group_rules": (
        "SecurityGroupRuleNotFound",
        "Security group rule {} does not exist",
    ),
    "floatingips": ("FloatingIPNotFound", "Floating IP {} could not be found"),
    "routers": ("RouterNotFound", "Router {} could not be found"),
}
EXTENSIONS = (
    "standard-attr-tag",
    "standard-attr-description",
    "standard-attr-revisions",
    "standard-attr-timestamp",
    "security-group",
    "port-security",
    "quotas",
    "quota_details",
    "external-net",
    "router",
    "binding",
    "provider",
    "pagination",
    "sorting",
    "net-mtu",
)
TAG_MAX = 60
"""Longest tag before Neutron 2025.1; what older clouds refuse, we refuse."""


class NeutronError(ApiError):
    """An error in Neutron's form."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(status, message, kind=kind)


class Neutron(Service):
    """The networks of one cloud: a tenant network on loopback, and an external one."""

    name = "neutron"
    port = 9696

    def __init__(
        self, cloud: EmbeddedCloud, *, tenant_cidr: str, extensions: tuple[str, ...] = EXTENSIONS
    ) -> None:
        super().__init__(cloud)
        self.extensions = extensions
        self.data: dict[str, dict[str, Json]] = {name: {} for name in COLLECTIONS}
        self._next_host: dict[str, int] = {}
        self._creators: dict[str, Callable[[Json], Json]] = {
            "networks": self._new_network,
            "subnets": self._new_subnet,
            "ports": self._new_port,
            "security_groups": self._new_group,
            "security_group_rules": self._new_rule,
            "floatingips": self._new_floating_ip,
            "routers": self._new_router,
        }
        self._add_routes()
        self.default_group = self.create("security_groups", {"name": "default"}, system=True)
        self.private = self.add_network("private", tenant_cidr)
        self.public = self.add_network("public", "198.51.100.0/24", external=True)

    def _add_routes(self) -> None:
        self.open_routes.add("GET", "/", self._versions)
        add = self.routes.add
        add("GET", "/v2.0", lambda request: {"resources": []})
        add("GET", "/v2.0/extensions", self._list_extensions)
        add("GET", "/v2.0/extensions/{alias}", self._show_extension)
        add("GET", "/v2.0/quotas/{project}", self._quota)
        add("GET", "/v2.0/quotas/{project}/details(?:.json)?", self._quota_details)
        add("GET", "/v2.0/{resource}", self._list)
        add("POST", "/v2.0/{resource}", self._create)
        add("GET", "/v2.0/{resource}/{resource_id}", self._show)
        add("PUT", "/v2.0/{resource}/{resource_id}", self._update)
        add("DELETE", "/v2.0/{resource}/{resource_id}", self._delete)
        tags = "/v2.0/{resource}/{resource_id}/tags"
        add("GET", tags, self._tags)
        add("PUT", tags, self._replace_tags)
        add("DELETE", tags, self._clear_tags)
        add("GET", tags + "/{tag}", self._has_tag)
        add("PUT", tags + "/{tag}", self._add_tag)
        add("DELETE", tags + "/{tag}", self._remove_tag)

    # --- what the other parts of the cloud use ---

    def find(self, collection: str, resource_id: str) -> Json:
        """The resource of this id, else 404."""
        resource = self.data[collection].get(resource_id)
        if resource is None:
            kind, message = NOT_FOUND[collection]
            raise NeutronError(404, kind, message.format(resource_id))
        return resource

    def create(self, collection: str, asked: Json, *, system: bool = False) -> Json:
        """Create a resource within the quota; `system` ones do not count."""
        key = COLLECTIONS[collection]
        if not system:
            self._check_quota(collection)
        stamp = _now()
        resource: Json = {
            "id": str(uuid.uuid4()),
            "name": "",
            "description": "",
            "project_id": self.cloud.project_id,
            "tenant_id": self.cloud.project_id,
            "tags": [],
            "revision_number": 1,
            "created_at": stamp,
            "updated_at": stamp,
        }
        if key == "security_group_rule":
            del resource["name"]
        resource.update(self._creators[collection](asked))
        for name in ("name", "description"):
            if asked.get(name):
                resource[name] = str(asked[name])
        self.data[collection][resource["id"]] = resource
        if collection == "security_groups":
            for rule in default_rules(resource["id"]):
                self.create("security_group_rules", rule, system=True)
        return resource

    def add_network(
        self, name: str, cidr: str, *, external: bool = False, shared: bool = False
    ) -> Json:
        """A network with one subnet."""
        asked = {"name": name, "router:external": external, "shared": shared}
        network = self.create("networks", asked, system=True)
        subnet = {"name": f"{name}-subnet", "network_id": network["id"], "cidr": cidr}
        self.create("subnets", {**subnet, "ip_version": 4}, system=True)
        return network

    def bind_port(self, port_id: str, server_id: str, zone: str) -> Json:
        """Give a port to a server."""
        port = self.find("ports", port_id)
        port.update({"device_id": server_id, "device_owner": f"compute:{zone}"})
        return port

    def unbind_port(self, port_id: str) -> None:
        """Take a port from its server, if both are still there."""
        port = self.data["ports"].get(port_id)
        if port is not None:
            port.update({"device_id": "", "device_owner": "", "status": "DOWN"})

    def remove(self, collection: str, resource_id: str) -> None:
        """Delete a resource; what is gone is gone."""
        self.data[collection].pop(resource_id, None)

    def render_error(self, error: ApiError) -> Response:
        """Neutron's own body."""
        if error.status == 401:
            return super().render_error(error)
        kind = error.kind or ("HTTPNotFound" if error.status == 404 else "HTTPBadRequest")
        body = {"NeutronError": {"type": kind, "message": error.message, "detail": ""}}
        return Response(error.status, error.body or body, error.headers)

    # --- discovery, extensions, quotas ---

    def _versions(self, request: Request) -> Json:
        links = [{"rel": "self", "href": f"{self.url}/v2.0/"}]
        return {"versions": [{"id": "v2.0", "status": "CURRENT", "links": links}]}

    def _list_extensions(self, request: Request) -> Json:
        return {"extensions": [_extension(alias) for alias in self.extensions]}

    def _show_extension(self, request: Request, alias: str) -> Json:
        if alias not in self.extensions:
            message = f"Extension with alias {alias} does not exist"
            raise NeutronError(404, "HTTPNotFound", message)
        return {"extension": _extension(alias)}

    def _count(self, collection: str) -> int:
        return len(self.data[collection])

    def _check_quota(self, collection: str) -> None:
        key = COLLECTIONS[collection]
        if -1 < self.cloud.quotas[key] < self._count(collection) + 1:
            message = f"Quota exceeded for resources: ['{key}']."
            raise NeutronError(409, "OverQuota", message)

    def _quota(self, request: Request, project: str) -> Json:
        return {"quota": {key: self.cloud.quotas[key] for key in COLLECTIONS.values()}}

    def _quota_details(self, request: Request, project: str) -> Json:
        details = {
            key: {"limit": self.cloud.quotas[key], "used": self._count(name), "reserved": 0}
            for name, key in COLLECTIONS.items()
        }
        return {"quota": details}

    # --- any resource ---

    def _collection(self, resource: str) -> str:
        collection = resource.removesuffix(".json").replace("-", "_")
        if collection not in COLLECTIONS:
            raise NeutronError(404, "HTTPNotFound", "The resource could not be found.")
        return collection

    def _list(self, request: Request, resource: str) -> Json:
        collection = self._collection(resource)
        found = [self._view(collection, r) for r in self.data[collection].values()]
        found = [r for r in found if _matches(r, request)]
        _sort(found, request)
        page, marker = page_of(found, request)
        fields = request.all("fields")
        shown = [{k: r[k] for k in fields if k in r} if fields else r for r in page]
        answer: Json = {collection: shown}
        if marker:
            href = request.url_of_page(marker=marker)
            answer[f"{collection}_links"] = [{"rel": "next", "href": href}]
        return answer

    def _view(self, collection: str, resource: Json) -> Json:
        if collection != "security_groups":
            return resource
        rules = self.data["security_group_rules"].values()
        own = [rule for rule in rules if rule["security_group_id"] == resource["id"]]
        return {**resource, "security_group_rules": own}

    def _show(self, request: Request, resource: str, resource_id: str) -> Json:
        collection = self._collection(resource)
        found = self.find(collection, resource_id)
        return {COLLECTIONS[collection]: self._view(collection, found)}

    def _create(self, request: Request, resource: str) -> Response:
        collection = self._collection(resource)
        key = COLLECTIONS[collection]
        body = request.json()
        if key not in body:
            raise NeutronError(400, "HTTPBadRequest", f"Unable to find '{key}' in request body")
        created = self.create(collection, body[key])
        return Response(201, {key: self._view(collection, created)})

    def _update(self, request: Request, resource: str, resource_id: str) -> Json:
        collection = self._collection(resource)
        key = COLLECTIONS[collection]
        found = self.find(collection, resource_id)
        asked = request.json().get(key, {})
        fixed = {"id", "project_id", "tenant_id", "tags"} & set(asked)
        if fixed:
            message = f"Cannot update read-only attribute {', '.join(sorted(fixed))}"
            raise NeutronError(400, "HTTPBadRequest", message)
        if "security_groups" in asked:
            for group in asked["security_groups"]:
                self.find("security_groups", group)
        found.update(asked)
        found.update(updated_at=_now(), revision_number=found["revision_number"] + 1)
        return {key: self._view(collection, found)}

    def _delete(self, request: Request, resource: str, resource_id: str) -> Response:
        collection = self._collection(resource)
        self.find(collection, resource_id)
        self._check_unused(collection, resource_id)
        self.remove(collection, resource_id)
        if collection == "security_groups":
            rules = self.data["security_group_rules"]
            for rule in [r for r in rules.values() if r["security_group_id"] == resource_id]:
                del rules[rule["id"]]
        return Response(204)

    def _check_unused(self, collection: str, resource_id: str) -> None:
        ports = self.data["ports"].values()
        if collection == "security_groups":
            if resource_id == self.default_group["id"]:
                message = "Insufficient rights for removing default security group."
                raise NeutronError(409, "SecurityGroupCannotRemoveDefault", message)
            if any(resource_id in port["security_groups"] for port in ports):
                message = f"Security Group {resource_id} in use."
                raise NeutronError(409, "SecurityGroupInUse", message)
        if collection == "networks" and any(p["network_id"] == resource_id for p in ports):
            message = (
                f"Unable to complete operation on network {resource_id}. "
                "There are one or more ports still in use on the network."
            )
            raise NeutronError(409, "NetworkInUse", message)

    # --- creators: what is particular to a kind ---

    def _new_network(self, asked: Json) -> Json:
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

    def _new_subnet(self, asked: Json) -> Json:
        network = self.find("networks", asked.get("network_id", ""))
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
            "ipv6_ra_mode": None,
            "ipv6_address_mode": None,
        }

    def _new_port(self, asked: Json) -> Json:
        network = self.find("networks", asked.get("network_id", ""))
        groups = asked.get("security_groups")
        groups = [self.default_group["id"]] if groups is None else groups
        for group in groups:
            self.find("security_groups", group)
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
        if asked == []:
            return []
        taken = {ip["ip_address"] for p in self.data["ports"].values() for ip in p["fixed_ips"]}
        for one in asked or []:
            if one.get("ip_address") in taken:
                message = f"IP address {one['ip_address']} already allocated in subnet."
                raise NeutronError(409, "IpAddressAlreadyAllocated", message)
            if one.get("ip_address"):
                subnet_id = one.get("subnet_id") or network["subnets"][0]
                return [{"subnet_id": subnet_id, "ip_address": one["ip_address"]}]
        for subnet_id in network["subnets"]:
            address = self._next_address(self.find("subnets", subnet_id), taken)
            if address:
                return [{"subnet_id": subnet_id, "ip_address": address}]
        message = f"No more IP addresses available on network {network['id']}."
        raise NeutronError(409, "IpAddressGenerationFailure", message)

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

    def _new_group(self, asked: Json) -> Json:
        name = asked.get("name")
        if name == "default" and self.data["security_groups"]:
            message = "Default security group already exists."
            raise NeutronError(409, "SecurityGroupDefaultAlreadyExists", message)
        return {"stateful": True, "shared": False}

    def _new_rule(self, asked: Json) -> Json:
        group = self.find("security_groups", asked.get("security_group_id", ""))
        rule = new_rule(asked)
        for other in self.data["security_group_rules"].values():
            if all(other[key] == value for key, value in rule.items()):
                message = f"Security group rule already exists. Rule id is {other['id']}."
                raise NeutronError(409, "SecurityGroupRuleExists", message)
        group["revision_number"] += 1
        return rule

    def _new_floating_ip(self, asked: Json) -> Json:
        network = self.find("networks", asked.get("floating_network_id", ""))
        return {
            "floating_network_id": network["id"],
            "floating_ip_address": self._fixed_ips(network, None)[0]["ip_address"],
            "fixed_ip_address": None,
            "port_id": asked.get("port_id"),
            "router_id": None,
            "status": "DOWN",
        }

    def _new_router(self, asked: Json) -> Json:
        gateway = asked.get("external_gateway_info")
        return {"admin_state_up": True, "status": "ACTIVE", "external_gateway_info": gateway}

    # --- tags ---

    def _tagged(self, resource: str, resource_id: str) -> Json:
        if "standard-attr-tag" not in self.extensions:
            raise NeutronError(404, "HTTPNotFound", "The resource could not be found.")
        return self.find(self._collection(resource), resource_id)

    def _tags(self, request: Request, resource: str, resource_id: str) -> Json:
        return {"tags": self._tagged(resource, resource_id)["tags"]}

    def _replace_tags(self, request: Request, resource: str, resource_id: str) -> Json:
        tags = [_checked_tag(tag) for tag in request.json().get("tags", [])]
        self._tagged(resource, resource_id)["tags"] = sorted(set(tags))
        return {"tags": sorted(set(tags))}

    def _clear_tags(self, request: Request, resource: str, resource_id: str) -> Response:
        self._tagged(resource, resource_id)["tags"] = []
        return Response(204)

    def _has_tag(self, request: Request, resource: str, resource_id: str, tag: str) -> Response:
        if tag not in self._tagged(resource, resource_id)["tags"]:
            raise NeutronError(404, "TagNotFound", f"Tag {tag} could not be found.")
        return Response(204)

    def _add_tag(self, request: Request, resource: str, resource_id: str, tag: str) -> Response:
        tags = self._tagged(resource, resource_id)["tags"]
        if _checked_tag(tag) not in tags:
            tags.append(tag)
        return Response(201)

    def _remove_tag(self, request: Request, resource: str, resource_id: str, tag: str) -> Response:
        self._has_tag(request, resource, resource_id, tag)
        self._tagged(resource, resource_id)["tags"].remove(tag)
        return Response(204)


def _checked_tag(tag: str) -> str:
    if not 0 < len(tag) <= TAG_MAX or "," in tag:
        message = f"Invalid input for tags. Reason: '{tag}' exceeds maximum length of {TAG_MAX}."
        raise NeutronError(400, "HTTPBadRequest", message)
    return tag


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _extension(alias: str) -> Json:
    return {"alias": alias, "name": alias, "description": "", "updated": "", "links": []}


def _sort(found: list[Json], request: Request) -> None:
    key = request.params.get("sort_key", "id")
    found.sort(
        key=lambda resource: str(resource.get(key, "")),
        reverse=request.params.get("sort_dir") == "desc",
    )


def _matches(resource: Json, request: Request) -> bool:
    ignored = {"limit", "marker", "fields", "sort_key", "sort_dir", "page_reverse"}
    for key in {name for name, _ in request.query} - ignored:
        if not _value_matches(resource, key, request.all(key)):
            return False
    return True


def _value_matches(resource: Json, key: str, wanted: list[str]) -> bool:
    if key in {"tags", "tags-any", "not-tags", "not-tags-any"}:
        return _tags_match(set(resource["tags"]), key, set(",".join(wanted).split(",")))
    if key == "fixed_ips":
        pairs = [re.split("=|:", one, maxsplit=1) for one in wanted]
        return any(all(ip.get(k) == v for k, v in pairs) for ip in resource["fixed_ips"])
    if key not in resource:
        return True
    have = resource[key]
    if isinstance(have, list):
        return bool(set(wanted) & {str(value) for value in have})
    if isinstance(have, bool):
        return str(have).lower() in {value.lower() for value in wanted}
    return ("" if have is None else str(have)) in wanted


def _tags_match(have: set[str], key: str, wanted: set[str]) -> bool:
    found = bool(have & wanted) if key.endswith("-any") else wanted <= have
    return not found if key.startswith("not-") else found
