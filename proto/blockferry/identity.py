"""Who a certificate speaks for, and how that is written into it.

Rules:
* A certificate names one migration, one role and one epoch, as a URI in its
  subjectAltName: `blockferry:<migration id>:<role>:<epoch>`.
* A pair of agents that serves several migrations, one after another, has an id of its own
  in that place, and another epoch for each.
* It also carries one DNS name, which the dialling side verifies as the host
  name. It holds no address, so an instance may change its address at will.
* Names signed by a migration's *bootstrap* root differ from those signed by its
  own root: what cloud-init carried never passes for an adopted identity.
"""

import re
from dataclasses import dataclass
from enum import Enum

_MIGRATION_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,38}[a-z0-9]")
_URI = re.compile(rf"blockferry:({_MIGRATION_ID.pattern}):([a-z]+):(\d{{1,18}})")


class Role(Enum):
    """What a certificate's holder may do."""

    CONTROLLER = "controller"
    SOURCE = "source"
    SINK = "sink"


@dataclass(frozen=True, slots=True)
class Identity:
    """The holder of a certificate.

    Attributes:
        migration_id: 2 to 40 of `[a-z0-9-]`, a valid DNS label.
        role: What it may do.
        epoch: At least 1; grows with each controller that takes the migration over.
    """

    migration_id: str
    role: Role
    epoch: int

    def __post_init__(self) -> None:
        if not is_migration_id(self.migration_id):
            raise ValueError(f"not a migration id: {self.migration_id!r}")
        if self.epoch < 1:
            raise ValueError(f"epoch {self.epoch} is below 1")

    @property
    def uri(self) -> str:
        """The subjectAltName URI."""
        return f"blockferry:{self.migration_id}:{self.role.value}:{self.epoch}"

    @property
    def server_name(self) -> str:
        """The subjectAltName DNS name of an adopted certificate."""
        return f"{self.role.value}.{self.migration_id}.blockferry.internal"

    @property
    def bootstrap_server_name(self) -> str:
        """The subjectAltName DNS name of the certificate that cloud-init carries."""
        return f"bootstrap.{self.server_name}"


def is_migration_id(text: str) -> bool:
    """Whether `text` may be a migration's id."""
    return _MIGRATION_ID.fullmatch(text) is not None


def parse_uri(uri: str) -> Identity | None:
    """Read an identity back from its URI; None when it is not one of ours."""
    match = _URI.fullmatch(uri)
    if match is None:
        return None
    migration_id, role, epoch = match.groups()
    if role not in {member.value for member in Role} or int(epoch) < 1:
        return None
    return Identity(migration_id, Role(role), int(epoch))
