"""Cinder's own records of attachments, and those that Nova does not know of any more.

A record that Nova forgot (a compute host died in the middle, a server was deleted while
it was attaching) holds the volume in `reserved`, `attaching`, `detaching` or `in-use`
for ever. Sources (block-storage api-ref, "Attachments"):
* `/attachments` exists from 3.27 (Pike) on; `instance` is the server's id.
* Any member of the project may delete one. Since the fix of CVE-2023-2088 Cinder asks
  Nova first, and answers 409 while Nova knows the attachment: so no live disk is ever
  pulled from under a guest by this.
"""

import logging
from typing import Final

from msgspec import Struct

from blockferry.errors import (
    BlockferryError,
    BusyError,
    ForbiddenError,
    NotFoundError,
    PreconditionError,
)
from blockferry_controller.clouds.openstack.rest import Rest, Service, segment
from blockferry_controller.clouds.port import Volume

_log = logging.getLogger(__name__)
_SINCE: Final = "3.27"


class Record(Struct, frozen=True):
    """One record. `server_id` is empty when it is for no server."""

    id: str
    server_id: str


class AttachmentRecords:
    """The records of one project's volumes. Thread-safe."""

    def __init__(self, rest: Rest) -> None:
        self._rest = rest

    def of(self, volume_id: str) -> list[Record]:
        """Those of one volume; none where the cloud does not tell."""
        try:
            bodies = self._rest.items(
                Service.VOLUME,
                "/attachments",
                "attachments",
                f"list the attachments of volume {volume_id}",
                {"volume_id": volume_id},
                microversion=_SINCE,
            )
        except (NotFoundError, ForbiddenError, PreconditionError) as error:
            _log.debug("no records of volume %s: %s", volume_id, error)
            return []
        return [
            Record(str(body["id"]), str(body.get("instance") or ""))
            for body in bodies
            if body.get("volume_id") == volume_id
        ]

    def forget(self, volume: Volume, server_id: str) -> bool:
        """Delete the volume's records for a server that Nova does not list it at.

        Returns:
            Whether there was one.

        Raises:
            PreconditionError: ATTACHMENT_ORPHANED, the cloud does not let us.
        """
        ours = [one for one in self.of(volume.id) if one.server_id == server_id]
        for record in ours:
            path = f"/attachments/{segment(record.id)}"
            what = f"delete attachment {record.id} of volume {volume.id}"
            try:
                self._rest.delete(Service.VOLUME, path, what, microversion=_SINCE)
            except (ForbiddenError, BusyError, PreconditionError) as error:
                raise self.orphaned(volume, record, error) from error
            _log.warning(
                "deleted attachment %s of volume %s: server %s does not have it",
                record.id,
                volume.id,
                server_id,
            )
        return bool(ours)

    def orphan(self, volume: Volume) -> Record | None:
        """A record for a server that is no more, when all are of that kind."""
        records = self.of(volume.id)
        alive = any(self._is_alive(one.server_id) for one in records)
        return records[0] if records and not alive else None

    def orphaned(
        self, volume: Volume, record: Record, why: BlockferryError | None = None
    ) -> PreconditionError:
        """The error for a record that somebody else has to delete, with the command."""
        said = f" ({why.message})" if why is not None else ""
        return PreconditionError(
            "ATTACHMENT_ORPHANED",
            f"Volume {volume.id} in {self._rest.cloud} is {volume.status} for server "
            f"{record.server_id or 'unknown'}, which does not have it{said}. Delete that "
            "attachment: `openstack --os-volume-api-version 3.27 volume attachment delete "
            f"{record.id}`; then try again.",
            volume=volume.id,
            server=record.server_id,
            attachment=record.id,
        )

    def _is_alive(self, server_id: str) -> bool:
        if not server_id:
            return True
        path = f"/servers/{segment(server_id)}"
        return self._rest.find(Service.COMPUTE, path, f"look at server {server_id}") is not None
