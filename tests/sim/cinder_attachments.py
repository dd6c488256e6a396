"""Cinder's own records of attachments (3.27), as users may see and delete them.

Sources: block-storage api-ref "Attachments"; since the fix of CVE-2023-2088
(cinder.volume.api, `attachment_deletion_allowed`) Cinder asks Nova before it deletes a
record for a user, and refuses with 409 while Nova knows the attachment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.sim.http import ApiError, Json, Request
from tests.sim.volume import Attachment, Volume

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.sim.cinder import Cinder

SINCE = (3, 27)


class CinderAttachments:
    """The records of all volumes."""

    def __init__(self, cinder: Cinder) -> None:
        self._cinder = cinder

    def list(self, request: Request, project: str) -> Json:
        """GET /attachments."""
        _check_version(request)
        params = request.params
        found = [
            _view(volume, record)
            for volume, record in self._all()
            if params.get("volume_id", volume.id) == volume.id
            and params.get("instance_id", record.server_id) == record.server_id
        ]
        return {"attachments": found}

    def delete(self, request: Request, project: str, attachment_id: str) -> Json:
        """DELETE /attachments/{attachment_id}; answers with those that are left."""
        _check_version(request)
        volume, record = self._find(attachment_id)
        server = self._cinder.cloud.nova.servers.get(record.server_id)
        if server is not None and any(tie.volume_id == volume.id for tie in server.volumes):
            raise ApiError(
                409, f"Detach volume from instance {record.server_id} using the Compute API"
            )
        volume.attachments.remove(record)
        if not volume.attachments:
            self._cinder.states.set(volume, "available")
        return {"attachments": [_view(volume, one) for one in volume.attachments]}

    def _all(self) -> Iterator[tuple[Volume, Attachment]]:
        for volume in self._cinder.volumes.values():
            for record in volume.attachments:
                yield volume, record

    def _find(self, attachment_id: str) -> tuple[Volume, Attachment]:
        for volume, record in self._all():
            if record.attachment_id == attachment_id:
                return volume, record
        raise ApiError(404, f"Volume attachment could not be found with filter: {attachment_id}.")


def _check_version(request: Request) -> None:
    if request.version < SINCE:
        raise ApiError(404, "The resource could not be found.")


def _view(volume: Volume, record: Attachment) -> Json:
    return {
        "id": record.attachment_id,
        "volume_id": volume.id,
        "instance": record.server_id,
        "status": "attached" if volume.status == "in-use" else volume.status,
    }
