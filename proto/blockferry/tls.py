"""TLS and channel settings that both ends of every connection use.

Import this module before anything opens a channel: gRPC reads its cipher
setting once, when the first credentials are made.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Final

from blockferry.identity import Identity, parse_uri
from blockferry.limits import MESSAGE_MAX_BYTES

# gRPC for Python has no public setting for the lowest TLS version (grpc/grpc
# issue 37305). This list applies to TLS 1.2 and lower only; a PSK suite can
# never be agreed on, since gRPC configures no pre-shared keys. What is left is
# TLS 1.3. tests/integration holds a TLS 1.2 client against it.
os.environ["GRPC_SSL_CIPHER_SUITES"] = "ECDHE-PSK-CHACHA20-POLY1305"

_READ_BUFFER: Final = ("grpc.experimental.tcp_max_read_buffer_size", 64 << 10)
"""In bytes, at most so many are read from a socket at once. Where gRPC chooses by itself, a GiB
costs an eighth more of both ends' processor time (docs/performance.md)."""

CHANNEL_OPTIONS: Final[Sequence[tuple[str, int]]] = (
    _READ_BUFFER,
    ("grpc.max_send_message_length", MESSAGE_MAX_BYTES),
    ("grpc.max_receive_message_length", MESSAGE_MAX_BYTES),
    # A dead peer is noticed within 30 s even when no bytes flow.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # One channel is one TCP connection: no sharing through gRPC's global pool.
    ("grpc.use_local_subchannel_pool", 1),
    # Instances are reached directly; a proxy of the environment is not for them.
    ("grpc.enable_http_proxy", 0),
)

SERVER_OPTIONS: Final[Sequence[tuple[str, int]]] = (
    _READ_BUFFER,
    ("grpc.max_send_message_length", MESSAGE_MAX_BYTES),
    ("grpc.max_receive_message_length", MESSAGE_MAX_BYTES),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.so_reuseport", 0),
)


def dial_options(server_name: str) -> list[tuple[str, str | int]]:
    """Channel options for a server that must prove to be `server_name`."""
    return [*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", server_name)]


def peer_identity(auth_context: Mapping[str, Sequence[bytes]]) -> Identity | None:
    """The identity that TLS has verified for the peer of an rpc.

    Args:
        auth_context: `grpc.ServicerContext.auth_context()`; gRPC puts the
            subjectAltName URIs under `peer_uri`.

    Returns:
        None when the certificate carries no URI of ours, or more than one.
    """
    uris = [uri.decode("ascii", "replace") for uri in auth_context.get("peer_uri", ())]
    identities = [identity for uri in uris if (identity := parse_uri(uri)) is not None]
    return identities[0] if len(identities) == 1 else None
