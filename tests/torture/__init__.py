"""Kills and faults at random moments; nothing may be lost, nothing may be left. See `__main__`."""
