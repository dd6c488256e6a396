"""The instance behind a server: a private root, cloud-init and systemd in miniature."""

from tests.sim.guest.host import Guest, GuestSpec

__all__ = ["Guest", "GuestSpec"]
