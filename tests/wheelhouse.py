"""The wheels that stock images install, collected as `make wheelhouse` does, and served."""

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


def collect(directory: Path) -> None:
    """Download what an instance with this Python takes, pip too: about 15 MB."""
    show = [sys.executable, "agent/lock.py", "--for", VERSION]
    pins = subprocess.run(show, cwd=ROOT, check=True, capture_output=True, timeout=30).stdout
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"),
            *("--only-binary", ":all:", "--dest", str(directory), "-r", "/dev/stdin"),
        ],
        input=pins,
        check=True,
        timeout=180,
    )


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serve(directory: Path) -> Iterator[str]:
    """The directory by HTTP on loopback; its URL, without a slash at the end."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(directory)))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
