"""Neutron v2.0: networks, ports with addresses, security groups, tags, quotas.

Every resource is kept as the JSON its API shows. Security groups are kept, not
enforced: servers live on this machine's loopback.
"""

from __future__ import annotations

import uuid
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from tests.sim.http import ApiError, Json, Request, Response
from tests.sim.neutron_filters import matches, sort
from tests.sim.neutron_floating import Floating
from tests.sim.neutron_kinds import Kinds
from tests.sim.neutron_rules import NeutronError, default_rules
from tests.sim.service import Service, admin_only, page_of
from tests.sim.translation import Translator, dial_directly

if TYPE_CHECKING:
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


class Neutron(Service):
    """The networks of one cloud: a tenant network on loopback, and an external one."""

    name = "neutron"
    port = 9696

    def __init__(
        self,
        cloud: EmbeddedCloud,
        *,
        tenant_cidrs: tuple[str, ...],
        external_cidr: str,
        extensions: tuple[str, ...] = EXTENSIONS,
    ) -> None:
        super().__init__(cloud)
        self.extensions = extensions
        self.data: dict[str, dict[str, Json]] = {name: {} for name in COLLECTIONS}
        self.floating = Floating(self)
        self.translator = Translator(dial_directly)
        self._kinds = Kinds(self)
        self._add_routes()
        self.default_group = self.create("security_groups", {"name": "default"}, system=True)
        self.private = self.add_network("private", *tenant_cidrs)
        self.public = self.add_network("public", external_cidr, external=True)
        self.router = self.floating.join(self.public, self.private)

    def _add_routes(self) -> None:
        self.open_routes.add("GET", "/", self._versions)
        add = self.routes.add
        add("GET", "/v2.0", lambda request: {"resources": []})
        add("GET", "/v2.0/extensions", self._list_extensions)
        add("GET", "/v2.0/extensions/{alias}", self._show_extension)
        add("GET", "/v2.0/quotas/{project}", self._quota)
        add("PUT", "/v2.0/quotas/{project}", self._set_quota)
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
        resource.update(self._kinds.new(collection, asked))
        if key == "floatingip":
            del resource["name"]
        for name in ("name", "description"):
            if asked.get(name):
                resource[name] = str(asked[name])
        self.data[collection][resource["id"]] = resource
        self._translate()
        if collection == "security_groups":
            for rule in default_rules(resource["id"]):
                self.create("security_group_rules", rule, system=True)
        return resource

    def add_network(
        self, name: str, *cidrs: str, external: bool = False, shared: bool = False
    ) -> Json:
        """A network with a subnet a CIDR."""
        asked = {"name": name, "router:external": external, "shared": shared}
        network = self.create("networks", asked, system=True)
        for cidr in cidrs:
            self.add_subnet(network, cidr)
        return network

    def add_subnet(self, network: Json, cidr: str, **fields: object) -> Json:
        """One subnet more."""
        subnet = {"name": f"{network['name']}-subnet", "network_id": network["id"], "cidr": cidr}
        return self.create("subnets", {**subnet, **fields}, system=True)

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
        if collection == "ports":
            self.floating.forget_port(resource_id)
        self._translate()

    def _translate(self) -> None:
        """Let floating IPs lead where the database says."""
        floating_ips = self.data["floatingips"].values()
        self.translator.set(
            {
                one["floating_ip_address"]: one["fixed_ip_address"]
                for one in floating_ips
                if one["status"] == "ACTIVE"
            }
        )

    def render_error(self, error: ApiError) -> Response:
        """Neutron's own body."""
        if error.status == 401:
            return super().render_error(error)
        usual = {403: "PolicyNotAuthorized", 404: "HTTPNotFound"}
        kind = error.kind or usual.get(error.status, "HTTPBadRequest")
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

    def _set_quota(self, request: Request, project: str) -> Json:
        admin_only(request, "update_quota")
        asked = request.section("quota")
        for key, limit in asked.items():
            if key not in COLLECTIONS.values() or not isinstance(limit, int) or limit < -1:
                message = f"Invalid input for {key}. Reason: '{limit}' is no limit."
                raise NeutronError(400, "HTTPBadRequest", message)
        self.cloud.quotas.update(asked)
        return self._quota(request, project)

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
        found = [r for r in found if matches(r, request)]
        sort(found, request)
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
        if collection == "security_group_rules" and collection in body:
            return self._create_rules(body[collection])
        if key not in body:
            raise NeutronError(400, "HTTPBadRequest", f"Unable to find '{key}' in request body")
        created = self.create(collection, body[key])
        return Response(201, {key: self._view(collection, created)})

    def _create_rules(self, asked: list[Json]) -> Response:
        """A list of rules: all of them, or none."""
        made: list[Json] = []
        try:
            made.extend(self.create("security_group_rules", one) for one in asked)
        except ApiError:
            for one in made:
                self.remove("security_group_rules", one["id"])
            raise
        return Response(201, {"security_group_rules": made})

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
        if collection == "floatingips" and "port_id" in asked:
            tie = self.floating.tie(found, asked["port_id"], asked.get("fixed_ip_address"))
            asked = {**asked, **tie}
        found.update(asked)
        self._translate()
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
