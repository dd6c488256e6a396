"""A transfer between two devices in this process, over real gRPC without TLS.

For what needs a device that fails on request; agents of their own are in agents.py.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from blockferry import wire
from blockferry.errors import BlockferryError, CancelledError, UnreachableError
from blockferry.identity import Role
from blockferry.limits import MIB
from blockferry.tls import CHANNEL_OPTIONS, SERVER_OPTIONS
from blockferry.v1 import agent_pb2
from blockferry_agent.codec import Compression
from blockferry_agent.journal import Journal
from blockferry_agent.ledger import Ledger, TransferIdentity
from blockferry_agent.manifest import Manifest
from blockferry_agent.ports import BlockDevice
from blockferry_agent.server import SystemClock
from blockferry_agent.service import TransferServicer
from blockferry_agent.sink import ReceiveFlow, ReceivePlan
from blockferry_agent.source import CopyFlow, CopyPlan
from blockferry_agent.trial import Bench

TRANSFER_ID = "m-test"


@dataclass
class Wire:
    """What goes over the wire, counted at the sink's end, of which one message is lost.

    `receive`: the n-th message does not arrive; `ack`: the n-th answer does not leave.
    Either way its stream breaks, as when a connection is reset. `send`: the source's
    connection is reset when it begins to send its n-th MiB; see `Cut`.

    Attributes:
        calls: How often each has happened.
        lost: How often one was lost.
    """

    calls: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    _faults: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(self, call: str, nth: int) -> None:
        """Lose the n-th from now, and only it."""
        with self._lock:
            self._faults[call] = self.calls[call] + nth

    def is_lost(self, call: str, times: int = 1) -> bool:
        """Count, and say whether this one is to be lost."""
        with self._lock:
            before = self.calls[call]
            self.calls[call] += times
            lost = before < self._faults.get(call, 0) <= self.calls[call]
            self.lost += lost
        return lost

    def pass_on(self, call: str, messages: Iterable[Any]) -> Iterator[Any]:
        """The messages, until one is lost."""
        for message in messages:
            if self.is_lost(call):
                raise UnreachableError("TEST_CUT", f"{call} no. {self.calls[call]} was lost")
            yield message


class Cut:
    """A port in front of another; a connection is reset when the wire says `send` is lost."""

    def __init__(self, target: str, wire: Wire) -> None:
        host, _, port = target.rpartition(":")
        self._target, self._wire = (host, int(port)), wire
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                for one, other, counts in ((near, far, True), (far, near, False)):
                    threading.Thread(
                        target=self._carry, args=(one, other, counts), daemon=True
                    ).start()

    def _carry(self, source: socket.socket, sink: socket.socket, counts: bool) -> None:
        carried = 0
        with contextlib.suppress(OSError):
            while data := source.recv(64 * 1024):
                begun = -(-(carried + len(data)) // MIB) - -(-carried // MIB)
                carried += len(data)
                if counts and begun and self._wire.is_lost("send", begun):
                    break
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@dataclass
class _Aborts(grpc.ServerInterceptor):
    """Sends errors as the agent's guard does, and lets everybody in."""

    wire: Wire

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = continuation(handler_call_details)

        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            try:
                return handler.unary_unary(request, context)
            except BlockferryError as error:
                wire.abort(context, error)

        def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            try:
                arrived = self.wire.pass_on("receive", request)
                yield from self.wire.pass_on("ack", handler.stream_stream(arrived, context))
            except BlockferryError as error:
                wire.abort(context, error)

        make: Any = grpc.unary_unary_rpc_method_handler
        if handler.response_streaming:
            make = grpc.stream_stream_rpc_method_handler
        return make(
            stream if handler.response_streaming else answer,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


@dataclass
class _OneReceiver:
    flow: ReceiveFlow

    def receiver(self, transfer_id: str) -> ReceiveFlow:
        assert transfer_id == TRANSFER_ID
        return self.flow


@contextmanager
def serving(flow: ReceiveFlow, through: Wire | None = None) -> Iterator[str]:
    """The address at which `flow` can be pushed to."""
    pool = ThreadPoolExecutor(8)
    server = grpc.server(pool, interceptors=[_Aborts(through or Wire())], options=SERVER_OPTIONS)
    jobs: Any = _OneReceiver(flow)
    bench = Bench(Role.SINK, dial, SystemClock(), lambda: True)
    server.add_generic_rpc_handlers((TransferServicer(jobs, bench).handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()
        pool.shutdown()


def dial(address: str) -> grpc.Channel:
    return grpc.insecure_channel(address, options=[*CHANNEL_OPTIONS])


@dataclass
class Outcome:
    """How both jobs ended."""

    source_error: BaseException | None
    sink_error: BaseException | None
    source: agent_pb2.Job
    sink: agent_pb2.Job

    def raise_any(self) -> None:
        for error in (self.sink_error, self.source_error):
            if error is not None:
                raise error


@dataclass
class Transfer:
    """Two devices and the state that both sides keep between runs."""

    source: BlockDevice
    sink: BlockDevice
    state: Path
    boot_id: str = "boot"
    channels: int = 2
    workers: int = 2
    compression: Compression = Compression()  # noqa: RUF009 - frozen
    patience_seconds: float = 0.0
    wire: Wire = field(default_factory=Wire)

    def run(self) -> Outcome:
        """Run both jobs to their end, whatever it is."""
        size = self.source.size_bytes
        with ExitStack() as held:
            ledger = self._ledger(size)
            held.callback(ledger.close)
            manifest = held.enter_context(Manifest.open(self.state / "source", size))
            receive = ReceiveFlow(
                ReceivePlan(
                    transfer_id=TRANSFER_ID,
                    size_bytes=size,
                    check_digests=True,
                    read_back=True,
                    dead_seconds=20.0,
                    threads=2,
                ),
                self.sink,
                ledger,
                SystemClock(),
            )
            cut = Cut(held.enter_context(serving(receive, self.wire)), self.wire)
            held.callback(cut.close)
            copy = CopyFlow(
                self._plan(size, cut.address), self.source, manifest, dial, SystemClock()
            )
            return self._run_both(copy, receive)

    def _run_both(self, copy: CopyFlow, receive: ReceiveFlow) -> Outcome:
        outcome = Outcome(None, None, agent_pb2.Job(), agent_pb2.Job())

        def sink_job() -> None:
            try:
                receive.run()
            except BlockferryError as error:
                outcome.sink_error = error

        thread = threading.Thread(target=sink_job)
        thread.start()
        try:
            copy.run()
        except BlockferryError as error:
            outcome.source_error = error
            receive.cancel(CancelledError("CANCELLED", "the source failed"))
        thread.join()
        copy.report(outcome.source)
        receive.report(outcome.sink)
        return outcome

    def _ledger(self, size: int) -> Ledger:
        return Ledger(
            TransferIdentity("source", "sink", size, self.boot_id),
            Journal.open(self.state / "journal"),
            Manifest.open(self.state / "sink", size),
            SystemClock(),
            known_committed_bytes=0,
        )

    def _plan(self, size: int, address: str) -> CopyPlan:
        return CopyPlan(
            transfer_id=TRANSFER_ID,
            size_bytes=size,
            sink_addresses=(address,),
            compression=self.compression,
            channels=self.channels,
            limit_bytes_per_second=0,
            workers=self.workers,
            patience_seconds=self.patience_seconds,
        )
