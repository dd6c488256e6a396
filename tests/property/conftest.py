"""Hypothesis, told that a busy machine is no fault; pytest-timeout limits each test."""

from hypothesis import settings

settings.register_profile("blockferry", deadline=None)
settings.load_profile("blockferry")
