"""An OpenStack cloud, Zed or newer, behind the Cloud port.

    connect ─┬─ session ─── clouds_file ─── names
             └─ cloud ─┬─ volumes, volume_making, image_metadata
                       ├─ attachments
                       ├─ servers               each ─┬─ rest ─── refusals
                       ├─ networking                  └─ waiting
                       ├─ catalogue
                       └─ tagged

openstacksdk gives what is hard: clouds.yaml, authentication and its renewal,
the service catalog, version discovery. The calls themselves are written out as
the API references have them, with the least microversion that knows them: so
retries, what a lost answer means, and the cloud's own words in errors are ours
to decide, once, in `rest`.

Importing this package is cheap; openstacksdk (0.5 s) is imported by `connect()`.
"""

from blockferry_controller.clouds.openstack.connect import connect

__all__ = ["connect"]
