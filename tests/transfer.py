"""A transfer between two devices in this process, over real gRPC without TLS.

For what needs a device that fails on request; agents of their own are in agents.py.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from blockferry import wire
from blockferry.errors import BlockferryError, CancelledError
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

TRANSFER_ID = "m-test"


class _Aborts(grpc.ServerInterceptor):
    """Sends errors as the agent's guard does, and lets everybody in."""

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = continuation(handler_call_details)

        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            try:
                return handler.unary_unary(request, context)
            except BlockferryError as error:
                wire.abort(context, error)

        def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            try:
                yield from handler.stream_stream(request, context)
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
def serving(flow: ReceiveFlow) -> Iterator[str]:
    """The address at which `flow` can be pushed to."""
    pool = ThreadPoolExecutor(8)
    server = grpc.server(pool, interceptors=[_Aborts()], options=SERVER_OPTIONS)
    jobs: Any = _OneReceiver(flow)
    server.add_generic_rpc_handlers((TransferServicer(jobs).handler(),))
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
            address = held.enter_context(serving(receive))
            copy = CopyFlow(self._plan(size, address), self.source, manifest, dial, SystemClock())
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
