"""The agent: reads or writes one block device and speaks gRPC about it."""
