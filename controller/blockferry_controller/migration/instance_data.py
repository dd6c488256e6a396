"""What an instance is told at boot: the agent's configuration and its first credentials."""

from typing import Any

from blockferry.limits import AGENT_PORT, DEAD_MAN_SECONDS
from blockferry_controller.delivery.user_data import build_user_data
from blockferry_controller.migration.authority import Authority
from blockferry_controller.migration.choose import is_prepared
from blockferry_controller.migration.context import Context, Side, need
from blockferry_controller.notation import split_address
from blockferry_controller.spec import Kind


def instance_data(
    context: Context, side: Side, authority: Authority, addresses: tuple[str, ...]
) -> bytes:
    """User-data for the side's instance; its image must be known.

    Args:
        context: Of this attempt.
        side: Whose instance.
        authority: The pair's; signs the certificate for first contact.
        addresses: Of the instance's port.

    Raises:
        UsageError: USER_DATA_TOO_LARGE.
    """
    return build_user_data(
        config=_agent_config(context, side, authority, addresses),
        files=_agent_files(context, side, authority),
        prepared=is_prepared(need(side.image)),
        wheels=side.endpoint.placement.wheels,
    )


def _agent_config(
    context: Context, side: Side, authority: Authority, addresses: tuple[str, ...]
) -> dict[str, Any]:
    return {
        **_tunnel(context, side, authority),
        "version": 1,
        "migration_id": context.pair_id,
        "role": side.role.value,
        "epoch": context.pair_epoch,
        "listen": list(addresses),
        "port": AGENT_PORT,
        "certificate": "bootstrap.crt",
        "key": "bootstrap.key",
        "authority": "authority.crt",
        "state_directory": "/var/lib/blockferry",
        "dead_man_seconds": DEAD_MAN_SECONDS,
        # An instance that nobody needs any more costs money. `copy` has agents here.
        "power_off": context.spec.kind is Kind.MIGRATE,
    }


def _tunnel(context: Context, side: Side, authority: Authority) -> dict[str, str]:
    """Where to dial us, if we are to be dialled."""
    address = context.spec.controller_address
    if not split_address(address)[1]:
        return {}
    return {"tunnel_address": address, "tunnel_hello": authority.tunnel_hello(side.role)}


def _agent_files(context: Context, side: Side, authority: Authority) -> dict[str, bytes]:
    bootstrap = authority.bootstrap(side.role, context.pair_epoch)
    return {
        "bootstrap.crt": bootstrap.certificate_pem,
        "bootstrap.key": bootstrap.key_pem,
        "authority.crt": authority.migration_root_pem,
    }
