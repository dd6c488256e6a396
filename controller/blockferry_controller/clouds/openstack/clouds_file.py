"""clouds.yaml, found and read as openstacksdk does it.

OS_CLIENT_CONFIG_FILE first, else the working directory, ~/.config/openstack,
/etc/openstack (openstacksdk user guide, "Configuration"). A file that openstacksdk
cannot parse it skips with a warning; where a person named that file, this is an error.
"""

import os
from pathlib import Path

from openstack.config import OpenStackConfig, loader

from blockferry import __version__
from blockferry.errors import NotFoundError, UsageError
from blockferry_controller.clouds.openstack.refusals import cleaned


def read_clouds() -> tuple[OpenStackConfig, list[str]]:
    """The configuration, and the names of the clouds in it, sorted.

    Raises:
        UsageError: CLOUDS_FILE_UNREADABLE.
    """
    try:
        config = OpenStackConfig(
            # A copy: up to 4.13 the library adds OS_CLIENT_CONFIG_FILE to its own list.
            config_files=list(loader.CONFIG_FILES),
            app_name="blockferry",
            app_version=__version__,
        )
    except Exception as error:
        raise UsageError(
            "CLOUDS_FILE_UNREADABLE", f"clouds.yaml cannot be read: {cleaned(str(error))}"
        ) from error
    override = _override()
    if override and Path(override).exists() and config.config_filename != override:
        raise UsageError(
            "CLOUDS_FILE_UNREADABLE",
            f"{override} (OS_CLIENT_CONFIG_FILE) is no YAML file that can be read.",
        )
    names = sorted(config.get_cloud_names())
    if names == ["defaults"] and config.default_cloud == "defaults":
        names = []  # What openstacksdk makes up where there is no cloud at all.
    return config, names


def not_found(name: str, names: list[str], filename: str | None) -> NotFoundError:
    """The error for a cloud that is not among `names`."""
    if filename:
        looked = f"{filename} has: {', '.join(names) or 'none'}"
    elif _override():
        looked = f"there is no file {_override()} (OS_CLIENT_CONFIG_FILE)"
    else:
        looked = "there is no clouds.yaml in ., ~/.config/openstack or /etc/openstack"
    return NotFoundError(
        "CLOUD_NOT_FOUND",
        f"There is no cloud {name} in clouds.yaml: {looked}.",
        cloud=name,
        known=", ".join(names),
    )


def _override() -> str:
    return os.environ.get("OS_CLIENT_CONFIG_FILE", "")
