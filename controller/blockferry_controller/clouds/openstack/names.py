"""Which clouds clouds.yaml names, without talking to any.

The file is found as `connect` finds it; both ask openstacksdk.
"""

from blockferry.errors import UsageError


def cloud_names() -> tuple[str, list[str]]:
    """The file's path, empty when there is none, and the clouds in it.

    Raises:
        UsageError: CLOUDS_FILE_UNREADABLE.
    """
    # Half a second of imports, which `blockferry --help` should not pay for.
    from openstack.config import OpenStackConfig  # noqa: PLC0415

    try:
        config = OpenStackConfig()
    except Exception as error:
        raise UsageError(
            "CLOUDS_FILE_UNREADABLE", f"clouds.yaml cannot be read: {error}"
        ) from error
    filename = str(config.config_filename or "")
    # Without a file openstacksdk makes up a cloud from the environment.
    return filename, sorted(config.get_cloud_names()) if filename else []
