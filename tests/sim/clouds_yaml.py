"""Keeps `clouds.yaml`, which several embedded clouds in several processes may share."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml


def _change(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        document: dict[str, Any] = {}
        if path.exists():
            document = yaml.safe_load(path.read_text()) or {}
        change(document.setdefault("clouds", {}))
        draft = path.with_suffix(f".{os.getpid()}.tmp")
        draft.touch(mode=0o600)
        draft.write_text(yaml.safe_dump(document, sort_keys=False))
        draft.replace(path)


def set_entry(path: Path, name: str, entry: dict[str, Any]) -> None:
    """Write one cloud's entry, keeping the others."""
    _change(path, lambda clouds: clouds.__setitem__(name, entry))
