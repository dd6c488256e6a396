"""Many volumes from one file: what was asked for, what will be done, and doing it."""
