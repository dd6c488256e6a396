"""Attach and detach: two services that must come to agree.

Nova is asked, Cinder is believed: a volume is attached when Cinder says `in-use` by that
server, detached when it names the server no more. Sources (api-ref compute v2.1,
"Servers with volume attachments"; block-storage v3):
* POST sets the volume to `reserved` before it answers, and the rest goes on in the
  compute host; if that fails, the volume is `available` again and Nova's list empty.
* POST and DELETE answer 409 while the server is in another task: wait and ask again.
* DELETE sets `detaching` before it answers; when the guest does not let go of the disk,
  the volume becomes `in-use` again: ask again (nova.virt.libvirt retries likewise).
* A server in the middle of its creation answers 409 too.
* A volume that allows several attachments is attached from microversion 2.60 on (nova
  reference, "REST API version history"); below, 400 even for its only one.

So what Nova lists is asked where it may differ from what it has just answered: it lists
what it took an order to attach, and no more what it has nothing to detach of. It is asked
as well where Cinder says something that does not follow from the order, and from
DOUBT_SECONDS after it on.

Where they do not come to agree within DOUBT_SECONDS:

    Nova lists it    Cinder says               attach                     detach
    no               in-use, or between two    delete Cinder's record     likewise
    yes              available                 ATTACHMENT_HALF: only the  detached: it goes
                                               server's end mends it      with the server

Only records for the server that was named are deleted (attachment_records).
"""

from collections.abc import Callable
from typing import Final, TypeAlias

from blockferry.errors import BusyError, DeadlineError, NotFoundError, PreconditionError
from blockferry_controller.clock import Clock
from blockferry_controller.clouds.openstack.attachment_records import AttachmentRecords
from blockferry_controller.clouds.openstack.lookout import Watch
from blockferry_controller.clouds.openstack.pace import Pace
from blockferry_controller.clouds.openstack.refusals import TransientError
from blockferry_controller.clouds.openstack.rest import Rest, Service, segment
from blockferry_controller.clouds.openstack.volumes import Volumes
from blockferry_controller.clouds.port import Volume

_Look: TypeAlias = Callable[[], str]
_Settled: TypeAlias = Callable[[str], bool]

_ATTACH_TRIES: Final = 2
_ON_THE_WAY: Final = frozenset({"creating", "reserved", "attaching", "detaching", "downloading"})
_MULTIATTACH_VERSION: Final = "2.60"
_STUCK_SECONDS: Final = 180.0
"""A hot plug takes seconds; a state between two that lasts this long is a stuck one."""
DOUBT_SECONDS: Final = 20.0
"""Nova makes and ends its part within a second or two of Cinder's: both write at one call."""


class _Doubt:
    """How long two services have disagreed in one and the same way."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._what = ""
        self._since = 0.0

    def lasts(self, what: str) -> bool:
        """Whether `what` was the answer for DOUBT_SECONDS; empty is no doubt."""
        now = self._clock.monotonic()
        if what != self._what:
            self._what, self._since = what, now
        return bool(what) and now - self._since >= DOUBT_SECONDS


class _Order:
    """The last order given to Nova, and whether what it does still follows from that."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._taken_at = float("-inf")
        self.was_given = False

    def given(self, *, taken: bool) -> None:
        """Nova was asked; not `taken`: it refused, or had nothing to do."""
        self.was_given = True
        self._taken_at = self._clock.monotonic() if taken else float("-inf")

    @property
    def is_fresh(self) -> bool:
        """Whether it was taken, less than DOUBT_SECONDS ago."""
        return self._clock.monotonic() - self._taken_at < DOUBT_SECONDS


class Attachments:
    """Ties between the servers and volumes of one project. Thread-safe."""

    def __init__(self, rest: Rest, volumes: Volumes) -> None:
        self._rest = rest
        self._volumes = volumes
        self._records = AttachmentRecords(rest)
        self._attaching, self._detaching = Pace(), Pace()

    def attach(self, server_id: str, volume_id: str) -> None:
        """See Cloud.attach_volume.

        Raises:
            PreconditionError: VOLUME_ATTACHED, VOLUME_STATE, ATTACH_FAILED, ATTACHMENT_HALF,
                ATTACHMENT_ORPHANED, or CLOUD_REFUSED with Nova's reason, such as zones that
                differ.
        """
        orders = 0
        order = _Order(self._rest.patience.clock)
        doubt = _Doubt(self._rest.patience.clock)

        def look() -> str:
            nonlocal orders
            volume = self._volumes.need(volume_id)
            tied = _is_tied(volume, server_id)
            listed = self._follows(order, volume, tied=tied)
            if listed is None:
                listed = self._is_listed(server_id, volume_id)
            if tied and listed and volume.status == "in-use":
                return "attached"
            if not tied:
                self._check_free(volume)
            odd = _disagreement(volume, listed=listed, tied=tied)
            if odd:
                watch.insist()
            if doubt.lasts(odd):
                self._agree(volume, server_id, listed=listed)
            if odd or listed or volume.status in _ON_THE_WAY:
                return f"on its way, {volume.status} {odd}"
            if orders == _ATTACH_TRIES:
                raise self._attach_failed(server_id, volume_id)
            taken = self._ask(server_id, volume)
            order.given(taken=taken)
            if taken:
                orders += 1
            else:
                watch.insist()
            return "asked"

        with self._volumes.watch(volume_id) as watch:
            self._wait(
                watch, look, lambda state: state == "attached", volume_id, "attached",
                pace=self._attaching,
            )  # fmt: skip

    def detach(self, server_id: str, volume_id: str) -> None:
        """See Cloud.detach_volume.

        Raises:
            PreconditionError: VOLUME_STATE, it stays in a state between two;
                ATTACHMENT_ORPHANED.
        """
        order = _Order(self._rest.patience.clock)
        doubt = _Doubt(self._rest.patience.clock)

        def let_go() -> bool:
            taken = self._let_go(server_id, volume_id)
            order.given(taken=taken)
            return taken

        def look() -> str:
            volume = self._volumes.look(volume_id)
            if volume is None:
                return ""
            tied = _is_tied(volume, server_id)
            if not tied and volume.status not in _ON_THE_WAY:
                return ""
            at_it = order.is_fresh and volume.status == "detaching"
            listed = at_it or self._is_listed(server_id, volume_id)
            if not tied and not listed and volume.attachments:
                return ""  # on its way to, or from, somebody else
            asks = listed and not (tied and volume.status in _ON_THE_WAY)
            refused = asks and not let_go()
            odd = _disagreement(volume, listed=listed, tied=tied)
            if odd or refused:
                watch.insist()
            if doubt.lasts(odd):
                self._agree(volume, server_id, listed=listed)
            return volume.status

        # Ordered before it is looked at: Nova refuses what it cannot, and has nothing to let go
        # of where it answers 404. Either way Cinder is believed, from the next look on.
        let_go()
        with self._volumes.watch(volume_id) as watch:
            self._wait(
                watch, look, lambda status: not status, volume_id, "detached",
                pace=self._detaching, seen="asked" if order.is_fresh else None,
            )  # fmt: skip

    def _follows(self, order: _Order, volume: Volume, *, tied: bool) -> bool | None:
        """Whether Nova lists the volume, as far as that follows; None: it has to be asked."""
        if order.is_fresh and (tied or volume.status in _ON_THE_WAY):
            return True
        if not order.was_given and not tied and volume.status == "available":
            return False  # it is ordered now, and refuses if it has it
        return None

    def _agree(self, volume: Volume, server_id: str, *, listed: bool) -> None:
        """Take back what only one of the two services knows of, when it is ours to."""
        if listed:
            raise self._half(server_id, volume.id)
        if self._records.forget(volume, server_id):
            return
        orphan = self._records.orphan(volume)
        if orphan is not None:
            raise self._records.orphaned(volume, orphan)

    def _ask(self, server_id: str, volume: Volume) -> bool:
        """Ask Nova to attach; False when the server is busy with something else."""
        volume_id = volume.id
        version = _MULTIATTACH_VERSION if volume.multiattach else None
        path = f"/servers/{segment(server_id)}/os-volume_attachments"
        body = {"volumeAttachment": {"volumeId": volume_id}}
        what = f"attach volume {volume_id} to server {server_id}"
        lost = False

        def post() -> bool:
            nonlocal lost
            if lost and self._is_listed(server_id, volume_id):
                return True  # the answer was lost, not the order
            try:
                self._rest.post(Service.COMPUTE, path, body, what, microversion=version)
            except TransientError as error:
                lost = error.reason != "CLOUD_LIMITS_RATE"
                raise
            return True

        try:
            return self._rest.patience.through_outages(post)
        except BusyError:
            return False
        except NotFoundError as error:
            if self._rest.find(Service.COMPUTE, f"/servers/{segment(server_id)}", what):
                return False  # the volume was just made, and Nova does not see it yet
            raise NotFoundError(
                "SERVER_NOT_FOUND", f"{error.message} The server is gone.", server=server_id
            ) from error
        except PreconditionError:
            # Refused because of what has been done already, or of what is asked for?
            free = self._volumes.need(volume_id).status == "available"
            if free and not self._is_listed(server_id, volume_id):
                raise
            return False

    def _let_go(self, server_id: str, volume_id: str) -> bool:
        """Ask Nova to detach; False when it has nothing to, or cannot now."""
        path = f"/servers/{segment(server_id)}/os-volume_attachments/{segment(volume_id)}"
        what = f"detach volume {volume_id} from server {server_id}"
        try:
            return self._rest.delete(Service.COMPUTE, path, what)
        except (BusyError, PreconditionError):
            # 409: the server is in another task. 400: the volume is `detaching` just now.
            return False

    def _is_listed(self, server_id: str, volume_id: str) -> bool:
        path = f"/servers/{segment(server_id)}/os-volume_attachments/{segment(volume_id)}"
        what = f"look at volume {volume_id} of server {server_id}"
        return self._rest.find(Service.COMPUTE, path, what) is not None

    def _check_free(self, volume: Volume) -> None:
        if volume.attachments and not volume.multiattach:
            raise PreconditionError(
                "VOLUME_ATTACHED",
                f"Volume {volume.id} in {self._rest.cloud} is attached to server "
                f"{volume.attachments[0].server_id or 'unknown'}. Detach it there.",
                volume=volume.id,
                server=volume.attachments[0].server_id,
            )
        if volume.status not in _ON_THE_WAY | {"available", "in-use"}:
            raise self._bad_state(volume.id, volume.status)

    def _wait(
        self,
        watch: Watch[Volume],
        look: _Look,
        settled: _Settled,
        volume_id: str,
        state: str,
        *,
        pace: Pace,
        seen: str | None = None,
    ) -> None:
        try:
            self._rest.patience.until(
                look,
                settled,
                f"volume {volume_id} in {self._rest.cloud} to be {state}",
                within_seconds=_STUCK_SECONDS,
                quiet=watch.quiet,
                seen=seen,
                pace=pace,
            )
        except DeadlineError as error:
            volume = self._volumes.look(volume_id)
            if volume is None or volume.status not in _ON_THE_WAY:
                raise
            raise self._bad_state(volume_id, volume.status) from error

    def _bad_state(self, volume_id: str, status: str) -> PreconditionError:
        return PreconditionError(
            "VOLUME_STATE",
            f"Volume {volume_id} in {self._rest.cloud} is {status}, it must be available. "
            "If it is stuck, an operator can reset it: "
            f"`openstack volume set --state available {volume_id}`.",
            volume=volume_id,
            status=status,
        )

    def _half(self, server_id: str, volume_id: str) -> PreconditionError:
        return PreconditionError(
            "ATTACHMENT_HALF",
            f"Server {server_id} in {self._rest.cloud} claims to have volume {volume_id}, and the "
            "volume is available. Only deleting the server makes both agree again.",
            volume=volume_id,
            server=server_id,
        )

    def _attach_failed(self, server_id: str, volume_id: str) -> PreconditionError:
        return PreconditionError(
            "ATTACH_FAILED",
            f"{self._rest.cloud} took the order to attach volume {volume_id} to server "
            f"{server_id} {_ATTACH_TRIES} times and did not do it. The compute host may not reach "
            "the storage; ask the cloud's operator, naming both ids.",
            volume=volume_id,
            server=server_id,
        )


def _is_tied(volume: Volume, server_id: str) -> bool:
    return any(tie.server_id == server_id for tie in volume.attachments)


def _disagreement(volume: Volume, *, listed: bool, tied: bool) -> str:
    """How Nova and Cinder disagree; empty when they do not."""
    if listed and volume.status == "available":
        return "only Nova has it"
    if not listed and (tied or volume.status in _ON_THE_WAY - {"creating", "downloading"}):
        return f"only Cinder has it, {volume.status}"
    return ""
