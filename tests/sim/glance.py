"""Glance v2: the images a project may boot, with their properties."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from tests.sim.http import ApiError, Json, Request, Response
from tests.sim.service import Service

if TYPE_CHECKING:
    from tests.sim.cloud import EmbeddedCloud

PAGE = 25
"""Glance's default `limit_param_default`: pages are really followed."""


class Glance(Service):
    """The images of one cloud."""

    name = "glance"
    port = 9292

    def __init__(self, cloud: EmbeddedCloud) -> None:
        super().__init__(cloud)
        self.images: dict[str, Json] = {}
        for path in ("/", "/versions"):
            self.open_routes.add("GET", path, self._versions)
        self.routes.add("GET", "/v2/images", self._list)
        self.routes.add("GET", "/v2/images/{image_id}", self._show)
        self.routes.add("DELETE", "/v2/images/{image_id}", self._delete)

    def add_image(
        self,
        name: str,
        *,
        min_disk_gib: int = 0,
        min_ram_mib: int = 0,
        status: str = "active",
        created_at: str = "2026-01-01T00:00:00Z",
        properties: dict[str, str] | None = None,
    ) -> str:
        """Add an image; returns its id. `blockferry_agent` makes it a prepared image."""
        image_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self.cloud.name}/{name}/{created_at}"))
        self.images[image_id] = {
            "id": image_id,
            "name": name,
            "status": status,
            "visibility": "public",
            "protected": False,
            "os_hidden": False,
            "owner": self.cloud.project_id,
            "min_disk": min_disk_gib,
            "min_ram": min_ram_mib,
            "size": 400 << 20,
            "virtual_size": 2 << 30,
            "checksum": uuid.uuid4().hex,
            "os_hash_algo": "sha512",
            "os_hash_value": uuid.uuid4().hex * 4,
            "container_format": "bare",
            "disk_format": "qcow2",
            "created_at": created_at,
            "updated_at": created_at,
            "tags": [],
            "self": f"/v2/images/{image_id}",
            "file": f"/v2/images/{image_id}/file",
            "schema": "/v2/schemas/image",
            **(properties or {}),
        }
        return image_id

    def render_error(self, error: ApiError) -> Response:
        """Glance answers errors in HTML, as webob makes it."""
        if error.status == 401:
            return super().render_error(error)
        titles = {400: "400 Bad Request", 403: "403 Forbidden", 404: "404 Not Found"}
        title = titles.get(error.status, f"{error.status} Error")
        page = (
            f"<html>\n <head>\n  <title>{title}</title>\n </head>\n <body>\n"
            f"  <h1>{title}</h1>\n  {error.message}<br /><br />\n\n\n </body>\n</html>"
        )
        return Response(error.status, error.body or page, error.headers)

    def _versions(self, request: Request) -> Response:
        links = [{"rel": "self", "href": f"{self.url}/v2/"}]
        numbers = ((16, "CURRENT"), (9, "SUPPORTED"), (0, "SUPPORTED"))
        versions = [{"id": f"v2.{minor}", "status": st, "links": links} for minor, st in numbers]
        return Response(300, {"versions": versions})

    def _list(self, request: Request) -> Json:
        query = request.params
        limit = min(int(query.pop("limit", PAGE)), 1000)
        marker = query.pop("marker", "")
        for key in ("sort", "sort_key", "sort_dir", "member_status"):
            query.pop(key, None)
        found = [i for i in self.images.values() if _matches(i, query)]
        found.sort(key=lambda image: (image["created_at"], image["id"]), reverse=True)
        ids = [image["id"] for image in found]
        if marker:
            if marker not in ids:
                raise ApiError(400, "Invalid marker format")
            found = found[ids.index(marker) + 1 :]
        answer: Json = {
            "images": found[:limit],
            "first": "/v2/images",
            "schema": "/v2/schemas/images",
        }
        if len(found) > limit:
            answer["next"] = f"/v2/images?marker={found[limit - 1]['id']}&limit={limit}"
        return answer

    def _show(self, request: Request, image_id: str) -> Json:
        image = self.images.get(image_id)
        if image is None:
            raise ApiError(404, f"No image found with ID {image_id}")
        return image

    def _delete(self, request: Request, image_id: str) -> Response:
        self._show(request, image_id)
        raise ApiError(403, "You are not authorized to complete delete_image action.")


def _matches(image: Json, query: dict[str, str]) -> bool:
    if query.get("visibility") == "all":
        query = {key: value for key, value in query.items() if key != "visibility"}
    if "os_hidden" not in query and image["os_hidden"]:
        return False
    for key, value in query.items():
        wanted = value[3:].split(",") if value.startswith("in:") else [value]
        have = str(image.get(key)).lower() if key == "os_hidden" else str(image.get(key))
        if key == "tag":
            have = value if value in image["tags"] else ""
        if have not in wanted:
            return False
    return True
