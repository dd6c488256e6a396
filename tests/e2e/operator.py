"""What only an administrator of a cloud does: limits and volume types, put back afterwards.

That is the cloud `<name>-admin` of clouds.yaml, where there is one. Nothing that is
migrated is ever asked of it.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import openstack
import pytest
from openstack.connection import Connection

_SERVICES: Final = {"instances": "compute", "security_groups": "network"}
"""Quota, and the service that keeps it."""
_ARGUMENTS: Final = {"security_groups": "security_group"}
"""What Neutron calls a quota when it is set."""


@dataclass
class Operator:
    """Who runs the cloud."""

    sdk: Connection

    @contextlib.contextmanager
    def quota(self, project: str, name: str, limit: int) -> Iterator[None]:
        """The project's quota `instances` or `security_groups` is `limit` meanwhile."""
        before = getattr(self._quotas(project, name), name)
        self._set_quota(project, name, limit)
        try:
            yield
        finally:
            self._set_quota(project, name, before)

    def _quotas(self, project: str, name: str) -> Any:
        if _SERVICES[name] == "compute":
            return self.sdk.compute.get_quota_set(project)
        return self.sdk.network.get_quota(project)

    def _set_quota(self, project: str, name: str, limit: int) -> None:
        asked: dict[str, Any] = {_ARGUMENTS.get(name, name): limit}
        if _SERVICES[name] == "compute":
            self.sdk.compute.update_quota_set(project, **asked)
        else:
            self.sdk.network.update_quota(project, **asked)

    @contextlib.contextmanager
    def volume_type(self, name: str, **extra_specs: str) -> Iterator[None]:
        """There is such a volume type meanwhile; its volumes must be gone at the end."""
        made: Any = self.sdk.block_storage.create_type(name=name, extra_specs=extra_specs)
        try:
            yield
        finally:
            self.sdk.block_storage.delete_type(made)


@contextlib.contextmanager
def operator_of(cloud: str) -> Iterator[Operator]:
    """The administrator of `cloud`; skips without one."""
    try:
        sdk = openstack.connect(cloud=f"{cloud}-admin")
    except openstack.exceptions.ConfigException:
        pytest.skip(f"clouds.yaml has no {cloud}-admin")
    with contextlib.closing(sdk):
        yield Operator(sdk)
