"""systemd in miniature: starts, watches, restarts and stops the services of an instance.

The rules of Restart=, of the start limit and of stopping are those of
systemd.service(5) and systemd.unit(5). Sandboxing directives have no effect.
"""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.sim.guest.units import Command, Unit, find, load

Answer = tuple[int, str, str]
"""Exit status, standard output, standard error."""
JOURNAL = Path("/var/log/journal.log")
WANTS = Path("/etc/systemd/system/multi-user.target.wants")
START_SECONDS = 90.0
SHUTDOWN_SECONDS = 10.0


class Service:
    """One service: at most one run of it at a time."""

    def __init__(
        self, unit: Unit, say: Callable[[str], None], console: int, base: Mapping[str, str]
    ) -> None:
        self.unit = unit
        self.state = "inactive"
        self._say = say
        self._console = console
        self._base = base
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._starts: collections.deque[float] = collections.deque(maxlen=100)
        self._lock = threading.Lock()

    @property
    def active(self) -> bool:
        """True while it runs, or waits to be started again."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> str:
        """Start it, if it does not run; returns why it could not, else an empty text."""
        with self._lock:
            if self.active:
                return ""
            unmet = self.unit.unmet_condition()
            if unmet:
                self._say(f"systemd[1]: {self.unit.name} was skipped: unmet condition {unmet}")
                return ""
            self._stopping.clear()
            started = threading.Event()
            self._thread = threading.Thread(
                target=self._life, args=(started,), name=self.unit.name, daemon=True
            )
            self._thread.start()
        if not started.wait(START_SECONDS):
            return "timed out"
        return "" if self.state in {"active", "inactive"} else "failed"

    def stop(self) -> None:
        """SIGTERM, after the unit's time SIGKILL to all it started; returns when it is dead."""
        with self._lock:
            self._stopping.set()
            process = self._process
            if process and process.poll() is None:
                self._signal_and_wait(process)
            if self._thread and self._thread is not threading.current_thread():
                self._thread.join(timeout=5)

    def _signal_and_wait(self, process: subprocess.Popen[bytes]) -> None:
        number = signal.Signals[self.unit.value("KillSignal", "SIGTERM")]
        everyone = self.unit.value("KillMode", "control-group") == "control-group"
        kill = os.killpg if everyone else os.kill
        _quietly(lambda: kill(process.pid, number))
        try:
            process.wait(min(self.unit.seconds("TimeoutStopSec", 90), START_SECONDS))
        except subprocess.TimeoutExpired:
            self._say(f"systemd[1]: {self.unit.name}: State 'stop-sigterm' timed out. Killing.")
        _quietly(lambda: os.killpg(process.pid, signal.SIGKILL))
        process.wait()

    def _life(self, started: threading.Event) -> None:
        """Run, and run again as Restart= says."""
        while True:
            status = self._run_once(started)
            started.set()
            if self._stopping.is_set() or not self._restarts(status):
                self.state = "inactive" if status == 0 or self._stopping.is_set() else "failed"
                return
            self.state = "activating"
            if self._stopping.wait(self.unit.seconds("RestartSec", 0.1)):
                self.state = "inactive"
                return
            if self._too_often():
                self._say(f"systemd[1]: {self.unit.name}: Start request repeated too quickly.")
                self.state = "failed"
                return
            self._say(f"systemd[1]: {self.unit.name}: Scheduled restart job.")

    def _run_once(self, started: threading.Event) -> int:
        """The exit status of the main process, or of what kept it from starting."""
        self._starts.append(time.monotonic())
        try:
            self.unit.make_directories()
            environment = {**self._base, **self.unit.environment()}
            for command in self.unit.commands("ExecStartPre", environment):
                if self._finish(command, environment) and not command.may_fail:
                    return 1
            commands = self.unit.commands("ExecStart", environment)
            if not commands:
                self._say(f"systemd[1]: {self.unit.name} has no ExecStart=. Refusing.")
                return 1
            self._process = self._spawn(commands[-1], environment)
        except OSError as error:
            self._say(f"systemd[1]: {self.unit.name}: Failed to execute: {error} status=203/EXEC")
            return 203
        if self.unit.value("Type") != "oneshot":
            self._started(environment, started)
        status = self._process.wait()
        _quietly(lambda: os.killpg(self._process.pid, signal.SIGKILL) if self._process else None)
        if status and not self._stopping.is_set():
            how = f"exited, status={status}" if status > 0 else f"killed, signal={-status}"
            self._say(f"systemd[1]: {self.unit.name}: Main process exited, code={how}")
        return status

    def _started(self, environment: Mapping[str, str], started: threading.Event) -> None:
        self.state = "active"
        for command in self.unit.commands("ExecStartPost", environment):
            self._finish(command, environment)
        description = self.unit.value("Description", self.unit.name, "Unit")
        self._say(f"systemd[1]: Started {self.unit.name} - {description}.")
        started.set()

    def _finish(self, command: Command, environment: Mapping[str, str]) -> int:
        return self._spawn(command, environment).wait()

    def _spawn(self, command: Command, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        output = self.unit.value("StandardOutput", "journal")
        errors = self.unit.value("StandardError", "inherit")
        errors = output if errors == "inherit" else errors
        with JOURNAL.open("ab") as journal:
            return subprocess.Popen(
                command.words,
                stdin=subprocess.DEVNULL,
                stdout=self._console if "console" in output else journal,
                stderr=self._console if "console" in errors else journal,
                cwd=self.unit.value("WorkingDirectory", "/"),
                env=dict(environment),
                umask=int(self.unit.value("UMask", "0022"), 8),
                start_new_session=True,
            )

    def _restarts(self, status: int) -> bool:
        policy = self.unit.value("Restart", "no")
        if policy == "on-failure":
            return status != 0
        if policy == "on-success":
            return status == 0
        if policy == "on-abnormal":
            return status < 0
        return policy == "always"

    def _too_often(self) -> bool:
        interval = self.unit.seconds("StartLimitIntervalSec", 10, "Unit")
        burst = int(self.unit.value("StartLimitBurst", "5", "Unit"))
        since = time.monotonic() - interval
        return interval > 0 and sum(1 for moment in self._starts if moment > since) >= burst


class Services:
    """All services, and `systemctl`."""

    def __init__(
        self,
        say: Callable[[str], None],
        console: int,
        power_off: Callable[[], None],
        environment: Mapping[str, str],
    ) -> None:
        self._say = say
        self._console = console
        self._power_off = power_off
        self._environment = environment
        self._services: dict[str, Service] = {}
        self._lock = threading.Lock()

    def start_enabled(self) -> None:
        """What a boot starts."""
        for link in sorted(WANTS.glob("*.service")):
            self._start(link.name)

    def stop_all(self) -> None:
        """Stop every service, all at once, within a bounded time."""
        threads = [
            threading.Thread(target=service.stop, daemon=True)
            for service in self._services.values()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SHUTDOWN_SECONDS)

    def control(self, words: list[str]) -> Answer:
        """Do what `systemctl …`, `poweroff` or `shutdown` was called for."""
        program, options = (words or [""])[0], words[1:]
        plain = [word for word in options if not word.startswith("-")]
        if program != "systemctl":
            if program == "shutdown" and "-c" in options:
                return 0, "", ""
            self._power_off()
            return 0, "", ""
        if not plain:
            return 1, "", "systemctl: a verb is missing\n"
        return self._verb(plain[0], [_full(name) for name in plain[1:]], set(options))

    def _verb(self, verb: str, names: list[str], options: set[str]) -> Answer:
        if verb in {"poweroff", "halt", "reboot"}:
            self._power_off()
        elif verb in {"is-active", "status"}:
            states = [self._state(name) for name in names]
            status = 0 if all(state == "active" for state in states) else 3
            return status, "".join(f"{state}\n" for state in states), ""
        elif verb == "is-enabled":
            enabled = all((WANTS / name).is_symlink() for name in names)
            return (0, "enabled\n", "") if enabled else (1, "disabled\n", "")
        elif verb in {"daemon-reload", "daemon-reexec", "reset-failed"}:
            with self._lock:
                for name, service in list(self._services.items()):
                    service.unit = load(name) or service.unit
        elif verb in {"enable", "disable", "start", "stop", "restart", "try-restart", "mask"}:
            return self._change(verb, names, "--now" in options)
        else:
            return 1, "", f"systemctl: the simulator does not know {verb}\n"
        return 0, "", ""

    def _change(self, verb: str, names: list[str], now: bool) -> Answer:
        for name in names:
            if load(name) is None and verb != "stop":
                return 5, "", f"Failed to {verb} {name}: Unit {name} not found.\n"
            if verb == "enable":
                _enable(name)
            elif verb in {"disable", "mask"}:
                (WANTS / name).unlink(missing_ok=True)
            if verb in {"stop", "restart"} or (now and verb in {"disable", "mask"}):
                self._stop(name)
            if verb in {"start", "restart"} or (now and verb == "enable"):
                why = self._start(name)
                if why:
                    return 1, "", f"Job for {name} {why}.\n"
        return 0, "", ""

    def _start(self, name: str) -> str:
        unit = load(name)
        if unit is None:
            return "was not found"
        with self._lock:
            service = self._services.get(name)
            if service is None:
                service = Service(unit, self._say, self._console, self._environment)
                self._services[name] = service
        return service.start()

    def _stop(self, name: str) -> None:
        service = self._services.get(name)
        if service:
            service.stop()

    def _state(self, name: str) -> str:
        service = self._services.get(name)
        return service.state if service else "inactive"


def _enable(name: str) -> None:
    WANTS.mkdir(parents=True, exist_ok=True)
    link = WANTS / name
    target = find(name)
    if not link.is_symlink() and target is not None:
        link.symlink_to(target)


def _full(name: str) -> str:
    return name if "." in name else f"{name}.service"


def _quietly(act: Callable[[], object]) -> None:
    with contextlib.suppress(ProcessLookupError):
        act()
