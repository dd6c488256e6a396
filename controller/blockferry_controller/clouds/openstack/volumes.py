"""Volumes: find, release, delete, and what is wrong with one.

Sources of what is not obvious (api-ref block-storage v3, and Cinder's own code where named):
* GET by id answers 404 for anything but a UUID since Queens; names come by `?name=`.
* `?metadata={'key': 'value'}` filters, written as a Python dict. An operator may
  switch filters off (`resource_filters.json`), and then it is ignored in silence below
  3.31: what comes back is looked through again, always.
* `readonly` and `attached_mode` are shown among a volume's metadata though they are
  flags of the volume (cinder.volume.api, `_visible_admin_metadata_keys`).
* `bootable` is the text "true" or "false"; `name` and `description` may be null.
* Why a volume went into `error` is only in `/messages` (3.3; filtered from 3.5 on).
* DELETE needs `available` or one of the `error`s, else 400.
"""

import logging
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Final

from blockferry.errors import (
    BlockferryError,
    CapacityError,
    DeadlineError,
    NotFoundError,
    PreconditionError,
)
from blockferry.limits import GIB
from blockferry_controller.clouds.openstack.lookout import Lookout, Watch
from blockferry_controller.clouds.openstack.rest import Body, Rest, Service, segment
from blockferry_controller.clouds.port import (
    MIGRATION_KEY,
    RESOURCE_KEY,
    Attachment,
    Tag,
    Volume,
)

_log = logging.getLogger(__name__)
_UUID = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)
FLAGS: Final = frozenset({"readonly", "attached_mode"})
"""What is shown as metadata and cannot be set as such."""
_OUR_KEYS: Final = (MIGRATION_KEY, RESOURCE_KEY)
_DELETABLE: Final = frozenset({"available", "error", "error_restoring", "error_extending"})
_NO_BACKEND = re.compile(r"no valid backend|available weighted backend|no weighed", re.IGNORECASE)
_HOLD_SECONDS: Final = 120.0
"""How long a volume that is to be deleted may stay in use: Cinder hears of a server's
end a little after Nova reports it gone."""


class Volumes:
    """The volumes of one project. Thread-safe."""

    def __init__(self, rest: Rest) -> None:
        self._rest = rest
        self._lookout = Lookout(self._all_once, rest.patience.clock)

    def watch(self, volume_id: str) -> AbstractContextManager[Watch[Volume]]:
        """Wait for that volume, in the block: one list serves many who do."""
        return self._lookout.watch(volume_id)

    def _all_once(self) -> dict[str, Volume]:
        bodies = self._rest.items_once(
            Service.VOLUME, "/volumes/detail", "volumes", "list volumes", {}
        )
        return {volume.id: volume for volume in map(read_volume, bodies)}

    def look(self, volume_id: str) -> Volume | None:
        """The volume as it is now; None when there is none."""
        path = f"/volumes/{segment(volume_id)}"
        body = self._rest.find(Service.VOLUME, path, f"look at volume {volume_id}")
        return None if body is None else read_volume(body["volume"])

    def need(self, volume_id: str) -> Volume:
        """The volume as it is now.

        Raises:
            NotFoundError: VOLUME_NOT_FOUND.
        """
        volume = self.look(volume_id)
        if volume is None:
            raise self.not_found(volume_id)
        return volume

    def find(self, reference: str) -> Volume:
        """See Cloud.find_volume."""
        volume = self.look(reference) if _UUID.fullmatch(reference) else None
        if volume is not None:
            return volume
        named = [one for one in self._list({"name": reference}) if one.name == reference]
        if not named:
            raise self.not_found(reference)
        if len(named) > 1:
            ids = ", ".join(sorted(one.id for one in named))
            raise PreconditionError(
                "VOLUME_AMBIGUOUS",
                f"{self._rest.cloud} has {len(named)} volumes named {reference}: {ids}. "
                "Give the id of the one meant.",
                volume=reference,
                ids=ids,
            )
        return named[0]

    def all(self) -> list[Volume]:
        """See Cloud.list_volumes."""
        return self._list({})

    def tagged(self, migration_id: str | None) -> list[tuple[Volume, Tag]]:
        """Volumes with our tag: of one migration, or of any."""
        query = {"metadata": str({MIGRATION_KEY: migration_id})} if migration_id else {}
        found = [(volume, read_tag(volume.metadata)) for volume in self._list(query)]
        return [
            (volume, tag)
            for volume, tag in found
            if tag is not None and migration_id in {None, tag.migration_id}
        ]

    def release(self, volume_id: str) -> None:
        """See Cloud.release_volume."""
        for key in _OUR_KEYS:
            path = f"/volumes/{segment(volume_id)}/metadata/{key}"
            self._rest.delete(Service.VOLUME, path, f"untag volume {volume_id}")

    def set_read_only(self, volume_id: str) -> None:
        """See Cloud.set_read_only."""
        self._rest.post(
            Service.VOLUME,
            f"/volumes/{segment(volume_id)}/action",
            {"os-update_readonly_flag": {"readonly": True}},
            f"make volume {volume_id} read-only",
            repeatable=True,
        )

    def delete(self, volume_id: str) -> None:
        """See Cloud.delete_volume.

        Raises:
            PreconditionError: VOLUME_ATTACHED, VOLUME_ERROR, or CLOUD_REFUSED with the
                cloud's reason, such as snapshots of it.
        """

        def look() -> str:
            volume = self.look(volume_id)
            if volume is None:
                return ""
            if volume.status == "error_deleting":
                raise self.in_error(volume)
            if volume.status in _DELETABLE and not volume.attachments:
                self._ask_deletion(volume_id)
                return "deleting"
            return volume.status

        what = f"volume {volume_id} to be gone"
        waiting = self._rest.patience
        with self.watch(volume_id) as watch:
            try:
                held = waiting.until(
                    look, lambda status: status != "in-use", what, within_seconds=_HOLD_SECONDS,
                    quiet=watch.quiet,
                )  # fmt: skip
            except DeadlineError as error:
                raise PreconditionError(
                    "VOLUME_ATTACHED",
                    f"Volume {volume_id} in {self._rest.cloud} is attached to a server. Detach it.",
                    volume=volume_id,
                ) from error
            if held:
                waiting.until(look, lambda status: not status, what, quiet=watch.quiet)

    def _ask_deletion(self, volume_id: str) -> None:
        path = f"/volumes/{segment(volume_id)}"
        try:
            self._rest.delete(Service.VOLUME, path, f"delete volume {volume_id}")
        except PreconditionError:
            # Asked before, and the answer was lost? Then it is no longer deletable.
            volume = self.look(volume_id)
            if volume is not None and volume.status in _DELETABLE:
                raise

    def _list(self, query: Mapping[str, str]) -> list[Volume]:
        bodies = self._rest.items(
            Service.VOLUME, "/volumes/detail", "volumes", "list volumes", query
        )
        return [read_volume(body) for body in bodies]

    def in_error(self, volume: Volume) -> BlockferryError:
        """The error for a volume that went into one of the states `error…`."""
        why = self._why(volume.id)
        said = (
            f"Volume {volume.id} in {self._rest.cloud} went into the state {volume.status}: "
            f"{why or 'the cloud does not say why'}."
        )
        if _NO_BACKEND.search(why):
            advice = "Choose another type with --to-type, or a smaller size."
            return CapacityError("NO_BACKEND_SPACE", f"{said} {advice}", volume=volume.id)
        advice = "Ask the cloud's operator, naming that id."
        return PreconditionError("VOLUME_ERROR", f"{said} {advice}", volume=volume.id)

    def _why(self, volume_id: str) -> str:
        """Cinder's message to the user about the volume; empty when there is none."""
        try:
            found = self._rest.get(
                Service.VOLUME,
                "/messages",
                "read messages",
                {"resource_uuid": volume_id},
                microversion="3.5",
            )
        except BlockferryError as error:
            _log.debug("no messages of volume %s: %s", volume_id, error)
            return ""
        texts = [
            str(one.get("user_message", "")).rstrip(".")
            for one in found.get("messages", [])
            if one.get("resource_uuid") == volume_id
        ]
        return "; ".join(texts[:3])

    def not_found(self, reference: str) -> NotFoundError:
        """The error for a volume that is not there, by its id or name."""
        return NotFoundError(
            "VOLUME_NOT_FOUND",
            f"{self._rest.cloud} has no volume {reference} in this project.",
            cloud=self._rest.cloud,
            volume=reference,
        )


def read_volume(body: Body) -> Volume:
    """A volume from Cinder's description of it."""
    metadata = {str(k): str(v) for k, v in (body.get("metadata") or {}).items()}
    image_metadata = body.get("volume_image_metadata") or {}
    return Volume(
        id=str(body["id"]),
        name=str(body.get("name") or ""),
        description=str(body.get("description") or ""),
        size_bytes=int(body["size"]) * GIB,
        status=str(body["status"]).lower(),
        volume_type=str(body.get("volume_type") or ""),
        availability_zone=str(body.get("availability_zone") or ""),
        bootable=_is_true(body.get("bootable")),
        read_only=_is_true(metadata.get("readonly")),
        encrypted=_is_true(body.get("encrypted")),
        multiattach=_is_true(body.get("multiattach")),
        metadata={key: value for key, value in metadata.items() if key not in FLAGS},
        image_metadata={str(k): str(v) for k, v in image_metadata.items()},
        attachments=tuple(
            Attachment(str(one.get("server_id") or ""), str(one.get("device") or ""))
            for one in body.get("attachments") or []
        ),
        project_id=str(body.get("os-vol-tenant-attr:tenant_id") or ""),
    )


def read_tag(metadata: Mapping[str, str]) -> Tag | None:
    """Our tag in the metadata of a volume or server; None when it is not ours."""
    migration_id, resource = metadata.get(MIGRATION_KEY), metadata.get(RESOURCE_KEY)
    return Tag(migration_id, resource) if migration_id and resource else None


def _is_true(value: object) -> bool:
    return str(value).lower() == "true"
