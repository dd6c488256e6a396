"""Errors over a real gRPC connection."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from blockferry.errors import CLASSES, BlockferryError, DeviceError, InternalError, UnreachableError
from blockferry.wire import abort, from_proto, from_rpc_error, to_proto


class _Aborts(grpc.GenericRpcHandler):
    def __init__(self, error: BlockferryError | None) -> None:
        self._error = error

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> "grpc.RpcMethodHandler[bytes, bytes]":
        def handle(request: bytes, context: grpc.ServicerContext) -> bytes:
            if self._error is None:
                raise RuntimeError("a defect")
            abort(context, self._error)
            return b""

        return grpc.unary_unary_rpc_method_handler(handle)


@pytest.fixture
def served(request: pytest.FixtureRequest) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((_Aborts(request.param),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def _call(address: str) -> BlockferryError:
    with grpc.insecure_channel(address) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/test/Call")
        with pytest.raises(grpc.RpcError) as raised:
            call(b"", timeout=5)
    return from_rpc_error(raised.value, address=address)


def _error(cls: type[BlockferryError]) -> BlockferryError:
    return cls("DEVICE_IO_X" if cls is DeviceError else "X", "ä message", volume="v")


@pytest.mark.parametrize(
    "served", [_error(cls) for cls in CLASSES], indirect=True, ids=lambda e: type(e).__name__
)
def test_an_aborted_call_raises_the_same_error(served: str, request: pytest.FixtureRequest) -> None:
    sent: BlockferryError = request.node.callspec.params["served"]
    got = _call(served)
    assert type(got) is type(sent)
    assert (got.reason, got.message, got.metadata) == (sent.reason, sent.message, sent.metadata)


@pytest.mark.parametrize("served", [None], indirect=True, ids=["defect"])
def test_a_defect_of_the_peer_is_an_internal_error(served: str) -> None:
    assert isinstance(_call(served), InternalError)


def test_nobody_there_is_unreachable_and_names_whom() -> None:
    error = _call("127.0.0.1:1")
    assert isinstance(error, UnreachableError)
    assert "127.0.0.1:1" in error.message


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_a_jobs_error_round_trip(cls: type[BlockferryError]) -> None:
    sent = _error(cls)
    got = from_proto(to_proto(sent))
    assert type(got) is cls
    assert (got.reason, got.message, got.metadata) == (sent.reason, sent.message, sent.metadata)
