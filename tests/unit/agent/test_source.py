import socket
import threading
from pathlib import Path

import pytest

from blockferry.errors import BlockferryError, CancelledError, DeadlineError, UnreachableError
from blockferry.limits import CHUNK_BYTES
from blockferry.v1 import agent_pb2
from blockferry_agent.codec import Compression
from blockferry_agent.journal import Journal
from blockferry_agent.ledger import Ledger, TransferIdentity
from blockferry_agent.manifest import Manifest
from blockferry_agent.memory_device import MemoryDevice
from blockferry_agent.server import SystemClock
from blockferry_agent.sink import ReceiveFlow, ReceivePlan
from blockferry_agent.source import CopyFlow, CopyPlan
from tests.layouts import make_memory
from tests.transfer import TRANSFER_ID, dial, serving

LAYOUT = "RRRR"
SIZE = 4 * CHUNK_BYTES


def copy_flow(
    state: Path, *addresses: str, patience: float = 0.0, stall: float = 45.0, size: int = SIZE
) -> CopyFlow:
    plan = CopyPlan(
        transfer_id=TRANSFER_ID,
        size_bytes=size,
        sink_addresses=addresses,
        compression=Compression(),
        channels=2,
        limit_bytes_per_second=0,
        workers=2,
        stall_seconds=stall,
        patience_seconds=patience,
    )
    manifest = Manifest.open(state / "source", SIZE)
    return CopyFlow(plan, make_memory(LAYOUT), manifest, dial, SystemClock())


def receive_flow(state: Path, device: MemoryDevice) -> ReceiveFlow:
    clock = SystemClock()
    ledger = Ledger(
        TransferIdentity("source", "sink", SIZE, "boot"),
        Journal.open(state / "journal"),
        Manifest.open(state / "sink", SIZE),
        clock,
        known_committed_bytes=0,
    )
    plan = ReceivePlan(
        transfer_id=TRANSFER_ID,
        size_bytes=SIZE,
        check_digests=True,
        read_back=False,
        dead_seconds=30.0,
        threads=1,
    )
    return ReceiveFlow(plan, device, ledger, clock)


@pytest.fixture
def nowhere() -> str:
    """An address at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


class Background:
    """A flow's `run` in a thread."""

    def __init__(self, flow: CopyFlow | ReceiveFlow) -> None:
        self.error: BlockferryError | None = None
        self._flow = flow
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._flow.run()
        except BlockferryError as error:
            self.error = error

    def join(self) -> BlockferryError | None:
        self._thread.join()
        return self.error


def test_a_sink_that_never_answers_is_given_up(tmp_path: Path, nowhere: str) -> None:
    with pytest.raises(UnreachableError) as caught:
        copy_flow(tmp_path, nowhere, patience=0.3).run()
    assert caught.value.reason == "SINK_LOST"
    assert caught.value.metadata["cause"] == "AGENT_UNREACHABLE"


def test_the_next_address_is_tried(tmp_path: Path, nowhere: str) -> None:
    receive = receive_flow(tmp_path, MemoryDevice(SIZE, block_bytes=1))
    with serving(receive) as address:
        receiving = Background(receive)
        copy_flow(tmp_path, nowhere, address, patience=20.0).run()
        assert receiving.join() is None


def test_a_job_can_be_cancelled_while_it_waits_for_the_sink(tmp_path: Path, nowhere: str) -> None:
    flow = copy_flow(tmp_path, nowhere, patience=60.0)
    copying = Background(flow)
    flow.cancel(CancelledError("CANCELLED", "enough"))
    assert isinstance(copying.join(), CancelledError)


def test_a_job_cancelled_before_it_ran_does_nothing(tmp_path: Path) -> None:
    receive = receive_flow(tmp_path, MemoryDevice(SIZE, block_bytes=1))
    with serving(receive) as address:
        flow = copy_flow(tmp_path, address)
        flow.cancel(CancelledError("CANCELLED", "enough"))
        with pytest.raises(CancelledError):
            flow.run()


def test_a_sink_of_another_size_is_refused(tmp_path: Path) -> None:
    receive = receive_flow(tmp_path, MemoryDevice(SIZE, block_bytes=1))
    with serving(receive) as address, pytest.raises(BlockferryError) as caught:
        copy_flow(tmp_path, address, size=SIZE + 1).run()
    assert caught.value.reason == "TRANSFER_MISMATCH"


def test_a_sink_that_confirms_nothing_is_stalled(tmp_path: Path) -> None:
    class Hangs(MemoryDevice):
        released = threading.Event()

        def write_at(self, offset_bytes: int, data: memoryview | bytes) -> None:
            self.released.wait()
            super().write_at(offset_bytes, data)

    device = Hangs(SIZE, block_bytes=1)
    receive = receive_flow(tmp_path, device)
    with serving(receive) as address:
        receiving = Background(receive)
        with pytest.raises(DeadlineError) as caught:
            copy_flow(tmp_path, address, stall=0.3, patience=0.5).run()
        assert caught.value.metadata["cause"] == "SINK_STALLED"
        device.released.set()
        receive.cancel(CancelledError("CANCELLED", "the source is gone"))
        receiving.join()


def test_a_paused_sink_is_not_stalled(tmp_path: Path) -> None:
    receive = receive_flow(tmp_path, MemoryDevice(SIZE, block_bytes=1))
    with serving(receive) as address:
        receiving = Background(receive)
        flow = copy_flow(tmp_path, address, stall=0.1)
        flow.set_paused(True)
        copying = Background(flow)
        receiving._thread.join(0.6)
        job = agent_pb2.Job()
        flow.report(job)
        assert (job.progress.sent_bytes, copying.error) == (0, None)
        flow.set_paused(False)
        assert copying.join() is None
        assert receiving.join() is None
