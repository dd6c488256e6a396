"""Tells a web server an event, by POST, signed when there is a secret.

Rules:
* Headers are those of Standard Webhooks (https://www.standardwebhooks.com), for which there are
  receivers in most languages: id, time and HMAC-SHA256 over both and the body.
* Redirects are not followed: an event goes where the file says, or nowhere. Proxies of the
  environment are not used.
* One deadline for all of it. A time-out of a socket is one of each read: who sends a byte a
  second would never meet it. So the connection is shut when time is up.

http.client rather than requests: that has neither that deadline nor a way to it.
"""

import base64
import binascii
import hashlib
import hmac
import http.client
import socket
import ssl
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import urlsplit

from blockferry import __version__
from blockferry_controller.engine.history import Entry
from blockferry_controller.fleet.hooks.sending import UndeliveredError, body
from blockferry_controller.fleet.spec import Hook

_SECRET_PREFIX = "whsec_"  # noqa: S105 - of the notation, not a secret


def post(hook: Hook, entry: Entry, seconds: float) -> None:
    """See sending.Send: delivered when the server answers with 2xx.

    Raises:
        UndeliveredError: it does not, or not in time.
    """
    try:
        status = _exchange(hook, entry, seconds)
    except TimeoutError:
        raise UndeliveredError(f"no answer in {seconds:.3g} s") from None
    except ssl.SSLCertVerificationError as error:
        raise UndeliveredError(f"its certificate: {error.verify_message}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise UndeliveredError(f"{type(error).__name__}: {error}") from None
    if not 200 <= status < 300:
        raise UndeliveredError(f"the server answered {status}")


def _exchange(hook: Hook, entry: Entry, seconds: float) -> int:
    """The status of the answer; nothing else of it is read."""
    url, sent = urlsplit(hook.url), body(entry)
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"blockferry/{__version__}",
        "Connection": "close",
        **signature(hook, entry.id, int(time.time()), sent),
    }
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    assert url.hostname is not None
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    until = time.monotonic() + seconds
    with closing(kind(url.hostname, url.port, timeout=seconds)) as connection:
        connection.connect()
        late = threading.Event()
        watch = threading.Timer(max(0.0, until - time.monotonic()), _shut, (connection.sock, late))
        watch.daemon = True
        watch.start()
        try:
            connection.request("POST", target, sent, headers)
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException):
            if late.is_set():
                raise TimeoutError from None
            raise
        finally:
            watch.cancel()
        if late.is_set():
            # Headers that were cut short are headers to http.client.
            raise TimeoutError
        return status


def _shut(sock: socket.socket, late: threading.Event) -> None:
    late.set()
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def signature(hook: Hook, event_id: str, seconds: int, sent: bytes) -> dict[str, str]:
    """The headers that tell, and when there is a secret prove, which event it is.

    Args:
        hook: Its secret is read anew each time, so that it may be changed.
        event_id: Of the event.
        seconds: Since 1970.
        sent: The body.

    Raises:
        OSError: the secret cannot be read.
        ValueError: it is none.
    """
    headers = {"webhook-id": event_id, "webhook-timestamp": str(seconds)}
    if hook.secret_file:
        signed = f"{event_id}.{seconds}.".encode("ascii") + sent
        mac = hmac.new(_secret(hook.secret_file), signed, hashlib.sha256).digest()
        headers["webhook-signature"] = "v1," + base64.b64encode(mac).decode("ascii")
    return headers


def _secret(path: str) -> bytes:
    """The bytes of the file without white space around, or what stands behind whsec_ there."""
    text = Path(path).expanduser().read_bytes().strip()
    prefix = _SECRET_PREFIX.encode("ascii")
    if text.startswith(prefix):
        try:
            text = base64.b64decode(text[len(prefix) :], validate=True)
        except binascii.Error:
            raise ValueError("the secret is not Base64 behind whsec_") from None
    if not text:
        raise ValueError("the secret is empty")
    return text
