"""Process 1 of an instance: `python -m tests.sim.guest.init DIRECTORY`.

It enters the root, plays cloud-init, and then is systemd until it is told to
power off. When its standard input ends, the plug has been pulled: it exits at
once, and the kernel ends every other process of the instance.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

from tests.sim.guest import root_volume, wire
from tests.sim.guest.cloud_init import CloudInit
from tests.sim.guest.mounts import Image, enter
from tests.sim.guest.services import Services

CONSOLE_LIMIT = 4 << 20
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
}


class Console:
    """/dev/console, a FIFO, whose every byte goes to the console log on the host."""

    def __init__(self, fifo: Path, log: Path) -> None:
        self.fd = os.open(fifo, os.O_RDWR | os.O_CLOEXEC)
        self._log = log.open("ab", buffering=0)
        threading.Thread(target=self._copy, name="console", daemon=True).start()

    def _copy(self) -> None:
        while True:
            data = os.read(self.fd, 65536)
            if os.fstat(self._log.fileno()).st_size + len(data) > CONSOLE_LIMIT:
                os.ftruncate(self._log.fileno(), 0)
            self._log.write(data)

    def say(self, line: str) -> None:
        """One line on the console."""
        os.write(self.fd, f"[{time.monotonic():12.6f}] {line}\r\n".encode())

    def drain(self) -> None:
        """Let what was written arrive, before the end."""
        time.sleep(0.05)


class Init:
    """The life of one instance, from power-on to power-off."""

    def __init__(self, directory: Path) -> None:
        self._facts = json.loads((directory / "guest.json").read_text())
        self._user_data = (directory / "user-data").read_bytes()
        self._directory = directory
        self._off = threading.Event()
        self._console = Console(directory / "dev/console", directory / "console.log")
        self._services = Services(self._console.say, self._console.fd, self._off.set, ENVIRONMENT)

    def run(self) -> None:
        """Boot, wait for the power-off, stop everything."""
        threading.Thread(target=self._watch_plug, name="plug", daemon=True).start()
        facts = self._facts
        if len(sys.argv) > 2:
            wire.serve(int(sys.argv[2]), [(host, port) for host, port in facts["outwards"]])
        image = Image(facts["properties"], Path(facts["programs"]), Path(facts["checkout"]))
        if facts["root_device"]:
            root_volume.mount(self._directory / facts["root_device"], self._directory / "root")
        enter(self._directory, image)
        self._settle()
        self._console.say(f"Linux of {self._facts['name']} is up")
        threading.Thread(target=self._answer, name="control", daemon=True).start()
        threading.Thread(target=self._boot, name="boot", daemon=True).start()
        self._off.wait()
        self._console.say("systemd[1]: Powering off.")
        self._services.stop_all()
        self._console.say("reboot: Power down")
        self._console.drain()

    def _settle(self) -> None:
        os.umask(0o022)
        os.environ.clear()
        os.environ.update(ENVIRONMENT)
        host = "".join(c if c.isalnum() else "-" for c in self._facts["name"])[:63].strip("-")
        Path("/etc/hostname").write_text(host + "\n")
        with contextlib.suppress(OSError):
            socket.sethostname(host or "instance")

    def _watch_plug(self) -> None:
        for line in sys.stdin.buffer:
            if line.strip() == b"poweroff":
                self._console.say("systemd-logind[1]: Power key pressed short.")
                self._off.set()
        os._exit(0)

    def _boot(self) -> None:
        cloud_init = CloudInit(
            self._facts["server_id"], self._user_data, self._console.say, self._console.fd
        )
        try:
            cloud_init.early()
            self._services.start_enabled()
            cloud_init.final()
        except Exception as error:  # noqa: BLE001 - as real: an instance boots in spite of it
            self._console.say(f"cloud-init[1]: {type(error).__name__}: {error}")

    def _answer(self) -> None:
        path = "/run/init.sock"
        Path(path).unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(16)
        while True:
            line, _ = listener.accept()
            threading.Thread(target=self._serve, args=(line,), daemon=True).start()

    def _serve(self, line: socket.socket) -> None:
        with line, line.makefile("rwb") as stream:
            words = json.loads(stream.readline() or b"[]")
            answer = self._services.control(words)
            stream.write(json.dumps(answer).encode())


def main() -> None:
    """Run until the power-off."""
    # A handler, not SIG_IGN: what is ignored stays ignored in the services.
    signal.signal(signal.SIGTERM, lambda *_: None)
    Init(Path(sys.argv[1])).run()
    os._exit(0)


if __name__ == "__main__":
    main()
