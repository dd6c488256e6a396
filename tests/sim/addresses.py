"""Loopback addresses of embedded clouds: one for its APIs, a /24 for its servers.

Every running cloud of this machine has its own of both. The kernel keeps them
apart: a cloud listens at its API address, and holds a socket on the gateway
address of its network, so that no other cloud can take either.
"""

import errno
import os
import random
import socket
from collections.abc import Iterator

CLAIM_PORT = 9697
"""TCP port bound on the gateway address of a claimed network; nothing answers there."""


def api_addresses(address: str | None) -> Iterator[str]:
    """Addresses to try: the one asked for, else random ones below 127.127."""
    if address is not None:
        yield address
        return
    chooser = random.Random(os.urandom(8))
    for _ in range(200):
        yield f"127.{chooser.randrange(41, 127)}.{chooser.randrange(256)}.1"


def claim_network(api_address: str) -> tuple[str, socket.socket]:
    """A network of 253 addresses for servers, held as long as the socket is open.

    Returns:
        The CIDR, for example `127.169.0.0/24` for the API address 127.40.0.1, and
        the socket that holds it.

    Raises:
        OSError: EADDRINUSE when all that were tried are taken.
    """
    _, second, third, last = (int(part) for part in api_address.split("."))
    for step in range(256):
        prefix = f"127.{128 + (second + last) % 128}.{(third + step) % 256}"
        held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            held.bind((f"{prefix}.1", CLAIM_PORT))
            held.listen(1)
        except OSError as error:
            held.close()
            if error.errno != errno.EADDRINUSE:
                raise
            continue
        return f"{prefix}.0/24", held
    raise OSError(errno.EADDRINUSE, f"no free network for the servers of {api_address}")
