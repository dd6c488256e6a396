"""Nova's `POST /servers`: checks, quota, then a server that is built in its time."""

from __future__ import annotations

import base64
import binascii
import uuid
from functools import partial
from typing import TYPE_CHECKING

from tests.sim.guest import Guest, GuestSpec
from tests.sim.http import ApiError, Json, Request, Response
from tests.sim.server import Server, VolumeTie

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.sim.nova import Nova

USER_DATA_MAX = 65_535
"""Characters of base64, from the schema of the request (nova/api/openstack/compute/schemas)."""
METADATA_MAX = 128


class Boot:
    """Creates servers."""

    def __init__(self, nova: Nova) -> None:
        self._nova = nova
        self._cloud = nova.cloud

    def create(self, request: Request) -> Response:
        """Accept a server; it is BUILD, later ACTIVE or ERROR."""
        asked = request.section("server")
        flavor = self._flavor(asked)
        mappings = _mappings(asked)
        image = self._image(asked, mappings)
        if image:
            _check_fit(flavor, image)
        server = Server(
            id=str(uuid.uuid4()),
            name=_name(asked),
            flavor=flavor,
            image_id=image["id"] if image else "",
            user_id=request.token.user.id,
            metadata=_metadata(asked.get("metadata") or {}),
            zone=self._zone(asked),
            description=asked.get("description") if request.version >= (2, 19) else None,
            config_drive=str(asked.get("config_drive", "")).lower() in {"true", "1"},
            user_data=_user_data(asked.get("user_data")),
            tags=list(asked.get("tags", [])) if request.version >= (2, 52) else [],
        )
        self._check_quota(flavor)
        ties = self._volumes(mappings)
        self._ports(server, asked, request)
        self._nova.servers[server.id] = server
        self._begin(server, image, ties)
        answer = {
            "id": server.id,
            "links": self._nova.links("servers", server.id),
            "OS-DCF:diskConfig": "MANUAL",
            "security_groups": [{"name": "default"}],
            "adminPass": uuid.uuid4().hex[:12],
        }
        location = f"{self._nova.url}/v2.1/servers/{server.id}"
        return Response(202, {"server": answer}, {"Location": location})

    # --- checks ---

    def _flavor(self, asked: Json) -> Json:
        reference = str(asked.get("flavorRef", "")).rsplit("/", 1)[-1]
        if not reference:
            raise ApiError(400, "Invalid input for field/attribute server. 'flavorRef' is required")
        flavor = self._nova.flavors.get(reference)
        if flavor is None:
            raise ApiError(400, f"Flavor {reference} could not be found.")
        return dict(flavor)

    def _image(self, asked: Json, mappings: list[Json]) -> Json | None:
        reference = str(asked.get("imageRef") or "").rsplit("/", 1)[-1]
        if not reference:
            if any(_is_root(mapping) for mapping in mappings):
                return None
            raise ApiError(400, "Invalid imageRef provided.")
        image = self._cloud.glance.images.get(reference)
        if image is None:
            raise ApiError(400, "Can not find requested image")
        if image["status"] != "active":
            raise ApiError(400, f"Image {reference} is not active.")
        return image

    def _zone(self, asked: Json) -> str:
        zone = str(asked.get("availability_zone") or self._nova.zones[0])
        if zone.split(":", maxsplit=1)[0] not in self._nova.zones:
            raise ApiError(400, "The requested availability zone is not available")
        return zone.split(":", maxsplit=1)[0]

    def _check_quota(self, flavor: Json) -> None:
        used, quotas = self._nova.used(), self._cloud.quotas
        wanted = {"instances": 1, "cores": flavor["vcpus"], "ram": flavor["ram"]}
        over = [key for key, n in wanted.items() if -1 < quotas[key] < used[key] + n]
        if not over:
            return
        names = ", ".join(over)
        request = ", ".join(str(wanted[key]) for key in over)
        taken = ", ".join(str(used[key]) for key in over)
        allowed = ", ".join(str(quotas[key]) for key in over)
        raise ApiError(
            403,
            f"Quota exceeded for {names}: Requested {request}, but already used {taken} "
            f"of {allowed} {names}",
        )

    # --- ports and volumes ---

    def _ports(self, server: Server, asked: Json, request: Request) -> None:
        networks = asked.get("networks")
        if networks is None and request.version >= (2, 37):
            raise ApiError(400, "Invalid input for field/attribute server. 'networks' is required")
        if networks == "none":
            return
        if networks in (None, "auto", []):
            networks = [{"uuid": self._cloud.neutron.private["id"]}]
        existing = [str(one["port"]) for one in networks if "port" in one]
        for port_id in existing:
            self._check_port(port_id)
        for one in networks:
            port_id = str(one["port"]) if "port" in one else self._new_port(server, one, asked)
            self._cloud.neutron.bind_port(port_id, server.id, server.zone)
            server.ports.append(port_id)

    def _check_port(self, port_id: str) -> None:
        port = self._cloud.neutron.data["ports"].get(port_id)
        if port is None:
            raise ApiError(400, f"Port {port_id} could not be found.")
        if port["device_id"]:
            raise ApiError(409, f"Port {port_id} is still in use.")
        if not port["fixed_ips"]:
            raise ApiError(400, f"Port {port_id} requires a FixedIP in order to be used.")

    def _new_port(self, server: Server, network: Json, asked: Json) -> str:
        network_id = str(network.get("uuid", ""))
        if network_id not in self._cloud.neutron.data["networks"]:
            raise ApiError(400, f"Network {network_id} could not be found.")
        groups = [self._group(str(one.get("name"))) for one in asked.get("security_groups", [])]
        body: Json = {"network_id": network_id}
        if groups:
            body["security_groups"] = groups
        try:
            port = self._cloud.neutron.create("ports", body)
        except ApiError as error:
            if error.kind == "OverQuota":
                raise ApiError(403, "Maximum number of ports exceeded") from error
            raise
        server.made_ports.append(port["id"])
        return str(port["id"])

    def _group(self, name: str) -> str:
        for group in self._cloud.neutron.data["security_groups"].values():
            if name in {group["id"], group["name"]}:
                return str(group["id"])
        raise ApiError(400, f"Security group {name} not found.")

    def _volumes(self, mappings: list[Json]) -> list[VolumeTie]:
        """Reserve or create the volumes named; the root image on a local disk is none."""
        ties: list[VolumeTie] = []
        for mapping in mappings:
            if mapping.get("destination_type") != "volume":
                continue
            volume_id = str(mapping.get("uuid") or "")
            if mapping.get("source_type") == "volume":
                if volume_id not in self._cloud.cinder.volumes:
                    message = f"Block Device Mapping is Invalid: failed to get volume {volume_id}."
                    raise ApiError(400, message)
            else:
                size_gib = int(mapping.get("volume_size") or 1)
                volume = self._cloud.cinder.create(size_gib=size_gib, at_once=True)
                volume.bootable = _is_root(mapping)
                volume_id = volume.id
            self._cloud.cinder.states.reserve(self._cloud.cinder.find(volume_id))
            remove = str(mapping.get("delete_on_termination", "")).lower() == "true"
            root = _is_root(mapping)
            device = "/dev/vda" if root else f"/dev/vd{'bcdefgh'[len(ties)]}"
            ties.append(VolumeTie(volume_id, device, delete_on_termination=remove, root=root))
        return ties

    # --- the build ---

    def _begin(self, server: Server, image: Json | None, ties: list[VolumeTie]) -> None:
        if self._cloud.faults.happens("no valid host"):
            message = "No valid host was found. There are not enough hosts available."
            self._later(lambda: server.fail(message))
            return
        if self._cloud.faults.happens("build error"):
            message = "Build of instance aborted: the compute host refused."
            self._later(lambda: server.fail(message))
            return
        server.task_state = "spawning"
        root = next((tie for tie in ties if tie.root), None)
        spec = GuestSpec(
            server_id=server.id,
            name=server.name,
            user_data=server.user_data,
            properties=self._properties(image, root),
            addresses=tuple(
                ip["ip_address"]
                for port in server.ports
                for ip in self._cloud.neutron.find("ports", port)["fixed_ips"]
            ),
            walls=self._cloud.walls,
            root_device=root.device if root else "",
        )
        guest = Guest(
            self._cloud.directory / "instances" / server.id,
            spec,
            self._cloud.directory / "programs",
        )

        def build() -> None:
            guest.make_disk()
            with self._cloud.lock:
                if server.id in self._nova.servers and server.task_state != "deleting":
                    server.guest = guest
                    power_on = partial(self._nova.power_on, server)
                    self._nova.volumes.attach_at_boot(server, ties, power_on)
            if server.guest is None:  # deleted in the meantime
                guest.remove()

        if not self._cloud.faults.happens("stick BUILD"):
            self._later(lambda: self._cloud.aside(build))

    def _properties(self, image: Json | None, root: VolumeTie | None) -> dict[str, str]:
        """What is known of what the server boots from."""
        if image is not None:
            return {key: str(value) for key, value in image.items()}
        return self._cloud.cinder.find(root.volume_id).image_metadata if root else {}

    def _later(self, finish: Callable[[], None]) -> None:
        self._cloud.timeline.after(self._cloud.timings.server_build, finish)


def _name(asked: Json) -> str:
    name = str(asked.get("name", ""))
    if not 1 <= len(name) <= 255:
        raise ApiError(400, f"Invalid input for field/attribute name. Value: {name!r}.")
    return name


def _metadata(asked: Json) -> dict[str, str]:
    if len(asked) > METADATA_MAX:
        raise ApiError(403, f"Maximum number of metadata items exceeds {METADATA_MAX}")
    for key, value in asked.items():
        if not isinstance(value, str) or not 1 <= len(key) <= 255 or len(value) > 255:
            raise ApiError(400, f"Invalid input for field/attribute {key}. Value: {value!r}.")
    return dict(asked)


def _user_data(asked: str | None) -> bytes:
    if not asked:
        return b""
    if len(asked) > USER_DATA_MAX:
        raise ApiError(
            400,
            "Invalid input for field/attribute user_data. Value: "
            f"{asked[:40]}…. '{asked[:40]}…' is too long",
        )
    try:
        return base64.b64decode(asked, validate=True)
    except binascii.Error as error:
        raise ApiError(
            400, "Invalid input for field/attribute user_data. It is not a 'base64'"
        ) from error


def _mappings(asked: Json) -> list[Json]:
    mappings = asked.get("block_device_mapping_v2") or []
    if not isinstance(mappings, list):
        raise ApiError(400, "Invalid input for field/attribute block_device_mapping_v2.")
    return mappings


def _is_root(mapping: Json) -> bool:
    return str(mapping.get("boot_index")) == "0"


def _check_fit(flavor: Json, image: Json) -> None:
    if flavor["ram"] < image["min_ram"]:
        raise ApiError(400, "Flavor's memory is too small for requested image.")
    if 0 < flavor["disk"] < image["min_disk"]:
        raise ApiError(
            400,
            "Flavor's disk is too small for requested image. Flavor disk is "
            f"{flavor['disk'] << 30} bytes, minimum is {image['min_disk'] << 30} bytes.",
        )
