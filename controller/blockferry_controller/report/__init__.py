"""What is left to show when a migration has ended."""
