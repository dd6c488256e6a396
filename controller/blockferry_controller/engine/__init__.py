"""Durable execution and the state that outlives a process."""
