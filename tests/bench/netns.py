"""A network namespace and a veth to it that is as fast as asked.

The source is on this side, the sink in the namespace; both ends are shaped (tbf),
so that neither direction is faster than the link. Needs root.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

SOURCE_ADDRESS: Final = "10.244.0.1"
SINK_ADDRESS: Final = "10.244.0.2"
MTU: Final = 1500


@dataclass(frozen=True)
class Link:
    """A link between this namespace and another."""

    namespace: str
    bits_per_second: int

    @property
    def payload_bytes_per_second(self) -> float:
        """What TCP over IPv4 with time stamps can carry: 1448 of 1514 bytes a frame."""
        return self.bits_per_second / 8 * (MTU - 52) / (MTU + 14)

    @property
    def within(self) -> tuple[str, ...]:
        """Goes before a command that is to run at the sink's end."""
        return ("ip", "netns", "exec", self.namespace)


@contextmanager
def link(bits_per_second: int) -> Iterator[Link]:
    """Make the namespace and the link to it; nothing of it is left afterwards."""
    name = f"bfk-{os.getpid()}"
    with ExitStack() as stack:
        _run("ip", "netns", "add", name)
        stack.callback(_run, "ip", "netns", "delete", name)
        made = Link(name, bits_per_second)
        _run("ip", "link", "add", name, "type", "veth", "peer", "wire", "netns", name)
        for within, device, address in (
            ((), name, SOURCE_ADDRESS),
            (made.within, "lo", "127.0.0.1"),
            (made.within, "wire", SINK_ADDRESS),
        ):
            if device != "lo":
                _run(*within, "ip", "address", "add", f"{address}/30", "dev", device)
                _run(*within, *_shaped(device, bits_per_second))
            _run(*within, "ip", "link", "set", device, "up")
        yield made


def _shaped(device: str, bits_per_second: int) -> list[str]:
    """A bucket of 2 ms and a queue of 20 ms."""
    burst = max(bits_per_second // 8 // 500, 65536)
    return [
        *("tc", "qdisc", "add", "dev", device, "root", "tbf"),
        *("rate", f"{bits_per_second}bit", "burst", str(burst), "latency", "20ms"),
    ]


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=30)
