"""Nova v2.1: servers, flavors, limits. Attachments and new servers have modules of their own.

Sources of what is not obvious: Nova's compute API reference and `nova/api`:
a quota is 403 `forbidden`, ports given by the user outlive their server, a
server's `name` filter is a regular expression, microversions add fields.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.sim.boot import Boot
from tests.sim.http import ApiError, Json, Request, Response
from tests.sim.nova_catalogue import NovaCatalogue
from tests.sim.nova_volumes import NovaVolumes
from tests.sim.server import Network, Server, now
from tests.sim.service import Microversions, Service, page_of

if TYPE_CHECKING:
    from tests.sim.cloud import EmbeddedCloud

MIB_PER_GIB = 1024
_FILTERS = """
    access_ip_v4 access_ip_v6 all_tenants auto_disk_config availability_zone changes-before
    changes-since config_drive created_at deleted description flavor host hostname image ip ip6
    kernel_id key_name launch_index launched_at limit locked locked_by marker name node not-tags
    not-tags-any power_state progress project_id ramdisk_id reservation_id root_device_name
    soft_deleted sort_dir sort_key status tags tags-any task_state tenant_id terminated_at user_id
    uuid vm_state
"""
LIST_FILTERS = frozenset(_FILTERS.split())
"""Query parameters of `GET /servers`; from 2.75 on any other is refused."""


class Nova(Service):
    """The servers of one cloud."""

    name = "nova"
    port = 8774
    microversions = Microversions("compute", (2, 1), (2, 96), "X-OpenStack-Nova-API-Version")

    def __init__(
        self, cloud: EmbeddedCloud, *, flavors: tuple[Json, ...], zones: tuple[str, ...]
    ) -> None:
        super().__init__(cloud)
        self.servers: dict[str, Server] = {}
        self.flavors = {flavor["id"]: flavor for flavor in flavors}
        self.zones = zones
        boot, volumes, catalogue = Boot(self), NovaVolumes(self), NovaCatalogue(self)
        self.volumes = volumes
        self.open_routes.add("GET", "/", self._versions)
        self.open_routes.add("GET", "/v2.1", self._version)
        one = "/servers/{server_id}"
        for method, path, handler in (
            ("GET", "/servers", self._list),
            ("POST", "/servers", boot.create),
            ("GET", "/servers/detail", self._list_detail),
            ("GET", one, self._show),
            ("PUT", one, self._update),
            ("DELETE", one, self._delete),
            ("POST", one + "/action", self._act),
            ("GET", one + "/metadata", self._metadata),
            ("POST", one + "/metadata", self._merge_metadata),
            ("PUT", one + "/metadata", self._replace_metadata),
            ("DELETE", one + "/metadata/{key}", self._delete_metadata),
            ("GET", one + "/os-interface", self._interfaces),
            ("GET", one + "/ips", self._ips),
            ("GET", one + "/tags", self._tags),
            ("PUT", one + "/tags", self._replace_tags),
            ("GET", one + "/os-volume_attachments", volumes.list),
            ("POST", one + "/os-volume_attachments", volumes.create),
            ("GET", one + "/os-volume_attachments/{volume_id}", volumes.show),
            ("DELETE", one + "/os-volume_attachments/{volume_id}", volumes.delete),
            ("GET", "/flavors", catalogue.list_flavors),
            ("GET", "/flavors/detail", catalogue.list_flavors),
            ("GET", "/flavors/{flavor_id}", catalogue.show_flavor),
            ("GET", "/flavors/{flavor_id}/os-extra_specs", catalogue.extra_specs),
            ("GET", "/limits", catalogue.limits),
            ("GET", "/os-quota-sets/{project}", catalogue.quota_set),
            ("PUT", "/os-quota-sets/{project}", catalogue.set_quota),
            ("GET", "/os-quota-sets/{project}/detail", catalogue.quota_detail),
            ("GET", "/os-availability-zone", catalogue.list_zones),
            ("GET", "/os-keypairs", lambda request: {"keypairs": []}),
            ("GET", "/extensions", lambda request: {"extensions": []}),
        ):
            self.routes.add(method, "/v2.1" + path, handler)

    def find(self, server_id: str) -> Server:
        """The server of this id, else 404."""
        server = self.servers.get(server_id)
        if server is None:
            raise ApiError(404, f"Instance {server_id} could not be found.")
        return server

    # --- discovery ---

    def _document(self) -> Json:
        return {
            "id": "v2.1",
            "status": "CURRENT",
            "version": self.microversions.text(self.microversions.maximum),
            "min_version": self.microversions.text(self.microversions.minimum),
            "updated": "2013-07-23T11:33:21Z",
            "links": [{"rel": "self", "href": f"{self.url}/v2.1/"}],
        }

    def _versions(self, request: Request) -> Json:
        legacy = {
            "id": "v2.0",
            "status": "SUPPORTED",
            "version": "",
            "min_version": "",
            "updated": "2011-01-21T11:33:21Z",
            "links": [{"rel": "self", "href": f"{self.url}/v2/"}],
        }
        return {"versions": [legacy, self._document()]}

    def _version(self, request: Request) -> Json:
        media = "application/vnd.openstack.compute+json;version=2.1"
        types = [{"base": "application/json", "type": media}]
        return {"version": {**self._document(), "media-types": types}}

    # --- servers ---

    def _network(self) -> Network:
        data = self.cloud.neutron.data
        return Network(
            self.cloud.project_id, data["ports"], data["networks"], data["security_groups"]
        )

    def _view(self, server: Server, request: Request) -> Json:
        view = server.view(request.version, admin=request.token.admin, network=self._network())
        view["links"] = self.links("servers", server.id)
        if view["image"]:
            view["image"]["links"] = self.links("images", server.image_id)[1:]
        if "id" in view["flavor"]:
            view["flavor"]["links"] = self.links("flavors", server.flavor["id"])[1:]
        return view

    def links(self, kind: str, resource_id: str) -> list[Json]:
        """The two links Nova gives everything."""
        return [
            {"rel": "self", "href": f"{self.url}/v2.1/{kind}/{resource_id}"},
            {"rel": "bookmark", "href": f"{self.url}/{kind}/{resource_id}"},
        ]

    def _selected(self, request: Request) -> list[Server]:
        params = request.params
        unknown = set(params) - LIST_FILTERS
        if unknown and request.version >= (2, 75):
            names = ", ".join(f"'{name}'" for name in sorted(unknown))
            raise ApiError(400, f"Additional properties are not allowed ({names} was unexpected)")
        newest = sorted(self.servers.values(), key=lambda s: (s.created, s.id), reverse=True)
        if params.get("sort_dir") == "asc":
            newest.reverse()
        return [server for server in newest if self._matches(server, params)]

    def _matches(self, server: Server, params: dict[str, str]) -> bool:
        try:
            named = re.search(params.get("name", ""), server.name) is not None
        except re.error as error:
            raise ApiError(400, f"Invalid filter value for name: {error}") from error
        addresses = [
            one["addr"]
            for group in self._network().addresses(server.ports).values()
            for one in group
        ]
        wanted = params.get("ip", "")
        return (
            named
            and params.get("status", server.status).upper() == server.status
            and params.get("image", server.image_id).endswith(server.image_id)
            and params.get("flavor", server.flavor["id"]) == server.flavor["id"]
            and (not wanted or any(re.search(wanted, one) for one in addresses))
            and set(filter(None, params.get("tags", "").split(","))) <= set(server.tags)
        )

    def _list(self, request: Request) -> Json:
        short = [
            {"id": s.id, "name": s.name, "links": self.links("servers", s.id)}
            for s in self._selected(request)
        ]
        return self._page(short, request)

    def _list_detail(self, request: Request) -> Json:
        return self._page([self._view(s, request) for s in self._selected(request)], request)

    def _page(self, found: list[Json], request: Request) -> Json:
        page, marker = page_of(found, request)
        answer: Json = {"servers": page}
        if marker:
            answer["servers_links"] = [{"rel": "next", "href": request.url_of_page(marker=marker)}]
        return answer

    def _show(self, request: Request, server_id: str) -> Json:
        return {"server": self._view(self.find(server_id), request)}

    def _update(self, request: Request, server_id: str) -> Json:
        server = self.find(server_id)
        asked = request.section("server")
        server.name = str(asked.get("name", server.name))
        server.description = asked.get("description", server.description)
        return {"server": self._view(server, request)}

    def _delete(self, request: Request, server_id: str) -> Response:
        self.remove(self.find(server_id))
        return Response(204)

    def remove(self, server: Server) -> None:
        """Begin to delete a server: its guest dies, volumes and ports are given back."""
        if server.task_state == "deleting":
            return
        server.set(server.status, "deleting")
        if server.guest:
            server.guest.begin_kill()

        def finish() -> None:
            if server.guest:
                server.guest.remove()
            for port_id in server.ports:
                if port_id in server.made_ports:
                    self.cloud.neutron.remove("ports", port_id)
                else:
                    self.cloud.neutron.unbind_port(port_id)
            self.volumes.give_back(server)
            self.servers.pop(server.id, None)

        if not self.cloud.faults.happens("stick deleting server"):
            self.cloud.timeline.after(self.cloud.timings.server_delete, finish)

    # --- actions ---

    def _act(self, request: Request, server_id: str) -> Response:
        server = self.find(server_id)
        body = request.json()
        actions = {
            "os-getConsoleOutput": self._console,
            "os-stop": self._stop,
            "os-start": self._start,
            "reboot": self._reboot,
            "forceDelete": self._force_delete,
        }
        for name, argument in body.items():
            if name in actions:
                return actions[name](server, argument or {})
        raise ApiError(400, f"There is no such action: {', '.join(body)}")

    def _console(self, server: Server, asked: Json) -> Response:
        if server.guest is None:
            message = f"Instance {server.id} is not ready"
            raise ApiError(409, message) if server.status == "BUILD" else ApiError(404, message)
        lines = asked.get("length")
        return Response(
            200, {"output": server.guest.console(None if lines is None else int(lines))}
        )

    def _require(self, server: Server, action: str, *states: str) -> None:
        if server.status not in states:
            state = server.view((2, 1), admin=False, network=self._network())
            raise ApiError(
                409,
                f"Cannot '{action}' instance {server.id} while it is in vm_state "
                f"{state['OS-EXT-STS:vm_state']}",
            )

    def _stop(self, server: Server, asked: Json) -> Response:
        self._require(server, "stop", "ACTIVE", "ERROR")
        server.set(server.status, "powering-off")
        if server.guest and not self.cloud.faults.happens("stick stopping"):
            server.guest.press_power_button()
        return Response(202)

    def _start(self, server: Server, asked: Json) -> Response:
        self._require(server, "start", "SHUTOFF")
        server.set("SHUTOFF", "powering-on")
        self.cloud.timeline.after(self.cloud.timings.attach, lambda: self.power_on(server))
        return Response(202)

    def _reboot(self, server: Server, asked: Json) -> Response:
        self._require(server, "reboot", "ACTIVE", "SHUTOFF", "ERROR")
        if server.guest:
            server.guest.remove(keep_disk=True)
        self.power_on(server)
        return Response(202)

    def _force_delete(self, server: Server, asked: Json) -> Response:
        self.remove(server)
        return Response(204)

    def power_on(self, server: Server) -> None:
        """Start the guest; the server is ACTIVE from then on."""
        if server.id not in self.servers or server.task_state == "deleting":
            return
        if server.guest and not self.cloud.faults.happens("no boot"):
            server.guest.start(lambda: self._powered_off(server))
        server.launched_at = server.launched_at or now()
        server.set("ACTIVE")
        for port_id in server.ports:
            self.cloud.neutron.find("ports", port_id)["status"] = "ACTIVE"

    def _powered_off(self, server: Server) -> None:
        """The guest has ended by itself, or was asked to; runs in a thread of the guest."""
        with self.cloud.lock:
            if server.status == "ACTIVE" and server.task_state != "deleting":
                server.set("SHUTOFF")

    # --- parts of a server ---

    def _metadata(self, request: Request, server_id: str) -> Json:
        return {"metadata": self.find(server_id).metadata}

    def _merge_metadata(self, request: Request, server_id: str) -> Json:
        server = self.find(server_id)
        server.metadata.update(request.section("metadata"))
        return {"metadata": server.metadata}

    def _replace_metadata(self, request: Request, server_id: str) -> Json:
        self.find(server_id).metadata = dict(request.section("metadata"))
        return self._metadata(request, server_id)

    def _delete_metadata(self, request: Request, server_id: str, key: str) -> Response:
        if self.find(server_id).metadata.pop(key, None) is None:
            raise ApiError(404, "Metadata item was not found")
        return Response(204)

    def _interfaces(self, request: Request, server_id: str) -> Json:
        ports = self.cloud.neutron.data["ports"]
        shown = [
            {
                "port_id": port["id"],
                "net_id": port["network_id"],
                "mac_addr": port["mac_address"],
                "port_state": port["status"],
                "fixed_ips": port["fixed_ips"],
            }
            for port in (ports[one] for one in self.find(server_id).ports if one in ports)
        ]
        return {"interfaceAttachments": shown}

    def _ips(self, request: Request, server_id: str) -> Json:
        return {"addresses": self._network().addresses(self.find(server_id).ports)}

    def _tags(self, request: Request, server_id: str) -> Json:
        return {"tags": self.find(server_id).tags}

    def _replace_tags(self, request: Request, server_id: str) -> Json:
        server = self.find(server_id)
        server.tags = [str(tag) for tag in request.json().get("tags", [])]
        return {"tags": server.tags}

    def used(self) -> dict[str, int]:
        """What of the quota is in use."""
        flavors = [server.flavor for server in self.servers.values()]
        return {
            "instances": len(flavors),
            "cores": sum(flavor["vcpus"] for flavor in flavors),
            "ram": sum(flavor["ram"] for flavor in flavors),
        }
