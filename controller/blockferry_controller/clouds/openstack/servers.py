"""Servers: boot, find, read the console, delete.

Sources of what is not obvious (api-ref compute v2.1):
* There is no filter by metadata for a project's own servers; `?name=` is a regular
  expression. What comes back is looked through for our metadata.
* `user_data` is base64 of at most 65,535 characters, else 400.
* A flavor with disk 0 may not boot from a local disk (policy `zero_disk_flavor`, since
  Rocky): then the root disk is a volume that Nova makes and deletes with the server.
* Why a server is in ERROR is its `fault`, only when it is asked for by id.
* DELETE answers 409 while the server is in another task. With deferred deletion
  (`reclaim_instance_interval`) it becomes SOFT_DELETED and keeps its volumes attached:
  only the action `forceDelete` lets go of them.
* The server of an agent that heard nobody for long has powered itself off: SHUTOFF.
"""

import base64
import contextlib
import logging
import re
from typing import Final

from msgspec import Struct

from blockferry.errors import (
    BlockferryError,
    BusyError,
    CapacityError,
    DeadlineError,
    ForbiddenError,
    NotFoundError,
    PreconditionError,
    UnreachableError,
    UsageError,
)
from blockferry.limits import GIB
from blockferry_controller.clouds.openstack.lookout import Lookout
from blockferry_controller.clouds.openstack.pace import Pace
from blockferry_controller.clouds.openstack.refusals import cleaned, quota_error, speaks_of_quota
from blockferry_controller.clouds.openstack.rest import Body, Rest, Service, segment
from blockferry_controller.clouds.openstack.volumes import read_tag
from blockferry_controller.clouds.port import (
    MIGRATION_KEY,
    RESOURCE_KEY,
    Server,
    ServerRequest,
    Tag,
)

_log = logging.getLogger(__name__)

USER_DATA_MAX_CHARACTERS: Final = 65_535
"""Of base64 (api-ref compute, "Create Server", `user_data`)."""
ROOT_VOLUME_LEAST_GIB: Final = 4
"""Root disk where neither flavor nor image tells: a stock image and the agent's wheels."""

_FREE_SECONDS: Final = 60.0
"""Neutron hears of a server's end a little after Nova reports it gone; until then the
port is "still in use" (409)."""
_GONE: Final = frozenset({"DELETED", "SOFT_DELETED"})
_ENDING: Final = frozenset({"deleting", "soft-deleting"})
"""Tasks of a server that somebody has deleted."""
_NO_HOST = re.compile(r"no valid host|maximum number of retries|max scheduling", re.IGNORECASE)


class _Seen(Struct, frozen=True):
    """A server as the wait compares it: any difference is progress."""

    server: Server
    task: str
    progress: int
    fault: str


class Servers:
    """The servers of one project. Thread-safe."""

    def __init__(self, rest: Rest) -> None:
        self._rest = rest
        self._lookout = Lookout(self._all_of_ours, rest.patience.clock)
        self._booting, self._ending = Pace(), Pace()
        self._disks_gib: dict[str, int] = {}

    def _all_of_ours(self) -> dict[str, _Seen]:
        query = {"name": "^blockferry-"}
        bodies = self._rest.items_once(
            Service.COMPUTE, "/servers/detail", "servers", "list servers", query
        )
        return {str(body["id"]): _read(body) for body in bodies}

    def tagged(self, migration_id: str | None) -> list[tuple[Server, Tag]]:
        """Servers with our tag: of one migration, or of any."""
        return [(seen.server, tag) for seen, tag in self._tagged(migration_id)]

    def _tagged(self, migration_id: str | None) -> list[tuple[_Seen, Tag]]:
        query = {"name": f"^blockferry-{migration_id or ''}"}
        bodies = self._rest.items(
            Service.COMPUTE, "/servers/detail", "servers", "list servers", query
        )
        found = [(_read(body), read_tag(body.get("metadata") or {})) for body in bodies]
        return [
            (seen, tag)
            for seen, tag in found
            if tag is not None
            and migration_id in {None, tag.migration_id}
            and seen.server.status not in _GONE
        ]

    def ensure(self, tag: Tag, request: ServerRequest) -> Server:
        """See Cloud.ensure_server. One that is switched off is started.

        Raises:
            UsageError: USER_DATA_TOO_LARGE, before anything is asked of the cloud.
        """
        user_data = _encoded(request.user_data)
        seen = self._settled(tag, self._found_or_made(tag, request, user_data))
        if seen.server.status == "ERROR":
            _log.warning("server %s is made anew: %s", seen.server.id, self._told(seen).fault)
            self.delete(seen.server.id)
            seen = self._settled(tag, self._found_or_made(tag, request, user_data))
        if seen.server.status == "SHUTOFF":
            self._start(seen.server.id)
            seen = self._settled(tag, seen, started=True)
        if seen.server.status != "ACTIVE":
            raise self._failed(self._told(seen))
        return seen.server

    def console_log(self, server_id: str, lines: int) -> str:
        """See Cloud.console_log."""
        try:
            answer = self._rest.post(
                Service.COMPUTE,
                f"/servers/{segment(server_id)}/action",
                {"os-getConsoleOutput": {"length": lines}},
                f"read the console of server {server_id}",
                repeatable=True,
            )
        except (NotFoundError, BusyError, PreconditionError, ForbiddenError, UnreachableError):
            return ""
        return "\n".join(str(answer.get("output") or "").splitlines()[-lines:])

    def delete(self, server_id: str) -> None:
        """See Cloud.delete_server."""

        def look() -> str:
            seen = self._look(server_id)
            if seen is None or seen.server.status == "DELETED":
                return ""
            if seen.server.status == "SOFT_DELETED":
                return "" if not self._force(server_id) else "forced"
            if seen.task not in _ENDING:
                self._ask_deletion(server_id)
            return f"{seen.server.status} {seen.task}"

        # Asked before it is looked at: of most there is nothing to know but whether they are gone.
        if self._ask_deletion(server_id):
            return
        with self._lookout.watch(server_id) as watch:
            self._rest.patience.until(
                look,
                lambda state: not state,
                f"server {server_id} in {self._rest.cloud} to be gone",
                quiet=watch.quiet,
                seen="asked",
                pace=self._ending,
            )

    def _own(self, tag: Tag) -> _Seen | None:
        """The server of that tag; not one that is going: another is made when its port is free."""
        tagged = self._tagged(tag.migration_id)
        return next((one for one, its in tagged if its == tag and one.task not in _ENDING), None)

    def _found_or_made(self, tag: Tag, request: ServerRequest, user_data: str) -> _Seen:
        def attempt() -> _Seen | None:
            try:
                return self._rest.find_or_create(
                    lambda: self._own(tag),
                    lambda: self._create(tag, request, user_data),
                    confirm=False,
                )
            except BusyError as error:
                refused.append(error)
                return None

        refused: list[BusyError] = []
        found: _Seen | None = None
        with contextlib.suppress(DeadlineError):
            found = self._rest.patience.until(
                attempt,
                lambda seen: seen is not None,
                f"port {request.port_id} to be free",
                within_seconds=_FREE_SECONDS,
            )
        if found is None:
            raise refused[-1]
        return found

    def _create(self, tag: Tag, request: ServerRequest, user_data: str) -> _Seen:
        server: Body = {
            "name": tag.name,
            "flavorRef": request.flavor_id,
            "imageRef": request.image_id,
            "networks": [{"port": request.port_id}],
            "user_data": user_data,
            "config_drive": True,
            "metadata": {MIGRATION_KEY: tag.migration_id, RESOURCE_KEY: tag.resource},
        }
        if request.availability_zone:
            server["availability_zone"] = request.availability_zone
        root = self._root_volume(request)
        if root is not None:
            del server["imageRef"]
            server["block_device_mapping_v2"] = [root]
        answer = self._rest.post(
            Service.COMPUTE, "/servers", {"server": server}, f"boot server {tag.name}"
        )
        made = Server(str(answer["server"]["id"]), tag.name, "BUILD")
        return _Seen(made, task="scheduling", progress=0, fault="")

    def _root_volume(self, request: ServerRequest) -> Body | None:
        """The mapping for a root disk that is a volume; None where the flavor has a disk."""
        if self._disk_gib(request.flavor_id) > 0:
            return None
        path = f"/images/{segment(request.image_id)}"
        image = self._rest.get(Service.IMAGE, path, f"look at image {request.image_id}")
        virtual_gib = -(-int(image.get("virtual_size") or image.get("size") or 0) // GIB)
        return {
            "boot_index": 0,
            "source_type": "image",
            "destination_type": "volume",
            "uuid": request.image_id,
            "volume_size": max(
                virtual_gib + 1, int(image.get("min_disk") or 0), ROOT_VOLUME_LEAST_GIB
            ),
            "delete_on_termination": True,
        }

    def _disk_gib(self, flavor_id: str) -> int:
        """Asked once: no API changes a flavor's disk."""
        if flavor_id not in self._disks_gib:
            path = f"/flavors/{segment(flavor_id)}"
            flavor = self._rest.get(Service.COMPUTE, path, f"look at flavor {flavor_id}")
            self._disks_gib[flavor_id] = int(flavor["flavor"].get("disk") or 0)
        return self._disks_gib[flavor_id]

    def _told(self, seen: _Seen) -> _Seen:
        """The same by its id: lists do not tell of faults."""
        return self._look(seen.server.id) or seen

    def _look(self, server_id: str) -> _Seen | None:
        path = f"/servers/{segment(server_id)}"
        body = self._rest.find(Service.COMPUTE, path, f"look at server {server_id}")
        return None if body is None else _read(body["server"])

    def _settled(self, tag: Tag, found: _Seen, *, started: bool = False) -> _Seen:
        """The server once it neither boots nor is at any other task."""
        server_id, waiting = found.server.id, self._rest.patience

        def vanished() -> NotFoundError:
            return NotFoundError(
                "SERVER_NOT_FOUND",
                f"Server {server_id} in {self._rest.cloud} vanished while it booted. "
                "Somebody deleted it; try again.",
                server=server_id,
            )

        def settled(seen: _Seen) -> bool:
            if seen.server.status == "ERROR":
                return True
            waiting_for = {"BUILD", "REBOOT", "HARD_REBOOT"} | ({"SHUTOFF"} if started else set())
            return not seen.task and seen.server.status not in waiting_for

        observe = waiting.showing(
            found, lambda: self._own(tag), lambda: self._look(server_id), vanished
        )
        what = f"server {server_id} in {self._rest.cloud} to be ACTIVE"
        with self._lookout.watch(server_id) as watch:
            return waiting.until(
                observe, settled, what, quiet=watch.quiet, seen=found, pace=self._booting
            )

    def _start(self, server_id: str) -> None:
        path = f"/servers/{segment(server_id)}/action"
        try:
            self._rest.post(
                Service.COMPUTE,
                path,
                {"os-start": None},
                f"start server {server_id}",
                repeatable=True,
            )
        except BusyError:
            _log.debug("server %s is started already", server_id)

    def _ask_deletion(self, server_id: str) -> bool:
        """Ask for deletion; whether it is gone. One that is busy is asked at the next look."""
        path = f"/servers/{segment(server_id)}"
        try:
            return not self._rest.delete(Service.COMPUTE, path, f"delete server {server_id}")
        except BusyError:
            return False

    def _force(self, server_id: str) -> bool:
        """Delete now what the cloud would keep for a while; False when it does not let us."""
        path = f"/servers/{segment(server_id)}/action"
        try:
            self._rest.post(
                Service.COMPUTE,
                path,
                {"forceDelete": None},
                f"delete server {server_id} at once",
                repeatable=True,
            )
        except (ForbiddenError, NotFoundError) as error:
            _log.warning("server %s stays until the cloud reclaims it: %s", server_id, error)
            return False
        except BusyError:
            return True
        return True

    def _failed(self, seen: _Seen) -> BlockferryError:
        server = seen.server
        why = seen.fault.rstrip(".") or "the cloud does not say why"
        said = (
            f"Server {server.name} ({server.id}) in {self._rest.cloud} is {server.status}: {why}."
        )
        if _NO_HOST.search(seen.fault):
            advice = "Choose a smaller flavor with --flavor, or another availability zone."
            return CapacityError("NO_VALID_HOST", f"{said} {advice}", server=server.id)
        if speaks_of_quota(seen.fault):
            return quota_error(seen.fault, said, server=server.id)
        advice = "Try again, or ask the cloud's operator, naming that id."
        return PreconditionError("SERVER_ERROR", f"{said} {advice}", server=server.id)


def _encoded(user_data: bytes) -> str:
    text = base64.b64encode(user_data).decode("ascii")
    if len(text) > USER_DATA_MAX_CHARACTERS:
        raise UsageError(
            "USER_DATA_TOO_LARGE",
            f"The user-data is {len(user_data)} bytes, {len(text)} characters as base64; Nova "
            f"takes {USER_DATA_MAX_CHARACTERS}. Use an image with the agent baked in (--image), "
            "which needs far less.",
            characters=len(text),
            limit=USER_DATA_MAX_CHARACTERS,
        )
    return text


def _read(body: Body) -> _Seen:
    fault = body.get("fault") or {}
    return _Seen(
        Server(str(body["id"]), str(body.get("name") or ""), str(body["status"]).upper()),
        str(body.get("OS-EXT-STS:task_state") or ""),
        int(body.get("progress") or 0),
        cleaned(str(fault.get("message") or "")),
    )
