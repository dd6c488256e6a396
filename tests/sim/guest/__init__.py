"""The instance behind a server: a private root, cloud-init and systemd in miniature."""

from tests.sim.guest.host import (
    Guest,
    GuestSpec,
    why_guests_cannot_run,
    why_volumes_cannot_be_mounted,
)

__all__ = ["Guest", "GuestSpec", "why_guests_cannot_run", "why_volumes_cannot_be_mounted"]
