"""Keystone v3: version discovery, tokens with a catalog, the project and user of a token."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from tests.sim.http import ApiError, Json, Request, Response
from tests.sim.service import Service, unauthorized

if TYPE_CHECKING:
    from tests.sim.cloud import EmbeddedCloud

DOMAIN = {"id": "default", "name": "Default"}
REFUSED = "The request you have made requires authentication."
CATALOG_TYPES = {
    "keystone": "identity",
    "nova": "compute",
    "cinder": "volumev3",
    "neutron": "network",
    "glance": "image",
}
"""`volumev3` is what most clouds still call Cinder; os-service-types maps it to block-storage."""


@dataclass(frozen=True)
class User:
    """Somebody who may log in to the project."""

    id: str
    name: str
    password: str
    roles: tuple[str, ...]


@dataclass(frozen=True)
class Token:
    """A token that was issued.

    Attributes:
        issued_at, expires_at: Seconds since the epoch.
        scoped: True when it is for the project, else it is unscoped.
    """

    id: str
    user: User
    issued_at: float
    expires_at: float
    scoped: bool = True

    @property
    def admin(self) -> bool:
        """True for a token with the role admin."""
        return "admin" in self.user.roles


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, tz=timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Keystone(Service):
    """Issues and checks the tokens of one cloud with one project."""

    name = "keystone"
    port = 5000

    def __init__(
        self, cloud: EmbeddedCloud, *, project_id: str, users: list[User], token_seconds: float
    ) -> None:
        super().__init__(cloud)
        self.project_id = project_id
        self.users = users
        self.token_seconds = token_seconds
        self.unlisted: set[str] = set()
        """Names of services that the catalog leaves out; a test may add to them."""
        self._tokens: dict[str, Token] = {}
        self.open_routes.add("GET", "/", self._versions)
        self.open_routes.add("GET", "/v3", self._version)
        self.open_routes.add("POST", "/v3/auth/tokens", self._log_in)
        self.routes.add("GET", "/v3/auth/tokens", self._show_token)
        self.routes.add("DELETE", "/v3/auth/tokens", self._revoke)
        self.routes.add("GET", "/v3/auth/catalog", self._show_catalog)
        self.routes.add("GET", "/v3/auth/projects", self._projects)
        self.routes.add("GET", "/v3/projects", self._projects)
        self.routes.add("GET", "/v3/users/{user_id}/projects", self._projects)
        self.routes.add("GET", "/v3/projects/{project_id}", self._show_project)
        self.routes.add("GET", "/v3/users/{user_id}", self._show_user)
        self.routes.add("GET", "/v3/regions", self._regions)

    def check(self, token_id: str) -> Token:
        """The valid token of this id.

        Raises:
            ApiError: 401 when it is missing, unknown, expired or revoked.
        """
        token = self._tokens.get(token_id)
        if token is None or token.expires_at <= time.time():
            raise ApiError(401, REFUSED)
        return token

    def expire_tokens(self) -> None:
        """Let every token issued so far be refused from now on."""
        self._tokens.clear()

    def render_error(self, error: ApiError) -> Response:
        """Keystone's own body."""
        if error.status == 401:
            return unauthorized(error, self.url)
        titles = {400: "Bad Request", 403: "Forbidden", 404: "Not Found"}
        title = titles.get(error.status, "Internal Server Error")
        body = {"error": {"code": error.status, "title": title, "message": error.message}}
        return Response(error.status, error.body or body, error.headers)

    def _document(self) -> Json:
        return {
            "id": "v3.14",
            "status": "stable",
            "updated": "2020-04-07T00:00:00Z",
            "links": [{"rel": "self", "href": f"{self.url}/v3/"}],
            "media-types": [
                {
                    "base": "application/json",
                    "type": "application/vnd.openstack.identity-v3+json",
                }
            ],
        }

    def _versions(self, request: Request) -> Response:
        return Response(300, {"versions": {"values": [self._document()]}})

    def _version(self, request: Request) -> Json:
        return {"version": self._document()}

    def _log_in(self, request: Request) -> Response:
        auth = request.section("auth")
        identity = auth.get("identity", {})
        methods = identity.get("methods", [])
        if "password" in methods:
            user = self._by_password(identity.get("password", {}).get("user", {}))
        elif "token" in methods:
            user = self.check(identity.get("token", {}).get("id", "")).user
        else:
            raise ApiError(401, "Attempted to authenticate with an unsupported method.")
        scope = auth.get("scope")
        if scope and scope != "unscoped":
            self._require_project(scope.get("project", {}))
        now = time.time()
        token = Token(
            "gAAAA" + secrets.token_urlsafe(60), user, now, now + self.token_seconds, bool(scope)
        )
        self._tokens[token.id] = token
        return Response(201, self._describe(token), {"X-Subject-Token": token.id, **_VARY})

    def _by_password(self, given: Json) -> User:
        for user in self.users:
            known = given.get("id") == user.id or given.get("name") == user.name
            if known and secrets.compare_digest(str(given.get("password")), user.password):
                return user
        raise ApiError(401, REFUSED)

    def _require_project(self, project: Json) -> None:
        if project.get("id") != self.project_id and project.get("name") != "demo":
            raise ApiError(401, REFUSED)

    def _describe(self, token: Token) -> Json:
        described: Json = {
            "methods": ["password"],
            "user": {
                "domain": DOMAIN,
                "id": token.user.id,
                "name": token.user.name,
                "password_expires_at": None,
            },
            "audit_ids": [token.id[5:27]],
            "expires_at": _iso(token.expires_at),
            "issued_at": _iso(token.issued_at),
        }
        if token.scoped:
            described["project"] = {"domain": DOMAIN, "id": self.project_id, "name": "demo"}
            described["is_domain"] = False
            described["roles"] = [{"id": f"role-{name}", "name": name} for name in token.user.roles]
            described["catalog"] = self._catalog()
        return {"token": described}

    def _catalog(self) -> list[Json]:
        return [
            self._catalog_entry(service)
            for service in self.cloud.services
            if service.name not in self.unlisted
        ]

    def _catalog_entry(self, service: Service) -> Json:
        paths = {"nova": "/v2.1", "cinder": f"/v3/{self.project_id}"}
        url = service.url + paths.get(service.name, "")
        endpoints = [
            {
                "id": f"{service.name}-{interface}",
                "interface": interface,
                "region": "RegionOne",
                "region_id": "RegionOne",
                "url": url,
            }
            for interface in ("public", "internal", "admin")
        ]
        return {
            "id": f"service-{service.name}",
            "name": service.name,
            "type": CATALOG_TYPES[service.name],
            "endpoints": endpoints,
        }

    def _show_token(self, request: Request) -> Response:
        token = self._subject(request)
        return Response(200, self._describe(token), {"X-Subject-Token": token.id, **_VARY})

    def _revoke(self, request: Request) -> Response:
        del self._tokens[self._subject(request).id]
        return Response(204)

    def _subject(self, request: Request) -> Token:
        token = self._tokens.get(request.headers.get("X-Subject-Token", ""))
        if token is None:
            raise ApiError(404, "Could not find token.")
        return token

    def _show_catalog(self, request: Request) -> Json:
        return {"catalog": self._catalog(), "links": {"self": f"{self.url}/v3/auth/catalog"}}

    def _project(self) -> Json:
        return {
            "id": self.project_id,
            "name": "demo",
            "domain_id": "default",
            "parent_id": "default",
            "description": "",
            "enabled": True,
            "is_domain": False,
            "tags": [],
            "options": {},
            "links": {"self": f"{self.url}/v3/projects/{self.project_id}"},
        }

    def _projects(self, request: Request, user_id: str = "") -> Json:
        name = request.params.get("name")
        found = [self._project()] if name in {None, "demo"} else []
        return {"projects": found, "links": {"next": None, "self": request.path, "previous": None}}

    def _show_project(self, request: Request, project_id: str) -> Json:
        if project_id != self.project_id:
            raise ApiError(404, f"Could not find project: {project_id}.")
        return {"project": self._project()}

    def _show_user(self, request: Request, user_id: str) -> Json:
        for user in self.users:
            if user.id == user_id:
                shown = {"id": user.id, "name": user.name, "domain_id": "default", "enabled": True}
                return {"user": shown}
        raise ApiError(404, f"Could not find user: {user_id}.")

    def _regions(self, request: Request) -> Json:
        region = {"id": "RegionOne", "description": "", "parent_region_id": None}
        return {"regions": [region], "links": {"next": None, "self": request.path}}


_VARY = {"Vary": "X-Auth-Token"}
