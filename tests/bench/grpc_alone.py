"""`python -m tests.bench.grpc_alone`: what gRPC with TLS carries here, and nothing else.

Processes in pairs with the agents' own TLS and channel settings: one sends the same bytes
again and again in messages of 1 MiB, the other drops them. No reading, digests, compression
or writing: what no design on gRPC for Python can be faster than on this machine. Agents are
one pair with several channels; `--pairs` shows what they would gain by being several processes,
`--ways` what by talking to each other in another way.
"""

import argparse
import asyncio
import itertools
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Barrier
from typing import Any, NamedTuple, cast

import grpc
import grpc.aio
from grpc.experimental import ChannelOptions

from blockferry.identity import Identity, Role
from blockferry.limits import MIB
from blockferry.tls import SERVER_OPTIONS, dial_options
from blockferry_controller.migration.authority import Authority

WAYS = {
    "push": "who has dialled sends a stream, as agents do",
    "pull": "who has dialled receives one",
    "pull-alone": "the same, read by the caller's own thread (an experiment of gRPC's)",
    "calls": "a call for each message, two at a time on a channel",
    "asyncio": "as push, with grpc.aio at both ends",
}


def main() -> None:
    """Measure and print a line for each number of pairs and channels."""
    options = _options()
    if options.serve:
        _serve(options.serve)
        return
    print(
        f"{'way':<11}{'pairs':>5}{'channels each':>15}{'median s/GiB':>14}{'MiB/s':>8}"
        f"{'CPU s/GiB, both ends':>22}"
    )
    tried = list(itertools.product(options.ways, options.pairs, options.channels))
    runs: dict[tuple[str, int, int], list[tuple[float, float]]] = {one: [] for one in tried}
    for _ in range(options.rounds):
        for one in random.sample(tried, len(tried)):
            runs[one].append(_pairs(*one, options.gib))
    for (way, pairs, channels), times in runs.items():
        seconds = statistics.median(run[0] for run in times) / options.gib
        cpu = statistics.median(run[1] for run in times) / options.gib
        print(f"{way:<11}{pairs:5}{channels:15}{seconds:14.2f}{1024 / seconds:8.0f}{cpu:22.2f}")


def _pairs(way: str, pairs: int, channels: int, gib: int) -> tuple[float, float]:
    """Seconds by the clock until the last is done, and of CPU of all."""
    spawn = multiprocessing.get_context("spawn")
    results, together = spawn.SimpleQueue(), spawn.Barrier(pairs)
    mib = gib * 1024 // pairs
    senders = [
        spawn.Process(target=_one_pair, args=(way, channels, mib, together, results))
        for _ in range(pairs)
    ]
    for sender in senders:
        sender.start()
    runs = [results.get() for _ in senders]
    for sender in senders:
        sender.join()
    return max(run[0] for run in runs), sum(run[1] for run in runs)


def _one_pair(way: str, channels: int, mib: int, together: Barrier, results: Any) -> None:
    results.put(_run(way, channels, mib, together))


def _run(way: str, channels: int, mib: int, together: Barrier) -> tuple[float, float]:
    """Seconds by the clock, and of CPU at both ends."""
    authority = Authority.create("m-bench")
    agent, controller = authority.bootstrap(Role.SINK, 1), authority.controller(1)
    command = [sys.executable, "-m", "tests.bench.grpc_alone", "--serve", way]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        for pem in (agent.key_pem, agent.certificate_pem, authority.migration_root_pem):
            server.stdin.write(len(pem).to_bytes(4, "big") + pem)
        server.stdin.flush()
        port = int(server.stdout.readline())
        credentials = grpc.ssl_channel_credentials(
            authority.bootstrap_root_pem, controller.key_pem, controller.certificate_pem
        )
        name = Identity("m-bench", Role.SINK, 1).bootstrap_server_name
        together.wait(60)
        cpu, start = time.process_time(), time.perf_counter()
        _move(way, _Peer(f"127.0.0.1:{port}", credentials, dial_options(name)), channels, mib)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        server.stdin.close()
        return seconds, cpu + float(server.stdout.readline())


class _Peer(NamedTuple):
    address: str
    credentials: grpc.ChannelCredentials
    options: list[tuple[str, str | int]]


def _move(way: str, peer: _Peer, channels: int, mib: int) -> None:
    """Move so many messages of 1 MiB over so many channels."""
    if way == "asyncio":
        asyncio.run(_move_asyncio(peer, channels, mib))
        return
    move = {"push": _push, "pull": _pull, "pull-alone": _pull_alone, "calls": _calls}[way]
    with ThreadPoolExecutor(channels) as threads:
        list(threads.map(lambda _: move(peer, mib // channels), range(channels)))


def _push(peer: _Peer, count: int) -> None:
    message = os.urandom(MIB)
    with grpc.secure_channel(*peer) as channel:
        drop: Any = channel.stream_unary("/bench/Drop")
        drop(message for _ in range(count))


def _pull(peer: _Peer, count: int) -> None:
    with grpc.secure_channel(*peer) as channel:
        give: Any = channel.unary_stream("/bench/Give")
        assert sum(len(message) for message in give(str(count).encode())) == count * MIB


def _pull_alone(peer: _Peer, count: int) -> None:
    alone = (ChannelOptions.SingleThreadedUnaryStream, 1)
    _pull(peer._replace(options=[*peer.options, alone]), count)


def _calls(peer: _Peer, count: int) -> None:
    message = os.urandom(MIB)
    with grpc.secure_channel(*peer) as channel, ThreadPoolExecutor(2) as threads:
        take: Any = channel.unary_unary("/bench/Take")
        list(threads.map(lambda _: take(message), range(count)))


async def _move_asyncio(peer: _Peer, channels: int, mib: int) -> None:
    message = os.urandom(MIB)

    async def messages() -> AsyncIterator[bytes]:
        for _ in range(mib // channels):
            yield message

    async def push() -> None:
        async with grpc.aio.secure_channel(*peer) as channel:
            drop: Any = channel.stream_unary("/bench/Drop")
            await drop(messages())

    await asyncio.gather(*(push() for _ in range(channels)))


def _serve(way: str) -> None:
    def read() -> bytes:
        return sys.stdin.buffer.read(int.from_bytes(sys.stdin.buffer.read(4), "big"))

    key, certificate, root = read(), read(), read()
    credentials = grpc.ssl_server_credentials([(key, certificate)], root, True)
    if way == "asyncio":
        asyncio.run(_serve_asyncio(credentials))
        return

    def drop(messages: Iterator[bytes], _context: object) -> bytes:
        for _ in messages:
            pass
        return b""

    def give(count: bytes, _context: object) -> Iterator[bytes]:
        return itertools.repeat(os.urandom(MIB), int(count))

    handlers: Any = {
        "Drop": grpc.stream_unary_rpc_method_handler(drop),
        "Give": grpc.unary_stream_rpc_method_handler(give),
        "Take": grpc.unary_unary_rpc_method_handler(lambda _message, _context: b""),
    }
    handler = grpc.method_handlers_generic_handler("bench", handlers)
    server = grpc.server(ThreadPoolExecutor(16), handlers=[handler], options=SERVER_OPTIONS)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    _tell_cpu(port)
    server.stop(None).wait()


async def _serve_asyncio(credentials: grpc.ServerCredentials) -> None:
    async def drop(messages: AsyncIterator[bytes], _context: object) -> bytes:
        async for _ in messages:
            pass
        return b""

    handlers: Any = {"Drop": grpc.stream_unary_rpc_method_handler(cast(Any, drop))}
    server = grpc.aio.server(options=SERVER_OPTIONS)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench", handlers),))
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    await asyncio.to_thread(_tell_cpu, port)
    await server.stop(None)


def _tell_cpu(port: int) -> None:
    """Print the port, and at the end of standard input the CPU seconds since."""
    print(port, flush=True)
    cpu = time.process_time()
    sys.stdin.buffer.read()
    print(time.process_time() - cpu, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.grpc_alone")
    parser.add_argument("--ways", choices=WAYS, nargs="+", default=["push"], help=_ways())
    parser.add_argument("--pairs", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--channels", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--gib", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", choices=WAYS, help=argparse.SUPPRESS)
    return parser.parse_args()


def _ways() -> str:
    return "; ".join(f"{way}: {what}" for way, what in WAYS.items())


if __name__ == "__main__":
    main()
