"""systemd's unit files: the directives our unit uses, and how its command lines read."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

DIRECTORIES = {
    "StateDirectory": ("/var/lib", "STATE_DIRECTORY"),
    "RuntimeDirectory": ("/run", "RUNTIME_DIRECTORY"),
    "CacheDirectory": ("/var/cache", "CACHE_DIRECTORY"),
    "LogsDirectory": ("/var/log", "LOGS_DIRECTORY"),
    "ConfigurationDirectory": ("/etc", "CONFIGURATION_DIRECTORY"),
}
UNIT_PATHS = (Path("/etc/systemd/system"), Path("/run/systemd/system"))
UNITS_OF_SECONDS = {
    "us": 1e-6, "ms": 1e-3, "": 1, "s": 1, "sec": 1, "second": 1, "seconds": 1, "m": 60,
    "min": 60, "minute": 60, "minutes": 60, "h": 3600, "hr": 3600, "hour": 3600, "hours": 3600,
    "d": 86400, "day": 86400, "days": 86400,
}  # fmt: skip


@dataclass(frozen=True)
class Command:
    """One command line. `may_fail` is the prefix `-`."""

    words: tuple[str, ...]
    may_fail: bool


@dataclass
class Unit:
    """A parsed unit: section → directive → values in order."""

    name: str
    sections: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    def values(self, directive: str, section: str = "Service") -> list[str]:
        """All values of a directive."""
        return self.sections.get(section, {}).get(directive, [])

    def value(self, directive: str, default: str = "", section: str = "Service") -> str:
        """The last value of a directive."""
        values = self.values(directive, section)
        return self._specified(values[-1]) if values else default

    def seconds(self, directive: str, default: float, section: str = "Service") -> float:
        """A time span."""
        text = self.value(directive, section=section)
        return time_span(text) if text else default

    def commands(self, directive: str, environment: Mapping[str, str]) -> list[Command]:
        """Command lines with variables put in."""
        return [command_line(self._specified(text), environment) for text in self.values(directive)]

    def environment(self) -> dict[str, str]:
        """What Environment=, EnvironmentFile= and the directories say."""
        found: dict[str, str] = {}
        for text in self.values("Environment"):
            for pair in shlex.split(self._specified(text)):
                key, _, value = pair.partition("=")
                found[key] = value
        for text in self.values("EnvironmentFile"):
            path = Path(self._specified(text).lstrip("-"))
            if path.exists() or not text.startswith("-"):
                found.update(environment_file(path.read_text()))
        for directive, (base, variable) in DIRECTORIES.items():
            names = self.value(directive).split()
            if names:
                found[variable] = ":".join(f"{base}/{name}" for name in names)
        return found

    def make_directories(self) -> None:
        """Make what StateDirectory= and the like ask for."""
        for directive, (base, _) in DIRECTORIES.items():
            mode = int(self.value(f"{directive}Mode", "0755"), 8)
            for name in self.value(directive).split():
                path = Path(base) / name
                path.mkdir(parents=True, exist_ok=True)
                path.chmod(mode)

    def unmet_condition(self) -> str:
        """The first ConditionPathExists= that does not hold, else empty."""
        for text in self.values("ConditionPathExists", "Unit"):
            negated = text.startswith("!")
            if Path(self._specified(text.lstrip("!|"))).exists() == negated:
                return f"ConditionPathExists={text}"
        return ""

    def _specified(self, text: str) -> str:
        stem = self.name.rsplit(".", 1)[0]
        instance = stem.partition("@")[2]
        meanings = {
            "%%": "%", "%n": self.name, "%N": stem, "%p": stem.split("@")[0], "%i": instance,
            "%t": "/run", "%S": "/var/lib", "%C": "/var/cache", "%L": "/var/log", "%E": "/etc",
            "%H": os.uname().nodename, "%h": "/root", "%u": "root", "%T": "/tmp",
        }  # fmt: skip
        return re.sub("%.", lambda match: meanings.get(match[0], match[0]), text)


def find(name: str) -> Path | None:
    """The file of the unit of this name, or of the template that it is an instance of."""
    stem, at, rest = name.partition("@")
    names = (name, f"{stem}@.{rest.rpartition('.')[2]}") if at else (name,)
    paths = (directory / one for one in names for directory in UNIT_PATHS)
    return next((path for path in paths if path.is_file()), None)


def load(name: str) -> Unit | None:
    """The unit of this name, if there is a file for it."""
    path = find(name)
    return None if path is None else parse(name, path.read_text())


def parse(name: str, text: str) -> Unit:
    """Read a unit file; an empty value forgets the earlier ones."""
    unit = Unit(name)
    section: dict[str, list[str]] = {}
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        line = line.strip()  # noqa: PLW2901
        if line.startswith("[") and line.endswith("]"):
            section = unit.sections.setdefault(line[1:-1], {})
        elif line and line[0] not in "#;" and "=" in line:
            key, _, value = line.partition("=")
            values = section.setdefault(key.strip(), [])
            values.append(value.strip())
            if not value.strip():
                values.clear()
    return unit


def command_line(text: str, environment: Mapping[str, str]) -> Command:
    """Split a command line as systemd does: no shell, `$VAR` alone becomes words."""
    prefix = re.match(r"[-@:+!|]*", text)
    marks = prefix[0] if prefix else ""
    words: list[str] = []
    for word in shlex.split(text[len(marks) :]):
        alone = re.fullmatch(r"\$(\w+)", word)
        if alone:
            words.extend(environment.get(alone[1], "").split())
        else:
            put = re.sub(r"\$\{(\w+)\}", lambda match: environment.get(match[1], ""), word)
            words.append(put.replace("$$", "$"))
    return Command(tuple(words), "-" in marks)


def environment_file(text: str) -> dict[str, str]:
    """Lines of KEY=VALUE, values may be quoted."""
    found = {}
    for line in text.splitlines():
        if line.strip() and line.strip()[0] not in "#;" and "=" in line:
            key, _, value = line.strip().partition("=")
            found[key.strip()] = " ".join(shlex.split(value)) if value[:1] in "'\"" else value
    return found


def time_span(text: str) -> float:
    """Seconds of `2`, `500ms`, `1min 30s`, `infinity`."""
    if text.strip() == "infinity":
        return float("inf")
    parts = re.findall(r"([\d.]+)\s*([a-z]*)", text)
    return sum(float(number) * UNITS_OF_SECONDS[unit] for number, unit in parts)
