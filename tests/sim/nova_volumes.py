"""Nova's `os-volume_attachments`: ties volumes to servers through Cinder's states."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.sim.http import ApiError, Json, Request, Response
from tests.sim.server import Server, VolumeTie

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.sim.nova import Nova

ATTACHABLE = {"ACTIVE", "SHUTOFF"}


class NovaVolumes:
    """The volumes of servers."""

    def __init__(self, nova: Nova) -> None:
        self._nova = nova
        self._cloud = nova.cloud

    def list(self, request: Request, server_id: str) -> Json:
        """GET …/os-volume_attachments."""
        server = self._nova.find(server_id)
        return {"volumeAttachments": [self._view(server, tie, request) for tie in server.volumes]}

    def show(self, request: Request, server_id: str, volume_id: str) -> Json:
        """GET …/os-volume_attachments/{volume_id}."""
        server = self._nova.find(server_id)
        tie = _tie(server, volume_id)
        if tie is None:
            message = f"Instance {server_id} is not attached to volume {volume_id}"
            raise ApiError(404, message)
        return {"volumeAttachment": self._view(server, tie, request)}

    def create(self, request: Request, server_id: str) -> Json:
        """POST …/os-volume_attachments."""
        server = self._nova.find(server_id)
        asked = request.section("volumeAttachment")
        if server.status not in ATTACHABLE or server.task_state:
            self._refuse("attach_volume", server)
        volume = self._cloud.cinder.find(str(asked.get("volumeId", "")))
        if _tie(server, volume.id):
            raise ApiError(400, f"Invalid volume: volume {volume.id} already attached")
        if volume.multiattach and request.version < (2, 60):
            raise ApiError(
                400,
                "Multiattach volumes are only supported starting with compute API version 2.60.",
            )
        device = server.next_device()
        self._cloud.cinder.states.reserve(volume, server.id, device)
        tie = VolumeTie(
            volume.id,
            device,
            delete_on_termination=bool(asked.get("delete_on_termination", False)),
            tag=asked.get("tag"),
        )
        server.volumes.append(tie)
        delay = self._cloud.timings.attach
        if not self._cloud.faults.happens("stick reserved"):
            self._cloud.timeline.after(delay / 2, lambda: self._attach(server, tie))
        view = self._view(server, tie, request)
        if request.version >= (2, 89):  # only GET tells the ids, says the API reference
            view.pop("attachment_id", None)
            view.pop("bdm_uuid", None)
        return {"volumeAttachment": view}

    def attach_at_boot(
        self, server: Server, ties: Sequence[VolumeTie], done: Callable[[], None]
    ) -> None:
        """Attach the volumes that were named when the server was created, then call `done`.

        They are reserved. When one cannot be attached, the server is in ERROR.
        """
        if not ties:
            done()
            return
        first, *others = ties
        server.volumes.append(first)
        self._attach(server, first, lambda: self.attach_at_boot(server, others, done))
        if first not in server.volumes:
            server.fail(f"Build of instance aborted: volume {first.volume_id} did not attach")

    def _attach(
        self, server: Server, tie: VolumeTie, done: Callable[[], None] = lambda: None
    ) -> None:
        volume = self._cloud.cinder.volumes.get(tie.volume_id)
        if volume is None or tie not in server.volumes:
            return
        if not tie.device or self._cloud.faults.happens("attach error"):
            server.volumes.remove(tie)
            self._cloud.cinder.states.unreserve(volume)
            return

        def plug() -> None:
            if server.guest and tie in server.volumes:
                server.guest.plug(volume.id, tie.device, self._cloud.volume_path(volume.id))
                done()

        self._cloud.cinder.states.attach(volume, server.id, tie.device, plug)

    def delete(self, request: Request, server_id: str, volume_id: str) -> Response:
        """DELETE …/os-volume_attachments/{volume_id}."""
        server = self._nova.find(server_id)
        tie = _tie(server, volume_id)
        if tie is None or volume_id not in self._cloud.cinder.volumes:
            raise ApiError(404, f"volume_id not found: {volume_id}")
        if tie.root:
            raise ApiError(403, "Cannot detach a root device volume")
        if server.status not in ATTACHABLE:
            self._refuse("detach_volume", server)
        volume = self._cloud.cinder.find(volume_id)
        self._cloud.cinder.states.begin_detaching(volume)

        def unplug() -> None:
            if server.guest:
                server.guest.unplug(volume.id)
            if tie in server.volumes:
                server.volumes.remove(tie)

        self._cloud.cinder.states.detach(volume, unplug)
        return Response(202)

    def forget(self, server_id: str, volume_id: str) -> None:
        """Lose Nova's side of a tie, as when a compute host dies at the wrong moment."""
        server = self._nova.find(server_id)
        server.volumes = [tie for tie in server.volumes if tie.volume_id != volume_id]

    def give_back(self, server: Server) -> None:
        """The server is gone: its volumes are available again, or deleted with it."""
        for tie in server.volumes:
            volume = self._cloud.cinder.volumes.get(tie.volume_id)
            if volume is None:
                continue
            self._cloud.cinder.states.unreserve(volume)
            if tie.delete_on_termination:
                self._cloud.cinder.states.delete(volume)
        server.volumes.clear()

    def _refuse(self, action: str, server: Server) -> None:
        state = (
            f"task_state {server.task_state}"
            if server.task_state
            else (f"vm_state {server.status.lower()}")
        )
        message = f"Cannot '{action}' instance {server.id} while it is in {state}"
        raise ApiError(409, message)

    def _view(self, server: Server, tie: VolumeTie, request: Request) -> Json:
        view: Json = {"volumeId": tie.volume_id, "serverId": server.id, "device": tie.device}
        if request.version < (2, 89):
            view["id"] = tie.volume_id
        else:
            volume = self._cloud.cinder.volumes.get(tie.volume_id)
            attachments = volume.attachments if volume else []
            view["attachment_id"] = attachments[0].attachment_id if attachments else None
            view["bdm_uuid"] = tie.bdm_id
        if request.version >= (2, 70):
            view["tag"] = tie.tag
        if request.version >= (2, 79):
            view["delete_on_termination"] = tie.delete_on_termination
        return view


def _tie(server: Server, volume_id: str) -> VolumeTie | None:
    return next((tie for tie in server.volumes if tie.volume_id == volume_id), None)
