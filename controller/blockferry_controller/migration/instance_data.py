"""What an instance is told at boot: its agents' configuration and their first credentials."""

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from blockferry.limits import AGENT_PORT, DEAD_MAN_SECONDS
from blockferry_controller.delivery.user_data import AgentData, build_user_data
from blockferry_controller.migration.authority import Authority
from blockferry_controller.migration.choose import is_prepared
from blockferry_controller.migration.context import Context, Side, need
from blockferry_controller.notation import split_address
from blockferry_controller.spec import Kind

Trusted: TypeAlias = tuple[Authority, int]
"""Whom an agent trusts, and of which epoch its first identity is."""
_STATE: Final = "/var/lib/blockferry"
_RUN: Final = "/run/blockferry"


def instance_data(
    context: Context, side: Side, agents: Sequence[Trusted], addresses: tuple[str, ...]
) -> bytes:
    """User-data for the side's instance; its image must be known.

    Args:
        context: Of this attempt.
        side: Whose instance.
        agents: One a lane, in order; each authority signs its certificate for first contact.
        addresses: Of the instance's port.

    Raises:
        UsageError: USER_DATA_TOO_LARGE.
    """
    return build_user_data(
        agents=[
            AgentData(
                _agent_config(context, side, number, one, addresses), _agent_files(side, *one)
            )
            for number, one in enumerate(agents)
        ],
        prepared=is_prepared(need(side.image)),
        wheels=side.endpoint.placement.wheels,
    )


def _agent_config(
    context: Context, side: Side, number: int, trusted: Trusted, addresses: tuple[str, ...]
) -> dict[str, Any]:
    authority, epoch = trusted
    return {
        **_tunnel(context, side, authority),
        "version": 1,
        "migration_id": authority.migration_id,
        "role": side.role.value,
        "epoch": epoch,
        "listen": list(addresses),
        "port": AGENT_PORT + number,
        "certificate": "bootstrap.crt",
        "key": "bootstrap.key",
        "authority": "authority.crt",
        "state_directory": f"{_STATE}/{number}",
        "run_directory": _RUN,
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


def _agent_files(side: Side, authority: Authority, epoch: int) -> dict[str, bytes]:
    bootstrap = authority.bootstrap(side.role, epoch)
    return {
        "bootstrap.crt": bootstrap.certificate_pem,
        "bootstrap.key": bootstrap.key_pem,
        "authority.crt": authority.migration_root_pem,
    }
