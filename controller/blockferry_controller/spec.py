"""What a person asked for: one migration, complete and frozen.

A spec is stored when the migration is made, and every later attempt reads it
back: nothing that shapes the result is taken from a second command line.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

from msgspec import Struct, field, to_builtins


class Kind(Enum):
    """Which command made the migration."""

    MIGRATE = "migrate"
    COPY = "copy"


FLOATING_IP: Final = ("auto", "never", "always")
"""What Placement.floating_ip may be, but for empty."""


class Verify(Enum):
    """What is proven before a migration counts as done."""

    READBACK = "readback"
    WIRE = "wire"
    NONE = "none"


class Placement(Struct, frozen=True):
    """What the temp instance of one side is made of; empty means: choose.

    Attributes:
        image, flavor, network: Id or name.
        wheels: Index or directory URL the agent's wheels come from; empty for
            pip's default index.
        ip_version: Family of the addresses it gets and is reached at, 4 or 6; 0 for all
            that its network has.
        floating_ip: Whether it gets one: `auto` (or empty: when no fixed address answers),
            `never` or `always`.
        external_network: Id or name of the network floating IPs are of.
    """

    image: str = ""
    flavor: str = ""
    network: str = ""
    wheels: str = ""
    ip_version: int = 0
    floating_ip: str = ""
    external_network: str = ""


class Endpoint(Struct, frozen=True):
    """One end of a migration.

    Attributes:
        cloud: Name in clouds.yaml; `local` for `copy`.
        volume: Source: reference as given (id or name, path for `copy`).
            Destination: name wanted, empty for the source's; path for `copy`.
    """

    cloud: str
    volume: str = ""
    placement: Placement = field(default_factory=Placement)


class Transfer(Struct, frozen=True):
    """How the bytes travel.

    Attributes:
        compression: `auto`, `none` or `zstd:LEVEL`.
        channels: In [1, 16]; 0 lets the agent choose.
        limit_bytes_per_second: On the wire; 0 is unlimited.
    """

    compression: str = "auto"
    channels: int = 0
    limit_bytes_per_second: int = 0
    verify: Verify = Verify.READBACK


class Pool(Struct, frozen=True):
    """Where a migration of a fleet takes its pair of instances from, and gives it back to.

    Attributes:
        fleet: Whose volumes share the pairs.
        most: Pairs at a time, at least 1.
        lanes: Volumes that a pair serves side by side, from 1 to LANES_MAX.
    """

    fleet: str
    most: int
    lanes: int = 1


class Spec(Struct, frozen=True):
    """One migration as asked for.

    Attributes:
        to_type, to_availability_zone: Empty: the same name as the source's if the
            destination has it, else the destination's default.
        to_size_bytes: 0 for the source's size.
        controller_address: Address under which the clouds see this controller;
            empty: the local address that routes to the instance. With a port, agents
            are told to dial it, for where the controller does not reach them.
        types, zones: Volume types and availability zones of the source, and what they are
            at the destination; to_type and to_availability_zone come first.
        skip_checks: Names of checks of the preflight that are not made.
        allow_relay: Agents that do not reach each other may send the bytes through this
            controller.
        allow_downgrade: The destination may be unencrypted, or for one attachment only,
            where the source is not.
        to_metadata: All of the new volume's; None for the source's.
        max_duration_seconds: Copy and proof are refused when they are predicted to take
            longer; 0 for no limit.
        pool: None: it boots a pair of its own, and deletes it.
    """

    kind: Kind
    source: Endpoint
    destination: Endpoint
    transfer: Transfer = field(default_factory=Transfer)
    to_type: str = ""
    to_availability_zone: str = ""
    to_size_bytes: int = 0
    controller_address: str = ""
    types: Mapping[str, str] = field(default_factory=dict)
    zones: Mapping[str, str] = field(default_factory=dict)
    skip_checks: tuple[str, ...] = ()
    allow_relay: bool = False
    allow_downgrade: bool = False
    max_duration_seconds: int = 0
    to_metadata: Mapping[str, str] | None = None
    pool: Pool | None = None

    @property
    def lanes(self) -> int:
        """Agents of an instance that is booted for it."""
        return 1 if self.pool is None else self.pool.lanes

    def to_json(self) -> dict[str, Any]:
        """Plain types, ready for `json.dumps`."""
        return dict(to_builtins(self))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Spec":
        """Inverse of `to_json`."""
        transfer = dict(data["transfer"])
        transfer["verify"] = Verify(transfer["verify"])
        return cls(
            **{
                **data,
                "kind": Kind(data["kind"]),
                "source": _endpoint(data["source"]),
                "destination": _endpoint(data["destination"]),
                "transfer": Transfer(**transfer),
                "skip_checks": tuple(data.get("skip_checks", ())),
                "pool": Pool(**data["pool"]) if data.get("pool") else None,
            }
        )


def _endpoint(data: dict[str, Any]) -> Endpoint:
    return Endpoint(**{**data, "placement": Placement(**data["placement"])})
