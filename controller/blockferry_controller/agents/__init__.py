"""Agents: the port and its gRPC client."""
