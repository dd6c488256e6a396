"""`python -m tests.bench.grpc_alone`: what gRPC with TLS carries here, and nothing else.

Processes in pairs with the agents' own TLS and channel settings: one sends the same bytes
again and again in messages of 1 MiB, the other drops them. No reading, digests, compression
or writing: what no design on gRPC for Python can be faster than on this machine. Agents are
one pair with several channels; `--pairs` shows what they would gain by being several processes.
"""

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from multiprocessing.synchronize import Barrier
from typing import Any

import grpc

from blockferry.identity import Identity, Role
from blockferry.limits import MIB
from blockferry.tls import SERVER_OPTIONS, dial_options
from blockferry_controller.migration.authority import Authority

METHOD = "/bench/Drop"


def main() -> None:
    """Measure and print a line for each number of pairs and channels."""
    options = _options()
    if options.serve:
        _serve()
        return
    print(
        f"{'pairs':>5}{'channels each':>15}{'median s/GiB':>14}{'MiB/s':>8}"
        f"{'CPU s/GiB, both ends':>22}"
    )
    for pairs in options.pairs:
        for channels in options.channels:
            runs = [_pairs(pairs, channels, options.gib) for _ in range(options.rounds)]
            seconds = statistics.median(run[0] for run in runs) / options.gib
            cpu = statistics.median(run[1] for run in runs) / options.gib
            print(
                f"{pairs:5}{channels:15}{seconds:14.2f}{1024 / seconds:8.0f}{cpu:22.2f}", flush=True
            )


def _pairs(pairs: int, channels: int, gib: int) -> tuple[float, float]:
    """Seconds by the clock until the last is done, and of CPU of all."""
    spawn = multiprocessing.get_context("spawn")
    results, together = spawn.SimpleQueue(), spawn.Barrier(pairs)
    mib = gib * 1024 // pairs
    senders = [
        spawn.Process(target=_one_pair, args=(channels, mib, together, results))
        for _ in range(pairs)
    ]
    for sender in senders:
        sender.start()
    runs = [results.get() for _ in senders]
    for sender in senders:
        sender.join()
    return max(run[0] for run in runs), sum(run[1] for run in runs)


def _one_pair(channels: int, mib: int, together: Barrier, results: Any) -> None:
    results.put(_run(channels, mib, together))


def _run(channels: int, mib: int, together: Barrier) -> tuple[float, float]:
    """Seconds by the clock, and of CPU at both ends."""
    authority = Authority.create("m-bench")
    agent, controller = authority.bootstrap(Role.SINK, 1), authority.controller(1)
    command = [sys.executable, "-m", "tests.bench.grpc_alone", "--serve"]
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
        threads = [
            threading.Thread(target=_send, args=(port, credentials, name, mib // channels))
            for _ in range(channels)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        server.stdin.close()
        return seconds, cpu + float(server.stdout.readline())


def _send(port: int, credentials: grpc.ChannelCredentials, name: str, count: int) -> None:
    message = os.urandom(MIB)
    address = f"127.0.0.1:{port}"
    with closing(grpc.secure_channel(address, credentials, dial_options(name))) as channel:
        drop: Any = channel.stream_unary(METHOD)
        drop(message for _ in range(count))


def _serve() -> None:
    def read() -> bytes:
        return sys.stdin.buffer.read(int.from_bytes(sys.stdin.buffer.read(4), "big"))

    key, certificate, root = read(), read(), read()

    def drop(messages: Iterator[bytes], _context: object) -> bytes:
        for _ in messages:
            pass
        return b""

    handler = grpc.method_handlers_generic_handler(
        "bench", {"Drop": grpc.stream_unary_rpc_method_handler(drop)}
    )
    server = grpc.server(ThreadPoolExecutor(16), handlers=[handler], options=SERVER_OPTIONS)
    credentials = grpc.ssl_server_credentials([(key, certificate)], root, True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    print(port, flush=True)
    cpu = time.process_time()
    sys.stdin.buffer.read()
    print(time.process_time() - cpu, flush=True)
    server.stop(None).wait()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.grpc_alone")
    parser.add_argument("--pairs", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--channels", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--gib", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
