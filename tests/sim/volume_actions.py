"""Cinder's `POST /volumes/{id}/action`: one method per action."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.sim.http import ApiError, Json, Request, Response
from tests.sim.service import admin_only
from tests.sim.volume import GIB, Attachment, Volume

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.sim.cinder import Cinder


class VolumeActions:
    """The actions our paths use, and those Nova would use."""

    def __init__(self, cinder: Cinder) -> None:
        self._cinder = cinder
        self._actions: dict[str, Callable[[Volume, Json, Request], Response]] = {
            "os-set_image_metadata": self._set_image_metadata,
            "os-unset_image_metadata": self._unset_image_metadata,
            "os-show_image_metadata": self._show_image_metadata,
            "os-set_bootable": self._set_bootable,
            "os-update_readonly_flag": self._update_readonly,
            "os-reset_status": self._reset_status,
            "os-force_delete": self._force_delete,
            "os-extend": self._extend,
            "os-reserve": self._reserve,
            "os-unreserve": self._unreserve,
            "os-begin_detaching": self._begin_detaching,
            "os-roll_detaching": self._roll_detaching,
            "os-attach": self._attach,
            "os-detach": self._detach,
        }

    def act(self, request: Request, project: str, volume_id: str) -> Response:
        """Do the one action the body names."""
        volume = self._cinder.find(volume_id)
        body = request.json()
        for name, argument in body.items():
            if name in self._actions:
                return self._actions[name](volume, argument or {}, request)
        raise ApiError(400, f"There is no such action: {', '.join(body)}")

    def _set_image_metadata(self, volume: Volume, asked: Json, request: Request) -> Response:
        metadata = asked.get("metadata")
        if not isinstance(metadata, dict) or not metadata:
            raise ApiError(400, "Invalid input for field/attribute metadata.")
        for key, value in metadata.items():
            if not isinstance(value, str) or not key or max(len(key), len(value)) > 255:
                raise ApiError(400, f"Invalid input for field/attribute {key}. Value: {value!r}.")
        volume.image_metadata.update(metadata)
        return Response(200, {"metadata": volume.image_metadata})

    def _unset_image_metadata(self, volume: Volume, asked: Json, request: Request) -> Response:
        if asked.get("key") not in volume.image_metadata:
            raise ApiError(404, f"Volume {volume.id} has no metadata with key {asked.get('key')}.")
        del volume.image_metadata[asked["key"]]
        return Response(200)

    def _show_image_metadata(self, volume: Volume, asked: Json, request: Request) -> Response:
        return Response(200, {"metadata": volume.image_metadata})

    def _set_bootable(self, volume: Volume, asked: Json, request: Request) -> Response:
        volume.bootable = _boolean(asked, "bootable")
        return Response(200)

    def _update_readonly(self, volume: Volume, asked: Json, request: Request) -> Response:
        if volume.status != "available":
            raise ApiError(
                400,
                f"Invalid volume: Volume {volume.id} status must be available to update readonly "
                f"flag, but current status is: {volume.status}.",
            )
        volume.read_only = _boolean(asked, "readonly")
        return Response(202)

    def _reset_status(self, volume: Volume, asked: Json, request: Request) -> Response:
        admin_only(request, "volume_extension:volume_admin_actions:reset_status")
        if asked.get("status"):
            self._cinder.states.set(volume, str(asked["status"]))
        if asked.get("attach_status") == "detached":
            volume.attachments.clear()
        return Response(202)

    def _force_delete(self, volume: Volume, asked: Json, request: Request) -> Response:
        admin_only(request, "volume_extension:volume_admin_actions:force_delete")
        volume.attachments.clear()
        self._cinder.states.delete(volume)
        return Response(202)

    def _extend(self, volume: Volume, asked: Json, request: Request) -> Response:
        new_size = int(asked.get("new_size") or 0)
        allowed = {"available", "in-use"} if request.version >= (3, 42) else {"available"}
        if volume.status not in allowed:
            raise ApiError(
                400,
                f"Invalid volume: Volume {volume.id} status must be '{' or '.join(allowed)}' to "
                f"extend, currently {volume.status}.",
            )
        if new_size <= volume.size_gib:
            raise ApiError(
                400,
                "Invalid input received: New size for extend must be greater than current size. "
                f"(current: {volume.size_gib}, extended: {new_size}).",
            )
        volume.size_gib = new_size
        os.truncate(self._cinder.cloud.volume_path(volume.id), new_size * GIB)
        return Response(202)

    def _reserve(self, volume: Volume, asked: Json, request: Request) -> Response:
        self._cinder.states.reserve(volume)
        return Response(202)

    def _unreserve(self, volume: Volume, asked: Json, request: Request) -> Response:
        if volume.status == "reserved":
            self._cinder.states.unreserve(volume)
        return Response(202)

    def _begin_detaching(self, volume: Volume, asked: Json, request: Request) -> Response:
        self._cinder.states.begin_detaching(volume)
        return Response(202)

    def _roll_detaching(self, volume: Volume, asked: Json, request: Request) -> Response:
        if volume.status == "detaching":
            self._cinder.states.set(volume, "in-use")
        return Response(202)

    def _attach(self, volume: Volume, asked: Json, request: Request) -> Response:
        if volume.status not in {"available", "reserved", "attaching"}:
            raise ApiError(400, "Invalid volume: Volume is not available to be attached.")
        device = str(asked.get("mountpoint", ""))
        volume.attachments = [Attachment(str(asked.get("instance_uuid", "")), device)]
        self._cinder.states.set(volume, "in-use")
        return Response(202)

    def _detach(self, volume: Volume, asked: Json, request: Request) -> Response:
        for attachment in volume.attachments:
            if attachment.server_id in self._cinder.cloud.nova.servers:
                raise ApiError(  # since the fix of CVE-2023-2088
                    409,
                    f"Detach volume from instance {attachment.server_id} using the Compute API",
                )
        self._cinder.states.unreserve(volume)
        return Response(202)


def _boolean(asked: Json, key: str) -> bool:
    value = str(asked.get(key, "")).lower()
    if value not in {"true", "false", "1", "0"}:
        raise ApiError(400, f"Invalid input for field/attribute {key}. Value: {asked.get(key)}.")
    return value in {"true", "1"}
