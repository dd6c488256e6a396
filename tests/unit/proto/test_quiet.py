"""gRPC's core says nothing on its own: what happens reaches people as our errors."""

import subprocess
import sys

PROGRAM = """
import socket, threading
from blockferry_controller.agents import dial
import grpc

listener = socket.create_server(("127.0.0.1", 0))
def greet():
    listener.accept()[0].sendall(b"blockferry-install 0\\n")
threading.Thread(target=greet, daemon=True).start()
channel = grpc.secure_channel(
    f"127.0.0.1:{listener.getsockname()[1]}", grpc.ssl_channel_credentials()
)
try:
    channel.unary_unary("/some/call")(b"", timeout=5)
except grpc.RpcError as error:
    print(error.code().name)
"""


def test_a_failed_handshake_is_no_line_on_the_terminal() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.stdout, done.stderr) == ("UNAVAILABLE\n", "")
