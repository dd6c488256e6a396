"""An authenticated session with one project, out of clouds.yaml.

A token is asked for at once, so that wrong credentials show before anything is
made. Later ones are the library's affair: keystoneauth asks for a new token when
one has expired or an API answers 401 (keystoneauth1 "Using Sessions").
"""

from typing import Final
from urllib.parse import urlsplit

import requests
from msgspec import Struct
from openstack.connection import Connection
from requests.adapters import HTTPAdapter

from blockferry.errors import BlockferryError
from blockferry_controller.clouds.openstack.clouds_file import not_found, read_clouds
from blockferry_controller.clouds.openstack.refusals import explain_exception
from blockferry_controller.clouds.openstack.waiting import Patience

ANSWER_SECONDS: Final = 60.0
"""Longest silence of an API, unless clouds.yaml has `api_timeout`: without any, a
dead peer of a TCP connection would hold a migration for ever."""
CONNECTIONS: Final = 64
"""Kept open to each service, of those that were needed at once."""
FIRST_CONTACT_SECONDS: Final = 5.0
"""A person is waiting, and a wrong address is likelier than an outage."""


class Session(Struct, frozen=True):
    """One project of one cloud.

    Attributes:
        name: In clouds.yaml.
        roles: The user's in the project, lower case; empty where the token does not tell.
        identity: Equal for two names of the same project, different for any other.
        connection: openstacksdk's; may be shared by threads.
    """

    name: str
    identity: str
    project_id: str
    connection: Connection
    roles: frozenset[str] = frozenset()

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
    config, names = read_clouds()
    if name not in names:
        raise not_found(name, names, config.config_filename)
    try:
        region = config.get_one(cloud=name)
        if not region.config.get("api_timeout"):
            region.config["api_timeout"] = ANSWER_SECONDS
        connection = Connection(config=region)
        _widen(connection.session.session)
    except Exception as error:
        raise _ours(error, name) from error
    return connection


def _widen(session: requests.Session) -> None:
    """Keep a connection for every thread that calls.

    requests keeps ten to a host: of a fleet's threads each call beyond these would shake
    hands anew. Done in place, since the adapters hold what clouds.yaml says of TLS.
    """
    for adapter in session.adapters.values():
        if isinstance(adapter, HTTPAdapter):
            adapter.init_poolmanager(CONNECTIONS, CONNECTIONS)


def _authenticated(connection: Connection, name: str) -> Session:
    try:
        connection.session.get_token()
        project_id = str(connection.session.get_project_id() or "")
        endpoint = connection.endpoint_for("block-storage") or ""
        roles = _roles(connection)
    except Exception as error:
        raise _ours(error, name) from error
    # Without the path: it may hold the project's id, and differs between versions.
    where = urlsplit(endpoint or str(connection.config.get_auth_args().get("auth_url", "")))
    region = connection.config.get_region_name("block-storage") or ""
    identity = f"{where.scheme}://{where.netloc} {region} {project_id}"
    return Session(name, identity, project_id, connection, roles)


def _roles(connection: Connection) -> frozenset[str]:
    """From the token's answer, which is there already; plugins without tokens have none."""
    read = getattr(connection.session.auth, "get_access", None)
    names = read(connection.session).role_names if read is not None else ()
    return frozenset(str(name).lower() for name in names)


def _ours(error: Exception, name: str) -> Exception:
    if isinstance(error, BlockferryError):
        return error
    return explain_exception(error, "connect", name) or error
