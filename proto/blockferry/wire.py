"""Errors on their way over gRPC: one way to write them down, one to read them back."""

from typing import Final

import grpc

from blockferry.errors import (
    AuthenticationError,
    BlockferryError,
    InternalError,
    Status,
    UnreachableError,
    from_wire,
)
from blockferry.v1 import error_pb2

ERROR_KEY: Final = "blockferry-error-bin"
"""Trailing metadata key whose value is a serialized `blockferry.v1.Error`."""

_CODES: Final = {
    Status(code.value[0]): code
    for code in grpc.StatusCode
    if code.value[0] in {status.value for status in Status}
}

# What gRPC's core says when TLS itself failed; it reports UNAVAILABLE for both.
_TLS_MARKS: Final = ("handshake", "certificate", "CERTIFICATE", "SSL")


def to_proto(error: BlockferryError) -> error_pb2.Error:
    """The error as a message, with its class named by the status it travels as."""
    return error_pb2.Error(
        reason=error.reason,
        message=error.message,
        metadata={**error.metadata, _STATUS_KEY: error.meaning.status.name},
    )


_STATUS_KEY: Final = "status"


def from_proto(message: error_pb2.Error) -> BlockferryError:
    """Inverse of `to_proto`."""
    metadata = dict(message.metadata)
    name = metadata.pop(_STATUS_KEY, Status.INTERNAL.name)
    status = Status[name] if name in Status.__members__ else Status.INTERNAL
    return from_wire(status, message.reason, message.message, metadata)


def abort(context: grpc.ServicerContext, error: BlockferryError) -> None:
    """End the rpc with `error`. Does not return: gRPC raises inside."""
    context.set_trailing_metadata(((ERROR_KEY, to_proto(error).SerializeToString()),))
    context.abort(_CODES[error.meaning.status], error.message)


def from_rpc_error(error: Exception, *, address: str) -> BlockferryError:
    """The error that a failed call stands for.

    Args:
        error: The `grpc.RpcError` a stub raised; in practice also a `grpc.Call`.
        address: Whom the call was for, named in the message of errors that the
            peer did not send itself.
    """
    if not isinstance(error, grpc.Call):
        return InternalError("RPC_BROKEN", f"the call to {address} broke: {error}", address=address)
    for key, value in error.trailing_metadata() or ():
        if key == ERROR_KEY and isinstance(value, bytes):
            return from_proto(error_pb2.Error.FromString(value))
    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE and any(mark in details for mark in _TLS_MARKS):
        return AuthenticationError(
            "TLS_REFUSED",
            f"{address} and we do not accept each other's certificate: {details}",
            address=address,
        )
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return UnreachableError(
            "AGENT_UNREACHABLE", f"no connection to {address}: {details}", address=address
        )
    # UNKNOWN without our detail is what gRPC makes of any exception of the peer's.
    known = code in _CODES.values() and code is not grpc.StatusCode.UNKNOWN
    status = Status(code.value[0]) if known else Status.INTERNAL
    return from_wire(status, "RPC_FAILED", f"{address} answered {code.name}: {details}", {})
