"""`blockferry digest`: the root of a local file or device, made by a real agent.

The agent is the only reader of devices; so the digest of a person's check and
that of a migration cannot come from different code.
"""

import tempfile
import threading
from datetime import datetime, timezone
from pathlib import Path

from blockferry.identity import Role
from blockferry.v1 import agent_pb2
from blockferry_controller.agents.port import Dial
from blockferry_controller.clouds.local.cloud import LocalCloud
from blockferry_controller.engine.state import StateStore
from blockferry_controller.migration.authority import Authority
from blockferry_controller.migration.context import Context, Side, need
from blockferry_controller.migration.preflight.instances import place
from blockferry_controller.migration.preflight.network import join_network
from blockferry_controller.migration.steps.instances import boot, make_port, remove
from blockferry_controller.migration.steps.jobs import device_of, run_job
from blockferry_controller.migration.steps.reach import hang_up, reach
from blockferry_controller.spec import Endpoint, Kind, Spec


def digest_path(store: StateStore, dial: Dial, path: str, stop: threading.Event) -> str:
    """The root digest of the file or block device at `path`, as `blake3:<hex>`.

    Raises:
        NotFoundError, PreconditionError, ForbiddenError: as the adapter and agent.
        CancelledError: `stop` was set.
    """
    with tempfile.TemporaryDirectory(prefix="blockferry-") as directory:
        cloud = LocalCloud(Path(directory))
        side = Side(Role.SOURCE, cloud, Endpoint(cloud.name, path), volume=cloud.find_volume(path))
        context = Context(
            migration_id="digest",
            epoch=1,
            spec=Spec(Kind.COPY, side.endpoint, side.endpoint),
            source=side,
            destination=side,
            store=store,
            listener=lambda _event: None,
            dial=dial,
            stop=stop,
            authority=Authority.create("digest", datetime.now(timezone.utc)),
        )
        try:
            place(side)
            join_network(side)
            make_port(context, side)
            boot(context, side)
            reach(context, side)
            spec = agent_pb2.DigestSpec(device=device_of(need(side.volume)))
            request = agent_pb2.StartJobRequest(request_id="digest", digest=spec)
            return f"blake3:{run_job(need(side.agent), request).root_digest.hex()}"
        finally:
            hang_up(context)
            remove(context, side)
