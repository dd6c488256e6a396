"""How an instance gets its agent: user-data, the bundle, the first contact."""
