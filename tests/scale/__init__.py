"""Fleets of thousands: everything is real but the clouds and their agents, and no byte moves.

`world` is both clouds and all agents, in a process of their own; `controller` is a process of
`blockferry batch` or `worker` between them; `run` plays a fleet; `promises` judges it.
"""
