"""An authenticated session with one project, out of clouds.yaml.

A token is asked for at once, so that wrong credentials show before anything is
made. Later ones are the library's affair: keystoneauth asks for a new token when
one has expired or an API answers 401 (keystoneauth1 "Using Sessions").
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from openstack.config import OpenStackConfig
from openstack.connection import Connection

from blockferry import __version__
from blockferry.errors import BlockferryError, NotFoundError, UsageError
from blockferry_controller.clouds.openstack.refusals import cleaned, explain_exception
from blockferry_controller.clouds.openstack.waiting import Patience

ANSWER_SECONDS: Final = 60.0
"""Longest silence of an API, unless clouds.yaml has `api_timeout`: without any, a
dead peer of a TCP connection would hold a migration for ever."""
FIRST_CONTACT_SECONDS: Final = 5.0
"""A person is waiting, and a wrong address is likelier than an outage."""


@dataclass(frozen=True, slots=True)
class Session:
    """One project of one cloud.

    Attributes:
        name: In clouds.yaml.
        identity: Equal for two names of the same project, different for any other.
        connection: openstacksdk's; may be shared by threads.
    """

    name: str
    identity: str
    project_id: str
    connection: Connection

    def close(self) -> None:
        """Close connections. Idempotent."""
        self.connection.close()


def open_session(name: str) -> Session:
    """Authenticate with the cloud of that name; see `connect`."""
    connection = _connection(name)
    try:
        first = Patience(outage_seconds=FIRST_CONTACT_SECONDS)
        return first.through_outages(lambda: _authenticated(connection, name))
    except BaseException:
        connection.close()
        raise


def _connection(name: str) -> Connection:
    try:
        config = OpenStackConfig(app_name="blockferry", app_version=__version__)
    except Exception as error:
        raise UsageError(
            "CLOUDS_FILE_UNREADABLE", f"clouds.yaml cannot be read: {cleaned(str(error))}"
        ) from error
    override = os.environ.get("OS_CLIENT_CONFIG_FILE", "")
    if override and Path(override).exists() and config.config_filename != override:
        # openstacksdk skips a file it cannot read or parse, and would look elsewhere.
        raise UsageError(
            "CLOUDS_FILE_UNREADABLE",
            f"{override} (OS_CLIENT_CONFIG_FILE) is no YAML file that can be read.",
        )
    names = sorted(config.get_cloud_names())
    if names == ["defaults"] and config.default_cloud == "defaults":
        names = []  # What openstacksdk makes up where there is no cloud at all.
    if name not in names:
        raise _not_found(name, names, config.config_filename)
    try:
        region = config.get_one(cloud=name)
        if not region.config.get("api_timeout"):
            region.config["api_timeout"] = ANSWER_SECONDS
        return Connection(config=region)
    except Exception as error:
        raise _ours(error, name) from error


def _authenticated(connection: Connection, name: str) -> Session:
    try:
        connection.session.get_token()
        project_id = str(connection.session.get_project_id() or "")
        endpoint = connection.endpoint_for("block-storage") or ""
    except Exception as error:
        raise _ours(error, name) from error
    # Without the path: it may hold the project's id, and differs between versions.
    where = urlsplit(endpoint or str(connection.config.get_auth_args().get("auth_url", "")))
    region = connection.config.get_region_name("block-storage") or ""
    identity = f"{where.scheme}://{where.netloc} {region} {project_id}"
    return Session(name, identity, project_id, connection)


def _ours(error: Exception, name: str) -> Exception:
    if isinstance(error, BlockferryError):
        return error
    return explain_exception(error, "connect", name) or error


def _not_found(name: str, names: list[str], filename: str | None) -> NotFoundError:
    override = os.environ.get("OS_CLIENT_CONFIG_FILE", "")
    if filename:
        looked = f"{filename} has: {', '.join(names) or 'none'}"
    elif override:
        looked = f"there is no file {override} (OS_CLIENT_CONFIG_FILE)"
    else:
        looked = "there is no clouds.yaml in ., ~/.config/openstack or /etc/openstack"
    return NotFoundError(
        "CLOUD_NOT_FOUND",
        f"There is no cloud {name} in clouds.yaml: {looked}.",
        cloud=name,
        known=", ".join(names),
    )
