"""Numbers that both sides must agree on, each with its reason."""

from typing import Final

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30

CHUNK_BYTES: Final = 1 * MIB
"""Piece of a device that is digested, compressed and acknowledged as one.

Part of the manifest's definition: changing it changes every root digest.
64 KiB frames cost half the speed, larger ones only memory (design §3).
"""

DIGEST_BYTES: Final = 32
"""Length of a BLAKE3 digest."""

ZERO_RUN_MAX_BYTES: Final = 256 * MIB
"""Longest range that one ZERO frame may stand for.

Bounds the time the sink spends on one frame, so that progress stays visible.
"""

WINDOW_BYTES: Final = 48 * MIB
"""Payload bytes (before compression) that a source may be ahead of the commit point.

Below 64 MiB, so that a resumed run never sends more than that again.
"""

MESSAGE_MAX_BYTES: Final = 4 * MIB
"""gRPC message limit on every channel. The largest legal message, a raw chunk
with its header, is a little over CHUNK_BYTES; the largest manifest message is
MANIFEST_RUN_CHUNKS * DIGEST_BYTES = 1 MiB."""

MANIFEST_RUN_CHUNKS: Final = 32_768
"""Digests in one ReadManifest/WriteManifest message at most."""

REPAIR_RANGES_MAX: Final = 1024
"""Ranges of one repair. A medium that differs in more places is not worth one."""

MAX_CHANNELS: Final = 16
"""gRPC channels of one transfer at most."""

AGENT_PORT: Final = 7443
"""TCP port an agent listens on unless its configuration says otherwise; further agents of an
instance have the ports after it."""

LANES_MAX: Final = 8
"""Agents of one instance at most. Each has a key in user-data, a disk, and up to 256 MiB."""

RELAY_ADDRESS: Final = "relay"
"""Instead of `host:port`: the peer, through streams that the controller lends."""

RELAY_STREAMS_MAX: Final = MAX_CHANNELS + 8
"""Streams that a controller lends one agent at most: every channel of a transfer,
some of the attempt before it, which ends, and some that wait. Each holds a thread
of the agent's server, which has twice as many."""

SEGMENT_BYTES: Final = 256 * KIB
"""Piece of a connection that is carried at once."""

TUNNEL_IDLE: Final = 4
"""Connections that an agent keeps waiting at a controller which cannot reach it."""

TUNNEL_CONNECTIONS_MAX: Final = RELAY_STREAMS_MAX + TUNNEL_IDLE + 8
"""Connections of an agent to its controller at most: those of a relay, some that wait,
and the controller's own."""

TUNNEL_GO: Final = b"go\n"
"""What the controller says on such a connection before it speaks to the agent."""

TUNNEL_HELLO_MAX_BYTES: Final = 200
"""Longest first line of such a connection, with its end:
`blockferry-tunnel <migration id> <role> <ticket>`."""

DEAD_MAN_SECONDS: Final = 900
"""Silence of controller and peer after which an agent stops, unless its configuration says."""
