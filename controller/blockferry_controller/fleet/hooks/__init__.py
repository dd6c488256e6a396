"""Tells commands and web servers what happens to a fleet, without ever being in its way."""
