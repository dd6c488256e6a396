"""The configuration file, and what holds when it and the command line disagree.

    state: sqlite:////var/lib/blockferry/state.db
    defaults:
      compression: auto          # auto | none | zstd:LEVEL
      channels: 4                # 1 to 16
      limit: 200MiB/s
      verify: readback           # readback | wire | none
      image: debian-12           # image, flavor, network, wheels, ip_version, floating_ip,
                                 # external_network: for every cloud…
      controller_address: 192.0.2.7
      calls_per_second: 30       # likewise for every cloud
    clouds:
      east:                      # …unless the cloud's own section says otherwise
        network: migration-net
        calls_per_second: 10     # for each service; or {compute: 5, network: 20}
        types: {ssd: premium}    # volume types of others, and what they become here
        zones: {az1: nova}       # availability zones likewise

Rules:
* Precedence: option > environment > section of the cloud > defaults > built in.
  (Options and environment reach this module as one, merged by the command line.)
* A key nobody knows is an error: a misspelt `limit` must not become no limit.
* A file that was named must be there; the one at the default place need not.
"""

import difflib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from msgspec import Struct, field

from blockferry.errors import BlockferryError, ForbiddenError, NotFoundError, UsageError
from blockferry.limits import MAX_CHANNELS
from blockferry_controller.notation import parse_compression, parse_controller_address, parse_rate
from blockferry_controller.spec import FLOATING_IP, Placement, Transfer, Verify

_PLACEMENT: Final = Placement.__struct_fields__
_TRANSFER: Final = ("compression", "channels", "limit", "verify")
_CALLS: Final = "calls_per_second"
_MOST_CALLS: Final = 1000
_DEFAULTS: Final = (*_TRANSFER, *_PLACEMENT, "controller_address", _CALLS)
_TOP: Final = ("state", "defaults", "clouds")

_RENAMED: Final = ("types", "zones")

_Value = TypeVar("_Value")


class Renaming(Struct, frozen=True):
    """What volume types and availability zones of other clouds become in this one."""

    types: Mapping[str, str] = field(default_factory=dict)
    zones: Mapping[str, str] = field(default_factory=dict)


class CallRates(Struct, frozen=True):
    """Calls a second that each service of a cloud may get from this process.

    Attributes are in (0, 1000]; None: not said.
    """

    compute: float | None = None
    block_storage: float | None = None
    network: float | None = None
    image: float | None = None

    def or_else(self, other: "CallRates") -> "CallRates":
        """These; where they say nothing, `other`."""
        names = self.__struct_fields__
        said = {name: (getattr(self, name), getattr(other, name)) for name in names}
        return CallRates(**{k: theirs if own is None else own for k, (own, theirs) in said.items()})


class Config(Struct, frozen=True):
    """What the file says, filled up with what is built in.

    Attributes:
        path: Where it was read from; None when there is no file.
        state: SQLAlchemy URL.
        transfer: Defaults for how bytes travel.
        placement: Defaults for the instances of every cloud.
        clouds: By name in clouds.yaml; empty fields: not said.
        renamings: By name in clouds.yaml.
        controller_address: See Spec.
        calls: By name in clouds.yaml; under the empty name what holds for every cloud.
    """

    path: Path | None
    state: str
    transfer: Transfer = field(default_factory=Transfer)
    placement: Placement = field(default_factory=Placement)
    clouds: Mapping[str, Placement] = field(default_factory=dict)
    renamings: Mapping[str, Renaming] = field(default_factory=dict)
    controller_address: str = ""
    calls: Mapping[str, CallRates] = field(default_factory=dict)

    def placement_for(self, cloud: str, chosen: Placement) -> Placement:
        """What holds for an instance in `cloud` when the command line said `chosen`."""
        own = self.clouds.get(cloud, Placement())
        layers = (chosen, own, self.placement)
        said = {name: [getattr(layer, name) for layer in layers] for name in _PLACEMENT}
        return Placement(**{name: next(filter(None, said[name]), said[name][-1]) for name in said})

    def renaming_for(self, cloud: str) -> Renaming:
        """What becomes of types and zones that come to `cloud`."""
        return self.renamings.get(cloud, Renaming())

    def calls_for(self, cloud: str) -> CallRates:
        """How many calls a second the services of `cloud` get."""
        own = self.calls.get(cloud, CallRates())
        return own.or_else(self.calls.get("", CallRates()))


def load(path: Path | None, environ: Mapping[str, str]) -> Config:
    """Read the configuration.

    Args:
        path: As named by `--config` or BLOCKFERRY_CONFIG; None for the default place.
        environ: XDG_CONFIG_HOME, XDG_STATE_HOME and HOME are looked up in it.

    Raises:
        NotFoundError: CONFIG_NOT_FOUND, `path` names no file.
        ForbiddenError: CONFIG_UNREADABLE.
        UsageError: CONFIG_INVALID, CONFIG_UNKNOWN_KEY and reasons of values.
    """
    chosen = path or _config_home(environ) / "blockferry" / "config.yaml"
    built_in_state = f"sqlite:///{_state_home(environ) / 'blockferry' / 'state.db'}"
    text = _read(chosen, required=path is not None)
    if text is None:
        return Config(path=None, state=built_in_state)
    return _Reader(chosen).config(_parse(chosen, text), built_in_state)


def _config_home(environ: Mapping[str, str]) -> Path:
    return _xdg(environ, "XDG_CONFIG_HOME", ".config")


def _state_home(environ: Mapping[str, str]) -> Path:
    return _xdg(environ, "XDG_STATE_HOME", ".local/state")


def _xdg(environ: Mapping[str, str], name: str, below_home: str) -> Path:
    """The XDG specification tells to ignore a relative path."""
    named = Path(environ.get(name, ""))
    if named.is_absolute():
        return named
    home = environ.get("HOME") or os.path.expanduser("~")  # noqa: PTH111 - never raises
    return Path(home) / below_home


def _read(path: Path, *, required: bool) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if not required:
            return None
        raise NotFoundError(
            "CONFIG_NOT_FOUND",
            f"there is no configuration file {path}; name another with --config, or leave it out",
            path=path,
        ) from None
    except PermissionError:
        raise ForbiddenError(
            "CONFIG_UNREADABLE", f"may not read the configuration file {path}", path=path
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            "CONFIG_INVALID", f"cannot read the configuration file {path}: {error}", path=path
        ) from None


def _parse(path: Path, text: str) -> Any:
    import yaml  # noqa: PLC0415 - `blockferry --help` does without

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # ValueError: a date like 2026-13-45; RecursionError: thousands of brackets.
        raise UsageError(
            "CONFIG_INVALID", f"the configuration file {path} is not YAML: {error}", path=path
        ) from None


class _Reader:
    """Turns the parsed file into a Config; every complaint names file and key."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def config(self, document: Any, built_in_state: str) -> Config:
        top = self._section(document, "", _TOP)
        defaults = self._section(top.get("defaults"), "defaults", _DEFAULTS)
        clouds = self._section(top.get("clouds"), "clouds", None)
        return Config(
            path=self._path,
            state=self._text(top, "", "state") or built_in_state,
            transfer=self._transfer(defaults),
            placement=self._placement(defaults, "defaults"),
            clouds={name: self._cloud(name, section) for name, section in clouds.items()},
            renamings={
                name: renaming
                for name, section in clouds.items()
                if (renaming := self._renaming(name, section)) != Renaming()
            },
            controller_address=self._value(defaults, "controller_address", parse_controller_address)
            or "",
            calls={
                name: rates
                for name, section in {**clouds, "": defaults}.items()
                if (rates := self._calls(name, section)) != CallRates()
            },
        )

    def _calls(self, name: str, section: Any) -> CallRates:
        where = f"clouds.{name}" if name else "defaults"
        value = self._section(section, where, None).get(_CALLS)
        where = f"{where}.{_CALLS}"
        services = CallRates.__struct_fields__
        if value is None or isinstance(value, dict):
            said = self._section(value, where, services)
            return CallRates(**{key: self._rate(f"{where}.{key}", said[key]) for key in said})
        return CallRates(*[self._rate(where, value)] * len(services))

    def _rate(self, where: str, value: Any) -> float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 < value <= _MOST_CALLS:
            raise self._invalid(
                where, f"must be a number of calls a second, above 0 and at most {_MOST_CALLS}"
            )
        return float(value)

    def _cloud(self, name: str, section: Any) -> Placement:
        where = f"clouds.{name}"
        return self._placement(
            self._section(section, where, (*_PLACEMENT, *_RENAMED, _CALLS)), where
        )

    def _renaming(self, name: str, section: Any) -> Renaming:
        own = self._section(section, f"clouds.{name}", None)
        maps = {}
        for key in _RENAMED:
            where = f"clouds.{name}.{key}"
            pairs = self._section(own.get(key), where, None)
            maps[key] = {theirs: self._text(pairs, where, theirs) for theirs in pairs}
        return Renaming(**maps)

    def _placement(self, section: Mapping[str, Any], where: str) -> Placement:
        return Placement(
            image=self._text(section, where, "image"),
            flavor=self._text(section, where, "flavor"),
            network=self._text(section, where, "network"),
            wheels=self._text(section, where, "wheels"),
            ip_version=int(self._one_of(section, where, "ip_version", ("4", "6")) or 0),
            floating_ip=self._one_of(section, where, "floating_ip", FLOATING_IP),
            external_network=self._text(section, where, "external_network"),
        )

    def _one_of(
        self, section: Mapping[str, Any], where: str, key: str, known: tuple[str, ...]
    ) -> str:
        text = self._text(section, where, key)
        if text and text not in known:
            raise self._invalid(f"{where}.{key}", f"must be {' or '.join(known)}")
        return text

    def _transfer(self, section: Mapping[str, Any]) -> Transfer:
        built_in = Transfer()
        return Transfer(
            compression=self._value(section, "compression", parse_compression)
            or built_in.compression,
            channels=self._channels(section) or built_in.channels,
            limit_bytes_per_second=self._value(section, "limit", parse_rate)
            or built_in.limit_bytes_per_second,
            verify=self._value(section, "verify", _parse_verify) or built_in.verify,
        )

    def _section(self, value: Any, where: str, known: tuple[str, ...] | None) -> Mapping[str, Any]:
        """A mapping with only `known` keys; an absent or empty section has none."""
        if value is None:
            return {}
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise self._invalid(where or "the whole file", "must be a mapping of names")
        for key in value:
            if known is not None and key not in known:
                raise self._unknown(f"{where}.{key}".lstrip("."), key, known)
        return value

    def _text(self, section: Mapping[str, Any], where: str, key: str) -> str:
        value = section.get(key)
        if value is None:
            return ""
        if not isinstance(value, str | int | float) or isinstance(value, bool):
            raise self._invalid(f"{where}.{key}".lstrip("."), "must be text")
        return str(value)

    def _value(
        self, section: Mapping[str, Any], key: str, parse: Callable[[str], _Value]
    ) -> _Value | None:
        text = self._text(section, "defaults", key)
        if not text:
            return None
        try:
            return parse(text)
        except BlockferryError as error:
            raise UsageError(
                error.reason,
                f"in {self._path}, defaults.{key}: {error.message}",
                path=self._path,
                **error.metadata,
            ) from None

    def _channels(self, section: Mapping[str, Any]) -> int:
        value = section.get("channels")
        if value is None:
            return 0
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_CHANNELS:
            raise self._invalid("defaults.channels", f"must be a number from 1 to {MAX_CHANNELS}")
        return value

    def _invalid(self, where: str, complaint: str) -> UsageError:
        return UsageError(
            "CONFIG_INVALID", f"in {self._path}, {where}: {complaint}", path=self._path, key=where
        )

    def _unknown(self, where: str, key: str, known: tuple[str, ...]) -> UsageError:
        nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        hint = f"did you mean {nearest[0]}?" if nearest else f"known are {', '.join(known)}"
        return UsageError(
            "CONFIG_UNKNOWN_KEY",
            f"in {self._path}: unknown key {where}; {hint}",
            path=self._path,
            key=where,
        )


def _parse_verify(text: str) -> Verify:
    try:
        return Verify(text.strip().lower())
    except ValueError:
        raise UsageError(
            "INVALID_VERIFY",
            f"{text!r} is not a way to verify; write {', '.join(way.value for way in Verify)}",
            value=text,
        ) from None
